"""What the figures of "Catch, tag, release" share."""
