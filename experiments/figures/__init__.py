"""Pictures that `ctr experiment` draws, one file a question."""
