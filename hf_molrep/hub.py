"""
Write card, processor and weights as a Hub repository that also loads without `import hf_molrep`.

Beside a configuration or processor stands one line of Python, `SHIM`, that imports the classes from the installed
package: with `trust_remote_code=True` transformers runs that line instead of copied modeling files, so the installed
version is the only one.

Not supported on purpose: copying our modules into a repository (`register_for_auto_class`); remote code for tokenizers,
which are plain `tokenizer.json` (`AutoTokenizer` without our import asks about the code of `config.json` all the same,
and needs none of it: `trust_remote_code=False`); `custom_pipelines`, which would ask for trust where the package is
imported; our own Auto classes without the import; adapters; and the upload of pickles and of the state of a training
run. transformers' own `Trainer.push_to_hub` does upload `training_args.bin`: use
[`~hf_molrep.training.trainer.MoleculeTrainer`], [`push`] or `hf-molrep push`.
"""

import copy
import fnmatch
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import CommitInfo, HfApi, ModelCard
from transformers import PreTrainedConfig

if TYPE_CHECKING:  # configurations import this module, and must not load the models of transformers
    from transformers import PreTrainedModel

PACKAGE = __name__.partition(".")[0]
SHIM_MODULE = "hf_molrep_shim"
SHIM = f"from {PACKAGE} import *  # pip install hf-molrep\n"

WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
# The files of a model repository. Other files of the folder are not uploaded.
REPOSITORY_FILES = (
    "README.md",
    "LICENSE",
    "*.png",
    "config.json",
    "generation_config.json",
    *WEIGHTS,
    "model.safetensors.index.json",
    f"{SHIM_MODULE}.py",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "*_tokenizer/tokenizer.json",
    "*_tokenizer/tokenizer_config.json",
)
PLACEHOLDER = re.compile(r"\$\{(run|trainer|data|results)(\.[^{}]*)?\}")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class RemoteCodeMixin:
    """
    First base class of every configuration, model, processor and feature extractor here: adds the shim file and an
    `auto_map` that points to it when they are saved. A model saves its configuration, which does it for both.

    Subclasses outside this package are saved as usual in transformers: the shim could not import them.
    """

    @classmethod
    def register_for_auto_class(cls, *args, **kwargs) -> None:
        """
        Do nothing. transformers calls it on classes loaded as remote code, and would then copy their module into every
        folder they are saved to, without the modules that it imports.
        """
        if not _is_ours(cls):
            super().register_for_auto_class(*args, **kwargs)

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Save as in transformers, with the shim."""
        auto_map = _auto_map(self)
        if not auto_map:
            return super().save_pretrained(save_directory, *args, **kwargs)
        # push_to_hub saves and uploads everything at once
        push = kwargs.pop("push_to_hub", args[0] if args else False)
        self.auto_map = auto_map  # replaces the "<repository>--" form of what was loaded from the Hub
        saved = super().save_pretrained(save_directory, push_to_hub=False, **({} if push else kwargs))
        (Path(save_directory) / f"{SHIM_MODULE}.py").write_text(SHIM, encoding="utf-8")
        if push:
            self.push_to_hub(**{"repo_id": Path(save_directory).name} | kwargs)
        return saved


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == PACKAGE


def _auto_map(owner) -> dict[str, str]:
    """Map each Auto class that applies to `owner` to its class in the shim; {} for models and foreign classes."""
    cls = type(owner)
    if not _is_ours(cls):
        return {}
    if isinstance(owner, PreTrainedConfig):
        from transformers.models.auto import modeling_auto

        classes = {"AutoConfig": cls}
        for name in modeling_auto.__all__:
            mapping = getattr(getattr(modeling_auto, name), "_model_mapping", None)
            if name.startswith("AutoModel") and mapping is not None and cls in mapping:
                classes[name] = mapping[cls]
        return {name: f"{SHIM_MODULE}.{each.__name__}" for name, each in classes.items() if _is_ours(each)}
    from transformers import FeatureExtractionMixin, ProcessorMixin

    if isinstance(owner, ProcessorMixin):
        return {"AutoProcessor": f"{SHIM_MODULE}.{cls.__name__}"}
    if isinstance(owner, FeatureExtractionMixin):
        return {"AutoFeatureExtractor": f"{SHIM_MODULE}.{cls.__name__}"}
    return {}


def save_checkpoint(
    model: "PreTrainedModel",
    processor,
    folder: str | Path,
    card: ModelCard | str | None = None,
    weights_dtype: torch.dtype | None = torch.bfloat16,
) -> Path:
    """
    Write a model repository: weights, configuration, processor and card, nothing else.

    The weights are rounded to `weights_dtype` (None: as they are), half the size of float32, while config.json says
    `float32`: `from_pretrained` gives float32, ready to be fine-tuned, and `from_pretrained(dtype=torch.bfloat16)` what
    is stored. `model` itself is not changed, so its outputs differ from the saved one's by that rounding.

    Args:
        card: text of README.md, with its metadata; without one, README.md is left as it is.
    Raises:
        ValueError: the folder contains the state of a training run, or the card is invalid (see [`check_card`]).
    """
    folder = Path(folder)
    state = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if state:
        raise ValueError(f"{folder} holds {', '.join(state)}: save a checkpoint to a folder of its own")
    if card is not None:
        check_card(str(card))
    rounded = copy.deepcopy(model)
    if weights_dtype is not None:
        rounded.to(weights_dtype)
    rounded.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for part in (config, *(config[name] for name in model.config.sub_configs if name in config)):
        if part is config or "dtype" in part:
            part["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    processor.save_pretrained(folder)
    if card is not None:
        (folder / "README.md").write_text(str(card), encoding="utf-8")
    return folder


def check_card(text: str) -> ModelCard:
    """
    Parse the text of a card.

    Raises:
        ValueError: it has no metadata, or unfilled placeholders of [`~hf_molrep.cards.write_card`].
    """
    if not text.startswith("---"):
        raise ValueError("a model card begins with its metadata, between two lines of ---")
    if unfilled := PLACEHOLDER.search(text):
        raise ValueError(f"the model card has an unfilled placeholder: {unfilled[0]}")
    return ModelCard(text)


def repository_files(folder: str | Path) -> tuple[list[str], list[str]]:
    """
    List the files of a folder that belong to the repository, and those left out (checkpoints, optimizer, pickles, logs,
    data ...), both as relative paths.

    Raises:
        ValueError: card, configuration, weights or processor is missing; says which.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}")
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    # fnmatch lets * cross a slash; only the patterns with one may
    files = [
        path
        for path in paths
        if any(path.count("/") == pattern.count("/") and fnmatch.fnmatch(path, pattern) for pattern in REPOSITORY_FILES)
    ]
    needed = {
        "a card (README.md)": "README.md",
        "a configuration (config.json)": "config.json",
        "weights (model.safetensors)": "model*.safetensors",
        "a processor (processor_config.json or preprocessor_config.json)": "*processor_config.json",
    }
    missing = [what for what, pattern in needed.items() if not fnmatch.filter(files, pattern)]
    if missing:
        raise ValueError(f"{folder} is no model repository: it lacks {' and '.join(missing)}")
    check_card((folder / "README.md").read_text(encoding="utf-8"))
    return files, [path for path in paths if path not in files]


