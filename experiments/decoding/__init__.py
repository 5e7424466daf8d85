"""What decoding that reads less costs and gains: speed, perplexity, sinks."""
