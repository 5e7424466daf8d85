"""Measurements on transformers: traces, probes, causal tests. Nothing here trains anything."""