def push(
    folder_or_model: "str | Path | PreTrainedModel",
    repo_id: str,
    *,
    processor=None,
    card: ModelCard | str | None = None,
    private: bool | None = None,
    weights_dtype: torch.dtype | None = None,
    revision: str | None = None,
    commit_message: str = "Upload model",
    token: str | bool | None = None,
    blocking: bool = True,
) -> CommitInfo:
    """
    Upload a folder, or a model with its processor and card, as one commit; a missing repository is created.

    Args:
        processor, card, weights_dtype: only with a model; see [`save_checkpoint`]. Unlike there, weights are not
            rounded by default.
        private: True makes a new repository private and refuses an existing public one.
        revision: branch, created if missing.
        blocking: False returns a future.
    Raises:
        ValueError: the folder is no model repository ([`repository_files`]), or `private` and the repository is public.
    """
    from transformers import PreTrainedModel

    if isinstance(folder_or_model, PreTrainedModel):
        if processor is None or card is None:
            raise ValueError("a model is pushed with its processor and its card")
        if not blocking:
            raise ValueError("a model is saved to a temporary folder, so it cannot be pushed in the background")
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(folder_or_model, processor, folder, card, weights_dtype)
            return push(folder, repo_id, private=private, revision=revision, commit_message=commit_message, token=token)
    if processor is not None or card is not None or weights_dtype is not None:
        raise ValueError("a folder is pushed as it is: processor, card and weights_dtype belong to a model")
    files, _ = repository_files(folder_or_model)
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if private and not api.model_info(repo_id).private:
        raise ValueError(f"{repo_id} exists and is public: nothing was uploaded")
    if revision is not None:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    return api.upload_folder(
        repo_id=repo_id,
        folder_path=folder_or_model,
        allow_patterns=files,
        revision=revision,
        commit_message=commit_message,
        run_as_future=not blocking,
    )
