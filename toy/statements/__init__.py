"""What is proved of averaging, what is necessary and what is not, with cases against each."""
