"""
The laws, as one suite that every method inherits:

    class TestMolCLR(MethodLaws):
        model_type = "molclr"
        ...                       # the hooks of `tests.models.laws.hooks.MethodHooks`

in `tests/models/<method>/test_<method>.py` makes every law a test of that method. What a method must say is listed
there and nothing else is needed; a law that cannot apply is named in `does_not_apply` with the reason. The laws
themselves stand in `tests/models/laws/`; `test_laws_selfcheck.py` shows that each of them can fail.
"""

import importlib
import inspect

from tests.models.laws.checks import draw_weights, require_same, tensors
from tests.models.laws.molecules import MoleculeLaws
from tests.models.laws.outputs import OutputLaws
from tests.models.laws.saving import SavingLaws
from tests.models.laws.training import TrainingLaws


class MethodLaws(SavingLaws, MoleculeLaws, OutputLaws, TrainingLaws):
    """All fourteen."""


def laws_of(model_type: str) -> MethodLaws:
    """The laws object of a method: of the one class in `tests/models/<method>/test_<method>.py` made from them."""
    module = importlib.import_module(f"tests.models.{model_type}.test_{model_type}")
    (found,) = [value for value in vars(module).values() if inspect.isclass(value) and MethodLaws in value.__bases__]
    return found()


__all__ = ["MethodLaws", "draw_weights", "laws_of", "require_same", "tensors"]
