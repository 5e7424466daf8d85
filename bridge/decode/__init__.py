"""Decoding that reads less: R-Sparse and its baselines, in place and back."""
