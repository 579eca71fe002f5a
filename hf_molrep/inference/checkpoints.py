"""Checkpoints: from a name to a model and its processor, or one sentence about what is wrong with them."""

import contextlib
from collections.abc import Collection, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor, PreTrainedModel
from transformers.utils import logging

from ..models.auto import class_name, method_of
from ..models.auto_classes import AutoModelForMoleculePropertyPrediction
from ..processing.contract import MoleculeProcessor

DEFAULT_CHECKPOINT = "mm-deacon-mini"


@contextlib.contextmanager
def silent_transformers(verbosity: int | None = None) -> Iterator[None]:
    """Silence the progress bars of loading and saving, and with `verbosity` all messages below it."""
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    if verbosity is not None:
        logging.set_verbosity(verbosity)
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def resolve_checkpoint(name: str) -> str:
    """Resolve the name of a shipped checkpoint to its folder; folders and Hub repositories stay as they are."""
    shipped = resources.files("hf_molrep") / "checkpoints" / name
    if "/" not in name and not Path(name).exists() and (shipped / "config.json").is_file():
        return str(shipped)
    return name


def load_model(auto_class: type, name: str, **options: Any) -> PreTrainedModel:
    """
    Load a model, in evaluation mode, and make sure that the checkpoint holds what its answers need.

    A checkpoint may leave out a whole input (`input_modules` of the model; a fine-tuned MM-Deacon holds no encoder of
    names): the columns of such inputs are then `model.left_out`, see [`without_columns`]. Every other missing tensor is
    an error, since transformers would put random numbers in its place.

    Args:
        auto_class: `transformers.AutoModel`, `AutoModelForMoleculePropertyPrediction`, ...
        name: a folder, a Hub repository, or the name of a shipped checkpoint.
        options: those of `from_pretrained`.
    Raises:
        ValueError: weights are missing; names them.
    """
    with silent_transformers(logging.ERROR):  # what transformers would report is said here, or is of no consequence
        model, info = auto_class.from_pretrained(resolve_checkpoint(name), output_loading_info=True, **options)
    missing, left_out = set(info["missing_keys"]), set()
    for column, modules in getattr(model, "input_modules", {}).items():
        needed = {key for key in model.state_dict() if key.split(".")[0] in modules}
        if needed <= missing:
            left_out.add(column)
            missing -= needed
    if missing:
        some = ", ".join(sorted(missing)[:3]) + (", ..." if len(missing) > 3 else "")
        raise ValueError(f"{name} lacks {len(missing)} of the weights of {type(model).__name__}: {some}")
    model.left_out = frozenset(left_out)
    return model.eval()


def without_columns(processor: MoleculeProcessor, columns: Collection[str]) -> MoleculeProcessor:
    """Make a processor refuse these columns, for which the checkpoint holds no weights."""
    if columns:
        processor.inputs = tuple(names for names in processor.inputs if not names & set(columns))
    return processor


def load_checkpoint(
    auto_class: type, name: str, device: str | torch.device | None = None
) -> tuple[PreTrainedModel, MoleculeProcessor]:
    """
    Model (fp32, in evaluation mode, on `device`: by default a GPU if there is one) and processor of a checkpoint.

    Args:
        auto_class, name: see [`load_model`].
    Raises:
        ValueError: see [`load_model`] and [`check_processor`].
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(auto_class, name, dtype=torch.float32)
    processor = without_columns(AutoProcessor.from_pretrained(resolve_checkpoint(name)), model.left_out)
    check_processor(processor, model.config)
    return model.to(device), processor


def load_finetuned(name: str, device: str | torch.device | None = None) -> tuple[PreTrainedModel, MoleculeProcessor]:
    """
    Property model and processor of a fine-tuned checkpoint, see [`load_checkpoint`].

    Raises:
        ValueError: its head was never trained: the checkpoint is of another kind.
    """
    config = AutoConfig.from_pretrained(resolve_checkpoint(name))
    if class_name(method_of(config).tasks["property-prediction"], "model") not in (config.architectures or ()):
        saved = ", ".join(config.architectures or ["nothing known"])
        raise ValueError(f"{name} holds {saved}, which predicts no properties: fine-tune it first (hf-molrep finetune)")
    return load_checkpoint(AutoModelForMoleculePropertyPrediction, name, device)


def check_processor(processor: MoleculeProcessor, config: Any) -> None:
    """
    Refuse a processor that makes something else than the model was made for (its `config_fields`: hydrogens, the
    number of labels of pre-training, ...). What a configuration leaves open (None) is not compared.

    Raises:
        ValueError: names what differs.
    """
    wrong = [
        f"{name} {value!r}, not {getattr(config, name)!r}"
        for name, value in processor.config_fields().items()
        if getattr(config, name) not in (value, None)
    ]
    if wrong:
        raise ValueError(f"the processor does not fit the model, it has {' and '.join(wrong)}")


__all__ = [
    "DEFAULT_CHECKPOINT",
    "check_processor",
    "load_checkpoint",
    "load_finetuned",
    "load_model",
    "resolve_checkpoint",
    "silent_transformers",
    "without_columns",
]
