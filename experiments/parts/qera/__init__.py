"""What the comparisons of mended and of low-rank weights share."""
