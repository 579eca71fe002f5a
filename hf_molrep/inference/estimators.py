"""scikit-learn estimators that use a checkpoint."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ..chem.smiles import MoleculeError, OnError
from ..processing.contract import MoleculeProcessor
from . import BATCH_TOKENS, DEFAULT_CHECKPOINT
from .checkpoints import check_processor, load_checkpoint, without_columns
from .embedding import embed


class MoleculeEmbedder(TransformerMixin, BaseEstimator):
    """
    Turns SMILES (`[molecules]` strings) into embeddings (float32 `[molecules, hidden]`), with frozen weights.

    ```python
    make_pipeline(MoleculeEmbedder(), Ridge()).fit(smiles, solubility)
    ```

    Input is a list, array, Series or column of strings, or a table with one column. A model that is given by name is
    loaded at the first use and not pickled.

    Args:
        model: folder, Hub repository or name of a shipped checkpoint; or a model object, with its `processor`.
        processor: the processor of a model object.
        kind: `"smiles"`, or `"iupac"` for names.
        on_error: `"raise"`, or `"skip"`: a row of NaN for a molecule that fails.
        batch_tokens, dtype, device: see [`~hf_molrep.inference.engine.infer`].

    Attributes:
        n_features_out_: width of the embedding.
    """

    def __init__(
        self,
        model: Any = DEFAULT_CHECKPOINT,
        processor: MoleculeProcessor | None = None,
        *,
        kind: str = "smiles",
        on_error: OnError = "raise",
        batch_tokens: int = BATCH_TOKENS,
        dtype: Any = None,
        device: Any = None,
    ):
        self.model = model
        self.processor = processor
        self.kind = kind
        self.on_error = on_error
        self.batch_tokens = batch_tokens
        self.dtype = dtype
        self.device = device

    def fit(self, X: Any, y: Any = None) -> "MoleculeEmbedder":
        """Load the checkpoint; nothing is trained. Raises ValueError for input that is not one column."""
        _column(X)
        model, _ = self._load()
        self.n_features_out_ = model.config.hidden_size
        return self

    def transform(self, X: Any) -> np.ndarray:
        """
        Compute embeddings, float32 `[molecules, hidden]`.

        Raises:
            MoleculeError: a molecule cannot be used (`on_error="raise"`).
            ValueError: the input is not one column.
        """
        check_is_fitted(self)
        molecules = _column(X)
        model, processor = self._load()
        result = np.full((len(molecules), self.n_features_out_), np.nan, dtype=np.float32)
        options = {"batch_tokens": self.batch_tokens, "dtype": self.dtype, "device": self.device}
        rows = embed(model, processor, molecules, kind=self.kind, on_error=self.on_error, **options)
        for place, row in enumerate(rows):
            if not isinstance(row, MoleculeError):
                result[place] = row
        return result

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return `embedding0`, `embedding1`, ..."""
        check_is_fitted(self)
        return np.array([f"embedding{channel}" for channel in range(self.n_features_out_)], dtype=object)

    def _load(self) -> tuple[Any, MoleculeProcessor]:
        from transformers import AutoModel

        if not isinstance(self.model, str):
            if self.processor is None:
                raise ValueError("a model object needs its processor: MoleculeEmbedder(model, processor)")
            return self.model, self.processor
        wanted = (self.model, str(self.device))
        if getattr(self, "_loaded", (None,))[0] != wanted:
            self._loaded = (wanted, load_checkpoint(AutoModel, self.model, self.device))
        model, processor = self._loaded[1]
        if self.processor is not None:
            processor = without_columns(self.processor, model.left_out)
            check_processor(processor, model.config)
        return model, processor

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_loaded", None)
        return state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = self.on_error == "skip"
        tags.transformer_tags.preserves_dtype = []
        return tags


def _column(X: Any) -> list:
    if isinstance(X, str):
        raise ValueError("X is one string; give a list of strings")
    if hasattr(X, "columns") and hasattr(X, "iloc"):
        if X.shape[1] != 1:
            raise ValueError(
                f"X has {X.shape[1]} columns ({', '.join(map(str, X.columns))}); give the one with the molecules"
            )
        X = X.iloc[:, 0]
    X = np.asarray(X, dtype=object)
    if X.ndim == 2 and X.shape[1] == 1:
        X = X[:, 0]
    if X.ndim != 1:
        raise ValueError(f"X has the shape {X.shape}; give one column of molecules")
    return X.tolist()
