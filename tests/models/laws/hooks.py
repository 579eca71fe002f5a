"""What a method tells about itself, and what the laws make of it."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForPreTraining, PreTrainedModel

from hf_molrep import METHODS, AutoModelForMoleculePropertyPrediction
from hf_molrep.chem.smiles import random_smiles
from hf_molrep.models.auto import Method
from hf_molrep.processing.descriptors import fit_scaling
from tests.models.laws.checks import draw_weights, gradients

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"

MOLECULES = [
    "CCO",
    "COC",
    "c1ccccc1O",
    "CC(=O)Oc1ccccc1C(=O)O",
    "C[C@H](N)C(=O)O",
    "Clc1ccncc1",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "C/C=C/C",
]


@cache
def descriptor_scaling() -> dict[str, list]:
    """Scaling of the targets of the objective `"descriptors"`, fitted to `MOLECULES`."""
    return fit_scaling(MOLECULES)


class MethodHooks:
    """
    What a method must say about itself; the laws build on it.

    Attributes:
        model_type: its row in `hf_molrep.models.auto.METHODS`.
        does_not_apply: law (name of the test without `test_`) -> reason; such a law is skipped with that reason.
        frozen: regular expression of parameter names -> reason why pre-training gives them no gradient.
        initial_values: regular expression -> `("normal", std)`, `("uniform", bound)` or `("constant", value)`, as the
            paper (or the original code) initialises; the first that matches a parameter's name counts.
        refuses: names of `ODD_SMILES` that the processor refuses with a MoleculeError -> reason. All others must work.
        tolerance: of one molecule's embedding between batches and orders of the atoms; weights are `draw_weights`.
        random_batches: whether the pre-training collator draws random numbers.
        hidden_states, attentions: how many are returned on request (None: asking is refused).
        reflection_changes: 3D methods: whether the mirror image has another embedding.
        overfit: steps, learning rate, and what part of the first loss may be left, for pre-training and property head.
    """

    model_type: str
    does_not_apply: dict[str, str] = {}
    frozen: dict[str, str] = {}
    initial_values: dict[str, tuple[str, float]] = {}
    refuses: dict[str, str] = {}
    tolerance: float = 1e-5
    random_batches: bool = True
    hidden_states: int | None = None
    attentions: int | None = None
    reflection_changes: bool = False
    overfit: tuple[int, float, float] = (60, 1e-2, 0.1)
    molecules: list[str] = MOLECULES

    # ---- hooks

    def config(self, dropout: float = 0.0, **options):
        """A tiny configuration; `options` are fields of the method's configuration (labels, problem type ...)."""
        raise NotImplementedError

    def processor(self):
        """A processor for `config()`."""
        raise NotImplementedError

    def collator(self, seed: int = 0):
        """The pre-training collator, with every random step that it has."""
        raise NotImplementedError

    def agreement(self) -> dict[str, tuple]:
        """Law 11: name -> (ours, the original's, tolerance). Never skipped."""
        raise AssertionError("law 11: no numbers of the original code to agree with")

    @property
    def method(self) -> Method:
        return METHODS[self.model_type]

    def rows(self) -> list[dict]:
        """Pre-training rows: the features of each of `molecules`, its SMILES, and its `row_id`."""
        features = self.processor().featurize({"smiles": self.molecules})
        return [
            {**feature, "smiles": smiles, "row_id": row_id}
            for row_id, (feature, smiles) in enumerate(zip(features, self.molecules, strict=True))
        ]

    def renumbered(self, rng: np.random.Generator) -> dict:
        """`inputs()` of the same molecules with the atoms in another order (3D: the given conformers, permuted)."""
        return self.inputs([random_smiles(smiles, rng) for smiles in self.molecules])

    def moved(self, matrix: torch.Tensor, shift: torch.Tensor) -> dict:
        """`inputs()` with every coordinate turned (or mirrored) and moved. float64 `[3, 3]`, `[3]`."""
        inputs = self.inputs()
        return {**inputs, "pos": (inputs["pos"].double() @ matrix.T + shift).to(inputs["pos"].dtype)}

    # ---- made from the hooks

    def inputs(self, molecules: list[str] | None = None) -> dict:
        """A batch for `<Method>Model`."""
        processor = self.processor()
        return dict(processor.pad(processor.featurize({"smiles": self.molecules if molecules is None else molecules})))

    def share(self, rank: int, world: int) -> dict:
        """The pre-training batch of one process out of several."""
        rows = self.rows()
        size = len(rows) // world
        return self.collator()(rows[rank * size : (rank + 1) * size])

    def build(self, kind: str, attention: str | None = None, **options) -> PreTrainedModel:
        """A model in evaluation mode with drawn weights. `kind` is `"model"` or a task of the method."""
        torch.manual_seed(0)  # biases are moved, not replaced: where they begin must not differ between processes
        model = self.model_class(kind)._from_config(self.config(**options), attn_implementation=attention)
        return draw_weights(model).eval()

    def model_class(self, kind: str) -> type[PreTrainedModel]:
        """The class of `"model"` or of a task of the method."""
        return self.method.model if kind == "model" else self.method.tasks[kind].model

    def cases(self) -> list[tuple[str, type, dict, dict]]:
        """Every model: `"model"` or its task, its Auto class, its options and a batch for it."""
        tasks = {"problem_type": "regression", "id2label": {0: "a", 1: "b"}}
        tasks |= {"label_mean": [1.0, 2.0], "label_std": [2.0, 3.0]}
        labelled = {**self.inputs(), "labels": torch.arange(16.0).view(8, 2)}
        return [
            ("model", AutoModel, {}, self.inputs()),
            ("pre-training", AutoModelForPreTraining, {}, self.collator()(self.rows())),
            ("property-prediction", AutoModelForMoleculePropertyPrediction, tasks, labelled),
        ]

    @pytest.fixture(autouse=True)
    def _applies(self, request):
        reason = self.does_not_apply.get(request.node.originalname.removeprefix("test_"))
        if reason:
            pytest.skip(reason)
        torch.manual_seed(0)

    def test_exceptions_name_laws(self):
        """`does_not_apply` names laws that exist, with a reason, and never law 11."""
        for name, reason in self.does_not_apply.items():
            assert hasattr(self, f"test_{name}")
            assert reason
            assert not name.startswith("law_11"), "agreement with the original is never skipped"

    def _run(self, model: nn.Module, batch: dict) -> dict:
        """Loss (of the embedding: weighted sum) and gradients."""
        model.zero_grad(set_to_none=True)
        output = model(**batch)
        loss = output["loss"] if "loss" in output else (output["pooler_output"].sin() * 3).sum()
        loss.backward()
        return {"loss": loss.detach(), "gradients": gradients(model)}
