"""One question answered by several processes: who starts them, who waits, what they agree on."""
