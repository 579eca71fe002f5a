"""
A toy method that obeys every law, and can be told to break any single one: `ToyLaws` with a `fault`.

It is a 3D method: atomic numbers and (made-up) coordinates of each molecule's atoms, a distance-dependent sum over the
other atoms, two attention layers, the mean over the atoms. Pre-training contrasts two noisy copies of the coordinates.
"""

import math
import zlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoProcessor,
    BatchFeature,
    FeatureExtractionMixin,
    PreTrainedConfig,
    PreTrainedModel,
)

from hf_molrep import AutoModelForMoleculePropertyPrediction
from hf_molrep.chem.smiles import MoleculeError, canonical_smiles, parse
from hf_molrep.compat import ALL_ATTENTION_FUNCTIONS, GradientCheckpointingLayer, create_bidirectional_mask, init
from hf_molrep.data.batching import pad_tokens
from hf_molrep.losses import info_nce
from hf_molrep.modeling_outputs import (
    MoleculeModelOutput,
    MoleculePreTrainingOutput,
    MoleculePropertyOutput,
    recorded_outputs,
)
from hf_molrep.models.auto import Method, Task
from hf_molrep.nn.heads import PropertyHead
from hf_molrep.processing.contract import check_columns
from tests.models.common import MethodLaws


@strict
class ToyConfig(PreTrainedConfig):
    model_type = "toy_of_the_laws"

    fault: str = ""
    hidden_size: int = 16
    num_attention_heads: int = 2
    dropout: float | int = 0.0
    initializer_range: float = 0.02
    classifier_dropout: float | int = 0.0
    label_mean: list[float] | None = None
    label_std: list[float] | None = None
    label_units: list[str] | None = None


class ToyProcessor(FeatureExtractionMixin):
    """SMILES to `z` and `pos`. The coordinates are drawn by the canonical SMILES: the toy needs no chemistry."""

    model_input_names = ["z", "pos", "attention_mask"]

    def __init__(self, scale: float = 1.0, fault: str = "", **kwargs):
        self.scale, self.fault = scale, fault
        super().__init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        saved = super().to_dict()
        return {**saved, "scale": 1.0} if self.fault == "option is not saved" else saved

    def featurize_one(self, smiles: str) -> dict:
        if self.fault == "refuses salts" and "." in smiles:
            raise MoleculeError(smiles, "several molecules")
        z = [atom.GetAtomicNum() for atom in parse(smiles).GetAtoms()]
        rng = np.random.default_rng(zlib.crc32(canonical_smiles(smiles).encode()))
        pos = self.scale * rng.standard_normal(3 * len(z))
        return {"z": np.array(z, dtype=np.int8), "pos": pos.astype(np.float32)}

    def featurize(self, columns, on_error: str = "raise") -> list:
        results: list = []
        if self.fault == "reads anything":
            columns = {"smiles": ["C"]} | {name: columns[name] for name in columns if name == "smiles"}
        check_columns(self, columns)
        for text in columns["smiles"]:
            try:
                results.append(self.featurize_one(text))
            except MoleculeError as error:
                if self.fault == "accepts bad SMILES":
                    results.append(self.featurize_one("C"))
                elif on_error == "raise":
                    raise
                elif self.fault != "loses places":
                    results.append(error)
        if self.fault == "prints":
            print("featurised")
        return results

    inputs = (frozenset({"smiles"}),)
    pads = True
    truncates = False
    reports = ()

    def config_fields(self) -> dict:
        return {}

    def size(self, feature: dict) -> int:
        return 1 if self.fault == "one size" else len(feature["z"])

    def pad(self, features, return_tensors: str | None = "pt") -> BatchFeature:
        z, mask = pad_tokens([np.asarray(feature["z"]) for feature in features], 0)
        pos = np.zeros((*z.shape, 3), dtype=np.float32)
        pos[mask.astype(bool)] = np.concatenate([np.asarray(feature["pos"]).reshape(-1, 3) for feature in features])
        return BatchFeature({"z": z, "pos": pos, "attention_mask": mask}, tensor_type=return_tensors)

    def __call__(self, smiles, return_tensors: str | None = None) -> BatchFeature:
        return self.pad(self.featurize({"smiles": [smiles] if isinstance(smiles, str) else smiles}), return_tensors)


