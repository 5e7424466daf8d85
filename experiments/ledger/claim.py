"""A claim of a paper, as a key that findings refer to."""

from typing import NamedTuple


class Claim(NamedTuple):
    """One thing that a paper says and that an experiment can check.

    key: "PAPER/PLACE" or "PAPER/PLACE/WHICH", in small letters ("low-rank/figure-2/fewer").
    says: the claim in one sentence of ours. experiment: the `ctr experiment` that asks it.
    needs: what is not here where it cannot be tested ("a GPU", "XSum"); empty otherwise.
    """

    key: str
    says: str
    experiment: str
    needs: str = ""

    @property
    def paper(self) -> str:
        """The first part of the key."""
        return self.key.split("/")[0]
