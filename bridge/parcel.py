"""What became of a block's linears as plain JSON and named tensors, and back, bit for bit.

Shards keep it on the disk, ranks send it to each other.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bridge.budget import Cost
from bridge.compression import Done, Row
from bridge.operators import Operator
from bridge.serial import describe, rebuild, tensors


def wrapped(done: Mapping[str, Done]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """{linear: {operator, row}}, and tensors called `<number of the linear>/<name>`, on the CPU.

    Raises BadInput for an operator of a class that cannot be stored.
    """
    linears, held = {}, {}
    for index, (name, one) in enumerate(done.items()):
        assert isinstance(one.operator, Operator), name
        row = one.row._asdict()
        row["cost"] = one.row.cost._asdict()
        linears[name] = {"operator": describe(one.operator), "row": row}
        held |= {f"{index}/{key}": t.cpu() for key, t in tensors(one.operator).items()}
    return linears, held


def unwrapped(linears: Mapping[str, Any], held: Mapping[str, Tensor]) -> dict[str, Done]:
    """`wrapped` undone. Raises BadInput where operators and tensors contradict each other."""
    done = {}
    for index, (name, entry) in enumerate(linears.items()):
        own = {k.partition("/")[2]: t for k, t in held.items() if k.startswith(f"{index}/")}
        done[name] = Done(rebuild(entry["operator"], own), _row(name, entry["row"]))
    return done


def _row(name: str, stored: Mapping[str, Any]) -> Row:
    changed = {"name": name, "shape": tuple(stored["shape"]), "cost": Cost(**stored["cost"])}
    return Row(**{**stored, **changed})
