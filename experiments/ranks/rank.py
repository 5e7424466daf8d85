"""A helper of `experiments.ranks.together`: what it is to run comes as JSON on standard input."""

import ctypes
import importlib
import json
import os
import signal
import sys
import traceback

from experiments.ranks.together import quiet
from experiments.restored import restored

DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def main() -> int:
    """Run it; 2, and a line on standard error, where it is refused."""
    given = json.load(sys.stdin)
    if sys.platform == "linux":  # a rank 0 that was killed leaves nobody behind
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != given["parent"]:
        return 1
    module = importlib.import_module(given["module"])
    from experiments.settings import BadOption
    from experiments.text import UnreadableText
    from mech.errors import BadInput

    try:
        module.run(restored(module.Config, given["config"]), quiet())
    except (BadInput, BadOption, UnreadableText) as error:
        sys.stderr.write(f"ctr: error: {' '.join(str(error).split())}\n")
        return 2
    except Exception:
        sys.stderr.write(traceback.format_exc())
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # at once: rank 0 waits for the reason, and libraries take seconds to leave
