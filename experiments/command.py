"""What the command line knows of a question before it is asked."""

from typing import NamedTuple


class Command(NamedTuple):
    """Where a command's question lives, what it asks, and a line to try."""

    module: str
    asks: str
    example: str
