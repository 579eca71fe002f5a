"""
MM-Deacon: SMILES and IUPAC names as two languages, aligned by a contrastive loss.

Paper: Guo, Sharma, Martinez, Du, Abraham, "Multilingual Molecular Representation Learning via Contrastive
Pre-training", ACL 2022 (arXiv 2109.08830). The authors released neither code nor weights, so this is a
re-implementation from the paper and from third-party notes; there is no reference to compare numbers with.
From the paper: two Transformer encoders without shared weights, six layers each, mean pooling over the tokens, one
projection per tower into a joint space, symmetric InfoNCE with the other molecules of the batch as negatives, the
SMILES tower alone for property prediction, the frozen projected embedding as fingerprint, an MLP on two concatenated
fingerprints for drug-drug interactions.
Ours: the widths (RoBERTa-base), a learned temperature that starts at 0.07 (CLIP), the optional pre-norm and rotary
positions.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from ...compat import (
    ALL_ATTENTION_FUNCTIONS,
    GradientCheckpointingLayer,
    can_return_tuple,
    capture_outputs,
    create_bidirectional_mask,
    init,
    merge_with_config_defaults,
)
from ...hub import RemoteCodeMixin
from ...losses import info_nce, property_loss
from ...modeling_outputs import (
    MoleculeModelOutput,
    MoleculePreTrainingOutput,
    MoleculePropertyOutput,
    recorded_outputs,
    require_attention_weights,
)
from ...nn.attention import eager_attention_forward
from ...nn.heads import PropertyHead
from .configuration_mm_deacon import MMDeaconConfig, MMDeaconTowerConfig


class MMDeaconEmbeddings(nn.Module):
    """Token plus (unless rotary) learned position embedding, layer norm, dropout."""

    def __init__(self, config: MMDeaconTowerConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = (
            nn.Embedding(config.max_position_embeddings, config.hidden_size)
            if config.position_embedding == "absolute"
            else None
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden_states = self.word_embeddings(input_ids)
        if self.position_embeddings is not None:
            hidden_states = hidden_states + self.position_embeddings.weight[: input_ids.shape[1]]
        hidden_states = self.norm(hidden_states)
        device = hidden_states.device.type
        if device == "cpu" and torch.is_autocast_enabled(device):
            # CPU fast path: norms keep the type of their input, so the residual stream takes half the memory
            hidden_states = hidden_states.to(torch.get_autocast_dtype(device))
        return self.dropout(hidden_states)


def rotary_table(length: int, head_dim: int, theta: float, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute cosines and sines of rotary positions (Su et al. 2021, eq. 34), each `[length, head_dim]`."""
    channel = torch.arange(0, head_dim, 2, dtype=torch.float32, device=like.device)
    angle = torch.arange(length, dtype=torch.float32, device=like.device)[:, None] * theta ** (-channel / head_dim)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate queries or keys `[molecules, heads, length, head_dim]` by their positions."""
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-second, first], dim=-1) * sin


class MMDeaconAttention(nn.Module):
    """Multi-head self-attention; query, key and value come from one matrix product."""

    def __init__(self, config: MMDeaconTowerConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.is_causal = False  # otherwise sdpa would be causal for batches without padding
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotary: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        molecules, length, _ = hidden_states.shape
        qkv = self.qkv_proj(hidden_states).view(molecules, length, 3, -1, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if rotary is not None:
            cos, sin = (table.to(query.dtype) for table in rotary)
            query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        context, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.out_proj(context.reshape(molecules, length, -1)), weights


class MMDeaconLayer(GradientCheckpointingLayer):
    """Self-attention and feed-forward network, each with a residual; layer norm after (RoBERTa) or before."""

    def __init__(self, config: MMDeaconTowerConfig):
        super().__init__()
        self.norm_first = config.norm_first
        self.attention = MMDeaconAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def mlp(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.activation(self.up_proj(hidden_states)))

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotary: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs,
    ) -> torch.Tensor:
        if self.norm_first:
            attended, _ = self.attention(self.attention_norm(hidden_states), attention_mask, rotary, **kwargs)
            hidden_states = hidden_states + self.dropout(attended)
            return hidden_states + self.dropout(self.mlp(self.mlp_norm(hidden_states)))
        attended, _ = self.attention(hidden_states, attention_mask, rotary, **kwargs)
        hidden_states = self.attention_norm(hidden_states + self.dropout(attended))
        return self.mlp_norm(hidden_states + self.dropout(self.mlp(hidden_states)))


class MMDeaconPreTrainedModel(RemoteCodeMixin, PreTrainedModel):
    config: MMDeaconConfig
    base_model_prefix = "mm_deacon"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # all losses are means
    _no_split_modules = ["MMDeaconLayer"]
    _supports_sdpa = True
    _can_record_outputs = {"hidden_states": MMDeaconLayer, "attentions": MMDeaconAttention}
    _keys_to_ignore_on_load_unexpected = [r"^logit_scale$"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Initialise as BERT (normal weights of `initializer_range`, zero biases, unit norms), temperature as CLIP."""
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, mean=0.0, std=std)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=std)
            if module.padding_idx is not None and not getattr(module.weight, "_is_hf_initialized", False):
                init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, MMDeaconForPreTraining):
            init.constant_(module.logit_scale, module.config.logit_scale_init)


