"""What `mech` and `bridge` raise when an input cannot be used."""


class BadInput(ValueError):
    """An input that cannot be used; the message is one line: what, where, what to do."""
