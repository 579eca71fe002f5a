"""Molecule representation learning on the Hugging Face stack. Importing it registers every method."""

from importlib import resources as _resources

from .chem.smiles import MoleculeError
from .models import auto as _auto
from .models.auto import (
    METHODS,
    AutoModelForMoleculeInteractionPrediction,
    AutoModelForMoleculePropertyPrediction,
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
from .pipelines import register as _register_pipelines

__version__ = "0.1.0"
__all__ = [
    "METHODS",
    "AutoModelForMoleculeInteractionPrediction",
    "AutoModelForMoleculePropertyPrediction",
    "MMDeaconConfig",
    "MMDeaconDataCollator",
    "MMDeaconForInteractionPrediction",
    "MMDeaconForPreTraining",
    "MMDeaconForPropertyPrediction",
    "MMDeaconModel",
    "MMDeaconProcessor",
    "MoleculeEmbedder",
    "MoleculeError",
    "checkpoint_path",
]

_auto.register()
_register_pipelines()


def checkpoint_path(name: str = "mm-deacon-mini") -> str:
    """
    Folder of a checkpoint that is shipped with the package.

    Raises:
        ValueError: there is none of that name; says which there are.
    """
    folder = _resources.files(__name__) / "checkpoints"
    names = sorted(entry.name for entry in folder.iterdir() if (entry / "config.json").is_file())
    if name not in names:
        raise ValueError(f"no checkpoint {name!r} is shipped; there are: {', '.join(names) or 'none'}")
    return str(folder / name)


def __getattr__(name: str):
    if name == "MoleculeEmbedder":  # its base classes are scikit-learn's, which costs half a second to import
        from .estimators import MoleculeEmbedder

        return MoleculeEmbedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
