"""What the figures and tables of "R-Sparse" share."""
