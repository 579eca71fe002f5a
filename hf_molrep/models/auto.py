"""
The table of methods: the classes of each method, and the Auto classes of each task.

A row is all that registers a method: `hf_molrep.registration` registers it with the Auto classes of transformers, its
classes become `hf_molrep.<name>`, and the commands list it. A class is imported when it is first read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any


class _ClassOnUse:
    """
    Field of a row that holds a class. It may be given by name, `"<folder of models/>.<class>"`; the class is imported
    when the field is first read.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __set__(self, row: Any, value: type | str) -> None:
        vars(row)[self.name] = value

    def __get__(self, row: Any, owner: type | None = None) -> type:
        if row is None:
            raise AttributeError(self.name)  # so that `dataclass` sees no default
        value = vars(row)[self.name]
        if isinstance(value, str):
            folder, _, name = value.rpartition(".")
            value = vars(row)[self.name] = getattr(import_module(f".{folder}", __package__), name)
        return value


@dataclass
class Task:
    """
    A task of a method, besides embedding.

    Args:
        model: class of the model.
        collator: class of the data collator, made as `collator(processor, seed=...)`.
    """

    model: type = _ClassOnUse()
    collator: type = _ClassOnUse()


@dataclass
class Method:
    """
    A row of the table.

    Args:
        config: class of the configuration; its `model_type` is the key of the row.
        processor: class of the processor: `<M>FeatureExtractor` if it is a `FeatureExtractionMixin`, `<M>Processor` if
            it is a `ProcessorMixin`.
        model: class of the embedding model, for `AutoModel`.
        tasks: key of `AUTO_CLASSES` -> model and collator.
    """

    config: type = _ClassOnUse()
    processor: type = _ClassOnUse()
    model: type = _ClassOnUse()
    tasks: Mapping[str, Task]


# Task -> the Auto classes that load its models, of transformers or of `auto_classes.py`.
AUTO_CLASSES: dict[str, tuple[str, ...]] = {
    "pre-training": ("AutoModelForPreTraining",),
    "property-prediction": ("AutoModelForMoleculePropertyPrediction", "AutoModelForSequenceClassification"),
    "interaction-prediction": ("AutoModelForMoleculeInteractionPrediction",),
    "conformer-generation": ("AutoModelForConformerGeneration",),
    "conditional-generation": ("AutoModelForCausalLM",),
}

METHODS: dict[str, Method] = {
    "dmp": Method(
        config="dmp.DMPConfig",
        processor="dmp.DMPProcessor",
        model="dmp.DMPModel",
        tasks={
            "pre-training": Task("dmp.DMPForPreTraining", "dmp.DMPDataCollator"),
            "property-prediction": Task("dmp.DMPForPropertyPrediction", "dmp.DMPDataCollator"),
        },
    ),
    "graphmvp": Method(
        config="graphmvp.GraphMVPConfig",
        processor="graphmvp.GraphMVPFeatureExtractor",
        model="graphmvp.GraphMVPModel",
        tasks={
            "pre-training": Task("graphmvp.GraphMVPForPreTraining", "graphmvp.GraphMVPDataCollator"),
            "property-prediction": Task("graphmvp.GraphMVPForPropertyPrediction", "graphmvp.GraphMVPDataCollator"),
        },
    ),
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
    "x_mol": Method(
        config="x_mol.XMolConfig",
        processor="x_mol.XMolProcessor",
        model="x_mol.XMolModel",
        tasks={
            "pre-training": Task("x_mol.XMolForPreTraining", "x_mol.XMolDataCollator"),
            "property-prediction": Task("x_mol.XMolForPropertyPrediction", "x_mol.XMolPropertyCollator"),
            "interaction-prediction": Task("x_mol.XMolForInteractionPrediction", "x_mol.XMolPropertyCollator"),
            "conditional-generation": Task("x_mol.XMolForConditionalGeneration", "x_mol.XMolDataCollator"),
        },
    ),
}


def class_name(row: Method | Task, field: str) -> str:
    """Return the name of a class of a row, without importing it."""
    value = vars(row)[field]
    return value.rpartition(".")[2] if isinstance(value, str) else value.__name__


def class_names(method: Method) -> list[str]:
    """Return the names of all classes of a method, sorted, without importing them."""
    names = {class_name(method, field) for field in ("config", "processor", "model")}
    names |= {class_name(task, field) for task in method.tasks.values() for field in ("model", "collator")}
    return sorted(names)


def method_of(config: Any) -> Method:
    """
    Return the row of the method that a configuration belongs to.

    Raises:
        ValueError: `config.model_type` is not a method of this package.
    """
    try:
        return METHODS[config.model_type]
    except KeyError:
        raise ValueError(f"{config.model_type!r} is none of the methods here: {', '.join(METHODS)}") from None
