"""Every method, by name. One file each; adding one is a file and a line."""

import difflib

from bridge.methods.magnitude import Magnitude
from bridge.methods.oats import OATS
from bridge.methods.wanda import Wanda
from mech.errors import BadInput

METHODS = {"magnitude": Magnitude, "wanda": Wanda, "oats": OATS}


def method(name: str) -> type[Magnitude] | type[Wanda] | type[OATS]:
    """The class of that name. Raises BadInput with the nearest names where there is none."""
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(name.lower(), METHODS, n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    raise BadInput(f"no method called {name!r}{guess} (there are {', '.join(METHODS)})")
