"""Auto classes that transformers does not have; `auto.AUTO_CLASSES` says which task each serves."""

from collections import OrderedDict

from ..compat import CONFIG_MAPPING_NAMES, _BaseAutoModelClass, _LazyAutoMapping, auto_class_update


class AutoModelForMoleculePropertyPrediction(_BaseAutoModelClass):
    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


class AutoModelForMoleculeInteractionPrediction(_BaseAutoModelClass):
    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


class AutoModelForConformerGeneration(_BaseAutoModelClass):
    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


AutoModelForMoleculePropertyPrediction = auto_class_update(
    AutoModelForMoleculePropertyPrediction, head_doc="molecule property prediction"
)
AutoModelForMoleculeInteractionPrediction = auto_class_update(
    AutoModelForMoleculeInteractionPrediction, head_doc="interaction prediction of two molecules"
)
AutoModelForConformerGeneration = auto_class_update(AutoModelForConformerGeneration, head_doc="conformer generation")

__all__ = [
    "AutoModelForConformerGeneration",
    "AutoModelForMoleculeInteractionPrediction",
    "AutoModelForMoleculePropertyPrediction",
]
