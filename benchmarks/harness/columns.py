"""The columns of the fine-tuning benchmarks: a checkpoint, its architecture from random weights, fixed features."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.fingerprints import descriptors
from hf_molrep.chem.fingerprints import morgan_fingerprints

# settings to choose from, most usual first; `--trials` is the number that is tried
SETTINGS: dict[str, list[dict]] = {
    "pre-trained": [{"learning_rate": rate} for rate in (3e-4, 1e-3, 1e-4, 3e-5)],
    "random weights": [{"learning_rate": rate} for rate in (3e-4, 1e-3, 1e-4, 3e-5)],
    "Morgan + RF": [
        {"max_features": "sqrt", "min_samples_leaf": 1},
        {"max_features": 0.1, "min_samples_leaf": 1},
        {"max_features": "sqrt", "min_samples_leaf": 2},
        {"max_features": 0.3, "min_samples_leaf": 1},
    ],
    "descriptors + GB": [
        {"learning_rate": 0.05, "max_leaf_nodes": 15},
        {"learning_rate": 0.1, "max_leaf_nodes": 31},
        {"learning_rate": 0.02, "max_leaf_nodes": 31},
        {"learning_rate": 0.05, "max_leaf_nodes": 7},
    ],
    "descriptors + ridge": [{}],
}
NEURAL = ("pre-trained", "random weights")


def fixed_features(column: str, smiles: Sequence[str]) -> np.ndarray:
    """Compute the features of a column without a network, `[molecules, features]`."""
    return (morgan_fingerprints if column == "Morgan + RF" else descriptors)(smiles)


def epochs(split: Mapping[str, Sequence[int]], args) -> int:
    """Epochs of a neural column: `args.epochs`, or more to make at least `args.updates` updates."""
    return max(args.epochs, math.ceil(args.updates / math.ceil(len(split["train"]) / args.batch_size)))


def fit(
    column: str,
    setting: dict,
    features: Sequence | np.ndarray,
    smiles: Sequence[str],
    labels: np.ndarray,
    names: Sequence[str],
    problem_type: str,
    split: Mapping[str, np.ndarray],
    seed: int,
    checkpoint: str,
    args,
    **options,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Fit a column, and predict validation and test part, `[molecules, tasks]` each.

    Args:
        features: features of the processor (neural columns), or a matrix.
        names: names of the tasks.
        args: has `epochs`, `updates`, `batch_size`, and `trees` of the forest.
        options: fields of `FinetuningSettings`, for the neural columns.
    """
    if column not in NEURAL:
        return fit_baseline(column, setting, features, labels, split, problem_type, seed, args.trees)
    from hf_molrep.training.finetuning import finetune
    from hf_molrep.training.labelled_molecules import LabelledMolecules
    from hf_molrep.training.settings import FinetuningSettings

    settings = {"epochs": epochs(split, args), "batch_size": args.batch_size, "seed": seed} | setting | options
    result = finetune(
        checkpoint,
        LabelledMolecules(smiles, labels, names, problem_type, split, features=features),
        FinetuningSettings(from_scratch=column == "random weights", **settings),
    )
    return result.valid_predictions, result.test_predictions


def fit_baseline(
    column: str,
    setting: dict,
    features: np.ndarray,
    labels: np.ndarray,
    split: dict,
    problem_type: str,
    seed: int,
    trees: int,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Fit one estimator per task, on the molecules that have its label, and predict validation and test part,
    `[molecules, tasks]` each. A task with one class in training predicts that class.
    """
    from sklearn.ensemble import (
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
        RandomForestClassifier,
        RandomForestRegressor,
    )

    classify = problem_type == "multi_label_classification"
    predictions = {part: np.empty((len(split[part]), labels.shape[1])) for part in ("valid", "test")}
    for task in range(labels.shape[1]):
        train = split["train"][~np.isnan(labels[split["train"], task])]
        truth = labels[train, task]
        if classify and len(np.unique(truth)) < 2:
            for part in predictions:
                predictions[part][:, task] = truth[0] if len(truth) else 0.5
            continue
        if column == "descriptors + ridge":
            predictions_of = ridge(features[train], truth, classify)
            for part, values in predictions.items():
                values[:, task] = predictions_of(features[split[part]])
            continue
        if column == "Morgan + RF":
            forest = RandomForestClassifier if classify else RandomForestRegressor
            estimator = forest(n_estimators=trees, n_jobs=-1, random_state=seed, **setting)
        else:
            boosting = HistGradientBoostingClassifier if classify else HistGradientBoostingRegressor
            # stops early by a random part of the training molecules; the validation part is for selection
            estimator = boosting(max_iter=500, early_stopping=True, random_state=seed, **setting)
        estimator.fit(features[train], truth)
        for part, values in predictions.items():
            rows = features[split[part]]
            values[:, task] = estimator.predict_proba(rows)[:, 1] if classify else estimator.predict(rows)
    return predictions["valid"], predictions["test"]


def ridge(features: np.ndarray, labels: np.ndarray, classify: bool) -> Callable[[np.ndarray], np.ndarray]:
    """
    Fit a ridge regression on standardised features, clipped at five deviations, with missing ones as the mean. The
    penalty is chosen by leave-one-out on the training molecules. Classes are fitted as -1 and +1.

    Returns:
        A function from features to predictions; for classes these are scores, not probabilities.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    model = make_pipeline(
        SimpleImputer(keep_empty_features=True),
        StandardScaler(),
        # a few descriptors span thirty orders of magnitude
        FunctionTransformer(np.clip, kw_args={"a_min": -5, "a_max": 5}),
        RidgeCV(alphas=np.logspace(-1, 5, 13)),
    )
    return model.fit(features, 2 * labels - 1 if classify else labels).predict
