"""What `ctr probe` asks of a model, one file a question."""
