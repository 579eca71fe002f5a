"""`pipeline("molecule-embedding")`, `pipeline("molecule-property-prediction")`, `pipeline("molecule-generation")`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, Pipeline, PreTrainedModel
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import logging

from ..chem.smiles import MoleculeError
from ..data.files import molecule_column
from ..models.auto_classes import AutoModelForMoleculePropertyPrediction
from . import DEFAULT_CHECKPOINT, DEFAULT_FOR_WRITING
from .checkpoints import check_processor, load_model, without_columns
from .embedding import embedding_step
from .engine import infer
from .generation import GenerationCounts, GenerationOptions, generate_molecules
from .prediction import prediction_step, task_names, task_units

logger = logging.get_logger(__name__)


class _MoleculePipeline(Pipeline):
    """
    Base of the pipelines. Batches are made by [`~hf_molrep.inference.engine.infer`]: the batching of transformers pads
    with one tokenizer, has no graphs, does not sort by length, and loses a whole batch for one bad molecule.
    """

    # None: load it if there is one. Sequence methods have a processor, graph and 3D methods a feature extractor.
    _load_processor = None
    _load_feature_extractor = None
    _load_tokenizer = False
    _load_image_processor = False
    _load_video_processor = False
    option_names: tuple[str, ...] = (
        *("kind", "batch_tokens", "batch_size", "on_error", "window", "num_workers", "column"),
    )

    def __init__(self, model, processor=None, *, feature_extractor=None, dtype=None, num_workers=None, **kwargs):
        processor = feature_extractor if processor is None else processor
        if processor is None:
            raise ValueError(
                "a model object needs its processor: pipeline(..., model=model, processor=processor); for a model "
                "given by name, AutoProcessor.from_pretrained(name) says why its processor cannot be loaded"
            )
        options = {name: kwargs.pop(name) for name in self.option_names if name in kwargs}
        if num_workers is not None:
            options["num_workers"] = num_workers
        kwargs.pop("local_files_only", None)  # already used by pipeline()
        stock = {name: kwargs.pop(name) for name in signature(Pipeline.__init__).parameters if name in kwargs}
        self._sanitize_parameters(**kwargs)
        super().__init__(model=model, processor=processor, **stock)
        self.processor = without_columns(self.processor, getattr(self.model, "left_out", ()))
        check_processor(self.processor, self.model.config)
        self._options = self._sanitize_parameters(**options)[0]
        # pipeline() loads a checkpoint in the requested dtype; a model object runs under autocast
        self._autocast = dtype if isinstance(dtype, torch.dtype) and dtype != self.model.dtype else None

    def _sanitize_parameters(self, **options) -> tuple[dict, dict, dict]:
        unknown = [name for name in options if name not in self.option_names]
        if unknown:
            known = ", ".join(self.option_names)
            raise ValueError(f"unknown argument {', '.join(map(repr, unknown))}; there are {known}")
        return options, {}, {}

    def __call__(
        self, inputs: str | Mapping | Iterable[str | Mapping], **options: Any
    ) -> dict | list[dict] | Iterator[dict]:
        """
        Run the model on molecules.

        Args:
            inputs: a string gives one result; a list or tuple gives a list; any other iterable (a generator, a
                `datasets.Dataset`, a `KeyDataset`) gives an iterator and is read lazily. Rows that are dicts hold the
                molecule in `column`.
            kind: `"smiles"` or `"iupac"`.
            column: key of the molecule in rows that are dicts; by default `smiles`, or `iupac_name` for names.
            on_error: `"raise"`, or `"skip"`: a molecule that fails gives its reason under `error`.
            batch_tokens, batch_size, window, num_workers: see [`~hf_molrep.inference.engine.infer`].
        Raises:
            MoleculeError: a molecule cannot be used (`on_error="raise"`).
            ValueError: arguments are unknown or wrong.
        """
        options = {**self._options, **self._sanitize_parameters(**options)[0]}
        given_as = molecule_column(options.pop("kind", "smiles"))
        column = options.pop("column", given_as)
        single = isinstance(inputs, (str, Mapping))
        if not single and not isinstance(inputs, Iterable) and not hasattr(inputs, "__getitem__"):
            raise ValueError(f"molecules are strings, not {type(inputs).__name__}")
        results = self._results([inputs] if single else _texts(inputs, column), column, given_as, options)
        if single:
            return next(results)
        return list(results) if isinstance(inputs, (list, tuple)) else results

    def _results(self, inputs: Iterable, column: str, given_as: str, options: dict) -> Iterator[dict]:
        rows = ({given_as: _text(row, column)} for row in inputs)
        inferred = infer(self.model, self.processor, rows, self._step, dtype=self._autocast, **options)
        return (
            {self._result_key: None, "error": result.reason}
            if isinstance(result, MoleculeError)
            else self.postprocess(result.output) | result.report
            for result in inferred
        )

    # Required by transformers' Pipeline; __call__ does not use them.
    def preprocess(self, inputs: str, **options) -> dict:
        return self.processor(inputs, return_tensors="pt")

    def _forward(self, inputs: dict) -> Any:
        return self._step(self.model, inputs).float()

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Save model and processor. (With transformers' own method loading would ask for `trust_remote_code`.)"""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


