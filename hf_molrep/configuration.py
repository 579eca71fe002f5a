"""Base class and field checks of all configurations."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .hub import RemoteCodeMixin

# Keys besides the fields of the class that transformers writes to config.json (special tokens and use_cache: its
# Trainer) or accepts as arguments.
KEYWORDS = {
    "_name_or_path",
    "attn_implementation",
    "auto_map",
    "bos_token_id",
    "eos_token_id",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "pad_token_id",
    "torch_dtype",
    "use_cache",
}


def check_fields(config_class: type[PreTrainedConfig], given: Mapping[str, Any]) -> None:
    """
    Refuse names that are not fields of `config_class` or its sub-configurations. Configurations of transformers keep
    every argument as an attribute, so a mistyped name would leave the default in force.

    Args:
        given: arguments of the class, or the content of its config.json.
    Raises:
        ValueError: no such field; suggests similar names.
    """
    known = {field.name for field in fields(config_class)}
    for name, value in given.items():
        if name not in known | KEYWORDS | set(config_class.attribute_map):
            near = get_close_matches(name, sorted(known))
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ValueError(f"{config_class.__name__} has no field {name!r}{hint}")
        if isinstance(value, Mapping) and name in config_class.sub_configs:
            check_fields(config_class.sub_configs[name], value)


@strict
class MoleculeConfig(RemoteCodeMixin, PreTrainedConfig):
    """
    Configuration of a model that can be fine-tuned on properties.

    Args:
        problem_type: `"regression"` (default), or `"multi_label_classification"`; a binary task is one logit.
        label_mean, label_std, label_units: one per task of a regression; predictions come back in these units.
    """

    problem_types = ("regression", "multi_label_classification")

    label_mean: list[float] | None = None
    label_std: list[float] | None = None
    label_units: list[str] | None = None

    def __post_init__(self, **kwargs):
        if self.problem_type is None:
            self.problem_type = "regression"
        super().__post_init__(**kwargs)

    def __setattr__(self, name: str, value: Any):
        """
        Set an attribute; called by construction, loading and assignment.

        Raises:
            ValueError: a problem type that no model of this method is trained for.
        """
        if name == "problem_type" and value is not None and value not in self.problem_types:
            raise ValueError(
                f"problem_type {value!r} is none of {', '.join(map(repr, self.problem_types))}; mutually exclusive "
                "classes are not supported, a yes-or-no property is one task of 'multi_label_classification'"
            )
        super().__setattr__(name, value)

    def validate_labels(self):
        """Check that label scales have an entry for each task."""
        for name in ("label_mean", "label_std", "label_units"):
            value = getattr(self, name)
            if value is not None and len(value) != self.num_labels:
                raise ValueError(f"{name} has {len(value)} entries for {self.num_labels} tasks")


__all__ = ["MoleculeConfig", "check_fields"]