class MMDeaconEncoder(MMDeaconPreTrainedModel):
    """One tower: token ids to token states and their mean over the tokens that are not padding."""

    config: MMDeaconTowerConfig
    base_model_prefix = "encoder"

    def __init__(self, config: MMDeaconTowerConfig):
        super().__init__(config)
        self.embeddings = MMDeaconEmbeddings(config)
        self.layers = nn.ModuleList([MMDeaconLayer(config) for _ in range(config.num_hidden_layers)])
        self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.norm_first else None
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module):
        self.embeddings.word_embeddings = value

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> MoleculeModelOutput:
        """
        Args:
            input_ids: `[molecules, length]`; attention_mask: the same shape, 0 where padded.
        Returns:
            `pooler_output` `[molecules, hidden]`, the mean of the token states; `last_hidden_state`.
        Raises:
            ValueError: more tokens than `max_position_embeddings`; attention weights of an implementation without them.
        """
        if "output_attentions" in recorded_outputs(self.config, kwargs):
            require_attention_weights(self.config)
        length = input_ids.shape[1]
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"{length} tokens are more than max_position_embeddings ({self.config.max_position_embeddings}); "
                "let the processor truncate"
            )
        hidden_states = self.embeddings(input_ids)
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask)
        rotary = None
        if self.config.position_embedding == "rotary":
            head_dim = self.config.hidden_size // self.config.num_attention_heads
            rotary = rotary_table(length, head_dim, self.config.rope_theta, hidden_states)
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, rotary, **kwargs)
        if self.final_norm is not None:
            hidden_states = self.final_norm(hidden_states)
        if attention_mask is None:
            pooled = hidden_states.mean(dim=1)
        else:
            weights = attention_mask.to(hidden_states.dtype)
            weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
            pooled = (weights[:, None] @ hidden_states)[:, 0]
        return MoleculeModelOutput(last_hidden_state=hidden_states, pooler_output=pooled)


def project(output: MoleculeModelOutput, projection: nn.Linear) -> MoleculeModelOutput:
    """Project the embedding of a tower into the joint space."""
    return MoleculeModelOutput(
        pooler_output=projection(output.pooler_output),
        last_hidden_state=output.last_hidden_state,
        hidden_states=output.hidden_states,
        attentions=output.attentions,
    )


