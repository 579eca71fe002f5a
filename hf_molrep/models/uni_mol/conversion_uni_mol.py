"""Convert weights of Uni-Mol and unimol_tools to checkpoints of this package."""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from ..foreign_weights import check_state, label_fields, make_config, make_model, read_file, shape_of
from .configuration_uni_mol import UniMolConfig
from .feature_extraction_uni_mol import TOKENS, UniMolFeatureExtractor
from .modeling_uni_mol import (
    UniMolForConformerGeneration,
    UniMolForPreTraining,
    UniMolForPropertyPrediction,
    UniMolModel,
    UniMolPreTrainedModel,
)

# Names of the original -> ours.
NAMES = {
    r"embed_tokens\.": "uni_mol.token_embeddings.",
    r"encoder\.emb_layer_norm\.": "uni_mol.embedding_norm.",
    r"encoder\.final_layer_norm\.": "uni_mol.final_norm.",
    r"encoder\.final_head_layer_norm\.": "coordinate_head.norm.",
    r"encoder\.layers\.(\d+)\.self_attn\.in_proj\.": r"uni_mol.layers.\1.attention.qkv_proj.",
    r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.": r"uni_mol.layers.\1.attention.out_proj.",
    r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.": r"uni_mol.layers.\1.attention_norm.",
    r"encoder\.layers\.(\d+)\.fc1\.": r"uni_mol.layers.\1.up_proj.",
    r"encoder\.layers\.(\d+)\.fc2\.": r"uni_mol.layers.\1.down_proj.",
    r"encoder\.layers\.(\d+)\.final_layer_norm\.": r"uni_mol.layers.\1.mlp_norm.",
    r"gbf\.(means|stds|mul|bias)\.weight$": r"uni_mol.pair_embedding.\1",
    r"gbf_proj\.linear1\.": "uni_mol.pair_embedding.dense.",
    r"gbf_proj\.linear2\.": "uni_mol.pair_embedding.out_proj.",
    r"lm_head\.dense\.": "token_head.dense.",
    r"lm_head\.layer_norm\.": "token_head.norm.",
    r"lm_head\.(weight|bias)$": r"token_head.\1",
    r"pair2coord_proj\.linear1\.": "coordinate_head.dense.",
    r"pair2coord_proj\.linear2\.": "coordinate_head.out_proj.",
    r"dist_head\.dense\.": "distance_head.dense.",
    r"dist_head\.layer_norm\.": "distance_head.norm.",
    r"dist_head\.out_proj\.": "distance_head.out_proj.",
    r"(?:classification_head|classification_heads\.[^.]+)\.(dense|out_proj)\.": r"head.\1.",
}
CONFORMERS = "unimol."  # prefix of names in files fine-tuned to generate conformers
OTHER_KERNEL = "gbf.w_edge.weight"  # names of the crystal and OLED models


def of_conformers(state: Mapping[str, torch.Tensor]) -> bool:
    """Return whether weights of the original, by their names, are of a model for conformer generation."""
    return bool(state) and all(key.startswith(CONFORMERS) for key in state)


def convert_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Rename a `state_dict` of the original. In files of conformer generation all names begin with `unimol.`.

    Raises:
        ValueError: a name is unknown, or there are two property heads.
    """
    if OTHER_KERNEL in state:
        raise ValueError("this is a crystal or OLED model of Uni-Mol: its distance features are not the molecular ones")
    converted: dict[str, torch.Tensor] = {}
    if of_conformers(state):
        state = {key.removeprefix(CONFORMERS): value for key, value in state.items()}
    for key, value in state.items():
        ours = next((re.sub(old, new, key, count=1) for old, new in NAMES.items() if re.match(old, key)), None)
        if ours is None:
            raise ValueError(f"{key!r} is not a name of Uni-Mol's molecular models")
        if ours in converted:
            raise ValueError(f"{key!r}: the file holds several property heads")
        converted[ours] = value
    return converted


def fold_classes(converted: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Turn the property head of two classes (softmax) into one logit `[1]` (sigmoid) of the second class, with the same
    probabilities.

    Raises:
        ValueError: there is no property head, or it has another number of outputs.
    """
    if "head.out_proj.weight" not in converted:
        raise ValueError("problem_type 'classification' is for files with a property head, and this has none")
    classes, _ = shape_of(converted, "head.out_proj.weight")
    if classes == 1:
        raise ValueError(
            "problem_type 'classification' is a softmax over two outputs, and the property head has one: if that is "
            "a sigmoid's, say 'multi_label_classification'"
        )
    if classes > 2:
        raise ValueError(
            f"problem_type 'classification' is a softmax over two outputs, and the property head has {classes}: one "
            "task of several classes has no counterpart here (several binary tasks are 'multi_label_classification')"
        )
    folded = dict(converted)
    for name in ("head.out_proj.weight", "head.out_proj.bias"):
        if name in converted:  # make_model reports what is missing
            first, second = converted[name].float()
            folded[name] = (second - first)[None]
    return folded