class ToyDataCollator:
    def __init__(self, processor: ToyProcessor, seed: int = 0, fault: str = ""):
        self.processor, self.seed, self.fault, self.epoch = processor, seed, fault, 0
        self.generator = np.random.default_rng(seed)

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        noisy: list[list[dict]] = [[], []]
        shared = np.random.default_rng([self.seed, self.epoch])
        for row in rows:
            epoch = 0 if self.fault == "ignores the epoch" else self.epoch
            rng = {
                "keeps a generator": self.generator,
                "draws from the global generator": np.random,
                "draws for the batch": shared,
            }.get(self.fault, np.random.default_rng([self.seed, epoch, row["row_id"]]))
            pos = np.asarray(row["pos"], dtype=np.float32)
            for view in noisy:
                view.append({"z": row["z"], "pos": pos + 0.1 * rng.standard_normal(len(pos)).astype(np.float32)})
        first, second = (self.processor.pad(view) for view in noisy)
        return {**first, "second_pos": second["pos"]}


def eager_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    weights = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = F.dropout(F.softmax(weights, dim=-1), p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2), weights


class ToyAttention(nn.Module):
    def __init__(self, config: ToyConfig):
        super().__init__()
        self.config = config
        self.is_causal = config.fault == "causal"
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        qkv = self.qkv_proj(hidden_states)
        query, key, value = qkv.view(*qkv.shape[:2], 3, self.config.num_attention_heads, -1).permute(2, 0, 3, 1, 4)
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        dropout = self.config.dropout if self.training else 0.0
        scaling = query.shape[-1] ** -0.5
        return attention(self, query, key, value, attention_mask, dropout=dropout, scaling=scaling)[0].flatten(2)


class ToyPlainLayer(nn.Module):
    """Says that it can be checkpointed, and is not."""

    gradient_checkpointing = False

    def __init__(self, config: ToyConfig):
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(config.hidden_size)
        self.attention = ToyAttention(config)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        attended = self.attention(self.norm(hidden_states), attention_mask)
        if self.config.fault == "checkpointing changes numbers" and self.gradient_checkpointing and self.training:
            attended = 1.1 * attended
        return hidden_states + F.dropout(attended, self.config.dropout, self.training)


class ToyLayer(ToyPlainLayer, GradientCheckpointingLayer):
    pass


class ToyRadial(nn.Module):
    """Distances to `[.., 8]` Gaussian features; the centres are a table that is not saved."""

    def __init__(self):
        super().__init__()
        self.register_buffer("centres", torch.linspace(0.0, 4.0, 8), persistent=False)

    def forward(self, distances: torch.Tensor) -> torch.Tensor:
        return torch.exp(-((distances[..., None] - self.centres) ** 2))


class ToyPreTrainedModel(PreTrainedModel):
    config: ToyConfig
    base_model_prefix = "toy"
    main_input_name = "z"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        fault = self.config.fault
        std = 0.1 if fault == "another width" else self.config.initializer_range
        if isinstance(module, nn.Linear):
            if fault == "overwrites its neighbour":
                module.weight.normal_(std=std)
            init.normal_(module.weight, std=std)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=std)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, ToyRadial) and fault != "buffer is not restored":
            init.copy_(module.centres, torch.linspace(0.0, 4.0, 8))
        elif isinstance(module, ToyModel) and fault != "parameter is not initialised":
            init.ones_(module.gain)


