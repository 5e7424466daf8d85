"""The pieces of the mediation study from low rank to few-shot."""
