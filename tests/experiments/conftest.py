"""The `ctr` command as a user types it, and a model to give it."""

from command import ctr, here, model

__all__ = ["ctr", "here", "model"]
