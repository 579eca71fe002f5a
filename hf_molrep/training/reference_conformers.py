"""Fine-tuning on reference conformers: the model learns to move RDKit's conformers towards them."""

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
from ..processing.contract import MoleculeProcessor
from .labelled_molecules import on_device
from .loading import load_model_for_finetuning
from .rows import FeatureRows, check_split, digest_of
from .settings import ConformerSettings


@dataclasses.dataclass
class ReferenceConformers:
    """
    Reference conformers and their split: data of [`~hf_molrep.training.finetuning.finetune`] for conformer generation.

    Attributes:
        path: Parquet table, one conformer per row, see [`~hf_molrep.data.conformer_pairs.read_ensembles`].
        names, smiles: name and SMILES of each molecule that is used.
        split: indices of the molecules of `train`, `valid` and `test`; the last two may be absent or empty.
        cache, processes: how RDKit's conformers are computed, see [`~hf_molrep.chem.conformers.ConformerGenerator`].
    Raises:
        ValueError: the split does not fit the molecules.
    """

    path: str | os.PathLike
    names: Sequence[str]
    smiles: Sequence[str]
    split: Mapping[str, Sequence[int]]
    cache: str | os.PathLike | None = "default"
    processes: int = 1

    settings_class: ClassVar[type] = ConformerSettings
    task: ClassVar[str] = "conformer-generation"
    problem_type: ClassVar[None] = None
    classes: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        self.split = check_split(self.split, len(self.names))

    def prepare(self, processor: MoleculeProcessor, settings: ConformerSettings) -> "PreparedConformers":
        """
        Read the references and compute the starting conformers.

        Raises:
            ValueError: the processor keeps only polar hydrogens, or no molecule of the training part can be used.
        """
        return PreparedConformers(self, processor, settings)


class PreparedConformers:
    """
    [`ReferenceConformers`] as rows of starting and reference conformers, with the hydrogens that the checkpoint keeps.

    Attributes:
        parts, rows: part -> indices of its usable molecules, and their rows.
        failures: index of a molecule -> why it could not be used.
        reports: `references_left_out`: why reference conformers were left out -> their number.
    """

    label_names = ()  # the model computes its loss from inputs of the collator
    truncated: Sequence[int] = ()
    label_mean = label_std = None
    task_names = ("rmsd_start", "rmsd")

    def __init__(self, data: ReferenceConformers, processor: MoleculeProcessor, settings: ConformerSettings):
        hydrogens = processor.config_fields()["hydrogens"]
        if hydrogens == "polar":
            raise ValueError("conformers are trained with all hydrogens or without, not with polar ones alone")
        self.data, self.processor, self.seed = data, processor, settings.seed
        found, refused = read_ensembles(data.path, data.names, hydrogens)
        ensembles = {ensemble.name: ensemble for ensemble in found}
        pools = conformer_pools(
            [ensemble.smiles for ensemble in found],
            settings.pool,
            hydrogens=hydrogens,
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
        """Return the entries of `settings.json` that identify the data."""
        targets = [row["target_pos"] for rows in self.rows.values() for row in rows.rows]
        texts = [list(self.data.names), list(self.data.smiles)]
        return {"data": digest_of(texts, [*self.data.split.values(), *targets]), "task": self.data.task}

    def selected_by(self, metric: str | None) -> str:
        """
        Return what chooses the epoch: `"loss"`, or `"last epoch"` without a validation part.

        Raises:
            ValueError: `metric` is another one, or is given without a validation part.
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
        """Load the model of the checkpoint, including the pre-trained heads of coordinates and distances."""
        return load_model_for_finetuning(
            checkpoint,
            AutoConfig.from_pretrained(checkpoint, **overrides),
            self.data.task,
            new_head=False,
            from_scratch=settings.from_scratch,
            attention=attention,
        )

    def collator_options(self, settings: ConformerSettings) -> tuple[dict, dict]:
        """Return the options of the collator for training and for evaluation, which draws the same pairs each time."""
        seed = {"seed": settings.seed}
        return {**seed, **settings.collator_options}, seed

    def evaluated_rows(self) -> FeatureRows:
        """Return the rows of the validation part that Trainer evaluates after each epoch."""
        return self.rows["valid"].longest_first()[0]

    def trainer_options(self) -> dict[str, Any]:
        """Return the options of Trainer for evaluation: none, since it uses the loss."""
        return {}

    def measure(self, part: str, model: PreTrainedModel, collate: Callable, batch_size: int) -> tuple[np.ndarray, dict]:
        """
        Measure the model on a part, with the pairs of conformers that the collator draws.

        Returns:
            RMSD in angstrom between the reference and the starting conformer, before and after the model moves it:
            `[molecules, 2]`, heavy atoms, after superposition, NaN for a molecule that could not be used; and metrics:
            the loss, its terms and the mean RMSDs.
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
                atoms = 1 + np.flatnonzero(row["z"] != 1)  # after the first special token
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
