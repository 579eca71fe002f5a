"""
Molecule representation learning on the Hugging Face stack. Importing it makes every method known to transformers.

Nothing heavy is loaded before it is used: see `registration`.
"""

from importlib import import_module as _import_module
from importlib import resources as _resources

from .registration import register_when_used as _register_when_used

__version__ = "0.1.0"

_NAMES = {
    ".chem.smiles": ["MoleculeError"],
    ".inference.estimators": ["MoleculeEmbedder"],
    ".processing.graphs": ["MolGraphFeatureExtractor"],
    ".models.auto": [
        "METHODS",
        "AutoModelForConformerGeneration",
        "AutoModelForMoleculeInteractionPrediction",
        "AutoModelForMoleculePropertyPrediction",
    ],
    ".models.grover": [
        "GroverConfig",
        "GroverDataCollator",
        "GroverFeatureExtractor",
        "GroverForPreTraining",
        "GroverForPropertyPrediction",
        "GroverModel",
    ],
    ".models.mm_deacon": [
        "MMDeaconConfig",
        "MMDeaconDataCollator",
        "MMDeaconForInteractionPrediction",
        "MMDeaconForPreTraining",
        "MMDeaconForPropertyPrediction",
        "MMDeaconModel",
        "MMDeaconProcessor",
    ],
    ".models.molclr": [
        "MolCLRConfig",
        "MolCLRDataCollator",
        "MolCLRFeatureExtractor",
        "MolCLRForPreTraining",
        "MolCLRForPropertyPrediction",
        "MolCLRModel",
    ],
    ".models.uni_mol": [
        "UniMolConfig",
        "UniMolConformerCollator",
        "UniMolDataCollator",
        "UniMolFeatureExtractor",
        "UniMolForConformerGeneration",
        "UniMolForPreTraining",
        "UniMolForPropertyPrediction",
        "UniMolModel",
    ],
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["checkpoint_path", *_MODULE_OF]

_register_when_used()


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
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(_MODULE_OF[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
