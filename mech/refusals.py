"""Parts of the one-line messages that say why a model's weights cannot be used."""

import torch


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def place(name: str) -> str:
    """Where a weight lies, from its name: "block 3" or "outside the blocks"."""
    layer = next((part for part in name.split(".") if part.isdigit()), None)
    return "outside the blocks" if layer is None else f"block {layer}"


def not_finite(name: str, dtype: torch.dtype, where: object) -> str:
    """What to say of a weight that holds NaN or inf in `dtype`; `where` is its file or folder."""
    return (
        f"{name} ({place(name)}) in {where} holds NaN or inf in "
        f"{str(dtype).removeprefix('torch.')}: fetch the file again, or choose "
        "a dtype of wider range"
    )