class MMDeaconModel(MMDeaconPreTrainedModel):
    """Both towers and their projections into the joint space."""

    # modules of each input: a checkpoint that lacks all of them refuses the input
    input_modules = {
        "smiles": ("smiles_model", "smiles_projection"),
        "iupac_name": ("iupac_model", "iupac_projection"),
    }

    def __init__(self, config: MMDeaconConfig):
        super().__init__(config)
        self.smiles_model = MMDeaconEncoder._from_config(config.smiles_config)
        self.iupac_model = MMDeaconEncoder._from_config(config.iupac_config)
        self.smiles_projection = nn.Linear(config.smiles_config.hidden_size, config.projection_dim)
        self.iupac_projection = nn.Linear(config.iupac_config.hidden_size, config.projection_dim)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.smiles_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.smiles_model.set_input_embeddings(value)

    def _encode(
        self,
        view: str,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        chunk_size: int = 0,
        **kwargs,
    ) -> MoleculeModelOutput:
        """
        Run the tower of a view; `pooler_output` is the projected embedding. With `chunk_size` so many molecules pass
        the tower at a time, sorted by length, and only embeddings are kept.
        """
        tower, projection = getattr(self, f"{view}_model"), getattr(self, f"{view}_projection")
        recorded = recorded_outputs(self.config, kwargs)
        if not chunk_size or attention_mask is None or recorded:
            return project(tower(input_ids, attention_mask, **(kwargs | recorded)), projection)
        lengths, order = attention_mask.sum(dim=1).sort(descending=True, stable=True)
        pooled = []
        for start in range(0, len(order), chunk_size):
            rows, longest = order[start : start + chunk_size], int(lengths[start])
            pooled.append(tower(input_ids[rows, :longest], attention_mask[rows, :longest], **kwargs).pooler_output)
        return MoleculeModelOutput(pooler_output=projection(torch.cat(pooled)[order.argsort()]))

    def get_smiles_features(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> torch.FloatTensor:
        """Embed SMILES, `[molecules, length] -> [molecules, projection_dim]`, projected, not normalised."""
        chunk_size = self.config.encoder_chunk_size
        return self._encode("smiles", input_ids, attention_mask, chunk_size, **kwargs).pooler_output

    def get_iupac_features(
        self, iupac_input_ids: torch.LongTensor, iupac_attention_mask: torch.Tensor | None = None, **kwargs
    ) -> torch.FloatTensor:
        """Embed IUPAC names, `[molecules, length] -> [molecules, projection_dim]`, projected, not normalised."""
        chunk_size = self.config.encoder_chunk_size
        return self._encode("iupac", iupac_input_ids, iupac_attention_mask, chunk_size, **kwargs).pooler_output

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        iupac_input_ids: torch.LongTensor | None = None,
        iupac_attention_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> MoleculeModelOutput:
        """
        Args:
            input_ids, attention_mask: SMILES, `[molecules, length]`.
            iupac_input_ids, iupac_attention_mask: IUPAC names, `[molecules, iupac_length]`. One view or both.
        Returns:
            `pooler_output` `[molecules, projection_dim]`: the projected embedding of the given view, or the mean of
            both L2-normalised ones. `embeddings`: the same by view. `last_hidden_state`, `hidden_states`,
            `attentions`: of the SMILES, or of the name if only that is given.
        Raises:
            ValueError: neither view is given.
        """
        outputs = {}
        if input_ids is not None:
            outputs["smiles"] = self._encode("smiles", input_ids, attention_mask, **kwargs)
        if iupac_input_ids is not None:
            outputs["iupac"] = self._encode("iupac", iupac_input_ids, iupac_attention_mask, **kwargs)
        views = {view: output.pooler_output for view, output in outputs.items()}
        if not views:
            raise ValueError("MM-Deacon needs input_ids (SMILES), iupac_input_ids (IUPAC names), or both")
        if len(views) == 1:
            (pooled,) = views.values()
        else:
            pooled = torch.stack([F.normalize(view, dim=-1) for view in views.values()]).mean(dim=0)
        first = next(iter(outputs.values()))
        return MoleculeModelOutput(
            pooler_output=pooled,
            last_hidden_state=first.last_hidden_state,
            embeddings=views,
            hidden_states=first.hidden_states,
            attentions=first.attentions,
        )


class MMDeaconForPreTraining(MMDeaconPreTrainedModel):
    """Contrastive pre-training: match each SMILES of the batch with the name of its molecule, and vice versa."""

    def __init__(self, config: MMDeaconConfig):
        super().__init__(config)
        self.mm_deacon = MMDeaconModel(config)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init)))
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        iupac_input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        iupac_attention_mask: torch.Tensor | None = None,
        return_loss: bool = True,
        **kwargs,
    ) -> MoleculePreTrainingOutput:
        """
        Args:
            input_ids, attention_mask, iupac_input_ids, iupac_attention_mask: as in [`MMDeaconModel`]; row k of both
                views is the same molecule. The other rows are negatives, of all processes under `torch.distributed`.
        Returns:
            `losses`: `smiles_to_iupac` and `iupac_to_smiles`, [`~hf_molrep.losses.info_nce`] each; `loss`: their mean
            (or sum, `config.loss_reduction`); `embeddings`: `smiles` and `iupac`, `[molecules, projection_dim]`;
            `hidden_states` and `attentions`: of the SMILES.
        """
        smiles = self.mm_deacon._encode("smiles", input_ids, attention_mask, self.config.encoder_chunk_size, **kwargs)
        names = self.mm_deacon.get_iupac_features(iupac_input_ids, iupac_attention_mask, **kwargs)
        views = {"smiles": smiles.pooler_output, "iupac": names}
        loss, losses = None, None
        if return_loss:
            scale = self.logit_scale.float().clamp(max=self.config.logit_scale_max).exp()
            losses = {
                "smiles_to_iupac": info_nce(views["smiles"], views["iupac"], scale),
                "iupac_to_smiles": info_nce(views["iupac"], views["smiles"], scale),
            }
            loss = sum(losses.values())
            if self.config.loss_reduction == "mean":
                loss = loss / 2
        return MoleculePreTrainingOutput(
            loss=loss,
            losses=losses,
            embeddings=views,
            hidden_states=smiles.hidden_states,
            attentions=smiles.attentions,
        )


