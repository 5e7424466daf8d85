"""Interventions on real language models: compress, switch terms off, measure again."""
