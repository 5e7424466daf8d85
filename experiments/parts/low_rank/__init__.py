"""What the figures of "Low-rank is required" share."""