class MMDeaconSmilesOnlyModel(MMDeaconPreTrainedModel):
    """Base of models on the SMILES tower alone. The name tower of a checkpoint is not loaded."""

    input_modules = {"iupac_name": ()}
    _keys_to_ignore_on_load_unexpected = [r"iupac_model\.", r"iupac_projection\.", r"logit_scale"]


class MMDeaconSmilesModel(MMDeaconSmilesOnlyModel):
    """SMILES tower and projection, with parameters named as in [`MMDeaconModel`]."""

    def __init__(self, config: MMDeaconConfig):
        super().__init__(config)
        self.smiles_model = MMDeaconEncoder._from_config(config.smiles_config)
        self.smiles_projection = nn.Linear(config.smiles_config.hidden_size, config.projection_dim)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.smiles_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.smiles_model.set_input_embeddings(value)

    def forward(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> MoleculeModelOutput:
        """See [`MMDeaconModel`]; for SMILES only, without `embeddings`."""
        recorded = recorded_outputs(self.config, kwargs)
        return project(self.smiles_model(input_ids, attention_mask, **(kwargs | recorded)), self.smiles_projection)


class MMDeaconForPropertyPrediction(MMDeaconSmilesOnlyModel):
    """Molecular properties from the SMILES tower (the paper's fine-tuning): projected embedding, then an MLP head."""

    def __init__(self, config: MMDeaconConfig):
        super().__init__(config)
        if config.problem_type == "single_label_classification":
            raise ValueError(
                "problem_type 'single_label_classification' is for interactions; properties are 'regression' or "
                "'multi_label_classification'"
            )
        self.mm_deacon = MMDeaconSmilesModel(config)
        self.head = PropertyHead(config, config.projection_dim)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.FloatTensor | None = None,
        **kwargs,
    ) -> MoleculePropertyOutput:
        """
        Args:
            input_ids, attention_mask: SMILES, `[molecules, length]`; labels: `[molecules, tasks]`, NaN = missing.
        """
        output = self.mm_deacon(input_ids, attention_mask, **kwargs)
        return MoleculePropertyOutput(
            **self.head(output.pooler_output, labels), hidden_states=output.hidden_states, attentions=output.attentions
        )