class MoleculeEmbeddingPipeline(_MoleculePipeline):
    """
    Embeds molecules: each gives `{"embedding": float32 array [hidden], "smiles_used": str}`, or with `on_error="skip"`
    `{"embedding": None, "error": reason}` if it failed. `smiles_used` is the SMILES that the model saw (absent for
    names). 3D methods add `conformer_status` and `conformer_flags` ([`hf_molrep.chem.conformers.FLAGS`], separated by
    spaces).

    ```python
    pipe = pipeline("molecule-embedding", model="<repo or folder>")     # without a model: mm-deacon-mini
    pipe(["CCO", "c1ccccc1O"])
    pipe(["ethanol", "phenol"], kind="iupac")
    for result in pipe(line.strip() for line in open("molecules.smi")): ...
    ```
    """

    _result_key = "embedding"
    _step = staticmethod(embedding_step)

    def postprocess(self, output) -> dict:
        return {"embedding": output}


class MoleculePropertyPredictionPipeline(_MoleculePipeline):
    """
    Predicts properties: each molecule gives `{"predictions": {task: float}, "units": {task: str | None}}`, i.e.
    probabilities (unit "probability") or values in the units of the labels, and the reports of
    [`MoleculeEmbeddingPipeline`]; or with `on_error="skip"` `{"predictions": None, "error": reason}` if it failed.
    """

    _result_key = "predictions"
    _step = staticmethod(prediction_step)

    def postprocess(self, output) -> dict:
        names = task_names(self.model.config)
        return {
            "predictions": dict(zip(names, output.tolist(), strict=True)),
            "units": task_units(self.model.config),
        }


