"""A Config from its stored JSON: the same question once more."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from experiments import serial
from experiments.settings import BadOption


def restored(kind: Any, stored: Any) -> Any:
    """The value of `kind` whose plain form is `stored` (`experiments.serial.plain`).

    A dataclass' field that is not stored, because it came later, takes its default: what was asked
    before there was an option is what is asked without it.

    Raises:
        BadOption: there is none: a field is unknown today, or missing and without a default, or
            of a type that JSON does not give back.
    """
    try:
        value = _value(kind, stored)
    except (TypeError, ValueError, KeyError) as error:
        raise BadOption(f"a stored {_called(kind)} is none of today's: {error}") from error
    if not _gives(value, stored):
        raise BadOption(f"a stored {_called(kind)} is not given back as it was stored")
    return value


def _gives(value: Any, stored: Any) -> bool:
    """Whether the value's plain form is what was stored, but for fields that came later."""
    return _later_left_out(serial.plain(value), stored) == stored


def _later_left_out(plain: Any, stored: Any) -> Any:
    if isinstance(plain, dict) and isinstance(stored, dict):
        kept = plain.keys() & stored.keys() if "kind" in plain else plain.keys()
        return {key: _later_left_out(plain[key], stored.get(key)) for key in kept}
    if isinstance(plain, list) and isinstance(stored, list) and len(plain) == len(stored):
        return [_later_left_out(a, b) for a, b in zip(plain, stored, strict=True)]
    return plain


def _value(kind: Any, stored: Any) -> Any:
    origin = get_origin(kind)
    if origin is Annotated:
        return _value(get_args(kind)[0], stored)
    if kind is Any:
        return stored
    if origin in (Union, types.UnionType):
        return _of_union(get_args(kind), stored)
    if origin is Literal:
        return _checked(stored, stored in get_args(kind), kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, stored)
    if origin in (tuple, list, Sequence) or kind in (tuple, list):
        return _sequence(kind, stored)
    if origin in (dict, Mapping):
        key, item = get_args(kind)
        return {_value(key, k): _value(item, v) for k, v in stored.items()}
    return _scalar(kind, stored)


def _dataclass(kind: Any, stored: Any) -> Any:
    if not isinstance(stored, dict) or stored.get("kind") != kind.__name__:
        raise TypeError(f"no {kind.__name__}")
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.metadata.get("stored", True)}
    needed = {name for name, field in fields.items() if not _has_default(field)}
    given = stored.keys() - {"kind"}
    if strangers := (given - fields.keys()) | (needed - given):
        raise TypeError(f"field {min(strangers)} of {kind.__name__}")
    return kind(**{name: _value(hints[name], stored[name]) for name in fields if name in given})


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    none = dataclasses.MISSING
    return field.default is not none or field.default_factory is not none


def _sequence(kind: Any, stored: Any) -> Any:
    items = get_args(kind)
    if not isinstance(stored, list):
        raise TypeError(f"{stored!r} is no list")
    if get_origin(kind) is tuple and items and items[-1] is not Ellipsis:
        if len(items) != len(stored):
            raise TypeError(f"{stored!r} has not {len(items)} parts")
        return tuple(_value(k, item) for k, item in zip(items, stored, strict=True))
    found = [_value(items[0] if items else Any, item) for item in stored]
    return found if get_origin(kind) is list or kind is list else tuple(found)


def _of_union(kinds: Sequence[Any], stored: Any) -> Any:
    """The first kind that takes it; text that could be a path is a path only if no kind is text."""
    for kind in sorted(kinds, key=lambda k: k is Path):
        try:
            value = _value(kind, stored)
        except (TypeError, ValueError):
            continue
        if _gives(value, stored):
            return value
    raise TypeError(f"{stored!r} is none of {', '.join(map(_called, kinds))}")


def _scalar(kind: Any, stored: Any) -> Any:
    if kind is type(None):
        return _checked(stored, stored is None, kind)
    if kind is Path:
        return Path(_checked(stored, isinstance(stored, str), kind))
    if kind is float and isinstance(stored, str):
        return _checked(float(stored), not math.isfinite(float(stored)), kind)
    if kind is float:
        return _checked(stored, isinstance(stored, int | float) and stored is not True, kind)
    if kind in (int, str, bool):
        return _checked(stored, type(stored) is kind, kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind[stored]
    if isinstance(kind, type) and hasattr(kind, "_fields"):  # a named tuple
        hints, given = typing.get_type_hints(kind), _checked(stored, isinstance(stored, dict), kind)
        return kind(**{name: _value(hints[name], item) for name, item in given.items()})
    raise TypeError(f"{_called(kind)} has no stored form")


def _checked(value: Any, fine: bool, kind: Any) -> Any:
    if not fine:
        raise TypeError(f"{value!r} is no {_called(kind)}")
    return value


def _called(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
