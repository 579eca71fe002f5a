"""THE TABLE: every method's classes, one row each, and their registration with the Auto classes of transformers."""

from collections import OrderedDict
from typing import NamedTuple

from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoProcessor,
    FeatureExtractionMixin,
)

from ..compat import CONFIG_MAPPING_NAMES, _BaseAutoModelClass, _LazyAutoMapping, auto_class_update
from . import grover, mm_deacon, molclr, uni_mol


class Method(NamedTuple):
    """What a method brings. `sub_configs` are its other configurations; `data_collator` makes its batches."""

    config: type
    processor: type
    data_collator: type
    model: type
    for_pre_training: type
    for_property_prediction: type
    for_interaction_prediction: type | None = None
    for_conformer_generation: type | None = None


METHODS: dict[str, Method] = {
    "grover": Method(
        config=grover.GroverConfig,
        processor=grover.GroverFeatureExtractor,
        data_collator=grover.GroverDataCollator,
        model=grover.GroverModel,
        for_pre_training=grover.GroverForPreTraining,
        for_property_prediction=grover.GroverForPropertyPrediction,
    ),
    "mm_deacon": Method(
        config=mm_deacon.MMDeaconConfig,
        processor=mm_deacon.MMDeaconProcessor,
        data_collator=mm_deacon.MMDeaconDataCollator,
        model=mm_deacon.MMDeaconModel,
        for_pre_training=mm_deacon.MMDeaconForPreTraining,
        for_property_prediction=mm_deacon.MMDeaconForPropertyPrediction,
        for_interaction_prediction=mm_deacon.MMDeaconForInteractionPrediction,
    ),
    "molclr": Method(
        config=molclr.MolCLRConfig,
        processor=molclr.MolCLRFeatureExtractor,
        data_collator=molclr.MolCLRDataCollator,
        model=molclr.MolCLRModel,
        for_pre_training=molclr.MolCLRForPreTraining,
        for_property_prediction=molclr.MolCLRForPropertyPrediction,
    ),
    "uni_mol": Method(
        config=uni_mol.UniMolConfig,
        processor=uni_mol.UniMolFeatureExtractor,
        data_collator=uni_mol.UniMolDataCollator,
        model=uni_mol.UniMolModel,
        for_pre_training=uni_mol.UniMolForPreTraining,
        for_property_prediction=uni_mol.UniMolForPropertyPrediction,
        for_conformer_generation=uni_mol.UniMolForConformerGeneration,
    ),
}


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


def method_of(config) -> Method:
    """
    The row of the method that a configuration belongs to.

    Raises:
        ValueError: `config.model_type` is none of ours.
    """
    try:
        return METHODS[config.model_type]
    except KeyError:
        raise ValueError(f"{config.model_type!r} is none of the methods here: {', '.join(METHODS)}") from None


def register() -> None:
    """Make every method known to the Auto classes (see `hf_molrep.registration`)."""
    for model_type, method in METHODS.items():
        if model_type in CONFIG_MAPPING:
            continue
        AutoConfig.register(model_type, method.config)
        if issubclass(method.processor, FeatureExtractionMixin):
            AutoFeatureExtractor.register(method.config, method.processor)
        # feature extractors too: AutoProcessor would else try AutoTokenizer first, which asks whether to trust the shim
        AutoProcessor.register(method.config, method.processor)
        AutoModel.register(method.config, method.model)
        AutoModelForPreTraining.register(method.config, method.for_pre_training)
        AutoModelForMoleculePropertyPrediction.register(method.config, method.for_property_prediction)
        AutoModelForSequenceClassification.register(method.config, method.for_property_prediction)
        if method.for_interaction_prediction is not None:
            AutoModelForMoleculeInteractionPrediction.register(method.config, method.for_interaction_prediction)
        if method.for_conformer_generation is not None:
            AutoModelForConformerGeneration.register(method.config, method.for_conformer_generation)
