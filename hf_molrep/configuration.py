"""What the configurations of all methods share."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .hub import RemoteCodeMixin

# What transformers writes into config.json (its Trainer the special tokens and use_cache), or takes as an argument,
# beside the fields of the class.
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
    Refuse what `config_class` has no field for, in its sub-configurations too. The class itself, as all in
    transformers, keeps every argument as an attribute, so that a mistyped one would leave the default in force.

    Args:
        given: arguments of the class, or what its config.json holds.
    Raises:
        ValueError: no such field; with the names that are near.
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
        problem_type: `"regression"` where none is given, or `"multi_label_classification"`; a binary task is one logit.
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
        Construction, loading, its keyword arguments and assignment all pass here.

        Raises:
            ValueError: a problem type that no model of this method is trained for.
        """
        if name == "problem_type" and value is not None and value not in self.problem_types:
            raise ValueError(
                f"problem_type {value!r} is none of {', '.join(map(repr, self.problem_types))}; several classes that "
                "exclude each other are not offered, a yes-or-no property is one task of 'multi_label_classification'"
            )
        super().__setattr__(name, value)

    def validate_labels(self):
        """Label scales must stand for every task."""
        for name in ("label_mean", "label_std", "label_units"):
            value = getattr(self, name)
            if value is not None and len(value) != self.num_labels:
                raise ValueError(f"{name} has {len(value)} entries for {self.num_labels} tasks")


__all__ = ["MoleculeConfig", "check_fields"]
