"""Load the model and the processor of a checkpoint, and check that they are complete and fit each other."""

import contextlib
import copy
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


@contextlib.contextmanager
def silent_transformers(verbosity: int | None = None) -> Iterator[None]:
    """Hide the progress bars of loading and saving; with `verbosity` also log messages below that level."""
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
    """Resolve the name of a shipped checkpoint to its folder; any other name is returned unchanged."""
    shipped = resources.files("hf_molrep") / "checkpoints" / name
    if "/" not in name and not Path(name).exists() and (shipped / "config.json").is_file():
        return str(shipped)
    return name


def load_model(auto_class: type, name: str, **options: Any) -> PreTrainedModel:
    """
    Load a model in evaluation mode, and check that the checkpoint holds all weights.

    A checkpoint may lack all modules of an input (see `input_modules` of the model; a fine-tuned MM-Deacon has no name
    encoder). `model.left_out` then holds the columns of that input, see [`without_columns`]. Any other missing tensor
    is an error, since transformers would initialise it at random.

    Args:
        auto_class: `transformers.AutoModel`, `AutoModelForMoleculePropertyPrediction`, ...
        name: a folder, a Hub repository, or the name of a shipped checkpoint.
        options: options of `from_pretrained`.
    Raises:
        ValueError: weights are missing.
    """
    with silent_transformers(logging.ERROR):  # missing weights are reported below
        model, info = auto_class.from_pretrained(resolve_checkpoint(name), output_loading_info=True, **options)
    missing, left_out, random = set(info["missing_keys"]), set(), set()
    input_modules = getattr(model, "input_modules", {})
    for column, modules in input_modules.items():
        needed = {key for key in model.state_dict() if key.split(".")[0] in modules}
        if needed <= missing:
            left_out.add(column)
            random |= needed
    missing -= random
    if input_modules and random and left_out == set(input_modules):
        raise ValueError(f"{name} holds none of the weights of {type(model).__name__}")
    if missing:
        some = ", ".join(sorted(missing)[:3]) + (", ..." if len(missing) > 3 else "")
        raise ValueError(f"{name} lacks {len(missing)} of the weights of {type(model).__name__}: {some}")
    model.left_out = frozenset(left_out)
    # what was initialised at random must not be saved as if it had been trained
    model._keys_to_ignore_on_save = [*(model._keys_to_ignore_on_save or ()), *sorted(random)] or None
    return model.eval()


def without_columns(processor: MoleculeProcessor, columns: Collection[str]) -> MoleculeProcessor:
    """Copy a processor so that it refuses columns for which the checkpoint has no weights."""
    if not columns:
        return processor
    restricted = copy.copy(processor)
    restricted.inputs = tuple(names for names in processor.inputs if not names & set(columns))
    return restricted


def load_checkpoint(
    auto_class: type, name: str, device: str | torch.device | None = None
) -> tuple[PreTrainedModel, MoleculeProcessor]:
    """
    Load the model (float32, in evaluation mode) and the processor of a checkpoint.

    Args:
        auto_class, name: see [`load_model`].
        device: by default a GPU if there is one.
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
    Load the property model and the processor of a fine-tuned checkpoint, see [`load_checkpoint`].

    Raises:
        ValueError: the checkpoint has no trained property head.
    """
    config = AutoConfig.from_pretrained(resolve_checkpoint(name))
    if class_name(method_of(config).tasks["property-prediction"], "model") not in (config.architectures or ()):
        saved = ", ".join(config.architectures or ["nothing known"])
        raise ValueError(f"{name} holds {saved}, which predicts no properties: fine-tune it first (hf-molrep finetune)")
    return load_checkpoint(AutoModelForMoleculePropertyPrediction, name, device)


def check_processor(processor: MoleculeProcessor, config: Any) -> None:
    """
    Check that the `config_fields` of a processor (hydrogens, sizes of vocabularies, ...) fit a model's configuration.
    Fields that are None in the configuration are not compared.

    Raises:
        ValueError: fields differ.
    """
    wrong = [
        f"{name} {value!r}, not {getattr(config, name)!r}"
        for name, value in processor.config_fields().items()
        if getattr(config, name) not in (value, None)
    ]
    if wrong:
        raise ValueError(f"the processor does not fit the model, it has {' and '.join(wrong)}")


__all__ = [
    "check_processor",
    "load_checkpoint",
    "load_finetuned",
    "load_model",
    "resolve_checkpoint",
    "silent_transformers",
    "without_columns",
]
