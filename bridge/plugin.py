"""transformers learns the packed form as soon as both are imported, in either order.

`import bridge` must not wait for transformers, and may come first: then the form is registered
at the moment when transformers' list of quantisers has been executed.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

LIST = "transformers.quantizers.auto"


def announce() -> None:
    """Register now, or when the list of quantisers comes. Calling it again changes nothing."""
    if LIST in sys.modules:
        import bridge.quantizer  # noqa: F401  registers itself when it has been executed
    elif not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())


class _Waiting(MetaPathFinder):
    """Finds one module, as it would be found without us, and is told when it has been executed."""

    def find_spec(self, fullname, path, target=None) -> ModuleSpec | None:
        if fullname != LIST:
            return None
        sys.meta_path.remove(self)
        try:
            spec = find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader)
        return spec


class _Then(Loader):
    """Executes a module with its own loader; then the form is registered."""

    def __init__(self, loader: Loader):
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        announce()
