"""What is proved of averaging: what suffices, what is necessary, what is not; each can be refuted."""
