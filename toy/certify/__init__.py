"""Interval proofs that the error bound holds on whole boxes, and their independent check."""
