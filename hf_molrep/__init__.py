"""
Molecule representation learning on the Hugging Face stack. Importing it registers every method with transformers.

Modules are loaded on first use: see `registration`.
"""

from importlib import import_module as _import_module
from importlib import resources as _resources
from typing import TYPE_CHECKING as _TYPE_CHECKING

from .models.auto import METHODS
from .models.auto import class_names as _class_names
from .registration import register_when_used as _register_when_used

if _TYPE_CHECKING:  # the names of `__getattr__`, for editors; tests/test_imports.py compares them with METHODS
    from .chem.smiles import MoleculeError
    from .inference.estimators import MoleculeEmbedder
    from .models.auto_classes import (
        AutoModelForConformerGeneration,
        AutoModelForMoleculeInteractionPrediction,
        AutoModelForMoleculePropertyPrediction,
    )
    from .models.dmp import (
        DMPConfig,
        DMPDataCollator,
        DMPForPreTraining,
        DMPForPropertyPrediction,
        DMPModel,
        DMPProcessor,
    )
    from .models.graphmvp import (
        GraphMVPConfig,
        GraphMVPDataCollator,
        GraphMVPFeatureExtractor,
        GraphMVPForPreTraining,
        GraphMVPForPropertyPrediction,
        GraphMVPModel,
    )
    from .models.grover import (
        GroverConfig,
        GroverDataCollator,
        GroverFeatureExtractor,
        GroverForPreTraining,
        GroverForPropertyPrediction,
        GroverModel,
    )
    from .models.infomax_3d import (
        Infomax3DConfig,
        Infomax3DDataCollator,
        Infomax3DFeatureExtractor,
        Infomax3DForPreTraining,
        Infomax3DForPropertyPrediction,
        Infomax3DModel,
    )
    from .models.mm_deacon import (
        MMDeaconConfig,
        MMDeaconDataCollator,
        MMDeaconForInteractionPrediction,
        MMDeaconForPreTraining,
        MMDeaconForPropertyPrediction,
        MMDeaconModel,
        MMDeaconProcessor,
    )
    from .models.molclr import (
        MolCLRConfig,
        MolCLRDataCollator,
        MolCLRFeatureExtractor,
        MolCLRForPreTraining,
        MolCLRForPropertyPrediction,
        MolCLRModel,
    )
    from .models.uni_mol import (
        UniMolConfig,
        UniMolConformerCollator,
        UniMolDataCollator,
        UniMolFeatureExtractor,
        UniMolForConformerGeneration,
        UniMolForPreTraining,
        UniMolForPropertyPrediction,
        UniMolModel,
    )
    from .models.x_mol import (
        XMolConfig,
        XMolDataCollator,
        XMolForConditionalGeneration,
        XMolForInteractionPrediction,
        XMolForPreTraining,
        XMolForPropertyPrediction,
        XMolModel,
        XMolProcessor,
        XMolPropertyCollator,
    )
    from .processing.graphs import MolGraphFeatureExtractor

__version__ = "0.1.0"

_NAMES = {
    ".chem.smiles": ["MoleculeError"],
    ".inference.estimators": ["MoleculeEmbedder"],
    ".models.auto_classes": [
        "AutoModelForConformerGeneration",
        "AutoModelForMoleculeInteractionPrediction",
        "AutoModelForMoleculePropertyPrediction",
    ],
    ".processing.graphs": ["MolGraphFeatureExtractor"],
    **{f".models.{name}": _class_names(method) for name, method in METHODS.items()},
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["METHODS", "checkpoint_path", *_MODULE_OF]

_register_when_used()


def checkpoint_path(name: str = "mm-deacon-mini") -> str:
    """
    Return the folder of a checkpoint that is shipped with the package.

    Raises:
        ValueError: unknown name; lists the known ones.
    """
    folder = _resources.files(__name__) / "checkpoints"
    names = sorted(entry.name for entry in folder.iterdir() if (entry / "config.json").is_file())
    if name not in names:
        raise ValueError(f"no checkpoint {name!r} is shipped; there are: {', '.join(names) or 'none'}")
    return str(folder / name)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(_MODULE_OF[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
