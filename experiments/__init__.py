"""Questions with honest answers: one file a question, one command (`ctr`) for all."""