class MoleculeGenerationPipeline(_MoleculePipeline):
    """
    Writes molecules: new ones without an input, or relatives of those that are given. A SMILES gives a list of dicts, a
    list of SMILES a list of such lists; an entry of it may be a tuple of SMILES, the parts of one source. Each dict is
    `{"smiles": str, "score": float, "valid": bool}`, see [`~hf_molrep.inference.generation.GeneratedMolecule`].

    What is not a molecule, duplicates and the source itself are left out (`keep_all=True` keeps them), so there can be
    fewer than `num_return_sequences`; `pipe.counts` tells what became of all that the last call wrote.

    ```python
    pipe = pipeline("molecule-generation")  # x-mol-mini; model="<repo or folder>": another one
    pipe(num_return_sequences=1000, seed=1)
    pipe("CCO", num_return_sequences=5, seed=2, temperature=1.2)
    ```
    """

    option_names = tuple(each.name for each in fields(GenerationOptions))

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.counts = GenerationCounts()

    def __call__(
        self, inputs: str | Sequence[str | Sequence[str]] | None = None, **options: Any
    ) -> list[dict] | list[list[dict]]:
        """
        Write molecules.

        Args:
            inputs: None for new molecules; a SMILES; or a list of SMILES and tuples of SMILES.
            options: see [`~hf_molrep.inference.generation.GenerationOptions`].
        Raises:
            MoleculeError: a molecule that is given cannot be used.
            ValueError: arguments are unknown or wrong.
        """
        chosen = GenerationOptions(**{**self._options, **self._sanitize_parameters(**options)[0]})
        several = isinstance(inputs, list)
        sources = inputs if several else [inputs]
        with torch.autocast(self.device.type, dtype=self._autocast, enabled=self._autocast is not None):
            results, self.counts = generate_molecules(self.model, self.processor, sources, chosen)
        for source, found in zip(sources, results, strict=True):
            if not found:
                what = "new molecules" if source is None else f"relatives of {source!r}"
                logger.warning(f"no {what} among {chosen.num_return_sequences} that were written ({self.counts})")
        results = [self.postprocess(found) for found in results]
        return results if several else results[0]

    def postprocess(self, output) -> list[dict]:
        return [molecule._asdict() for molecule in output]


def _texts(inputs: Any, column: str) -> Any:
    """Return the rows of the input; of a `datasets.Dataset` only the column that is needed is decoded."""
    names = getattr(inputs, "column_names", None)
    if not isinstance(names, list) or not hasattr(inputs, "select_columns"):
        # KeyDataset has no __iter__ and may index a lazy column; iter() falls back on __getitem__ until IndexError
        return (inputs[row] for row in range(len(inputs))) if not isinstance(inputs, Iterable) else inputs
    if column not in names:
        raise ValueError(f"the dataset has no column {column!r}; it has {', '.join(names)}")
    return inputs.select_columns([column])


def _text(row: Any, column: str) -> Any:
    if not isinstance(row, Mapping):
        return row
    if column not in row:
        raise ValueError(f"a row has no {column!r}; it has {', '.join(map(str, row))}")
    return row[column]


class CheckedModel:
    """`AutoModel` for pipelines: refuses a checkpoint that lacks weights, see `checkpoints.load_model`."""

    auto_class: type = AutoModel

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> PreTrainedModel:
        """See [`~hf_molrep.inference.checkpoints.load_model`]."""
        return load_model(cls.auto_class, name, **options)


class CheckedPropertyModel(CheckedModel):
    """[`CheckedModel`] for models with a property head."""

    auto_class = AutoModelForMoleculePropertyPrediction


class CheckedWriter(CheckedModel):
    """[`CheckedModel`] for models that write."""

    auto_class = AutoModelForCausalLM


def register() -> None:
    """Register the tasks with `transformers.pipeline` (see `hf_molrep.registration`)."""
    folder = Path(__file__).parents[1] / "checkpoints"
    tasks = PIPELINE_REGISTRY.supported_tasks
    if tasks.get("molecule-embedding", {}).get("impl") is MoleculeEmbeddingPipeline:
        return
    PIPELINE_REGISTRY.register_pipeline(
        "molecule-embedding",
        MoleculeEmbeddingPipeline,
        pt_model=CheckedModel,
        default={"model": (str(folder / DEFAULT_CHECKPOINT), "main")},
        type="multimodal",
    )
    PIPELINE_REGISTRY.register_pipeline(
        "molecule-property-prediction",
        MoleculePropertyPredictionPipeline,
        pt_model=CheckedPropertyModel,
        type="multimodal",
    )
    PIPELINE_REGISTRY.register_pipeline(
        "molecule-generation",
        MoleculeGenerationPipeline,
        pt_model=CheckedWriter,
        default={"model": (str(folder / DEFAULT_FOR_WRITING), "main")},
        type="multimodal",
    )


register()
