"""
When the methods become known to transformers: as soon as its Auto classes or pipelines are loaded, and not before.

transformers loads its parts, and torch with them, when one of their names is first used. `import hf_molrep` must not
change that, so it only watches: after the import that brought the Auto classes has ended, everything is registered.
"""

import sys
import threading
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

# Every Auto class and `transformers.pipelines` import it.
_AUTO = "transformers.models.auto.configuration_auto"


def register() -> None:
    """All methods with the Auto classes of transformers, our tasks with its pipelines; again changes nothing."""
    from .inference import pipelines
    from .models import auto

    auto.register()
    pipelines.register()


class _Watch(MetaPathFinder):
    """
    Finds modules of transformers and of this package as Python would, and counts those that are being imported:
    registering while one of them is half done would meet it half done.
    """

    def __init__(self) -> None:
        self._thread = threading.local()

    def find_spec(self, name, path=None, target=None):
        if not name.startswith(("transformers.", "hf_molrep.")):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def counted(module) -> None:
            self._thread.depth = getattr(self._thread, "depth", 0) + 1
            try:
                execute(module)
            finally:
                self._thread.depth -= 1
            if not self._thread.depth and _AUTO in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                register()

        spec.loader.exec_module = counted
        return spec


def register_when_used() -> None:
    """Register now if the Auto classes are loaded, else when they are."""
    if _AUTO in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _Watch())
