"""One run of a sweep, wherever it runs: a job as JSON in, its answer or one line as JSON out."""

import datetime
import hashlib
import importlib
import io
import json
import platform
import time
import traceback
from functools import cache
from typing import Any

from experiments import provenance, serial
from experiments.progress import Progress
from experiments.sweeping import keys
from experiments.sweeping.keys import Job


def answered(job: str) -> str:
    """The row of the run store that answers the job, as JSON {"row": ...}; or {"failed": line}.

    Never raises what the experiment raised: an engine must not take a refusal for a dead worker.
    """
    try:
        return json.dumps({"row": _row(Job(**json.loads(job)))})
    except Exception as error:
        said = " ".join(str(error).split())
        line = said if _ours(error) else f"{type(error).__name__}: {said}"
        return json.dumps({"failed": line[:1000], "traceback": traceback.format_exc()})


def _row(job: Job) -> dict[str, Any]:
    module = importlib.import_module(job.module)
    config = keys.settled(module.Config, job.config)
    check(job.key, keys.key(module, config, job.key["threads"]))
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    clock = time.monotonic()
    result = module.run(config, Progress(io.StringIO()))
    seconds = time.monotonic() - clock
    return {
        "started": started,
        "command": job.command,
        "question": job.question,
        "config": serial.plain(config),
        "seed": getattr(config, "seed", None),
        "inputs": serial.plain(getattr(result, "inputs", {})),
        "versions": _versions(),
        "wall_seconds": round(seconds, 3),
        "peak_bytes": provenance.peak_memory(),
        "result": serial.plain(result),
    }


def check(asked: dict[str, Any], here: dict[str, Any]) -> None:
    """The worker has what the driver has: the same code, files and libraries.

    Raises:
        Differs: it has not; the message says what, and on which machine.
    """
    for part, value in asked.items():
        if json.loads(json.dumps(here[part])) != value:
            now, named = here[part], part
            if isinstance(value, dict):
                named = next(k for k in {**value, **now} if str(now.get(k)) != str(value.get(k)))
                value, now = value.get(named), now.get(named)
            raise Differs(
                f"{part} on {platform.node()} is not the driver's: {named} "
                f"{_short(now)}, not {_short(value)}; install the same there"
            )


class Differs(ValueError):
    """A worker that would answer another question; the message says why."""


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else hashlib.sha256(text.encode()).hexdigest()[:8]


@cache
def _versions() -> dict[str, str]:
    return provenance.versions()


def _ours(error: Exception) -> bool:
    """Whether the message is a line for the user already."""
    return type(error).__name__ in ("BadInput", "BadOption", "Refused", "UnreadableText", "Differs")
