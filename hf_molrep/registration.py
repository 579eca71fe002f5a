"""
Registers the methods with transformers, with each of its modules when that is imported.

transformers imports its modules, and torch with them, when one of their names is first used. `import hf_molrep` must
not change that, so it waits for the modules of `_AFTER`. Then it registers the configurations, which are cheap to
import, and for all other classes a function that imports them.
"""

import sys
from collections import UserDict
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

from .models.auto import AUTO_CLASSES, METHODS, class_name


class _ClassesOnUse(UserDict):
    """Registered classes of a mapping of transformers. A `partial` is called when its value is first read."""

    def __getitem__(self, key: Any) -> Any:
        value = self.data[key]
        if isinstance(value, partial):
            value = self.data[key] = value()
        return value


def _register(auto_class: type, mapping: Any, config: type, row: Any, field: str) -> None:
    """Call `auto_class.register(config, <class in that field of the row>)` without importing the class."""
    # `_extra_content` holds the registered classes in every mapping of transformers; it is private, and
    # tests/test_imports.py fails if it changes
    if not isinstance(mapping._extra_content, _ClassesOnUse):
        mapping._extra_content = _ClassesOnUse(mapping._extra_content)
    auto_class.register(config, partial(getattr, row, field))


def _configurations(auto: ModuleType) -> None:
    for model_type, method in METHODS.items():
        auto.AutoConfig.register(model_type, method.config)


def _models(auto: ModuleType) -> None:
    for method in METHODS.values():
        if hasattr(auto, "AutoModel"):
            _register(auto.AutoModel, auto.AutoModel._model_mapping, method.config, method, "model")
        for task, row in method.tasks.items():
            for name in AUTO_CLASSES[task]:
                if auto_class := getattr(auto, name, None):
                    _register(auto_class, auto_class._model_mapping, method.config, row, "model")


def _feature_extractors(auto: ModuleType) -> None:
    for method in METHODS.values():
        if class_name(method, "processor").endswith("FeatureExtractor"):
            _register(auto.AutoFeatureExtractor, auto.FEATURE_EXTRACTOR_MAPPING, method.config, method, "processor")


def _processors(auto: ModuleType) -> None:
    # feature extractors too: else AutoProcessor tries AutoTokenizer first, which asks whether to trust the shim
    for method in METHODS.values():
        _register(auto.AutoProcessor, auto.PROCESSOR_MAPPING, method.config, method, "processor")


def _pipelines(pipelines: ModuleType) -> None:
    import_module(f"{__package__}.inference.pipelines")  # registers its own tasks


# Module -> function that registers the methods with it, once it is imported.
_AFTER: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _configurations,
    "transformers.models.auto.modeling_auto": _models,
    "transformers.models.auto.feature_extraction_auto": _feature_extractors,
    "transformers.models.auto.processing_auto": _processors,
    "transformers.pipelines": _pipelines,
    f"{__package__}.models.auto_classes": _models,
}


def _register_with(module: ModuleType) -> None:
    """
    Register the methods with an imported module.

    Raises:
        ImportError: registration failed. It may occur in any `from transformers import ...`, so it names this package.
            A warning instead would end in "does not recognize this architecture" much later.
    """
    try:
        _AFTER[module.__name__](module)
    except Exception as error:
        raise ImportError(f"{__package__} could not register its methods with {module.__name__}: {error}") from error


class _RegisteringFinder:
    """Import finder for the modules of `_AFTER`: finds them as Python does, and registers the methods after import."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        spec = PathFinder.find_spec(name, path, target) if name in _AFTER else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register_with(module)

        spec.loader.exec_module = execute_and_register
        return spec


def register_when_used() -> None:
    """Register the methods with the modules of `_AFTER`: now if they are imported, else on their import."""
    sys.meta_path.insert(0, _RegisteringFinder())
    for name in _AFTER:
        if name in sys.modules:
            _register_with(import_module(name))  # waits if another thread is importing it
