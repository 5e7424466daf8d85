"""A Ray cluster: jobs packed by processors and GPUs, asked again where a worker or node is lost."""

import logging
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.settings import BadOption
from experiments.sweeping.local import died
from experiments.sweeping.work import answered

_AHEAD = 3  # jobs that wait in Ray for each that runs: none idles, and a kill repeats few
_PASSED = ("CTR_DATA", "CTR_CACHE", "HF_HOME", "HF_HUB_OFFLINE", "PYTHONPATH")


class Rayed:
    """An engine: as many jobs at a time as the cluster has room for."""

    def __init__(self, address: str, cpus: float, gpus: float, retries: int) -> None:
        """Connect to the cluster at `address`, or start one here where it is "local".

        Raises:
            BadOption: ray is missing, nothing answers there, or no job can ever run.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Else a run that memory is too small for is asked again for ever, whatever max_retries is.
        os.environ.setdefault("RAY_task_oom_retries", str(retries))
        try:
            import ray
        except ImportError as error:
            raise BadOption("--engine ray: pip install 'catch-tag-release[ray]'") from error
        self._ray: Any = ray
        _reached(address)  # ray itself tries for a minute
        variables = {k: v for k, v in os.environ.items() if k in _PASSED or "NUM_THREADS" in k}
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.CRITICAL,  # a lost node is 20 lines of its log, and no loss
                runtime_env={"env_vars": variables},
                include_dashboard=False if address == "local" else None,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())[:200]
            raise BadOption(f"--address {address}: no Ray cluster answers there: {said}") from error
        self._retries = retries
        self._task = ray.remote(answered).options(
            num_cpus=cpus, num_gpus=gpus, max_retries=retries, retry_exceptions=False
        )
        self.slots = self._room(cpus, gpus)

    def _room(self, cpus: float, gpus: float) -> int:
        there = self._ray.cluster_resources()
        for option, name, wanted in (("--threads", "CPU", cpus), ("--num-gpus", "GPU", gpus)):
            if wanted and there.get(name, 0) < wanted:
                self._ray.shutdown()
                raise BadOption(
                    f"{option} {wanted:g}: the cluster has {there.get(name, 0):g} {name}"
                )
        rooms = [there.get("CPU", 0) / cpus] + ([there.get("GPU", 0) / gpus] if gpus else [])
        return max(1, int(min(rooms)))

    def outcomes(self, jobs: Sequence[str]) -> Iterator[tuple[int, str]]:
        """The index of a job and its outcome (see `work.answered`), as they come."""
        ray, left, asked = self._ray, deque(range(len(jobs))), {}
        try:
            while left or asked:
                while left and len(asked) < (1 + _AHEAD) * self.slots:
                    index = left.popleft()
                    asked[self._task.remote(jobs[index])] = index
                done, _ = ray.wait(list(asked), num_returns=1)
                for reference in done:
                    index = asked.pop(reference)
                    try:
                        yield index, ray.get(reference)
                    except ray.exceptions.RayError as error:
                        yield index, died(type(error).__name__, self._retries + 1)
        finally:
            ray.shutdown()


def _reached(address: str) -> None:
    """Raises BadOption where nothing listens at HOST:PORT."""
    host, colon, port = address.rpartition(":")
    if not colon or "//" in address:  # auto, local, or a client's address
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise BadOption(f"--address {address}: no Ray cluster answers there: {error}") from error
