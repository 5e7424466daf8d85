"""The sizes of the larger toy: which ordinary transformer learns the averaging task."""

from dataclasses import dataclass

from toy.errors import Refused


@dataclass(frozen=True)
class Shape:
    """A causal pre-norm transformer; every part that can be left out has a switch."""

    d_model: int = 16
    """Width of the residual stream; the heads divide it."""
    heads: int = 2
    """Attention heads of a block, each of d_model / heads dimensions."""
    layers: int = 2
    """Blocks."""
    d_mlp: int = 64
    """Hidden width of a block's MLP."""
    norm: bool = True
    """LayerNorm before each attention, before each MLP and before the read-out."""
    mlp: bool = True
    """An MLP in every block."""
    positions: bool = False
    """A learned vector for each position, added to the embedding."""
    longest: int = 32
    """Positions that are learned; sequences may be longer where none are."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no transformer."""
        sizes = {"d_model": self.d_model, "heads": self.heads, "layers": self.layers}
        for name, size in {**sizes, "d_mlp": self.d_mlp, "longest": self.longest}.items():
            if size < 1:
                raise Refused(f"{name} = {size}: give at least 1")
        if self.d_model % self.heads:
            raise Refused(
                f"{self.heads} heads do not divide d_model = {self.d_model}: give a divisor of it"
            )

    @property
    def d_head(self) -> int:
        """d_model / heads."""
        return self.d_model // self.heads

    @property
    def neurons(self) -> int:
        """Of each block's MLP: none where there is no MLP."""
        return self.d_mlp if self.mlp else 0

    @property
    def norms(self) -> int:
        """LayerNorms: one before each attention, one before each MLP, one before the read-out."""
        per_block = 2 if self.mlp else 1
        return self.layers * per_block + 1 if self.norm else 0

    @property
    def rows(self) -> int:
        """Of the table of positions: none where they are not learned."""
        return self.longest if self.positions else 0
