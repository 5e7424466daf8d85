"""Machine code that is kept on disk for exactly these sources of the package.

numba's own cache looks at the file that holds a function, but what the function calls, and the
record that it reads, lie in other files: after an upgrade of those it would run what they were.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, no_type_check

from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache

from ctr_kernels.sources import STAMP


class _Stamped(CompileResultCacheImpl):
    """The stamp lies in the file of the code too: a process of another version may replace one
    file while this one has read the other."""

    @no_type_check
    def reduce(self, cres):
        return STAMP, super().reduce(cres)

    @no_type_check
    def rebuild(self, target_context, payload):
        stamp, parts = payload
        return super().rebuild(target_context, parts) if stamp == STAMP else None


class _Cache(FunctionCache):
    """Whatever was stored by other sources is not there, and overwritten."""

    _impl_class = _Stamped

    def __init__(self, function: Callable):
        super().__init__(function)
        self._cache_file._source_stamp = STAMP

    @no_type_check
    def load_overload(self, sig, target_context):
        found = None
        with suppress(OSError):
            found = super().load_overload(sig, target_context)
        # Two processes that compile for different types at once may both choose one file's name.
        return found if found is None or found.signature.args == tuple(sig) else None

    @no_type_check
    def save_overload(self, sig, data):
        with suppress(OSError):
            super().save_overload(sig, data)


def cached(**options: Any) -> Callable[[Callable], Any]:
    """`numba.njit(nogil=True, **options)`, compiled once for these sources.

    Where numba finds no folder to write to, once a process.
    """

    def compiled(function: Callable) -> Any:
        dispatcher: Any = njit(nogil=True, **options)(function)
        with suppress(RuntimeError):
            dispatcher._cache = _Cache(function)
        return dispatcher

    return compiled
