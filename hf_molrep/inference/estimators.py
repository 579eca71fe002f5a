"""scikit-learn estimators over the checkpoints of this package."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ..chem.smiles import MoleculeError
from .checkpoints import load_checkpoint
from .embedding import embed
from .engine import BATCH_TOKENS


class MoleculeEmbedder(TransformerMixin, BaseEstimator):
    """
    SMILES to embeddings: `[molecules]` strings to float32 `[molecules, hidden]`, with frozen weights.

    ```python
    make_pipeline(MoleculeEmbedder(), Ridge()).fit(smiles, solubility)
    ```

    Input is a list, array, Series or column of strings, or a table with one column. The model is loaded at the first
    use, and is not pickled along when it was given by name.

    Args:
        model: folder, Hub repository or name of a shipped checkpoint; or a model object, with its `processor`.
        kind: `"smiles"`, or `"iupac"` names.
        on_error: `"raise"`, or `"skip"`: a row of NaN for a molecule that fails.
        batch_tokens, dtype, device: see [`~hf_molrep.inference.engine.infer`].

    Attributes:
        n_features_out_: width of the embedding.
    """

    def __init__(
        self,
        model: Any = "mm-deacon-mini",
        processor: Any = None,
        *,
        kind: str = "smiles",
        on_error: str = "raise",
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
        """Look at the checkpoint; there is nothing to learn. Raises ValueError for input that is not one column."""
        _column(X)
        model, _ = self._load()
        self.n_features_out_ = model.config.hidden_size
        return self

    def transform(self, X: Any) -> np.ndarray:
        """
        Embeddings, float32 `[molecules, hidden]`.

        Raises:
            MoleculeError: a molecule that cannot be used (`on_error="raise"`).
            ValueError: input that is not one column.
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
        """`embedding0`, `embedding1`, ..."""
        check_is_fitted(self)
        return np.array([f"embedding{channel}" for channel in range(self.n_features_out_)], dtype=object)

    def _load(self) -> tuple[Any, Any]:
        from transformers import AutoModel

        if not isinstance(self.model, str):
            if self.processor is None:
                raise ValueError("a model object needs its processor: MoleculeEmbedder(model, processor)")
            return self.model, self.processor
        wanted = (self.model, str(self.device))
        if getattr(self, "_loaded", (None,))[0] != wanted:
            self._loaded = (wanted, load_checkpoint(AutoModel, self.model, self.device))
        model, processor = self._loaded[1]
        return model, self.processor or processor

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
