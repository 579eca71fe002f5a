"""Packages that import a module when one of its names is first used."""

import sys
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

# Files of a method whose `__all__` are its public names, in the order in which they import each other. Names are looked
# up in this order, so that a configuration or a processor is found without loading the model.
ROLES = ("configuration", "tokenization", "feature_extraction", "processing", "collation", "modeling", "generation")


def method_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """
    Make `__getattr__` and `__dir__` of the package of a method.

    Args:
        package: full name, `hf_molrep.models.<m>`. Its names are those in the `__all__` of its files `<role>_<m>.py`,
            for the roles of `ROLES`.
    """
    method = package.rpartition(".")[2]
    files = {module.name for module in iter_modules(sys.modules[package].__path__)}
    modules = [f"{package}.{role}_{method}" for role in ROLES if f"{role}_{method}" in files]

    def all_names() -> list[str]:
        return sorted(name for module in modules for name in import_module(module).__all__)

    def find(name: str) -> Any:
        if name == "__all__":
            return all_names()
        if not name.startswith("__"):
            for module in map(import_module, modules):
                if name in module.__all__:
                    value = getattr(module, name)
                    setattr(sys.modules[package], name, value)
                    return value
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find, all_names
