"""Plans and recipes that a search wrote, as `activation` compares them."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from torch import nn

from bridge.decode.plan import Plan, read_share
from bridge.decode.plan_file import load_plan
from bridge.decode.recipe import Recipe
from experiments.decoding.activation_ways import Given, Made, Shapes, of_plan
from mech.errors import BadInput


@dataclass(frozen=True)
class Found:
    """A file's plan; share: numbers read a token over the dense ones'. A recipe is not refitted."""

    plan: Plan
    share: float
    digest: str
    recipe: Recipe | None = None

    def made(self, given: Given) -> Made:
        """Fitted to the inputs, or as it was saved."""
        if self.recipe is None:
            return of_plan(given, self.plan)
        return Made(self.share, self.recipe)


def read(file: Path, model: nn.Module, shapes: Shapes) -> Found:
    """A plan (JSON: settings by name, or under "plan") or a recipe (a folder), for this model.

    A recipe's bias is d_out numbers more. Raises BadInput where it is neither, or of another model.
    """
    if file.is_dir():
        recipe = Recipe.load(file)
        recipe.check(model)
        extra = sum(len(bias) for bias in recipe.bias.values())
        share = read_share(recipe.plan, shapes) + extra / sum(a * b for a, b in shapes.values())
        digest = sha256(b"".join(sha256(f.read_bytes()).digest() for f in _files(file)))
        return Found(recipe.plan, share, digest.hexdigest()[:16], recipe)
    plan = load_plan(file)
    unknown = [name for name in plan if name not in shapes]
    if unknown:
        raise BadInput(f"{file} names {unknown[0]}, which the model has not: it is of another one")
    return Found(plan, read_share(plan, shapes), sha256(file.read_bytes()).hexdigest()[:16])


def names(files: Sequence[Path], sparsities: Sequence[float]) -> list[str]:
    """Of each file as many of the last parts of its path as it takes for no two to be the same.

    Files of different sparsities may share a name: they are then points of one line.
    """
    for parts in range(1, max(len(file.parts) for file in files) + 1 if files else 1):
        found = ["/".join(file.parts[-parts:]).removesuffix(".json") for file in files]
        if len(set(zip(found, sparsities, strict=True))) == len(files):
            return found
    return [str(file) for file in files]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())
