"""
X-MOL: one BERT that reads a SMILES and writes another one.

Paper: Xue, Zhang, Xiao, Gong, Chuai, Sun, Tian, Wu, Li, Liu, "X-MOL: large-scale pre-training for molecular
understanding and diverse molecular analysis", Science Bulletin 67, 899 (2022). Code: https://github.com/bm2-lab/X-MOL
(Apache-2.0; Paddle). Written anew from it: BERT-base with layer norm after each block, and the attention mask of UniLM
(Dong et al. 2019): `[CLS] source [SEP] [CLS] target [SEP]`, where every token sees the source, and those of the target
also what was written before them.
As the original: sizes, mask, token types, positions, initialisation (the norm of the language model head begins with
the bias 1), pooler with tanh for properties.
Differently: the embedding of a molecule is the state of its first token or the mean of all (the original has none
before fine-tuning); regression labels are scaled; the ring embedding is looked up with the ids of rings.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import CausalLMOutputWithPast

from ...compat import (
    ALL_ATTENTION_FUNCTIONS,
    CACHE,
    GradientCheckpointingLayer,
    can_return_tuple,
    capture_outputs,
    create_bidirectional_mask,
    init,
    merge_with_config_defaults,
)
from ...hub import RemoteCodeMixin
from ...losses import property_loss
from ...modeling_outputs import (
    MoleculeModelOutput,
    MoleculePreTrainingOutput,
    MoleculePropertyOutput,
    recorded_outputs,
    require_attention_weights,
)
from ...nn.attention import eager_attention_forward
from ...nn.heads import PropertyHead
from .configuration_x_mol import XMolConfig

NUMBER_OF_TYPES = 9  # of the knowledge embedding of types; the original has a ninth, which no SMILES contains


def segments(config: XMolConfig, input_ids: torch.LongTensor) -> tuple[torch.LongTensor, torch.BoolTensor]:
    """
    Find the parts of `[CLS] first [SEP] second [SEP] ... [CLS] target [SEP]`, padded on either side.

    Returns:
        Token types and whether a token is of the target, both `[molecules, length]`.
    """
    target = (input_ids == config.bos_token_id).cumsum(dim=1) > 1
    end = (input_ids == config.eos_token_id).long()
    part = (end.cumsum(dim=1) - end).clamp(max=config.type_vocab_size - 1)  # padding behind the last part has another
    return torch.where(target, config.target_type_id, part), target


def positions(
    config: XMolConfig, attention_mask: torch.Tensor, token_type_ids: torch.LongTensor, target: torch.BoolTensor
) -> torch.LongTensor:
    """Compute the positions of the tokens of whole sequences, `[molecules, length]`, see [`XMolConfig`]."""
    place = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
    if config.continuous_position:
        return place
    begins = F.pad(token_type_ids[:, 1:] != token_type_ids[:, :-1], (1, 0))
    start = torch.where(begins, place, 0).cummax(dim=1).values
    return place - start + ((start > 0) & ~target).long()


def unilm_mask(attention_mask: torch.Tensor, target: torch.BoolTensor | None, queries: int) -> torch.BoolTensor:
    """
    Make the attention mask of UniLM for the last `queries` tokens: each sees the source, and what stands before it.

    Args:
        attention_mask: `[molecules, length]`, 0 where padded.
        target: `[molecules, length]`, whether a token is of the target; None: all queries are.
    Returns:
        `[molecules, 1, queries, length]`; a token sees itself in any case, so that no row is empty.
    """
    length = attention_mask.shape[1]
    place = torch.arange(length, device=attention_mask.device)
    query = place[length - queries :, None]
    seen = place <= query
    if target is not None:
        seen = seen | ~target[:, None, :]
    return ((seen & attention_mask[:, None, :].bool()) | (place == query))[:, None]


class XMolEmbeddings(nn.Module):
    """Sum of token, position and type embedding (and knowledge embeddings), layer norm, dropout."""

    def __init__(self, config: XMolConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.knowledge = tuple(config.knowledge_embeddings)
        for name in self.knowledge:
            size = NUMBER_OF_TYPES if name == "type" else config.max_position_embeddings
            setattr(self, f"{name}_embeddings", nn.Embedding(size, config.hidden_size))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        input_ids: torch.LongTensor,
        position_ids: torch.LongTensor,
        token_type_ids: torch.LongTensor,
        scale: torch.Tensor | None = None,
        **knowledge: torch.LongTensor,
    ) -> torch.Tensor:
        words = self.word_embeddings(input_ids)
        if scale is not None:
            words = words * scale[..., None].to(words.dtype)
        hidden_states = words + self.position_embeddings(position_ids) + self.token_type_embeddings(token_type_ids)
        for name in self.knowledge:
            hidden_states = hidden_states + getattr(self, f"{name}_embeddings")(knowledge[name])
        hidden_states = self.norm(hidden_states)
        device = hidden_states.device.type
        if device == "cpu" and torch.is_autocast_enabled(device):
            # CPU fast path: norms keep the type of their input, so the residual stream takes half the memory
            hidden_states = hidden_states.to(torch.get_autocast_dtype(device))
        return self.dropout(hidden_states)


class XMolAttention(nn.Module):
    """Multi-head self-attention; query, key and value come from one matrix product."""

    def __init__(self, config: XMolConfig, layer: int):
        super().__init__()
        self.config = config
        self.layer = layer
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
        cache: Any | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        molecules, length, _ = hidden_states.shape
        qkv = self.qkv_proj(hidden_states).view(molecules, length, 3, -1, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
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


class XMolLayer(GradientCheckpointingLayer):
    """Self-attention and feed-forward network, each with dropout, residual and layer norm."""

    def __init__(self, config: XMolConfig, layer: int):
        super().__init__()
        self.attention = XMolAttention(config, layer)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        cache: Any | None = None,
        **kwargs,
    ) -> torch.Tensor:
        attended, _ = self.attention(hidden_states, attention_mask, cache, **kwargs)
        hidden_states = self.attention_norm(hidden_states + self.dropout(attended))
        inner = self.down_proj(self.activation(self.up_proj(hidden_states)))
        return self.mlp_norm(hidden_states + self.dropout(inner))


class XMolHeadNorm(nn.LayerNorm):
    """Layer norm whose bias begins with 1."""


class XMolLMHead(nn.Module):
    """Linear, activation, layer norm, then the product with the word embeddings, as the head of BERT."""

    def __init__(self, config: XMolConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.norm = XMolHeadNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_states: torch.Tensor, word_embeddings: torch.Tensor) -> torch.Tensor:
        """`[..., hidden]` -> logits of the tokens, float32 `[..., vocab_size]`."""
        hidden_states = self.norm(self.activation(self.dense(hidden_states)))
        return F.linear(hidden_states, word_embeddings, self.bias).float()


class XMolPreTrainedModel(RemoteCodeMixin, PreTrainedModel):
    config: XMolConfig
    base_model_prefix = "x_mol"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # all losses are means
    _no_split_modules = ["XMolLayer"]
    _supports_sdpa = True
    _can_record_outputs = {"hidden_states": XMolLayer, "attentions": XMolAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """
        Initialise as the original: weights from a normal distribution of width `initializer_range`, cut at two widths;
        biases zero, that of the norm of the language model head one; norms one.
        """
        std = self.config.initializer_range
        if isinstance(module, nn.Linear | nn.Embedding):
            init.trunc_normal_(module.weight, mean=0.0, std=std, a=-2 * std, b=2 * std)
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.constant_(module.bias, 1.0 if isinstance(module, XMolHeadNorm) else 0.0)
        elif isinstance(module, XMolLMHead):
            init.zeros_(module.bias)


class XMolModel(XMolPreTrainedModel):
    """Token states of a source, or of a source and a target, and the embedding of the molecule."""

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def __init__(self, config: XMolConfig):
        super().__init__(config)
        self.embeddings = XMolEmbeddings(config)
        self.layers = nn.ModuleList([XMolLayer(config, layer) for layer in range(config.num_hidden_layers)])
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module):
        self.embeddings.word_embeddings = value

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        target: torch.BoolTensor | None = None,
        link_ids: torch.LongTensor | None = None,
        ring_ids: torch.LongTensor | None = None,
        type_ids: torch.LongTensor | None = None,
        scale: torch.Tensor | None = None,
        cache: Any | None = None,
        **kwargs,
    ) -> MoleculeModelOutput:
        """
        Args:
            input_ids: `[molecules, length]`, `[CLS] SMILES [SEP]`, or several SMILES with a `[SEP]` after each.
            attention_mask: `[molecules, length]`, 0 where padded; with a cache, of what is in it too.
            token_type_ids, position_ids: `[molecules, length]`; by default those of the parts, see [`segments`] and
                [`positions`].
            target: `[molecules, length]`, tokens that only see the source and what stands before them. None: there are
                none, or with a filled cache: all.
            link_ids, ring_ids, type_ids: `[molecules, length]`, if the configuration has these embeddings.
            scale: `[molecules, length]`, factors of the word embeddings.
            cache: keys and values of what was read before; filled with those of this call.
        Returns:
            `pooler_output` `[molecules, hidden]`, see `pooling` of [`XMolConfig`]; `last_hidden_state`.
        Raises:
            ValueError: more tokens than `max_position_embeddings`; ids of knowledge embeddings are missing; attention
                weights of an implementation without them.
        """
        if "output_attentions" in recorded_outputs(self.config, kwargs):
            require_attention_weights(self.config)
        given = {"link": link_ids, "ring": ring_ids, "type": type_ids}
        knowledge = {name: given[name] for name in self.config.knowledge_embeddings}
        if missing := [f"{name}_ids" for name, ids in knowledge.items() if ids is None]:
            raise ValueError(f"the model has knowledge embeddings and needs {', '.join(missing)}")
        length, limit = input_ids.shape[1], self.config.max_position_embeddings
        past = 0 if cache is None else cache.get_seq_length()
        alone = target is None and not past
        if (self.config.continuous_position or alone) and past + length > limit:
            raise ValueError(
                f"{past + length} tokens are more than max_position_embeddings ({limit}); let the processor truncate"
            )
        if token_type_ids is None or position_ids is None:
            if past:
                raise ValueError("with a filled cache, give token_type_ids and position_ids")
            default, found = segments(self.config, input_ids)
            token_type_ids = default if token_type_ids is None else token_type_ids
            if position_ids is None:
                real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
                position_ids = positions(self.config, real, token_type_ids, found if target is None else target)
        hidden_states = self.embeddings(input_ids, position_ids, token_type_ids, scale, **knowledge)
        if target is None and not past:
            mask = create_bidirectional_mask(
                config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask
            )
        else:
            if attention_mask is None:
                attention_mask = input_ids.new_ones(len(input_ids), past + length)
            mask = unilm_mask(attention_mask, None if past else target, length)
            if self.config._attn_implementation in ("eager", None):
                lowest = torch.finfo(hidden_states.dtype).min
                mask = torch.zeros_like(mask, dtype=hidden_states.dtype).masked_fill(~mask, lowest)
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, cache, **kwargs)
        return MoleculeModelOutput(
            last_hidden_state=hidden_states, pooler_output=self._pooled(hidden_states, attention_mask)
        )

    def _pooled(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        if self.config.pooling == "first":
            return hidden_states[:, 0]
        if attention_mask is None:
            return hidden_states.mean(dim=1)
        weights = attention_mask[:, -hidden_states.shape[1] :].to(hidden_states.dtype)
        weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
        return (weights[:, None] @ hidden_states)[:, 0]


class XMolWriter(XMolPreTrainedModel):
    """Base of the models that write SMILES: encoder and language model head."""

    def __init__(self, config: XMolConfig):
        super().__init__(config)
        if config.knowledge_embeddings:
            raise ValueError("knowledge_embeddings: links and rings of a SMILES that is being written are not known")
        self.x_mol = XMolModel(config)
        self.lm_head = XMolLMHead(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.x_mol.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.x_mol.set_input_embeddings(value)

    def get_output_embeddings(self) -> None:
        """There are none: the head uses the word embeddings."""

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args, **kwargs) -> nn.Embedding:
        """As in transformers, and the bias of the language model head; new entries of it are 0."""
        embeddings = super().resize_token_embeddings(new_num_tokens, *args, **kwargs)
        old, size = self.lm_head.bias.data, embeddings.num_embeddings
        bias = old.new_zeros(size)
        bias[: min(size, len(old))] = old[: min(size, len(old))]
        self.lm_head.bias = nn.Parameter(bias)
        return embeddings

    def _logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.lm_head(hidden_states, self.x_mol.embeddings.word_embeddings.weight)

    def _types_and_target(
        self, input_ids: torch.LongTensor, token_type_ids: torch.LongTensor | None
    ) -> tuple[torch.LongTensor, torch.BoolTensor]:
        """Return token types and target of whole sequences; given types decide what is target."""
        if token_type_ids is None:
            return segments(self.config, input_ids)
        return token_type_ids, token_type_ids == self.config.target_type_id

    def _scale(self, input_ids: torch.LongTensor, condition: torch.Tensor | None) -> torch.Tensor | None:
        """Return the factors of the word embeddings: of the first `[CLS]` that of the condition, else 1."""
        if condition is None:
            return None
        starts = input_ids == self.config.bos_token_id
        first = starts & (starts.cumsum(dim=1) == 1)
        return torch.where(first, condition[:, None].float(), 1.0)


class XMolForPreTraining(XMolWriter):
    """Pre-training: read a random SMILES, write another random SMILES of the same molecule."""

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        condition: torch.FloatTensor | None = None,
        return_loss: bool = True,
        **kwargs,
    ) -> MoleculePreTrainingOutput:
        """
        Args:
            input_ids, attention_mask: `[CLS] source [SEP] [CLS] target [SEP]`, `[molecules, length]`.
            token_type_ids: by default those of the parts, see [`segments`].
            condition: `[molecules]`, factors of the embedding of the first `[CLS]`: a property of the target, for
                goal-directed generation.
        Returns:
            `losses`: `next_token`, cross entropy of the next token of the target, mean over all of them (the paper's
            only term), and the same as `loss`; `hidden_states` and `attentions`.
        """
        types, target = self._types_and_target(input_ids, token_type_ids)
        scale = self._scale(input_ids, condition)
        output = self.x_mol(input_ids, attention_mask, token_type_ids=types, target=target, scale=scale, **kwargs)
        loss = None
        if return_loss:
            predicting = target[:, :-1] & target[:, 1:]
            if attention_mask is not None:
                predicting = predicting & attention_mask[:, 1:].bool()
            states, labels = output.last_hidden_state[:, :-1], input_ids[:, 1:]
            if torch.compiler.is_compiling():  # a selection has no fixed shape
                labels = labels.masked_fill(~predicting, -100)
                loss = F.cross_entropy(self._logits(states).flatten(0, 1), labels.flatten())
            else:
                loss = F.cross_entropy(self._logits(states[predicting]), labels[predicting])
        return MoleculePreTrainingOutput(
            loss=loss,
            losses=None if loss is None else {"next_token": loss.detach()},
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


class XMolForConditionalGeneration(XMolWriter, GenerationMixin):
    """
    Write SMILES with `generate()`: `processor.prompts(["CCO"])` for molecules related to ethanol, `prompts([None])` for
    new ones; `processor.written(sequences)` reads the result.
    """

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        condition: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        cache: Any | None = None,
        past_key_values: Any | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """
        Args:
            input_ids, attention_mask, token_type_ids, condition: see [`XMolForPreTraining`].
            labels: `[molecules, length]`, the tokens to be predicted, each by the place before; -100: none.
            cache: keys and values of what was read before (`past_key_values` in older versions of transformers).
            logits_to_keep: compute logits of the last so many tokens only; 0: of all.
        Returns:
            `logits`, float32 `[molecules, length, vocab_size]`, of the next token at each place; `loss`; the cache.
        Raises:
            ValueError: with a filled cache, position_ids are missing.
        """
        cache = past_key_values if cache is None else cache
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        if cache is not None and cache.get_seq_length():
            if position_ids is None:
                raise ValueError("with a filled cache, give position_ids (`generate` does)")
            types, target, scale = torch.full_like(input_ids, self.config.target_type_id), None, None
        else:
            types, target = self._types_and_target(input_ids, token_type_ids)
            scale = self._scale(input_ids, condition)
        output = self.x_mol(
            input_ids,
            attention_mask,
            token_type_ids=types,
            position_ids=position_ids,
            target=target,
            scale=scale,
            cache=cache,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self._logits(output.last_hidden_state[:, keep])
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            **{CACHE: cache},
        )

    def longest_target(self, prompt_length: int) -> int:
        """Return how many tokens the positions of the model leave for a target behind a prompt of this length."""
        used = prompt_length - 1 if self.config.continuous_position else 0
        return max(self.config.max_position_embeddings - used, 0)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        condition: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> dict[str, Any]:
        """Choose the tokens that are not in the cache; their positions depend on the tokens before them."""
        cache = kwargs.get(CACHE)
        past = 0 if cache is None else cache.get_seq_length()
        types, target = self._types_and_target(input_ids, token_type_ids)
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return {
            "input_ids": input_ids[:, past:].contiguous(),
            "attention_mask": attention_mask,
            "token_type_ids": types[:, past:],
            "position_ids": positions(self.config, real, types, target)[:, past:],
            "condition": condition,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
            CACHE: cache,
        }


class XMolHead(PropertyHead):
    """The head of the original: the pooler (linear, tanh), dropout, linear."""

    def logits(self, embedding: torch.Tensor) -> torch.Tensor:
        return self.out_proj(self.dropout(torch.tanh(self.dense(embedding))))


class XMolReader(XMolPreTrainedModel):
    """Base of the models that only read. The language model head of a checkpoint is not loaded."""

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def __init__(self, config: XMolConfig):
        super().__init__(config)
        self.x_mol = XMolModel(config)
        self.head = XMolHead(config, config.hidden_size)
        self.post_init()


class XMolForPropertyPrediction(XMolReader):
    """Properties of a molecule, or of several together (the yield of a reaction from its parts)."""

    def __init__(self, config: XMolConfig):
        super().__init__(config)
        if config.problem_type == "single_label_classification":
            raise ValueError(
                "problem_type 'single_label_classification' is for interactions; properties are 'regression' or "
                "'multi_label_classification'"
            )

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
            input_ids, attention_mask, and other inputs: see [`XMolModel`]; labels: `[molecules, tasks]`, NaN = missing.
        """
        output = self.x_mol(input_ids, attention_mask, **kwargs)
        return MoleculePropertyOutput(
            **self.head(output.pooler_output, labels), hidden_states=output.hidden_states, attentions=output.attentions
        )


class XMolForInteractionPrediction(XMolReader):
    """
    Interaction of two molecules, read together: `[CLS] first [SEP] second [SEP]`. `problem_type` is
    `"single_label_classification"` (interaction classes) or `"multi_label_classification"` (binary: one logit).
    """

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> MoleculePropertyOutput:
        """
        Args:
            input_ids, attention_mask: the pairs, `[pairs, length]`.
            labels: class index `[pairs]`, or 0/1 `[pairs, tasks]` with NaN = missing.
        Returns:
            `logits` `[pairs, classes]`; `predictions`: probabilities of the same shape.
        """
        output = self.x_mol(input_ids, attention_mask, **kwargs)
        logits = self.head.logits(output.pooler_output).float()
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
        return MoleculePropertyOutput(
            loss=loss,
            losses=None if loss is None else {"interaction": loss.detach()},
            logits=logits,
            predictions=predictions,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


__all__ = [
    "XMolForConditionalGeneration",
    "XMolForInteractionPrediction",
    "XMolForPreTraining",
    "XMolForPropertyPrediction",
    "XMolModel",
    "XMolPreTrainedModel",
]
