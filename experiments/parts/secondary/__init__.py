"""The makers of secondary sinks, and what is found of them."""
