"""For converters: read weight files of other codes safely, and make configurations and models from them."""

import math
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel

from ..configuration import check_fields

Config = TypeVar("Config", bound=PreTrainedConfig)
Model = TypeVar("Model", bound=PreTrainedModel)


def read_file(path: str | Path, allowed: Sequence = ()) -> Any:
    """
    Read a file of `torch.save`. Only tensors, plain containers and `allowed` are read; a file that would run code is
    refused.

    Args:
        path: the file.
        allowed: further classes and functions that the file may use, see `torch.serialization.safe_globals`.
    Returns:
        The object in the file, its tensors on the CPU.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder; it is empty, damaged or of another format; it uses other classes or functions.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the file of weights")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty")
    with path.open("rb") as file:
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals(list(allowed)):
                warnings.simplefilter("ignore")  # for instance of TorchScript, which is then refused
                return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # wrong bytes can make the unpickler raise anything
            file.seek(0)
            if named := re.search(r"GLOBAL ['\"]?([\w.]+)", str(error)):
                complaint = f"holds other things than weights ({named[1]}), and reading them could run code"
            elif file.read(2) == b"PK" and not zipfile.is_zipfile(file):
                complaint = "is cut off or damaged"
            else:
                complaint = "is not a complete file of weights as torch.save writes them"
            raise ValueError(f"{path} {complaint}") from error


def check_state(found: Any, path: str | Path) -> dict[str, torch.Tensor]:
    """
    Check a `state_dict` and return it.

    Args:
        found: the object of the file that should be the `state_dict`.
        path: the file, for messages.
    Raises:
        ValueError: it is not a dict of names and tensors, it is empty, or values are not finite.
    """
    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"{path} holds no state dict (names and tensors)")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(f"{path} holds no state dict (names and tensors): {name!r} is not a tensor")
        if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
            raise ValueError(f"{path}: the tensor {name!r} is sparse, quantized or without values")
    broken = [name for name, value in found.items() if value.is_floating_point() and not value.float().isfinite().all()]
    if broken:
        raise ValueError(f"{path} holds values that are not finite in {_listed(broken)}")
    return dict(found)


def shape_of(state: Mapping[str, torch.Tensor], name: str, dimensions: int = 2) -> tuple[int, ...]:
    """
    Return the shape of a tensor.

    Raises:
        ValueError: the tensor is missing, or has another number of dimensions.
    """
    if name not in state:
        raise ValueError(f"the state dict has no {name!r}")
    if state[name].dim() != dimensions:
        raise ValueError(f"{name!r} has the shape {tuple(state[name].shape)}, not {dimensions} dimensions")
    return tuple(state[name].shape)


def label_fields(
    label_mean: float | Sequence[float] | None,
    label_std: float | Sequence[float] | None,
    task_names: str | Sequence[str] | None,
) -> dict[str, Any]:
    """
    Make the fields of a configuration that describe the labels of a fine-tuned file. None is left out.

    Args:
        label_mean, label_std: scaling of the labels of a regression: a number, or one for each task.
        task_names: a name, or one for each task.
    Raises:
        ValueError: values are not finite numbers, or a deviation is not above 0.
    """
    fields: dict[str, Any] = {}
    for name, scale in (("label_mean", label_mean), ("label_std", label_std)):
        if scale is None:
            continue
        values = list(scale) if isinstance(scale, Sequence) and not isinstance(scale, str) else [scale]
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            raise ValueError(f"{name} is a number, or a list of numbers, not {scale!r}")
        if any(not math.isfinite(value) or (name == "label_std" and value <= 0) for value in values):
            raise ValueError(f"{name} {scale!r}: means are finite, and deviations above 0")
        fields[name] = [float(value) for value in values]
    if task_names is not None:
        names = list(task_names) if isinstance(task_names, list | tuple) else [task_names]
        fields["id2label"] = dict(enumerate(map(str, names)))
    return fields


def make_config(config_class: type[Config], **fields) -> Config:
    """
    Make a configuration from fields given by a file or a user.

    Raises:
        ValueError: a field is unknown, or a value is wrong.
    """
    check_fields(config_class, fields)
    try:
        return config_class(**fields)
    except StrictDataclassError as error:
        raise ValueError(str(error.__cause__ or error)) from error
    except (ArithmeticError, AttributeError, TypeError) as error:  # before the fields are checked
        raise ValueError(f"{config_class.__name__} does not take these values: {error}") from error


def make_model(model_class: type[Model], config: PreTrainedConfig, weights: Mapping[str, torch.Tensor]) -> Model:
    """
    Make a model in evaluation mode with these weights, which must fit exactly.

    Args:
        weights: tensors under the names of this package.
    Raises:
        ValueError: tensors are missing, unknown or of another shape; or no model can have these sizes.
    """
    try:
        model = model_class(config)
    except RuntimeError as error:
        raise ValueError(f"no model has these sizes: {str(error).splitlines()[0]}") from error
    wanted = model.state_dict()
    shared = [name for name in wanted if name in weights]
    complaints = {
        "they lack": [name for name in wanted if name not in weights],
        "the model has no": [name for name in weights if name not in wanted],
        "of another shape are": [name for name in shared if wanted[name].shape != weights[name].shape],
    }
    if any(complaints.values()):
        listed = "; ".join(f"{words} {_listed(names)}" for words, names in complaints.items() if names)
        raise ValueError(f"the weights do not fit {model_class.__name__}: {listed}")
    model.load_state_dict(weights)
    return model.eval()


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
