"""
THE TABLE: every method's classes, one row each, and the Auto classes that serve each task.

A row registers its method: `hf_molrep.registration` makes it known to the Auto classes of transformers, the package
offers its classes as `hf_molrep.<name>`, and the commands list it. Nothing is imported before a class is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any


class _ClassOnUse:
    """
    Field of a row. It is given as a class or as the name of one, `"<folder of models/>.<class>"`, and read as the
    class, which is imported when it is first read.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __set__(self, row: Any, value: type | str) -> None:
        vars(row)[self.name] = value

    def __get__(self, row: Any, owner: type | None = None) -> type:
        if row is None:
            raise AttributeError(self.name)  # tells `dataclass` that the field has no default
        value = vars(row)[self.name]
        if isinstance(value, str):
            folder, _, name = value.rpartition(".")
            value = vars(row)[self.name] = getattr(import_module(f".{folder}", __package__), name)
        return value


@dataclass
class Task:
    """
    What a method does beside embedding.

    Args:
        model: the class that does it.
        collator: makes its batches of rows: `collator(processor, seed=...)`.
    """

    model: type = _ClassOnUse()
    collator: type = _ClassOnUse()


@dataclass
class Method:
    """
    What a method brings.

    Args:
        config: its configuration; `model_type` is the key of the row.
        processor: molecules to features. `<M>FeatureExtractor` where it is a `FeatureExtractionMixin`, `<M>Processor`
            where it is a `ProcessorMixin`.
        model: the embedding model, for `AutoModel`.
        tasks: name, a key of `AUTO_CLASSES` -> model and collator.
    """

    config: type = _ClassOnUse()
    processor: type = _ClassOnUse()
    model: type = _ClassOnUse()
    tasks: Mapping[str, Task]


# Task -> the Auto classes that load its models: those of transformers, and those of `auto_classes.py` that it lacks.
AUTO_CLASSES: dict[str, tuple[str, ...]] = {
    "pre-training": ("AutoModelForPreTraining",),
    "property-prediction": ("AutoModelForMoleculePropertyPrediction", "AutoModelForSequenceClassification"),
    "interaction-prediction": ("AutoModelForMoleculeInteractionPrediction",),
    "conformer-generation": ("AutoModelForConformerGeneration",),
}

METHODS: dict[str, Method] = {
    "grover": Method(
        config="grover.GroverConfig",
        processor="grover.GroverFeatureExtractor",
        model="grover.GroverModel",
        tasks={
            "pre-training": Task("grover.GroverForPreTraining", "grover.GroverDataCollator"),
            "property-prediction": Task("grover.GroverForPropertyPrediction", "grover.GroverDataCollator"),
        },
    ),
    "infomax_3d": Method(
        config="infomax_3d.Infomax3DConfig",
        processor="infomax_3d.Infomax3DFeatureExtractor",
        model="infomax_3d.Infomax3DModel",
        tasks={
            "pre-training": Task("infomax_3d.Infomax3DForPreTraining", "infomax_3d.Infomax3DDataCollator"),
            "property-prediction": Task(
                "infomax_3d.Infomax3DForPropertyPrediction", "infomax_3d.Infomax3DDataCollator"
            ),
        },
    ),
    "mm_deacon": Method(
        config="mm_deacon.MMDeaconConfig",
        processor="mm_deacon.MMDeaconProcessor",
        model="mm_deacon.MMDeaconModel",
        tasks={
            "pre-training": Task("mm_deacon.MMDeaconForPreTraining", "mm_deacon.MMDeaconDataCollator"),
            "property-prediction": Task("mm_deacon.MMDeaconForPropertyPrediction", "mm_deacon.MMDeaconDataCollator"),
            "interaction-prediction": Task(
                "mm_deacon.MMDeaconForInteractionPrediction", "mm_deacon.MMDeaconDataCollator"
            ),
        },
    ),
    "molclr": Method(
        config="molclr.MolCLRConfig",
        processor="molclr.MolCLRFeatureExtractor",
        model="molclr.MolCLRModel",
        tasks={
            "pre-training": Task("molclr.MolCLRForPreTraining", "molclr.MolCLRDataCollator"),
            "property-prediction": Task("molclr.MolCLRForPropertyPrediction", "molclr.MolCLRDataCollator"),
        },
    ),
    "uni_mol": Method(
        config="uni_mol.UniMolConfig",
        processor="uni_mol.UniMolFeatureExtractor",
        model="uni_mol.UniMolModel",
        tasks={
            "pre-training": Task("uni_mol.UniMolForPreTraining", "uni_mol.UniMolDataCollator"),
            "property-prediction": Task("uni_mol.UniMolForPropertyPrediction", "uni_mol.UniMolDataCollator"),
            "conformer-generation": Task("uni_mol.UniMolForConformerGeneration", "uni_mol.UniMolConformerCollator"),
        },
    ),
}


def class_name(row: Method | Task, field: str) -> str:
    """The name of a class of a row, which is not imported for it."""
    value = vars(row)[field]
    return value.rpartition(".")[2] if isinstance(value, str) else value.__name__


def class_names(method: Method) -> list[str]:
    """The names of all classes of a method, sorted; nothing is imported."""
    names = {class_name(method, field) for field in ("config", "processor", "model")}
    names |= {class_name(task, field) for task in method.tasks.values() for field in ("model", "collator")}
    return sorted(names)


def method_of(config: Any) -> Method:
    """
    The row of the method that a configuration belongs to.

    Raises:
        ValueError: `config.model_type` is none of ours.
    """
    try:
        return METHODS[config.model_type]
    except KeyError:
        raise ValueError(f"{config.model_type!r} is none of the methods here: {', '.join(METHODS)}") from None
