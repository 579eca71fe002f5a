"""Fine-tuning on labels: properties of single molecules, interactions of two."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from ..chem.smiles import MoleculeError
from ..metrics import GREATER_IS_BETTER, METRICS, property_metrics
from .loading import config_for_labels, load_model_for_finetuning
from .rows import FeatureRows, check_split, digest_of, features_of, reports_on, takes_coordinates
from .settings import FinetuningSettings

MULTICLASS = "single_label_classification"
SCORES = {**METRICS, MULTICLASS: ("macro_f1", "accuracy")}
GREATER_SCORE_IS_BETTER = GREATER_IS_BETTER | set(SCORES[MULTICLASS])
PROBLEM_TYPES_OF = {
    "property-prediction": ("regression", "multi_label_classification"),
    "interaction-prediction": ("multi_label_classification", MULTICLASS),
}

logger = logging.get_logger(__name__)


@dataclasses.dataclass
class LabelledMolecules:
    """
    Molecules, or pairs of molecules, with labels and their split, for properties and interactions: what
    [`~hf_molrep.training.finetuning.finetune`] takes.

    Attributes:
        smiles: one per row. Molecules that cannot be used are left out of their part and reported.
        labels: `[rows, tasks]`, in their own units, NaN = missing; with `single_label_classification` `[rows, 1]`,
            indices of `classes`.
        task_names: one per task.
        problem_type: `"regression"` (properties), `"multi_label_classification"` (each label 0 or 1), or
            `"single_label_classification"` (interactions): classes that exclude each other.
        split: indices of the rows of `train`, `valid` and `test`; the last two may be absent or empty.
        second_smiles: the second molecule of each row: the task is then the interaction of the two.
        classes: names of the classes of `single_label_classification`.
        label_units: one per task.
        z, pos: atomic numbers and coordinates of each molecule, for methods that read them, instead of computed ones.
        features: what `processor.featurize` gave for `smiles`, where it is already known.
    Raises:
        ValueError: labels or split that do not fit the molecules, labels that are no classes.
    """

    smiles: Sequence[str]
    labels: np.ndarray
    task_names: Sequence[str]
    problem_type: str
    split: Mapping[str, Sequence[int]]
    second_smiles: Sequence[str] | None = None
    classes: Sequence[str] = ()
    label_units: Sequence[str] | None = None
    z: Sequence | None = None
    pos: Sequence | None = None
    features: Sequence[dict | MoleculeError] | None = None

    settings_class: ClassVar[type] = FinetuningSettings

    @property
    def task(self) -> str:
        """Name of the task in the table of methods: it depends on how many molecules a row has."""
        return "property-prediction" if self.second_smiles is None else "interaction-prediction"

    def __post_init__(self):
        rows = len(self.smiles)
        self.labels = _check_labels(self.labels, rows, self.task_names, self.problem_type, len(self.classes))
        if self.problem_type not in PROBLEM_TYPES_OF[self.task]:
            allowed = " or ".join(PROBLEM_TYPES_OF[self.task])
            raise ValueError(f"{self.task} is {allowed}, not {self.problem_type!r}")
        if self.second_smiles is not None:
            if len(self.second_smiles) != rows:
                raise ValueError(f"{rows} first and {len(self.second_smiles)} second molecules")
            if self.z is not None or self.pos is not None or self.features is not None:
                raise ValueError("z, pos and features are those of one molecule per row")
        self.split = check_split(self.split, rows)

    def prepare(self, processor: Any, settings: FinetuningSettings) -> "PreparedLabels":
        """
        Compute the features of all rows.

        Raises:
            ValueError: coordinates for a processor that reads none, or a task without any label in the training part.
        """
        return PreparedLabels(self, processor, settings)


class PreparedLabels:
    """
    [`LabelledMolecules`] as rows of features.

    Attributes:
        parts, rows: of each part the indices of the usable rows, and the rows.
        failures: row -> why it could not be used.
        truncated: rows with a molecule that was shortened.
        reports: what the processor reports of molecules -> word -> how many.
        label_mean, label_std: of the training part, one per task; None for classification.
    """

    label_names = ("labels",)

    def __init__(self, data: LabelledMolecules, processor: Any, settings: FinetuningSettings):
        self.data, self.processor = data, processor
        self.task_names = [str(name) for name in data.task_names]
        self.metric_names = SCORES[data.problem_type]
        self.geometry = {} if data.z is None and data.pos is None else {"z": data.z, "pos": data.pos}
        if self.geometry and not takes_coordinates(processor):
            raise ValueError(f"{type(processor).__name__} does not read coordinates")
        molecules = {"": data.features}  # of each molecule of a row: the prefix of its features, and those
        if data.features is None:
            molecules[""] = features_of(processor, {"smiles": list(data.smiles), **self.geometry}, settings.truncation)
        if data.second_smiles is not None:
            molecules["second_"] = features_of(processor, {"smiles": list(data.second_smiles)}, settings.truncation)
        self.failures = {
            index: value
            for features in reversed(molecules.values())  # of two failures the first molecule's is told
            for index, value in enumerate(features)
            if isinstance(value, MoleculeError)
        }
        usable = (feature for features in molecules.values() for feature in features if isinstance(feature, dict))
        self.reports = reports_on(processor, usable)
        self.truncated = [
            index
            for index, row in enumerate(zip(*molecules.values(), strict=True))
            if any(isinstance(feature, dict) and "truncated" in feature for feature in row)
        ]
        self.parts = self._usable_parts()
        train_labels = data.labels[self.parts["train"]]
        self.label_mean, self.label_std = label_scale(train_labels) if self._regression else (None, None)
        self.rows = {part: self._rows(indices, molecules) for part, indices in self.parts.items()}

    @property
    def _regression(self) -> bool:
        return self.data.problem_type == "regression"

    def _usable_parts(self) -> dict[str, np.ndarray]:
        parts = {
            part: np.array([index for index in indices if index not in self.failures], np.int64)
            for part, indices in self.data.split.items()
        }
        has_label = ~np.isnan(self.data.labels)
        parts["train"] = parts["train"][has_label[parts["train"]].any(axis=1)]  # the others teach nothing
        for task, name in enumerate(self.task_names):
            if not has_label[parts["train"], task].any():
                raise ValueError(f"task {name!r} has no label in the training part ({len(parts['train'])} molecules)")
        return parts

    def _rows(self, indices: np.ndarray, molecules: Mapping[str, Sequence[dict]]) -> FeatureRows:
        given = {"": self.data.smiles, "second_": self.data.second_smiles}
        rows, lengths = [], []
        for index in indices:
            row: dict[str, Any] = {"row_id": int(index), "labels": self._labels_of(index)}
            for prefix, features in molecules.items():
                kept = {key: value for key, value in features[index].items() if isinstance(value, np.ndarray | int)}
                row |= {f"{prefix}{key}": value for key, value in kept.items()}
                row[f"{prefix}smiles"] = features[index].get("smiles_used", given[prefix][index])
            rows.append(row)
            lengths.append(sum(self.processor.size(features[index]) for features in molecules.values()))
        return FeatureRows(rows, lengths, self.processor.pads)

    def _labels_of(self, index: int) -> np.ndarray:
        labels = self.data.labels[index]
        if self.data.problem_type != MULTICLASS:
            return labels.astype(np.float32)
        return np.int64(-100 if np.isnan(labels[0]) else labels[0])  # -100: what cross entropy leaves out

    def identity(self) -> dict[str, Any]:
        """What identifies the data and what is learned of them, in `settings.json`."""
        data = self.data
        texts = list(data.smiles) if data.second_smiles is None else [list(data.smiles), list(data.second_smiles)]
        coordinates = [np.asarray(row, dtype=np.float64) for column in self.geometry.values() for row in column]
        identity = {
            "data": digest_of(texts, [data.labels, *data.split.values(), *coordinates]),
            "task": data.task,
            "task_names": self.task_names,
            "problem_type": data.problem_type,
            "label_units": None if data.label_units is None else list(data.label_units),
        }
        return identity | ({"classes": list(data.classes)} if data.classes else {})

    def selected_by(self, metric: str | None) -> str:
        """
        The metric that chooses the epoch. Without a wish it is the usual one of the problem, or the loss where these
        labels of the validation part cannot measure it (one class only), and for several tasks of a regression, whose
        errors have different units.

        Raises:
            ValueError: a metric of another problem, or one that the validation part cannot measure.
        """
        problem_type, labels = self.data.problem_type, self.data.labels[self.parts["valid"]]
        if metric is not None and metric not in (*self.metric_names, "loss"):
            raise ValueError(f"the metric of {problem_type} is {', '.join(self.metric_names)} or loss, not {metric!r}")
        if np.isnan(labels).all():
            if metric is not None:
                raise ValueError(f"metric {metric!r} needs a validation part with labels")
            return "last epoch"
        wanted = metric or self.metric_names[0]
        if wanted == "loss" or (metric is None and self._regression and labels.shape[1] > 1):
            return "loss"
        # Any predictions do: whether a metric is defined depends on the labels alone.
        if problem_type in METRICS and math.isnan(
            property_metrics(np.zeros_like(labels), labels, problem_type)[wanted]
        ):
            message = f"the validation part ({len(labels)} molecules) cannot measure {wanted}"
            if metric is not None:
                raise ValueError(message)
            logger.warning(f"{message}; the epoch is chosen by the loss")
            return "loss"
        return wanted

    def load_model(
        self, checkpoint: str, settings: FinetuningSettings, overrides: Mapping[str, Any], attention: str | None
    ) -> PreTrainedModel:
        """The model of the checkpoint, with a new head for these labels."""
        config = config_for_labels(
            checkpoint,
            self.data.classes or self.task_names,
            self.data.problem_type,
            label_mean=self.label_mean,
            label_std=self.label_std,
            label_units=self.data.label_units,
            overrides=overrides,
        )
        return load_model_for_finetuning(
            checkpoint, config, self.data.task, from_scratch=settings.from_scratch, attention=attention
        )

    def collator_options(self, settings: FinetuningSettings) -> tuple[dict, dict]:
        """Options of the data collator in training and in evaluation."""
        return dict(settings.collator_options), {}

    def evaluated_rows(self) -> FeatureRows:
        """The rows of the validation part that Trainer measures after each epoch."""
        rows = self.rows["valid"]
        if self.data.problem_type == MULTICLASS:  # a batch without any label has no loss
            rows = rows.select(place for place, row in enumerate(rows.rows) if row["labels"] >= 0)
        return rows.longest_first()[0]

    def trainer_options(self) -> dict[str, Any]:
        """How Trainer measures after each epoch."""

        def compute_metrics(result) -> dict[str, float]:
            measured = self._metrics(result.predictions, result.label_ids)
            return {name: measured[name] for name in self.metric_names}

        # of (logits, predictions)
        return {
            "compute_metrics": compute_metrics,
            "preprocess_logits_for_metrics": lambda outputs, labels: outputs[-1],
        }

    def _metrics(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        if not np.isfinite(predictions).all():
            raise ValueError("predictions are not finite: training has diverged, try a lower learning rate")
        if self.data.problem_type != MULTICLASS:
            return property_metrics(predictions, labels, self.data.problem_type, self.task_names)
        from sklearn.metrics import f1_score

        labelled = labels >= 0
        guess, truth = predictions[labelled].argmax(axis=-1), labels[labelled]
        # over the classes that occur or are predicted
        macro_f1 = float(f1_score(truth, guess, average="macro", zero_division=0.0))
        return {"macro_f1": macro_f1, "accuracy": float((guess == truth).mean())}

    def measure(self, part: str, model: PreTrainedModel, collate: Callable, batch_size: int) -> tuple[np.ndarray, dict]:
        """
        Predictions of a part `[rows of the part, tasks or classes]`, NaN where a row could not be used, and metrics.
        """
        asked = self.data.split[part]
        columns = len(self.data.classes or self.task_names)
        predictions = np.full((len(asked), columns), np.nan, dtype=np.float32)
        rows = self.rows[part]
        if not len(rows):
            return predictions, {}
        sorted_rows, order = rows.longest_first()
        values = np.empty((len(order), columns), dtype=np.float32)
        values[order] = _predictions(model, collate, sorted_rows, batch_size)
        predictions[np.isin(asked, self.parts[part])] = values
        if self.data.problem_type == MULTICLASS:
            truth = np.array([row["labels"] for row in rows.rows])
            return predictions, self._metrics(values, truth) if (truth >= 0).any() else {}
        return predictions, self._metrics(values, self.data.labels[self.parts[part]])


@torch.inference_mode()
def _predictions(model: PreTrainedModel, collate: Callable, rows: FeatureRows, batch_size: int) -> np.ndarray:
    """`[rows, tasks]`, in float32 also after training under autocast: the numbers that `predict` will give."""
    model.eval()
    outputs = []
    for start in range(0, len(rows), batch_size):
        batch = on_device(collate(rows.rows[start : start + batch_size]), model.device)
        outputs.append(model(**batch).predictions.float().cpu())
    return torch.cat(outputs).numpy()


def on_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with its tensors moved to a device."""
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def label_scale(labels: np.ndarray) -> tuple[list[float], list[float]]:
    """
    Mean and (population) standard deviation of each column of `labels` `[molecules, tasks]`, NaN left out; a constant
    column has standard deviation 1.
    """
    present = ~np.isnan(labels)
    count = present.sum(axis=0)
    mean = np.where(present, labels, 0.0).sum(axis=0) / np.maximum(count, 1)
    std = np.sqrt(np.where(present, (labels - mean) ** 2, 0.0).sum(axis=0) / np.maximum(count, 1))
    return mean.tolist(), np.where(std > 1e-12 * np.maximum(np.abs(mean), 1.0), std, 1.0).tolist()


def _check_labels(
    labels: np.ndarray, rows: int, task_names: Sequence[str], problem_type: str, classes: int
) -> np.ndarray:
    """The labels as float64 `[rows, tasks]`; classes are 0 and 1, or indices of the classes; NaN is missing."""
    labels = np.asarray(labels, dtype=np.float64)
    if labels.shape != (rows, len(task_names)):
        raise ValueError(f"labels have shape {labels.shape}; there are {rows} molecules, {len(task_names)} tasks")
    if problem_type not in SCORES:
        raise ValueError(f"problem_type is {' or '.join(SCORES)}, not {problem_type!r}")
    if problem_type == "regression":
        bad, wanted = np.isinf(labels), "finite or missing"
    elif problem_type == MULTICLASS:
        if len(task_names) != 1 or classes < 2:
            raise ValueError(f"{MULTICLASS} has one label column and two or more classes")
        bad, wanted = ~(np.isnan(labels) | np.isin(labels, np.arange(classes))), f"one of {classes} classes or missing"
    else:
        bad, wanted = ~(np.isnan(labels) | (labels == 0) | (labels == 1)), "0, 1 or missing"
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(f"label {task_names[column]!r} of molecule {row} is {labels[row, column]:g}, not {wanted}")
    return labels