class MMDeaconForInteractionPrediction(MMDeaconSmilesOnlyModel):
    """
    Interaction of two molecules (drug-drug interaction): an MLP with one hidden layer on their concatenated
    fingerprints. `problem_type` is `"single_label_classification"` (interaction classes) or
    `"multi_label_classification"` (binary: one logit).
    """

    def __init__(self, config: MMDeaconConfig):
        super().__init__(config)
        self.mm_deacon = MMDeaconSmilesModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.dense = nn.Linear(2 * config.projection_dim, config.interaction_hidden_size)
        self.out_proj = nn.Linear(config.interaction_hidden_size, config.num_labels)
        self.post_init()

    def train(self, mode: bool = True):
        """Set the mode, but keep a frozen encoder in evaluation mode, without dropout."""
        super().train(mode)
        if self.config.freeze_encoder:
            self.mm_deacon.eval()
        return self

    def interaction_logits(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.dense(self.dropout(torch.cat([first, second], dim=-1))))
        return self.out_proj(self.dropout(hidden)).float()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        second_input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        second_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        embeddings: torch.FloatTensor | None = None,
        second_embeddings: torch.FloatTensor | None = None,
        **kwargs,
    ) -> MoleculePropertyOutput:
        """
        Args:
            input_ids, attention_mask: SMILES of the first molecule of each pair, `[pairs, length]`.
            second_input_ids, second_attention_mask: of the second one, `[pairs, second_length]`.
            labels: class index `[pairs]`, or 0/1 `[pairs, tasks]` with NaN = missing.
            embeddings, second_embeddings: `pooler_output` of both molecules, `[pairs, projection_dim]`, instead of the
                SMILES. With frozen towers each molecule can be embedded once instead of once per pair.
        Returns:
            `logits` `[pairs, classes]`; `predictions`: probabilities of the same shape; `hidden_states` and
            `attentions`: of the first molecule, without gradients where the encoder is frozen.
        Raises:
            ValueError: a molecule is given neither as SMILES nor as embedding, or as both; or hidden states or
                attention weights are requested for an embedding.
        """
        if (input_ids is None) == (embeddings is None) or (second_input_ids is None) == (second_embeddings is None):
            raise ValueError("give each of the two molecules either as input_ids or as embeddings")
        recorded = recorded_outputs(self.config, kwargs)
        if recorded and input_ids is None:
            raise ValueError(f"{', '.join(recorded)}: give the first molecule as input_ids, not as an embedding")
        output = MoleculeModelOutput(pooler_output=embeddings)
        # from_pretrained makes every parameter trainable again, so requires_grad_(False) would not last
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_encoder):
            if embeddings is None:
                output = self.mm_deacon(input_ids, attention_mask, **kwargs)
            if second_embeddings is None:
                second_embeddings = self.mm_deacon(second_input_ids, second_attention_mask, **kwargs).pooler_output
        first, second = output.pooler_output, second_embeddings
        logits = self.interaction_logits(first, second)
        if self.config.interaction_symmetric:
            logits = (logits + self.interaction_logits(second, first)) / 2
        if self.config.problem_type == "single_label_classification":
            predictions = logits.softmax(dim=-1)
            loss = None if labels is None else F.cross_entropy(logits, labels.long())
        elif self.config.problem_type == "multi_label_classification":
            predictions = logits.sigmoid()
            loss = None if labels is None else property_loss(logits, labels, self.config.problem_type)
        else:
            raise ValueError(
                "an interaction is 'single_label_classification' or 'multi_label_classification', "
                f"not {self.config.problem_type!r}"
            )
        losses = None if loss is None else {"interaction": loss.detach()}
        return MoleculePropertyOutput(
            loss=loss,
            losses=losses,
            logits=logits,
            predictions=predictions,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


__all__ = [
    "MMDeaconForInteractionPrediction",
    "MMDeaconForPreTraining",
    "MMDeaconForPropertyPrediction",
    "MMDeaconModel",
    "MMDeaconPreTrainedModel",
]
