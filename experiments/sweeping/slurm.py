"""A job array for Slurm: a part of the sweep a node, taken together by the sweep itself."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.progress import paper
from experiments.settings import BadOption

_DROPPED = {"--engine": 2, "--jobs": 2, "--yes": 1, "--hours": 2, "--part": 2}


def write(out: Path, nodes: int, words: Sequence[str]) -> int:
    """Write OUT/array.sh and print how to submit it; exit code 0.

    Raises:
        BadOption: the number of nodes is not given.
    """
    if not nodes:
        raise BadOption("--engine slurm: give the number of nodes, as --jobs 8")
    left, kept = list(words), []
    while left:
        size = _DROPPED.get(left[0].partition("=")[0], 0)
        if not size:
            kept.append(left.pop(0))
            continue
        del left[: 1 if "=" in left[0] else size]
    command = shlex.join([str(Path(sys.argv[0]).absolute()), *kept])
    script = out / "array.sh"
    script.write_text(
        "#!/bin/sh\n"
        f"#SBATCH --job-name=ctr-sweep --array=1-{nodes} --nodes=1 --requeue\n"
        f"#SBATCH --output={shlex.quote(str(out.absolute() / 'array-%a.log'))}\n"
        f"cd {shlex.quote(str(Path.cwd()))} || exit 2\n"
        f'exec {command} --part "$SLURM_ARRAY_TASK_ID/{nodes}" --yes\n',
        encoding="utf-8",
    )
    console = paper()
    console.print(f"sbatch {shlex.quote(str(script))}")
    console.print(f"then, for the rows: {shlex.join(['ctr', *kept])}")
    return 0
