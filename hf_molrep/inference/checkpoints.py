"""Checkpoints: from a name to a model and its processor."""

from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel

from ..models.auto import class_name, method_of
from ..models.auto_classes import AutoModelForMoleculePropertyPrediction


def load_checkpoint(auto_class: type, name: str, device: str | torch.device | None = None) -> tuple[Any, Any]:
    """
    Model (fp32, in evaluation mode, on `device`: by default a GPU if there is one) and processor of a checkpoint.

    Args:
        auto_class: `transformers.AutoModel`, `AutoModelForMoleculePropertyPrediction`, ...
        name: a folder, a Hub repository, or the name of a checkpoint that is shipped with the package.
    Raises:
        ValueError: see [`check_processor`].
    """
    from transformers import AutoProcessor

    path = resolve_checkpoint(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, processor = auto_class.from_pretrained(path, dtype=torch.float32), AutoProcessor.from_pretrained(path)
    check_processor(processor, model.config)
    return model.to(device).eval(), processor


def check_processor(processor: Any, config: Any) -> None:
    """
    Refuse a processor that makes something else than the model was made for (its `config_fields`: hydrogens, the
    number of labels of pre-training, ...). What a configuration leaves open (None) is not compared.

    Raises:
        ValueError: names what differs.
    """
    fields = getattr(processor, "config_fields", dict)()
    wrong = [
        f"{name} {value!r}, not {getattr(config, name)!r}"
        for name, value in fields.items()
        if getattr(config, name) not in (value, None)
    ]
    if wrong:
        raise ValueError(f"the processor does not fit the model, it has {' and '.join(wrong)}")


def resolve_checkpoint(name: str) -> str:
    """The folder of a shipped checkpoint for its name; any other name as it is."""
    from importlib import resources
    from pathlib import Path

    shipped = resources.files("hf_molrep") / "checkpoints" / name
    if "/" not in name and not Path(name).exists() and (shipped / "config.json").is_file():
        return str(shipped)
    return name


def load_finetuned(name: str, device: str | torch.device | None = None) -> tuple[PreTrainedModel, Any]:
    """
    Property model (in evaluation mode, on `device`, by default the first GPU if there is one) and processor of a
    fine-tuned checkpoint: a folder or a Hub repository.

    Raises:
        ValueError: its head was never trained: the checkpoint is of another kind.
    """
    config = AutoConfig.from_pretrained(resolve_checkpoint(name))
    if class_name(method_of(config).tasks["property-prediction"], "model") not in (config.architectures or ()):
        saved = ", ".join(config.architectures or ["nothing known"])
        raise ValueError(f"{name} holds {saved}, which predicts no properties: fine-tune it first (hf-molrep finetune)")
    return load_checkpoint(AutoModelForMoleculePropertyPrediction, name, device)
