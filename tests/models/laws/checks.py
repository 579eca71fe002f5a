"""What the laws are made of: comparing, drawing weights, watching initialisation."""

import contextlib
import math
import zlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from transformers import initialization, logging


def require(law: int, condition: bool, what: str) -> None:
    """Fail in the name of a law."""
    if not condition:
        raise AssertionError(f"law {law}: {what}")


def tensors(value, name: str = "") -> dict[str, torch.Tensor]:
    """Every tensor inside nested dicts, lists and model outputs, by its path."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    if hasattr(value, "items"):
        value = list(value.items())
    elif isinstance(value, list | tuple):
        value = list(enumerate(value))
    else:
        return {}
    return {path: tensor for key, inner in value for path, tensor in tensors(inner, f"{name}.{key}").items()}


def require_same(law: int, what: str, actual, expected, atol: float = 0.0) -> None:
    """
    Fail in the name of a law unless both hold tensors of the same names, shapes, dtypes and values: within atol, of the
    largest value where that is above 1.
    """
    actual, expected = tensors(actual), tensors(expected)
    require(law, bool(expected), f"{what}: nothing to compare")
    require(law, actual.keys() == expected.keys(), f"{what}: {sorted(actual.keys() ^ expected.keys())} in one only")
    for name, tensor in expected.items():
        other = actual[name]
        require(
            law,
            other.shape == tensor.shape and other.dtype == tensor.dtype,
            f"{what}{name}: {tuple(other.shape)} {other.dtype} against {tuple(tensor.shape)} {tensor.dtype}",
        )
        if torch.equal(other, tensor):
            continue
        difference = (other.double() - tensor.double()).abs().max().item()
        allowed = atol * max(1.0, tensor.double().abs().max().item())
        require(
            law, difference <= allowed, f"{what}{name}: differs by {difference:.3g}, allowed {allowed:.3g}"
        )  # NaN fails


def draw_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """
    Weights that depend on nothing but name, shape and seed, large enough that every part of the model matters: matrices
    from N(0, 1 / last dimension), everything else moved by N(0, 0.1). Also for goldens.
    """
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point() or name.split(".")[-1] not in model_state_names(model, name):
                continue
            normal = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(tensor.shape)
            drawn = torch.as_tensor(normal, dtype=tensor.dtype)
            if name.endswith("running_var"):
                tensor.add_(0.1 * drawn.abs())
            elif tensor.dim() >= 2:
                tensor.copy_(drawn / math.sqrt(tensor.shape[-1]))
            else:
                tensor.add_(0.1 * drawn)
    return model


def model_state_names(model: nn.Module, name: str) -> set[str]:
    """Names of the persistent tensors of the module that owns `name`: tables that are not saved are not weights."""
    owner = model.get_submodule(name.rpartition(".")[0])
    return {key for key in owner.state_dict() if "." not in key}


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@contextlib.contextmanager
def reseeded_initialisation() -> Iterator[None]:
    """Each random initialisation starts from the same seed: the order in which tensors are drawn is no matter."""

    def reseeded(function):
        def run(*args, **kwargs):
            torch.manual_seed(0)
            return function(*args, **kwargs)

        return run

    original = dict(initialization.TORCH_INIT_FUNCTIONS)
    initialization.TORCH_INIT_FUNCTIONS.update({name: reseeded(function) for name, function in original.items()})
    try:
        yield
    finally:
        initialization.TORCH_INIT_FUNCTIONS.update(original)


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """The reports of missing weights are what some laws provoke."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def rotation(rng: np.random.Generator, reflect: bool = False) -> torch.Tensor:
    """A random rotation (or rotation times reflection), `[3, 3]`, float64."""
    matrix, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    matrix[:, 0] *= np.sign(np.linalg.det(matrix)) * (-1 if reflect else 1)
    return torch.from_numpy(matrix)
