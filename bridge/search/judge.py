"""Losses of many plans: measured once, in several processes, and kept in a journal."""

from collections.abc import Callable, Sequence
from typing import Any

from bridge.decode.plan import Plan
from bridge.search.journal import Journal, key
from bridge.search.objective import Objective
from bridge.search.parallel import mapped

AT_ONCE = 4
"""Trials of one process between two lines of the journal: what a kill can cost."""


class Judge:
    """The objective's loss of each plan, those in the journal without measuring them.

    Plans that read the same are the same: a rank has many ρ. `advance` is called with a line for
    every plan asked for.
    """

    def __init__(
        self,
        objective: Objective,
        journal: Journal,
        processes: int = 1,
        advance: Callable[[str], None] = lambda _: None,
    ):
        self.objective, self.journal = objective, journal
        self.processes, self.advance = processes, advance

    def __call__(self, plans: Sequence[Plan]) -> list[float]:
        names = [self.named(plan) for plan in plans]
        known = self.journal.values
        new = {name: plan for name, plan in zip(names, plans, strict=True) if name not in known}
        for plan in new.values():
            self.objective.gates.reserve(plan)
        todo = list(new.items())
        step = AT_ONCE * self.processes
        for begin in range(0, len(todo), step):
            some = todo[begin : begin + step]
            losses = mapped(self.objective, [plan for _, plan in some], self.processes)
            self.journal.add({n: loss for (n, _), loss in zip(some, losses, strict=True)})
        for name in names:
            self.advance(f"loss {known[name]:.4f}, {len(known)} measured")
        return [known[name] for name in names]

    def named(self, plan: Plan) -> str:
        """Of what is read by every linear."""
        says: dict[str, Any] = {}
        for name, setting in plan.items():
            shape = self.objective.gates.linears[name].weight.shape
            rank = setting.rank(*shape)
            kind = setting.factors if rank else ""
            says[name] = [round(setting.channels(*shape), 12), rank, setting.rule, kind]
        return key(says)
