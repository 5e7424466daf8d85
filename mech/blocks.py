"""Where a language model keeps its decoder blocks, found by structure and not by its name."""

from collections.abc import Iterator

from torch import Tensor, nn

from mech.errors import BadInput


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """The decoder blocks, in order of depth.

    Of the lists of modules that lie in no other such list (a block's experts or adapters do),
    the one whose length is the configuration's number of layers; without such a
    configuration, the longest. Raises BadInput where there is none or no single one.
    """
    lists = list(_outermost(model))
    if not lists:
        raise BadInput(
            f"no list of decoder blocks in a {type(model).__name__}: not a model we know"
        )
    wanted = _n_layers(model)
    fitting = [blocks for blocks in lists if len(blocks) == wanted]
    candidates = fitting or [b for b in lists if len(b) == max(len(other) for other in lists)]
    if len(candidates) > 1:
        sizes = ", ".join(f"{len(b)} × {type(b[0]).__name__}" for b in candidates)
        raise BadInput(
            f"a {type(model).__name__} has several lists that could be its decoder blocks "
            f"({sizes}): pass its text model alone"
        )
    return candidates[0]


def unwrap(output: Tensor | tuple) -> Tensor:
    """The stream that a block returned: a tensor, or the first entry of a tuple.

    Never `output[0]` unasked: on a tensor that is the first sequence of the batch.
    """
    return output[0] if isinstance(output, tuple) else output


def _outermost(module: nn.Module) -> Iterator[nn.ModuleList]:
    for child in module.children():
        if isinstance(child, nn.ModuleList) and len(child) and _alike(child):
            yield child
        else:
            yield from _outermost(child)


def _alike(modules: nn.ModuleList) -> bool:
    return len({type(module) for module in modules}) == 1


def _n_layers(model: nn.Module) -> int | None:
    config = getattr(model, "config", None)
    if config is None:
        return None
    return getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
