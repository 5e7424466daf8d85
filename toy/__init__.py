"""The catch-tag-release theorem as exact mathematics, and the training that finds it."""