def config_of(converted: Mapping[str, torch.Tensor], **options) -> UniMolConfig:
    """
    Make the configuration of renamed weights from their shapes; `options` are further fields.

    Raises:
        ValueError: weights of the encoder are missing; an option is not a field; or there are not as many names of
            tasks (`id2label`) as outputs, or none although two outputs could be two classes.
    """
    vocab_size, hidden_size = shape_of(converted, "uni_mol.token_embeddings.weight")
    heads, num_kernels = shape_of(converted, "uni_mol.pair_embedding.out_proj.weight")
    intermediate_size, _ = shape_of(converted, "uni_mol.layers.0.up_proj.weight")
    layers = 1 + max(int(key.split(".")[2]) for key in converted if key.startswith("uni_mol.layers."))
    if "head.out_proj.weight" in converted:
        options.setdefault("head_type", "tanh" if "head.dense.weight" in converted else "linear")
        tasks, _ = shape_of(converted, "head.out_proj.weight")
        names = options.get("id2label")
        if names is None and tasks == 2 and options.get("problem_type") == "multi_label_classification":
            raise ValueError(
                "the property head has two outputs, which can be two things: one binary task, a softmax over its two "
                "classes (the task 'classification' of unimol_tools; BBBP, BACE of the original), then say "
                "problem_type 'classification'; or two binary tasks, a sigmoid each ('multilabel_classification' of "
                "unimol_tools; ClinTox of the original), then say the two task_names"
            )
        if names is not None and len(names) != tasks:
            raise ValueError(f"{len(names)} task_names ({', '.join(map(str, names.values()))}) for {tasks} outputs")
        options.setdefault("id2label", {task: f"task_{task}" for task in range(tasks)})
    return make_config(
        UniMolConfig,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate_size,
        num_kernels=num_kernels,
        **options,
    )


