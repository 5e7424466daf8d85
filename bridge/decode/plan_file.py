"""Plans on disk: JSON, a setting by the name of a linear."""

import json
from pathlib import Path
from typing import Any, get_args

from bridge.decode.plan import Factors, Plan, Rule, Setting
from mech.errors import BadInput

KNOWN = {"rule": get_args(Rule), "factors": get_args(Factors)}


def load_plan(file: Path) -> Plan:
    """The settings in {"plan": {name: fields}}, as `ctr search` writes it, or in {name: fields}.

    Raises BadInput, naming the file, and the linear where it is one setting, where it says
    something else or plans nothing.
    """
    try:
        says = json.loads(file.read_bytes())
        named = dict(says.get("plan", says).items())
    except OSError as error:
        raise BadInput(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(
            f"{file} is no plan: JSON with a setting (sparsity, alpha, rule, factors) a linear "
            "(ctr search)"
        ) from error
    if not named:
        raise BadInput(f"{file} is no plan: it names no linear")
    try:
        return {name: setting(name, fields) for name, fields in named.items()}
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from error


def setting(name: str, fields: Any) -> Setting:
    """What JSON says of the linear `name`. Raises BadInput, naming it, where that is no setting."""
    try:
        for option, known in KNOWN.items():
            if fields.get(option, known[0]) not in known:
                said = f"{option} {fields[option]!r}"[:80]
                raise BadInput(f"{said}: this version knows {', '.join(known)}")
        return Setting(**fields)
    except (TypeError, AttributeError) as error:
        said = f"{fields!r}"[:80]
        raise BadInput(
            f"{name}: {said} is no plan of a linear: sparsity, alpha, rule, factors"
        ) from error
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error
