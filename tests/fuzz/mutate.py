"""Changes to files that keep their outline: JSON that still parses, safetensors that still open.

Bytes changed blindly end at the parser of JSON; these go past it, to what reads the values.
"""

import json
import random
import struct
from typing import Any

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-320,
    "", "0", "NaN", "inf", "\x00", "../..", "/etc", "float32", "int8", "Tensor", "é" * 40,
    [], [[]], [0], [1, 2], [-1, 4], [2**40, 2**40], {}, {"": 0}, {"kind": "sum"},
]  # fmt: skip


def json_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to three values of the JSON text replaced, moved, repeated or taken away."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return blind(data, rng)
    for _ in range(rng.randint(1, 3)):
        value = _changed(value, rng)
    try:
        return json.dumps(value).encode("utf-8", "surrogatepass")
    except RecursionError:
        return data


def lines(data: bytes, rng: random.Random) -> bytes:
    """One line of a file of JSON lines changed."""
    every = data.split(b"\n")
    at = rng.randrange(len(every))
    every[at] = json_bytes(every[at], rng)
    return b"\n".join(every)


def tensors(data: bytes, rng: random.Random) -> bytes:
    """The table of contents of a safetensors file changed, its length put right; or the body."""
    if len(data) < 8 or rng.random() < 0.2:
        return blind(data, rng)
    (length,) = struct.unpack("<Q", data[:8])
    header, body = data[8 : 8 + length], data[8 + length :]
    if rng.random() < 0.3:
        body = blind(body, rng)
    else:
        header = _header(header, rng)
    return struct.pack("<Q", len(header)) + header + body


def _header(header: bytes, rng: random.Random) -> bytes:
    """The JSON inside its notes is changed as often as the table itself."""
    try:
        table = json.loads(header)
        notes = table["__metadata__"]
        key = rng.choice([k for k in notes if notes[k].startswith("{")])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return json_bytes(header, rng)
    if rng.random() < 0.5:
        return json_bytes(header, rng)
    notes[key] = json_bytes(notes[key].encode(), rng).decode("utf-8", "replace")
    return json.dumps(table).encode()


def blind(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut or repeated."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(found) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            found[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del found[at : at + rng.randint(1, 16)]
        elif kind == 2:
            found[at:at] = found[at : at + rng.randint(1, 16)]
        else:
            found[at : at + 8] = rng.choice([b"\xff" * 8, b"\x00" * 8, b"9" * 8])
    return bytes(found)


def _changed(value: Any, rng: random.Random) -> Any:
    """The value with something inside it changed, or another one."""
    if isinstance(value, str) and value[:1] in "{[" and rng.random() < 0.7:
        return json_bytes(value.encode("utf-8", "replace"), rng).decode("utf-8", "replace")
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        changed = dict(value)
        kind = rng.random()
        if kind < 0.1:
            del changed[key]
        elif kind < 0.2:
            changed[rng.choice(["", "x", "0", f"{key}.0", "shape"])] = changed.pop(key)
        elif kind < 0.3:
            changed[key] = value[rng.choice(list(value))]
        else:
            changed[key] = _changed(value[key], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        kind = rng.random()
        if kind < 0.1:
            return value[:at] + value[at + 1 :]
        if kind < 0.2:
            return [*value, value[at]]
        return [*value[:at], _changed(value[at], rng), *value[at + 1 :]]
    if type(value) is int and rng.random() < 0.5:
        return value + rng.choice([-1, 1, 2, 7, 2**20])
    return rng.choice(ODD)