class ToyModel(ToyPreTrainedModel):
    def __init__(self, config: ToyConfig):
        super().__init__(config)
        layer = ToyPlainLayer if config.fault == "no checkpointing" else ToyLayer
        self.atoms = nn.Embedding(119, config.hidden_size)
        self.radial = ToyRadial()
        self.filter = nn.Linear(8, config.hidden_size)
        self.layers = nn.ModuleList([layer(config) for _ in range(2)])
        self.gain = nn.Parameter(torch.ones(config.hidden_size))
        noise = torch.randn(config.hidden_size, device="cpu")
        self.unsaved = noise if config.fault == "tensor is not saved" else None
        self.spare = nn.Linear(2, 2) if config.fault == "dead parameter" else None
        self.post_init()

    def forward(self, z, pos, attention_mask=None, return_dict: bool = True, **kwargs):
        fault = self.config.fault
        states = self.atoms(z)
        if fault == "sees the order of the atoms":
            states = states + 0.1 * torch.arange(z.shape[1], dtype=states.dtype)[:, None].sin()
        if fault == "sees absolute coordinates":
            states = states + pos.sum(dim=-1, keepdim=True).to(states.dtype)
        if fault == "sees handedness":
            edges = pos[:, 1:4] - pos[:, :1]
            if pos.shape[1] > 3:
                states = states + torch.linalg.det(edges)[:, None, None].to(states.dtype)
        real = torch.ones_like(z) if attention_mask is None else attention_mask
        distances = (pos[:, :, None].float() - pos[:, None].float()).square().sum(-1).add(1e-8).sqrt()
        messages = self.filter(self.radial(distances).to(states.dtype)) * states[:, None]
        states = states + (messages * real[:, None, :, None]).sum(dim=2)
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=states, attention_mask=attention_mask)
        recorded = recorded_outputs(self.config, kwargs)
        if "output_attentions" in recorded and fault != "attentions are left out":
            raise ValueError("the toy returns no attention weights (output_attentions)")
        every = [states]
        for layer in self.layers:
            if fault == "hides its states":  # from checkpointing, which looks at arguments without a name
                states = layer(hidden_states=states, attention_mask=mask)
            else:
                states = layer(states, mask)
            every.append(states.detach() if fault == "hidden states are detached" else states)
        if fault == "overflows in bf16" and (states.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")):
            states = states * math.inf
        if fault == "compiled otherwise" and torch.compiler.is_compiling():
            states = states + 0.1 * states.square()
        weights = torch.ones_like(z) if fault == "counts padding" else real
        pooled = (states * weights[..., None]).sum(dim=1) / weights.sum(dim=1, keepdim=True)
        pooled = pooled * self.gain
        if self.unsaved is not None:
            pooled = pooled + self.unsaved
        if fault == "embedding of float64":
            pooled = pooled.double()
        if fault == "embedding of another width":
            pooled = pooled[:, 1:]
        output = MoleculeModelOutput(pooler_output=pooled, last_hidden_state=states)
        if recorded:
            output["hidden_states"] = tuple(every)
        return output if return_dict else output.to_tuple()


def local_info_nce(queries: torch.Tensor, keys: torch.Tensor, scale: float, gather: bool) -> torch.Tensor:
    """InfoNCE whose negatives are those of the process alone, or of all but without gradient."""
    queries, keys = F.normalize(queries, dim=-1), F.normalize(keys, dim=-1)
    first = 0
    if gather and torch.distributed.is_initialized():
        blocks = [torch.empty_like(keys) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(blocks, keys.detach())
        first = torch.distributed.get_rank() * len(queries)
        blocks[torch.distributed.get_rank()] = keys
        keys = torch.cat(blocks)
    return F.cross_entropy(scale * queries @ keys.T, first + torch.arange(len(queries)))


class ToyForPreTraining(ToyPreTrainedModel):
    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.toy = ToyModel(config)
        self.steps = 0
        self.post_init()

    def forward(self, z, pos, second_pos, attention_mask=None, **kwargs) -> MoleculePreTrainingOutput:
        first = self.toy(z, pos, attention_mask, **kwargs)
        views = {
            "first": first.pooler_output,
            "second": self.toy(z, second_pos, attention_mask).pooler_output,
        }
        fault = self.config.fault
        if fault in ("local negatives", "gathers without gradient"):
            contrast = local_info_nce(*views.values(), 10.0, fault == "gathers without gradient")
        else:
            contrast = info_nce(*views.values(), 10.0)
        if fault == "nothing to learn":
            contrast = contrast.detach() + 0.0 * sum(view.sum() for view in views.values())
        losses = {"contrastive": contrast}
        loss = contrast[None] if fault == "loss is no scalar" else contrast
        if fault == "state is not saved" and self.training:
            self.steps += 1
            loss = loss * (1 + 0.1 * self.steps)
        return MoleculePreTrainingOutput(loss=loss, losses=losses, embeddings=views, hidden_states=first.hidden_states)


class ToyForPropertyPrediction(ToyPreTrainedModel):
    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.toy = ToyModel(config)
        self.head = PropertyHead(config, config.hidden_size)
        self.post_init()

    def forward(self, z, pos, attention_mask=None, labels=None, **kwargs):
        fault = self.config.fault
        if fault == "missing labels count" and labels is not None:
            labels = labels.nan_to_num(0.0)
        encoded = self.toy(z, pos, attention_mask, **({} if fault == "head forgets hidden states" else kwargs))
        output = self.head(encoded.pooler_output, labels)
        output = MoleculePropertyOutput(**output, hidden_states=encoded.hidden_states)
        if fault == "predictions without units":
            output.predictions = output.logits
        return output


TOY = Method(
    config=ToyConfig,
    processor=ToyProcessor,
    model=ToyModel,
    tasks={
        "pre-training": Task(ToyForPreTraining, ToyDataCollator),
        "property-prediction": Task(ToyForPropertyPrediction, ToyDataCollator),
    },
)
AutoConfig.register(ToyConfig.model_type, ToyConfig)
AutoFeatureExtractor.register(ToyConfig, ToyProcessor)
AutoProcessor.register(ToyConfig, ToyProcessor)
AutoModel.register(ToyConfig, ToyModel)
AutoModelForPreTraining.register(ToyConfig, ToyForPreTraining)
AutoModelForMoleculePropertyPrediction.register(ToyConfig, ToyForPropertyPrediction)


class ToyLaws(MethodLaws):
    """The laws of the toy; `fault` names what it does wrong."""

    model_type = ToyConfig.model_type
    hidden_states = 3
    initial_values = {
        r"norm\.weight$|gain$": ("constant", 1.0),
        r"bias$": ("constant", 0.0),
        r"weight$": ("normal", 0.02),
    }
    fault = ""

    @property
    def method(self) -> Method:
        return TOY

    def config(self, dropout: float = 0.0, **options) -> ToyConfig:
        return ToyConfig(dropout=dropout, fault=self.fault, **options)

    def processor(self) -> ToyProcessor:
        return ToyProcessor(scale=0.9, fault=self.fault)

    def collator(self, seed: int = 0) -> ToyDataCollator:
        return ToyDataCollator(self.processor(), seed, self.fault)

    def renumbered(self, rng: np.random.Generator) -> dict:
        processor = self.processor()
        features = []
        for feature in processor.featurize({"smiles": self.molecules}):
            order = rng.permutation(len(feature["z"]))
            features.append({"z": feature["z"][order], "pos": feature["pos"].reshape(-1, 3)[order].ravel()})
        return dict(processor.pad(features))

    def agreement(self) -> dict[str, tuple]:
        """The distance features, by a loop."""
        distances = torch.tensor([0.0, 0.7, 3.1])
        loop = [[math.exp(-((d - c * 4 / 7) ** 2)) for c in range(8)] for d in distances.tolist()]
        wrong = 1e-3 if self.fault == "numbers disagree" else 0.0
        return {"radial": (ToyRadial()(distances) + wrong, torch.tensor(loop), 1e-6)}


class ToyWithLocalNegatives(ToyLaws):
    fault = "local negatives"


class ToyWithoutGatheredGradient(ToyLaws):
    fault = "gathers without gradient"
