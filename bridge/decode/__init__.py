"""Decoding that reads less: R-Sparse and its baselines on Hugging Face models, in place and back."""
