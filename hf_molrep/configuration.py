"""What the configurations of all methods share."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .hub import RemoteCodeMixin


@strict
class MoleculeConfig(RemoteCodeMixin, PreTrainedConfig):
    """
    Configuration of a model that can be fine-tuned on properties.

    Args:
        problem_type: `"regression"` where none is given.
        label_mean, label_std, label_units: one per task of a regression; predictions come back in these units.
    """

    label_mean: list[float] | None = None
    label_std: list[float] | None = None
    label_units: list[str] | None = None

    def __post_init__(self, **kwargs):
        if self.problem_type is None:
            self.problem_type = "regression"
        super().__post_init__(**kwargs)

    def validate_labels(self):
        """Label scales must stand for every task."""
        for name in ("label_mean", "label_std", "label_units"):
            value = getattr(self, name)
            if value is not None and len(value) != self.num_labels:
                raise ValueError(f"{name} has {len(value)} entries for {self.num_labels} tasks")


__all__ = ["MoleculeConfig"]
