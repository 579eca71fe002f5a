"""Fine-tuning on reference conformers: a model that moves the conformers of RDKit towards them."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoConfig, PreTrainedModel

from ..chem.conformer_clustering import conformer_pools, rmsd_in_order
from ..chem.smiles import MoleculeError
from ..data.conformer_pairs import conformer_pairs, read_ensembles
from .labelled_molecules import on_device
from .loading import load_model_for_finetuning
from .rows import FeatureRows, check_split, digest_of
from .settings import ConformerSettings


@dataclasses.dataclass
class ReferenceConformers:
    """
    A table of reference conformers and the split of its molecules: what [`~hf_molrep.training.finetuning.finetune`]
    takes for conformer generation.

    Attributes:
        path: Parquet table, one conformer per row, see [`~hf_molrep.data.conformer_pairs.read_ensembles`].
        names, smiles: of each molecule of the table that is used.
        split: indices of the molecules of `train`, `valid` and `test`; the last two may be absent or empty.
        cache, processes: how the conformers of RDKit are computed, see
            [`~hf_molrep.chem.conformers.ConformerGenerator`].
    Raises:
        ValueError: a split that does not fit the molecules.
    """

    path: str | os.PathLike
    names: Sequence[str]
    smiles: Sequence[str]
    split: Mapping[str, Sequence[int]]
    cache: str | os.PathLike | None = "default"
    processes: int = 1

    settings_class: ClassVar[type] = ConformerSettings
    task: ClassVar[str] = "conformer-generation"

    def __post_init__(self):
        self.split = check_split(self.split, len(self.names))

    def prepare(self, processor: Any, settings: ConformerSettings) -> "PreparedConformers":
        """
        Read the references and compute the conformers that the model starts from.

        Raises:
            ValueError: the processor keeps polar hydrogens alone, or no molecule of the training part can be used.
        """
        return PreparedConformers(self, processor, settings)


class PreparedConformers:
    """
    [`ReferenceConformers`] as rows of starting and reference conformers, with the hydrogens that the checkpoint keeps.

    Attributes:
        parts, rows: of each part the indices of the usable molecules, and their rows.
        failures: molecule -> why it could not be used.
        reports: `references_left_out`: why reference conformers were left out -> how many.
    """

    label_names = ()  # the model makes its loss of what the collator draws
    metric_names = ("loss",)
    truncated: Sequence[int] = ()
    label_mean = label_std = None
    task_names = ("rmsd_start", "rmsd")

    def __init__(self, data: ReferenceConformers, processor: Any, settings: ConformerSettings):
        if processor.hydrogens == "polar":
            raise ValueError("conformers are trained with all hydrogens or without, not with polar ones alone")
        self.data, self.processor, self.seed = data, processor, settings.seed
        found, refused = read_ensembles(data.path, data.names, processor.hydrogens)
        ensembles = {ensemble.name: ensemble for ensemble in found}
        pools = conformer_pools(
            [ensemble.smiles for ensemble in found],
            settings.pool,
            hydrogens=processor.hydrogens,
            cache=data.cache,
            processes=data.processes,
            on_error="skip",
        )
        starts = dict(zip(ensembles, pools, strict=True))
        self.reports = {"references_left_out": dict(refused)}
        self.failures: dict[int, MoleculeError] = {}
        rows: dict[int, dict] = {}
        for index, name in enumerate(data.names):
            try:
                if name not in ensembles:
                    raise MoleculeError(data.smiles[index], "none of its reference conformers fits its SMILES")
                if isinstance(starts[name], MoleculeError):
                    raise starts[name]
                (row,) = conformer_pairs([ensembles[name]], [starts[name]], processor)
            except MoleculeError as error:
                self.failures[index] = error
            else:
                rows[index] = row | {"row_id": index}
        self.parts = {
            part: np.array([index for index in indices if index in rows], np.int64)
            for part, indices in data.split.items()
        }
        if not len(self.parts["train"]):
            raise ValueError("no molecule of the training part has reference and starting conformers")
        self.rows = {part: self._rows([rows[index] for index in indices]) for part, indices in self.parts.items()}

    def _rows(self, rows: Sequence[dict]) -> FeatureRows:
        return FeatureRows(rows, [self.processor.size(row) for row in rows], self.processor.pads)

    def identity(self) -> dict[str, Any]:
        """What identifies the data, in `settings.json`."""
        targets = [row["target_pos"] for rows in self.rows.values() for row in rows.rows]
        texts = [list(self.data.names), list(self.data.smiles)]
        return {"data": digest_of(texts, [*self.data.split.values(), *targets]), "task": self.data.task}

    def selected_by(self, metric: str | None) -> str:
        """
        The loss, or `"last epoch"` without a validation part.

        Raises:
            ValueError: another metric, or no validation part where the loss is asked for.
        """
        if metric not in (None, "loss"):
            raise ValueError(f"the metric of conformer generation is loss, not {metric!r}")
        if not len(self.parts["valid"]):
            if metric is not None:
                raise ValueError(f"metric {metric!r} needs a validation part")
            return "last epoch"
        return "loss"

    def load_model(
        self, checkpoint: str, settings: ConformerSettings, overrides: Mapping[str, Any], attention: str | None
    ) -> PreTrainedModel:
        """The model of the checkpoint; its heads of coordinates and distances go on from those of pre-training."""
        return load_model_for_finetuning(
            checkpoint,
            AutoConfig.from_pretrained(checkpoint, **overrides),
            self.data.task,
            new_head=False,
            from_scratch=settings.from_scratch,
            attention=attention,
        )

    def collator_options(self, settings: ConformerSettings) -> tuple[dict, dict]:
        """Options of the data collator in training and in evaluation, which draws the same pairs each time."""
        seed = {"seed": settings.seed}
        return {**seed, **settings.collator_options}, seed

    def evaluated_rows(self) -> FeatureRows:
        """The rows of the validation part that Trainer measures after each epoch."""
        return self.rows["valid"].longest_first()[0]

    def trainer_options(self) -> dict[str, Any]:
        """How Trainer measures after each epoch: by the loss, which needs nothing."""
        return {}

    def measure(self, part: str, model: PreTrainedModel, collate: Callable, batch_size: int) -> tuple[np.ndarray, dict]:
        """
        Distances of each molecule of a part from the reference that the collator draws, `[molecules, 2]`, angstrom,
        before and after the model moves the starting conformer that it draws (heavy atoms, after the best rotation;
        NaN where a molecule could not be used); and their means, beside the loss and its terms.
        """
        asked = self.data.split[part]
        distances = np.full((len(asked), 2), np.nan, dtype=np.float32)
        rows = self.rows[part]
        if not len(rows):
            return distances, {}
        sorted_rows, order = rows.longest_first()
        measured, losses = [], Counter()
        for start in range(0, len(order), batch_size):
            some = sorted_rows.rows[start : start + batch_size]
            batch = collate(some)
            with torch.inference_mode():
                output = model.eval()(**on_device(batch, model.device))
            moved = output.coordinates.float().cpu().numpy()
            for place, row in enumerate(some):
                atoms = 1 + np.flatnonzero(row["z"] != 1)  # behind the first special token
                before, target = (batch[name][place, atoms].numpy()[None] for name in ("pos", "target_pos"))
                after = moved[place, atoms][None]
                measured.append([rmsd_in_order(conformer, target).item() for conformer in (before, after)])
            for name, value in {"loss": output.loss, **output.losses}.items():
                losses[name] += len(some) * float(value) / len(order)
        if not np.isfinite(measured).all():
            raise ValueError("coordinates are not finite: training has diverged, try a lower learning rate")
        values = np.empty((len(order), 2), dtype=np.float32)
        values[order] = measured
        distances[np.isin(asked, self.parts[part])] = values
        means = dict(zip(self.task_names, values.mean(axis=0, dtype=np.float64).tolist(), strict=True))
        return distances, {**losses, **means}
