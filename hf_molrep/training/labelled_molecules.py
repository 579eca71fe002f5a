"""Fine-tuning on labels: properties of single molecules, or interactions of two."""

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
from ..processing.contract import MoleculeProcessor
from .loading import config_for_labels, load_model_for_finetuning
from .rows import FeatureRows, check_split, digest_of, features_of, reports_on, takes_coordinates, takes_parts
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
    Molecules or pairs of molecules with labels and a split: data of [`~hf_molrep.training.finetuning.finetune`].

    Attributes:
        smiles: one per row, or the list of the molecules of a row, as the parts of a reaction, for a method that reads
            several together. Molecules that cannot be used are left out of their part and reported.
        labels: `[rows, tasks]`, in their own units, NaN = missing; with `single_label_classification` `[rows, 1]`,
            indices of `classes`.
        task_names: one per task.
        problem_type: `"regression"` (properties), `"multi_label_classification"` (each label 0 or 1), or
            `"single_label_classification"` (interactions; mutually exclusive classes).
        split: indices of the rows of `train`, `valid` and `test`; the last two may be absent or empty.
        second_smiles: the second molecule of each row; the task is then interaction prediction.
        molecule_columns: names of the molecules of a row, where there are several.
        classes: names of the classes of `single_label_classification`.
        label_units: one per task.
        z, pos: atomic numbers and coordinates of each molecule, used by 3D methods instead of computed conformers.
        features: result of `processor.featurize` for `smiles`, if it is already known.
    Raises:
        ValueError: labels or split do not fit the molecules, or labels are not classes.
    """

    smiles: Sequence[str | Sequence[str]]
    labels: np.ndarray
    task_names: Sequence[str]
    problem_type: str
    split: Mapping[str, Sequence[int]]
    second_smiles: Sequence[str] | None = None
    molecule_columns: Sequence[str] | None = None
    classes: Sequence[str] = ()
    label_units: Sequence[str] | None = None
    z: Sequence | None = None
    pos: Sequence | None = None
    features: Sequence[dict | MoleculeError] | None = None

    settings_class: ClassVar[type] = FinetuningSettings

    @property
    def task(self) -> str:
        """Name of the task in the table of methods; it depends on the number of molecules in a row."""
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

    def prepare(self, processor: MoleculeProcessor, settings: FinetuningSettings) -> "PreparedLabels":
        """
        Compute the features of all rows.

        Raises:
            ValueError: the processor does not read the given coordinates, or a task has no label in the training part.
        """
        return PreparedLabels(self, processor, settings)


class PreparedLabels:
    """
    [`LabelledMolecules`] as rows of features.

    Attributes:
        parts, rows: part -> indices of its usable rows, and the rows.
        failures: index of a row -> why it could not be used.
        truncated: indices of rows with a molecule that was shortened.
        reports: report of the processor -> word -> number of molecules.
        label_mean, label_std: statistics of the training part, one per task; None for classification.
    """

    label_names = ("labels",)

    def __init__(self, data: LabelledMolecules, processor: MoleculeProcessor, settings: FinetuningSettings):
        self.data, self.processor = data, processor
        self.task_names = [str(name) for name in data.task_names]
        self.metric_names = SCORES[data.problem_type]
        self.geometry = {} if data.z is None and data.pos is None else {"z": data.z, "pos": data.pos}
        if self.geometry and not takes_coordinates(processor):
            raise ValueError(f"{type(processor).__name__} does not read coordinates")
        if not takes_parts(processor) and any(isinstance(row, list | tuple) for row in data.smiles):
            name = type(processor).__name__
            raise ValueError(f"{name} reads one molecule at a time; for a property of several, choose X-MOL")
        molecules = {"": data.features}  # prefix of the keys -> features of that molecule of a row
        if data.features is None:
            molecules[""] = features_of(processor, {"smiles": list(data.smiles), **self.geometry}, settings.truncation)
        if data.second_smiles is not None:
            molecules["second_"] = features_of(processor, {"smiles": list(data.second_smiles)}, settings.truncation)
        self.failures = {
            index: value
            for features in reversed(molecules.values())  # of two failures in a row the first molecule's is kept
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
        parts["train"] = parts["train"][has_label[parts["train"]].any(axis=1)]  # rows without labels are not trained on
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
        return np.int64(-100 if np.isnan(labels[0]) else labels[0])  # -100: ignored by cross entropy

    def identity(self) -> dict[str, Any]:
        """Return the entries of `settings.json` that identify data and task."""
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
        Return the metric that chooses the epoch. The default is the usual one of the problem type, but the loss if the
        validation part cannot measure it (one class only), or for a regression of several tasks, whose units differ.

        Raises:
            ValueError: the metric is of another problem type, or the validation part cannot measure it.
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
        # with any predictions: whether a metric is defined depends on the labels alone
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
        """Load the model of the checkpoint, with a new head for these labels."""
        config = config_for_labels(
            checkpoint,
            self.data.classes or self.task_names,
            self.data.problem_type,
            label_mean=self.label_mean,
            label_std=self.label_std,
            label_units=self.data.label_units,
            molecule_columns=self.data.molecule_columns,
            overrides=overrides,
        )
        return load_model_for_finetuning(
            checkpoint, config, self.data.task, from_scratch=settings.from_scratch, attention=attention
        )

    def collator_options(self, settings: FinetuningSettings) -> tuple[dict, dict]:
        """Return the options of the collator for training and for evaluation."""
        return dict(settings.collator_options), {}

    def evaluated_rows(self) -> FeatureRows:
        """Return the rows of the validation part that Trainer evaluates after each epoch."""
        rows = self.rows["valid"]
        if self.data.problem_type == MULTICLASS:  # a batch without any label has no loss
            rows = rows.select(place for place, row in enumerate(rows.rows) if row["labels"] >= 0)
        return rows.longest_first()[0]

    def trainer_options(self) -> dict[str, Any]:
        """Return the options of Trainer for evaluation."""

        def compute_metrics(result) -> dict[str, float]:
            measured = self._metrics(result.predictions, result.label_ids)
            return {name: measured[name] for name in self.metric_names}

        # outputs: (logits, predictions)
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
        # macro: over the classes that occur or are predicted
        macro_f1 = float(f1_score(truth, guess, average="macro", zero_division=0.0))
        return {"macro_f1": macro_f1, "accuracy": float((guess == truth).mean())}

    def measure(self, part: str, model: PreTrainedModel, collate: Callable, batch_size: int) -> tuple[np.ndarray, dict]:
        """
        Predict a part. Returns predictions `[rows of the part, tasks or classes]`, NaN for rows that could not be used,
        and metrics.
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
    """Predict `[rows, tasks]` in float32, also after training under autocast, as `predict` will."""
    model.eval()
    outputs = []
    for start in range(0, len(rows), batch_size):
        batch = on_device(collate(rows.rows[start : start + batch_size]), model.device)
        outputs.append(model(**batch).predictions.float().cpu())
    return torch.cat(outputs).numpy()


def on_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Move the tensors of a batch to a device."""
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def label_scale(labels: np.ndarray) -> tuple[list[float], list[float]]:
    """
    Compute mean and (population) standard deviation of each column of `labels` `[molecules, tasks]` without NaN; a
    constant column has standard deviation 1.
    """
    present = ~np.isnan(labels)
    count = present.sum(axis=0)
    mean = np.where(present, labels, 0.0).sum(axis=0) / np.maximum(count, 1)
    std = np.sqrt(np.where(present, (labels - mean) ** 2, 0.0).sum(axis=0) / np.maximum(count, 1))
    return mean.tolist(), np.where(std > 1e-12 * np.maximum(np.abs(mean), 1.0), std, 1.0).tolist()


def _check_labels(
    labels: np.ndarray, rows: int, task_names: Sequence[str], problem_type: str, classes: int
) -> np.ndarray:
    """Check labels and return them as float64 `[rows, tasks]`: values, 0 and 1, or class indices; NaN = missing."""
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