def convert_model(state: Mapping[str, torch.Tensor], **options) -> UniMolPreTrainedModel:
    """
    Make the model in evaluation mode with the weights of the original: [`UniMolForConformerGeneration`],
    [`UniMolForPropertyPrediction`] or [`UniMolForPreTraining`] if the file has their heads, else [`UniMolModel`].

    Args:
        options: fields of [`UniMolConfig`]; for `problem_type="classification"` see [`fold_classes`].
    Raises:
        ValueError: see [`convert_state`], [`fold_classes`] and [`config_of`]; or tensors are missing or have another
            shape.
    """
    converted = convert_state(state)
    if options.get("problem_type") == "classification":
        converted = fold_classes(converted)
        options["problem_type"] = "multi_label_classification"
    config = config_of(converted, **options)
    if of_conformers(state) or "head.out_proj.weight" in converted:
        kind = UniMolForConformerGeneration if of_conformers(state) else UniMolForPropertyPrediction
        # fine-tuned files may carry what pre-training left
        with torch.device("meta"):
            wanted = kind(config).state_dict().keys()
        heads = ("token_head.", "coordinate_head.", "distance_head.")
        converted = {name: value for name, value in converted.items() if name in wanted or not name.startswith(heads)}
    elif "token_head.weight" in converted:
        kind = UniMolForPreTraining
    else:
        kind = UniMolModel
        converted = {name.removeprefix("uni_mol."): value for name, value in converted.items()}
    return make_model(kind, config, converted)


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """
    Read the `state_dict` in a file of `torch.save`: under `model` or `model_state_dict`, or the whole file. A file that
    would run code is refused.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see [`~hf_molrep.models.foreign_weights.read_file`] and
            [`~hf_molrep.models.foreign_weights.check_state`].
    """
    state = read_file(path, [argparse.Namespace])
    for key in ("model", "model_state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    return check_state(state, path)


def convert(
    source: str | Path,
    out: str | Path,
    hydrogens: Literal["all", "polar", "none"] | None = None,
    problem_type: Literal["regression", "classification", "multi_label_classification"] | None = None,
    label_mean: float | Sequence[float] | None = None,
    label_std: float | Sequence[float] | None = None,
    task_names: str | Sequence[str] | None = None,
) -> list[str]:
    """
    Convert `mol_pre_all_h_220816.pt`, `mol_pre_no_h_220816.pt` or a fine-tuned model (for conformers `qm9_220908.pt`,
    `drugs_220908.pt`) to a folder with weights, configuration and feature extractor. SMILES are used as written, as in
    the original.

    Args:
        source: the file of weights.
        out: folder of the checkpoint.
        hydrogens: hydrogens that the weights were trained with: `"all"`, `"polar"` (those on carbon left out) or
            `"none"`. Not needed if the file's name contains `all_h` or `no_h`, or for conformer generation (`"none"`,
            as in the original).
        problem_type: problem type of the property head, needed if there is one: `"regression"`; `"classification"`: one
            binary task with two outputs and a softmax (unimol_tools' classification; BBBP, BACE of the original),
            saved as one logit; `"multi_label_classification"`: binary tasks with one output each and a sigmoid
            (unimol_tools' multilabel_classification). Heads of more classes are not supported.
        label_mean, label_std: scaling of the labels of a regression: a number, or a list with one for each task, such
            as `[0.5, 1.2]`. unimol_tools saves it in another file (a pickle).
        task_names: a name, or a list with one for each task, such as `["FDA_APPROVED", "CT_TOX"]`; needed for
            `"multi_label_classification"` with two outputs, to distinguish them from two classes.
    Returns:
        A sentence for each choice that the file does not determine.
    Raises:
        OSError: no such file.
        ValueError: see [`read_state`] and [`convert_model`]; or an argument is missing that the file does not
            determine.
    """
    state = read_state(source)
    if hydrogens is None and of_conformers(state):
        hydrogens = "none"
    if hydrogens is None:
        found = {kind for kind, text in (("all", "all_h"), ("none", "no_h")) if text in Path(source).name}
        if len(found) != 1:
            raise ValueError("the name of the file does not tell whether its weights saw hydrogens: say hydrogens")
        (hydrogens,) = found
    options: dict = {}
    if any(key.startswith("classification_head") for key in state):
        if problem_type not in ("regression", "classification", "multi_label_classification"):
            raise ValueError(
                "the file has a property head: say its problem_type, 'regression', 'classification' (two outputs under "
                "a softmax) or 'multi_label_classification' (a sigmoid each); a head of more classes has no "
                "counterpart here"
            )
        options = {"problem_type": problem_type, **label_fields(label_mean, label_std, task_names)}
    else:
        of_heads = {
            "problem_type": problem_type,
            "label_mean": label_mean,
            "label_std": label_std,
            "task_names": task_names,
        }
        if given := [name for name, value in of_heads.items() if value is not None]:
            raise ValueError(f"the file has no property head that {', '.join(given)} could be of")
    model = convert_model(state, hydrogens=hydrogens, **options)
    if model.config.vocab_size != len(TOKENS):
        raise ValueError(f"the weights have {model.config.vocab_size} tokens, those of molecules {len(TOKENS)}")
    model.save_pretrained(out)
    UniMolFeatureExtractor(hydrogens=hydrogens, standardize="none").save_pretrained(out)
    return [f"Hydrogens: {hydrogens}.", "SMILES are taken as written, as in the original."]


__all__ = ["config_of", "convert", "convert_model", "convert_state", "fold_classes", "read_state"]
