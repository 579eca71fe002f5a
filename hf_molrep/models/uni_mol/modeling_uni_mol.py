"""
Uni-Mol: a Transformer over the atoms of one conformer whose attention logits are a representation of atom pairs.

Paper: Zhou, Gao, Ding, Zheng, Xu, Wei, Zhang, Ke, "Uni-Mol: A Universal 3D Molecular Representation Learning
Framework", ICLR 2023. Original code: github.com/deepmodeling/Uni-Mol (`unimol/models/unimol.py`,
`transformer_encoder_with_pair.py`, `unimol/losses/unimol.py`) and github.com/deepmodeling/unimol_tools, both MIT.

The model sees only elements and distances: no bonds, charges or chirality. Embeddings are invariant to rotation,
translation and reflection of the conformer; predicted coordinates are equivariant.

Differences from the original: pairs that contain padding get the most negative finite logit instead of minus infinity
(attention to them is exactly zero either way); the pre-training heads are evaluated only for chosen atoms; a batch
without padding works; a batch without any chosen atom has loss terms 0 instead of NaN; under `torch.distributed` means
over atoms and pairs are those of the joined batch. For conformer generation (`unimol/models/conf_gen.py`,
`unimol/losses/conf_gen.py`) see [`UniMolForConformerGeneration`].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from ...compat import (
    GradientCheckpointingLayer,
    can_return_tuple,
    capture_outputs,
    init,
    merge_with_config_defaults,
)
from ...hub import RemoteCodeMixin
from ...losses import conformer_losses, mean_over_processes
from ...modeling_outputs import (
    MoleculeModelOutput,
    MoleculePreTrainingOutput,
    MoleculePropertyOutput,
    recorded_outputs,
)
from ...nn.heads import PropertyHead
from .configuration_uni_mol import UniMolConfig

PI = 3.14159  # the original's value, with which the released weights were trained
CPU_TOKENS = 256  # including padding; see `by_parts`
CHUNK_OF_PAIRS = 4096  # see `UniMolPairEmbedding.forward`


@dataclass
class UniMolModelOutput(MoleculeModelOutput):
    """
    [`~hf_molrep.modeling_outputs.MoleculeModelOutput`] and, with `output_pair=True`:

    Args:
        pair_representation (`torch.FloatTensor` of shape `(molecules, length, length, heads)`):
            Attention logits of the last layer, 0 where either token is padding.
        initial_pair_representation (the same shape): input of the first layer.
    """

    pair_representation: torch.FloatTensor | None = None
    initial_pair_representation: torch.FloatTensor | None = None


@dataclass
class UniMolPreTrainingOutput(MoleculePreTrainingOutput):
    """
    [`~hf_molrep.modeling_outputs.MoleculePreTrainingOutput`] and, for a batch without targets:

    Args:
        token_logits (`torch.FloatTensor` of shape `(molecules, length, vocabulary)`).
        coordinates (`torch.FloatTensor` of shape `(molecules, length, 3)`): predicted, angstrom.
        distances (`torch.FloatTensor` of shape `(molecules, length, length)`): predicted, angstrom.
    """

    token_logits: torch.FloatTensor | None = None
    coordinates: torch.FloatTensor | None = None
    distances: torch.FloatTensor | None = None


@dataclass
class UniMolConformerOutput(ModelOutput):
    """
    Output of [`UniMolForConformerGeneration`].

    Args:
        loss (`torch.FloatTensor` of shape `()`): the weighted sum of `losses`, if there are targets.
        losses (`dict[str, torch.FloatTensor]`): `coordinate` and `distance`, angstrom, before weighting.
        coordinates (`torch.FloatTensor` of shape `(molecules, length, 3)`): predicted, angstrom; 0 where padded.
        distances (`torch.FloatTensor` of shape `(molecules, length, length)`): predicted by a separate head (not the
            distances of `coordinates`), angstrom; 0 where padded.
        hidden_states, attentions (`tuple[torch.FloatTensor]`): on request, input of the first layer and output of every
            layer, and attention weights `(molecules, heads, length, length)`; one pass after the other.
    """

    loss: torch.FloatTensor | None = None
    losses: dict[str, torch.FloatTensor] | None = None
    coordinates: torch.FloatTensor | None = None
    distances: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class UniMolPairEmbedding(nn.Module):
    """
    Pair representation from the distance and types of each pair of tokens: an affine map of the distance that depends
    on the ordered pair of types, Gaussian functions of it, and a two-layer perceptron.
    """

    def __init__(self, config: UniMolConfig):
        super().__init__()
        self.vocab_size = config.vocab_size
        self.means = nn.Parameter(torch.empty(1, config.num_kernels))
        self.stds = nn.Parameter(torch.empty(1, config.num_kernels))
        self.mul = nn.Parameter(torch.empty(config.vocab_size**2, 1))
        self.bias = nn.Parameter(torch.empty(config.vocab_size**2, 1))
        self.dense = nn.Linear(config.num_kernels, config.num_kernels)
        self.out_proj = nn.Linear(config.num_kernels, config.num_attention_heads)

    def features(self, positions: torch.Tensor) -> torch.Tensor:
        """Compute `gelu(dense(gaussians))` `[pairs, kernels]` from affinely mapped distances `[pairs]`."""
        exact = torch.promote_types(self.stds.dtype, torch.float32)
        std = self.stds.to(exact).abs() + 1e-5
        scale = 0.5**0.5 / std
        exponents = torch.addcmul(-self.means.to(exact) * scale, positions.to(exact)[:, None], scale)
        # exp(-64) is as good as 0 here; without the limit narrow kernels give denormal numbers, which are
        # slow to make and slower to multiply
        if torch.is_grad_enabled():
            gaussians = (-exponents.clamp(-8.0, 8.0).square()).exp() / ((2 * PI) ** 0.5 * std)
        else:
            gaussians = exponents.clamp_(-8.0, 8.0).square_().neg_().exp_().div_((2 * PI) ** 0.5 * std)
        return F.gelu(self.dense(gaussians.to(self.dense.weight.dtype)))

    def forward(self, input_ids: torch.Tensor, pos: torch.Tensor) -> torch.Tensor:
        """Map `[molecules, length]` and `[molecules, length, 3]` (angstrom) to `[molecules, heads, length, length]`."""
        molecules, length = input_ids.shape
        types = input_ids[:, :, None] * self.vocab_size + input_ids[:, None]
        # not by matrix products, which lose precision for small distances
        distances = torch.cdist(pos, pos, compute_mode="donot_use_mm_for_euclid_dist")
        mul, bias = (F.embedding(types, table)[..., 0].to(pos.dtype) for table in (self.mul, self.bias))
        positions = torch.addcmul(bias, mul, distances).flatten()
        if torch.is_grad_enabled() or pos.device.type != "cpu":
            features = self.features(positions)
        else:  # CPU fast path: few pairs stay in cache; saves a third of the time for 64 molecules of 32 tokens
            features = torch.cat([self.features(chunk) for chunk in positions.split(CHUNK_OF_PAIRS)])
        features = features.view(molecules, length * length, -1)
        # pairs last: the layout of attention logits, without a transposed copy
        weight = self.out_proj.weight.to(features.dtype).expand(molecules, -1, -1)
        pair = torch.baddbmm(self.out_proj.bias[None, :, None].to(features.dtype), weight, features.transpose(1, 2))
        return pair.view(molecules, -1, length, length)


class UniMolAttention(nn.Module):
    """Self-attention whose logits are the pair representation plus the scaled product of queries and keys."""

    def __init__(self, config: UniMolConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, pair: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            hidden_states: `[molecules, length, hidden]`; pair: `[molecules, heads, length, length]`, changed in place
                in evaluation without gradients.
        Returns:
            The output of the layer `[molecules, length, hidden]`, attention weights, the new pair representation.
        """
        molecules, length, hidden = hidden_states.shape
        qkv = self.qkv_proj(hidden_states).view(molecules, length, 3, self.heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).reshape(3, -1, length, self.head_dim)
        logits = pair.view(-1, length, length)
        # in place only in evaluation: reentrant checkpointing runs a layer first without gradients, then again
        if torch.is_grad_enabled() or self.training:
            logits = torch.baddbmm(logits, query, key.transpose(1, 2), alpha=self.scaling)
        else:
            logits = logits.to(query.dtype).baddbmm_(query, key.transpose(1, 2), alpha=self.scaling)
        with torch.autocast(logits.device.type, enabled=False):  # which would keep a float32 copy of all pairs
            weights = F.softmax(logits, dim=-1)
        shape = (molecules, self.heads, length, length)
        weights = F.dropout(weights, self.dropout, self.training).view(shape)
        context = torch.bmm(weights.view(logits.shape), value).view(molecules, self.heads, length, self.head_dim)
        context = self.out_proj(context.transpose(1, 2).reshape(molecules, length, hidden))
        return context, weights, logits.view(shape)


class UniMolLayer(GradientCheckpointingLayer):
    """Pre-norm attention and feed-forward network; passes the pair representation on."""

    def __init__(self, config: UniMolConfig):
        super().__init__()
        self.attention = UniMolAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def forward(self, hidden_states: torch.Tensor, pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        attended, _, pair = self.attention(self.attention_norm(hidden_states), pair)
        hidden_states = hidden_states + self.dropout(attended)
        inner = self.activation_dropout(F.gelu(self.up_proj(self.mlp_norm(hidden_states))))
        return hidden_states + self.dropout(self.down_proj(inner)), pair


class UniMolTokenHead(nn.Module):
    """Logits of the vocabulary from states of masked atoms; output weights are not tied."""

    def __init__(self, config: UniMolConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return F.linear(self.norm(F.gelu(self.dense(hidden_states))), self.weight, self.bias)


class UniMolCoordinateHead(nn.Module):
    """
    Coordinates from the change of the pair representation through the layers:
    `x_i + sum_j (x_j - x_i) c_ij / n`, with j over all n tokens of the molecule, special ones included. For conformers
    (`of_conformers`) the change is not normalised and the sum is divided by n - 1, as in the original.
    """

    def __init__(self, config: UniMolConfig, of_conformers: bool = False):
        super().__init__()
        width = config.num_attention_heads
        self.norm = None if of_conformers else nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.excluded = 1 if of_conformers else 0
        self.dense = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, 1)

    def forward(self, delta: torch.Tensor, own: torch.Tensor, others: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """
        Args:
            delta: `[rows, length, heads]`, change of the pairs of some atoms with every token of their molecule.
            own: `[rows, 3]`, coordinates of these atoms; others: `[rows, length, 3]`, of the tokens.
            real: `[rows, length]`, 1 for tokens, 0 for padding.
        Returns:
            New coordinates `[rows, 3]`.
        """
        if self.norm is not None:
            delta = self.norm(delta)
        factors = self.out_proj(F.gelu(self.dense(delta)))[..., 0]
        real = real.to(own.dtype)
        factors = factors.to(own.dtype) * real / (real.sum(dim=-1, keepdim=True) - self.excluded)
        return own + (factors[:, None] @ (others - own[:, None]))[:, 0]


class UniMolDistanceHead(nn.Module):
    """Scaled distances from the pair representation, `[..., heads] -> [...]`, not yet symmetric."""

    def __init__(self, config: UniMolConfig):
        super().__init__()
        width = config.num_attention_heads
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.out_proj = nn.Linear(width, 1)

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        return self.out_proj(self.norm(F.gelu(self.dense(pair))))[..., 0]


class UniMolPreTrainedModel(RemoteCodeMixin, PreTrainedModel):
    config: UniMolConfig
    base_model_prefix = "uni_mol"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # all losses are means
    _no_split_modules = ["UniMolLayer"]
    _can_record_outputs = {"hidden_states": UniMolLayer, "attentions": UniMolAttention}
    # pre-training heads that a model does not have
    _keys_to_ignore_on_load_unexpected = [r"token_head\.", r"coordinate_head\.", r"distance_head\."]

    def resize_token_embeddings(self, *args, **kwargs):
        """
        Raises:
            ValueError: always.
        """
        raise ValueError(
            "the tokens of Uni-Mol are the elements that its weights know: pairs of them have weights too, and the "
            "token embeddings cannot be resized alone"
        )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """
        Initialise as the original: normal weights with deviation `initializer_range`, zero biases, a zero row for
        padding, unit norms; the output weights of the token head as torch. See also `config.kernel_init`.
        """
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
        elif isinstance(module, UniMolTokenHead):
            bound = module.weight.shape[1] ** -0.5
            init.uniform_(module.weight, -bound, bound)
            init.zeros_(module.bias)
        elif isinstance(module, UniMolPairEmbedding):
            if self.config.kernel_init == "normal":
                for table in (module.means, module.stds, module.mul, module.bias):
                    init.normal_(table, mean=0.0, std=std)
            else:
                init.uniform_(module.means, 0.0, 3.0)
                init.uniform_(module.stds, 0.0, 3.0)
                init.ones_(module.mul)
                init.zeros_(module.bias)


def as_single_conformers(
    input_ids: torch.Tensor,
    pos: torch.Tensor,
    attention_mask: torch.Tensor | None,
    conformer_mask: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """
    Flatten several conformers per molecule, `pos` `[molecules, conformers, length, 3]`, to one per row: `input_ids`
    `[rows, length]`, `pos` `[rows, length, 3]`, `attention_mask`, and the molecule of each row `[rows]`.
    """
    if conformer_mask is None:
        conformer_mask = torch.ones(pos.shape[:2], device=pos.device)
    molecule, conformer = conformer_mask.nonzero(as_tuple=True)
    mask = None if attention_mask is None else attention_mask[molecule]
    return input_ids[molecule], pos[molecule, conformer], mask, molecule


def mean_by_molecule(values: torch.Tensor, molecule: torch.Tensor, molecules: int) -> torch.Tensor:
    """Average rows `[rows, ...]` of the same molecule, `[molecules, ...]`."""
    total = values.new_zeros(molecules, *values.shape[1:]).index_add(0, molecule, values)
    counts = torch.bincount(molecule, minlength=molecules).to(values.dtype)
    return total / counts.view(-1, *[1] * (values.dim() - 1))


def by_parts(
    run: Callable[..., Sequence[torch.Tensor]],
    lengths: Sequence[int],
    input_ids: torch.Tensor,
    pos: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *more: torch.Tensor,
    whole: bool = False,
) -> list[torch.Tensor]:
    """
    Call `run(input_ids, pos, attention_mask, *more)`; on a CPU for a few molecules of similar length at a time
    (`CPU_TOKENS`).

    Args:
        run: returns tensors `[molecules, ...]`; after the first dimension each has `lengths` of the batch's length.
        whole: run all molecules at once, since outputs of the layers are recorded.
    """
    tensors = (input_ids, pos, attention_mask, *more)
    molecules, length = input_ids.shape
    whole = whole or input_ids.device.type != "cpu" or input_ids.numel() <= CPU_TOKENS
    if whole or torch.compiler.is_compiling():
        return list(run(*tensors))
    # CPU fast path: tensors over pairs of tokens stay in cache, also in the backward pass, with little padding;
    # saves a quarter of the time for 32 molecules of 12 to 39 tokens
    longest = torch.full((molecules,), length)
    if attention_mask is not None:
        longest = (attention_mask.bool() * torch.arange(1, length + 1)).amax(dim=1)
    longest, order = longest.sort(descending=True, stable=True)
    parts: list[list[torch.Tensor]] = []
    start = 0
    while start < molecules:
        size = max(1, int(longest[start]))
        rows = order[start : start + max(1, CPU_TOKENS // size)]
        results = run(*(None if each is None else each[rows, :size] for each in tensors))
        padded = [
            F.pad(result, [0, 0] * (result.dim() - 1 - count) + [0, length - size] * count)
            for result, count in zip(results, lengths, strict=True)
        ]
        parts.append(padded)
        start += len(rows)
    back = order.argsort()
    return [torch.cat(each)[back] for each in zip(*parts, strict=True)]


class UniMolModel(UniMolPreTrainedModel):
    """Encoder: tokens and coordinates to states of the atoms and of the molecule."""

    def __init__(self, config: UniMolConfig):
        super().__init__(config)
        self.token_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.embedding_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.pair_embedding = UniMolPairEmbedding(config)
        self.layers = nn.ModuleList([UniMolLayer(config) for _ in range(config.num_hidden_layers)])
        self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.token_embeddings

    def set_input_embeddings(self, value: nn.Module):
        self.token_embeddings = value

    def encode(
        self,
        input_ids: torch.LongTensor,
        pos: torch.FloatTensor,
        attention_mask: torch.Tensor | None = None,
        keep_initial_pair: bool = False,
        passes: int = 1,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """
        Compute states before the final norm `[molecules, length, hidden]`, and the pair representation of the last
        layer and (on request) of the first, `[molecules, heads, length, length]`; very negative where the second token
        is padding. With several `passes`, the output of the last layer goes through the norm of the embeddings and all
        layers again.
        """
        length = input_ids.shape[1]
        if length > self.config.max_length:
            raise ValueError(f"{length} tokens are more than max_length ({self.config.max_length})")
        hidden_states = self.token_embeddings(input_ids)
        pair = self.pair_embedding(input_ids, pos)
        if attention_mask is not None:
            # finite, so that differences and sums of pair representations are finite
            pair = pair.masked_fill_(attention_mask[:, None, None] == 0, torch.finfo(pair.dtype).min / 2)
        first = None
        if keep_initial_pair:
            first = pair if torch.is_grad_enabled() else pair.clone()  # without gradients the layers work in place
        for _ in range(passes):
            hidden_states = self.dropout(self.embedding_norm(hidden_states))
            if attention_mask is not None:
                hidden_states = hidden_states * attention_mask[..., None].to(hidden_states.dtype)
            for layer in self.layers:
                hidden_states, pair = layer(hidden_states, pair)
        return hidden_states, pair, first

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_ids: torch.LongTensor,
        pos: torch.FloatTensor,
        attention_mask: torch.Tensor | None = None,
        conformer_mask: torch.Tensor | None = None,
        output_pair: bool = False,
        **kwargs,
    ) -> UniMolModelOutput:
        """
        Args:
            input_ids: `[molecules, length]`, from [`UniMolFeatureExtractor`]: a special token before and after the
                atoms; attention_mask: the same shape, 0 where padded (None: nothing is).
            pos: `[molecules, length, 3]`, angstrom; the special tokens lie at the centroid of the atoms. Or
                `[molecules, conformers, length, 3]` with `conformer_mask` `[molecules, conformers]`, 0 where a molecule
                has fewer: embeddings and states are then means over the conformers (ours).
            output_pair: return the pair representations too.
        Returns:
            `pooler_output` `[molecules, hidden]`, the state of the first special token; `last_hidden_state`;
            `hidden_states` (before the final norm) and `attentions`: for several conformers one row per conformer,
            ordered by molecule.
        Raises:
            ValueError: more tokens than `max_length`; `output_pair` with several conformers.
        """
        molecules, molecule = len(input_ids), None
        if pos.dim() == 4:
            if output_pair:
                raise ValueError("pair representations belong to one conformer: give pos [molecules, length, 3]")
            input_ids, pos, attention_mask, molecule = as_single_conformers(
                input_ids, pos, attention_mask, conformer_mask
            )
        if output_pair or recorded_outputs(self.config, kwargs):
            hidden_states, pair, first = self.encode(input_ids, pos, attention_mask, output_pair)
        else:
            (hidden_states,) = by_parts(lambda *part: self.encode(*part)[:1], (1,), input_ids, pos, attention_mask)
        hidden_states = self.final_norm(hidden_states)
        if molecule is not None:
            hidden_states = mean_by_molecule(hidden_states, molecule, molecules)
        output = UniMolModelOutput(pooler_output=hidden_states[:, 0], last_hidden_state=hidden_states)
        if output_pair:
            real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            padded = (real[:, None, None] * real[:, None, :, None]) == 0
            output.pair_representation = pair.masked_fill(padded, 0.0).permute(0, 2, 3, 1)
            output.initial_pair_representation = first.masked_fill(padded, 0.0).permute(0, 2, 3, 1)
        return output


def norm_excess(squared: torch.Tensor, width: int) -> torch.Tensor:
    """Compute `relu(| ||v|| - sqrt(width) | - 1)` from squared lengths of vectors (paper, appendix; `norm_loss`)."""
    return F.relu(((squared + 1e-10).sqrt() - width**0.5).abs() - 1.0)


class UniMolForPreTraining(UniMolPreTrainedModel):
    """Pre-training: masked atoms, denoised coordinates and distances, and a regulariser of two norms."""

    def __init__(self, config: UniMolConfig):
        super().__init__(config)
        self.uni_mol = UniMolModel(config)
        self.token_head = UniMolTokenHead(config)
        self.coordinate_head = UniMolCoordinateHead(config)
        self.distance_head = UniMolDistanceHead(config)
        self.post_init()

    def _predict(self, hidden_states, pair, delta, pos, real, rows, columns):
        """Apply the heads to the tokens `(rows, columns)`: logits, coordinates, and scaled distances to all tokens."""
        logits = self.token_head(hidden_states[rows, columns])
        coordinates = self.coordinate_head(
            delta[rows, :, columns].transpose(1, 2), pos[rows, columns], pos[rows], real[rows]
        )
        forth = pair[rows, :, columns].masked_fill(real[rows, None] == 0, 0.0)
        distances = self.distance_head(forth.transpose(1, 2))
        distances = 0.5 * (distances + self.distance_head(pair[rows, :, :, columns].transpose(1, 2)))
        return logits.float(), coordinates, distances.float()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_ids: torch.LongTensor,
        pos: torch.FloatTensor,
        attention_mask: torch.Tensor | None = None,
        target_ids: torch.LongTensor | None = None,
        target_pos: torch.FloatTensor | None = None,
        return_loss: bool = True,
        **kwargs,
    ) -> UniMolPreTrainingOutput:
        """
        Args:
            input_ids, pos, attention_mask: as in [`UniMolModel`], with chosen atoms masked and moved
                ([`UniMolDataCollator`] does it).
            target_ids: `[molecules, length]`, the true token of chosen atoms, -100 elsewhere.
            target_pos: `[molecules, length, 3]`, the true coordinates, not aligned; only chosen atoms count.
        Returns:
            With targets `losses`: `token` (cross-entropy), `coordinate` and `distance` (smooth L1, of the chosen atoms
            and of their distances to all tokens), `hidden_norm` and `pair_norm` ([`norm_excess`], mean over tokens and
            pairs of a molecule, then over molecules); `loss`: their sum with the weights of the configuration;
            `embeddings`: `molecule`. Without targets the predictions for all tokens.
        """
        if target_ids is not None and target_pos is not None and return_loss:
            # before the encoder: the number of chosen atoms depends on the data, which interrupts a compiled graph
            chosen = (target_ids != -100).nonzero(as_tuple=True) if torch.compiler.is_compiling() else None
            whole = bool(recorded_outputs(self.config, kwargs))
            return self._learn(chosen, whole, input_ids, pos, attention_mask, target_ids, target_pos)
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows, columns = (real != 0).nonzero(as_tuple=True)
        hidden_states, pair, first = self.uni_mol.encode(input_ids, pos, attention_mask, keep_initial_pair=True)
        states = self.uni_mol.final_norm(hidden_states)
        logits, coordinates, distances = self._predict(states, pair, pair - first, pos, real, rows, columns)
        distances = (distances * self.config.distance_std + self.config.distance_mean) * real[rows]
        scattered = [
            values.new_zeros(*input_ids.shape, values.shape[-1]).index_put((rows, columns), values)
            for values in (logits, coordinates, distances)
        ]
        return UniMolPreTrainingOutput(
            embeddings={"molecule": states[:, 0]},
            token_logits=scattered[0],
            coordinates=scattered[1],
            distances=scattered[2],
        )

    def _learn(self, chosen: tuple | None, whole: bool, *batch: torch.Tensor | None) -> UniMolPreTrainingOutput:
        """
        Compute the losses of a batch. Arguments: see [`~UniMolForPreTraining.forward`]; `chosen`: see `_terms`;
        `whole`: see [`by_parts`].
        """
        embeddings, sums, counts, norms = by_parts(
            lambda *part: self._terms(*part, chosen=chosen), (0, 0, 0, 0), *batch, whole=whole
        )
        count, pairs = counts.sum(dim=0)
        token, coordinate, distance = sums.sum(dim=0)
        losses = {
            "token": mean_over_processes(token, count),
            "coordinate": mean_over_processes(coordinate, 3 * count),
            "distance": mean_over_processes(distance, pairs),
            **dict(zip(("hidden_norm", "pair_norm"), norms.mean(dim=0), strict=True)),
        }
        loss = sum(getattr(self.config, f"{name}_loss_weight") * value for name, value in losses.items())
        return UniMolPreTrainingOutput(loss=loss, losses=losses, embeddings={"molecule": embeddings})

    def _terms(self, input_ids, pos, attention_mask, target_ids, target_pos, chosen=None) -> tuple[torch.Tensor, ...]:
        """
        Compute for each molecule its embedding; sums of the losses of tokens, coordinates and distances
        `[molecules, 3]`; numbers of chosen atoms and of their distances `[molecules, 2]`; the two norms
        `[molecules, 2]`. `chosen`: rows and columns of the chosen atoms, if known.
        """
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows, columns = chosen or (target_ids != -100).nonzero(as_tuple=True)
        hidden_states, pair, first = self.uni_mol.encode(input_ids, pos, attention_mask, keep_initial_pair=True)
        states = self.uni_mol.final_norm(hidden_states)
        delta = pair - first  # exactly 0 where the second token is padding
        logits, coordinates, distances = self._predict(states, pair, delta, pos, real, rows, columns)
        true_pos, others = target_pos[rows, columns].float(), target_pos[rows].float()
        true_distances = (others - true_pos[:, None]).square().sum(dim=-1).sqrt()
        true_distances = (true_distances - self.config.distance_mean) / self.config.distance_std
        columns_real = real[rows].float()
        distance = F.smooth_l1_loss(distances, true_distances, reduction="none") * columns_real
        of_atoms = [
            F.cross_entropy(logits, target_ids[rows, columns], reduction="none"),
            F.smooth_l1_loss(coordinates.float(), true_pos, reduction="none").sum(dim=-1),
            distance.sum(dim=-1),
            torch.ones_like(columns_real[:, 0]),
            columns_real.sum(dim=-1),
        ]
        sums = states.new_zeros(len(real), 5, dtype=torch.float32).index_add(0, rows, torch.stack(of_atoms, dim=1))
        real = real.float()
        tokens, (heads, hidden) = real.sum(dim=1), (delta.shape[1], states.shape[-1])
        hidden_norm = norm_excess(hidden_states.float().square().sum(dim=-1), hidden)
        pair_norm = norm_excess(delta.float().square().sum(dim=1), heads)
        norms = [
            (hidden_norm * real).sum(dim=1) / tokens,
            (pair_norm * real[:, None] * real[:, :, None]).sum(dim=(1, 2)) / tokens.square(),
        ]
        return states[:, 0], sums[:, :3], sums[:, 3:], torch.stack(norms, dim=1)


class UniMolForConformerGeneration(UniMolPreTrainedModel):
    """
    Conformer generation: move a conformer of RDKit towards one of a better method.

    States and pairs pass through the whole encoder `num_recycles` times, with gradients through all passes. Distances
    are not recomputed in between; the coordinates change once, at the end, by the difference of the last and the first
    pair representation.

    As in the original, and unlike [`UniMolForPreTraining`]: distances are those of all atoms and unscaled, the target
    is rotated onto the prediction, both losses are absolute differences, special tokens do not count, the coordinate
    head has no norm and divides by one token less. Different from the original: padding does not move the atoms (there
    each padding token moves all atoms along the line to the origin, by the bias of the coordinate head), and the
    rotation is computed on the device for the whole batch.
    """

    # of pre-training: the token head, and the norm of the coordinate head
    _keys_to_ignore_on_load_unexpected = [r"token_head\.", r"coordinate_head\.norm\."]

    def __init__(self, config: UniMolConfig):
        super().__init__(config)
        self.uni_mol = UniMolModel(config)
        self.coordinate_head = UniMolCoordinateHead(config, of_conformers=True)
        self.distance_head = UniMolDistanceHead(config)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_ids: torch.LongTensor,
        pos: torch.FloatTensor,
        attention_mask: torch.Tensor | None = None,
        target_pos: torch.FloatTensor | None = None,
        return_loss: bool = True,
        **kwargs,
    ) -> UniMolConformerOutput:
        """
        Args:
            input_ids, pos, attention_mask: as in [`UniMolModel`], one conformer per row.
            target_pos: `[molecules, length, 3]`, a reference conformer of each molecule, angstrom, with atoms in the
                same order and any position and rotation ([`UniMolConformerCollator`] draws both).
        Returns:
            `coordinates`, `distances`; with a target `losses` ([`~hf_molrep.losses.conformer_losses`]) and `loss`.
        Raises:
            ValueError: more tokens than `max_length`; several conformers in a row.
        """
        if pos.dim() != 3:
            raise ValueError("each row is one conformer: give pos [molecules, length, 3], a molecule in several rows")
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        whole = bool(recorded_outputs(self.config, kwargs))
        coordinates, distances, states = by_parts(self._move, (1, 2, 1), input_ids, pos, attention_mask, whole=whole)
        output = UniMolConformerOutput(coordinates=coordinates, distances=distances)
        if target_pos is None or not return_loss:
            return output
        special = (input_ids == self.config.bos_token_id) | (input_ids == self.config.eos_token_id)
        losses = conformer_losses(coordinates, distances, target_pos, (real != 0) & ~special)
        loss = sum(getattr(self.config, f"conformer_{name}_loss_weight") * value for name, value in losses.items())
        # The coordinates do not depend on the last states. Their layers get a zero gradient rather than none, so that
        # distributed training need not search for unused parameters.
        output.loss = loss + 0.0 * self.uni_mol.final_norm(states).float().mean()
        output.losses = losses
        return output

    def _move(self, input_ids, pos, attention_mask) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute new coordinates, distances, and the states before the final norm."""
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden_states, pair, first = self.uni_mol.encode(
            input_ids, pos, attention_mask, keep_initial_pair=True, passes=self.config.num_recycles
        )
        molecules, length = input_ids.shape
        delta = (pair - first).permute(0, 2, 3, 1)  # the head ignores padding as second token
        others = pos[:, None].expand(-1, length, -1, -1)
        coordinates = self.coordinate_head(
            delta.flatten(0, 1),
            pos.flatten(0, 1),
            others.flatten(0, 1),
            real.repeat_interleave(length, dim=0),
        ).view(molecules, length, 3)
        pairs = (real[:, :, None] * real[:, None]) != 0
        distances = self.distance_head(pair.masked_fill(~pairs[:, None], 0.0).permute(0, 2, 3, 1))
        distances = (0.5 * (distances + distances.transpose(1, 2))).masked_fill(~pairs, 0.0)
        return coordinates.masked_fill((real == 0)[..., None], 0.0), distances, hidden_states


class UniMolPropertyHead(PropertyHead):
    """[`~hf_molrep.nn.heads.PropertyHead`], or with `head_type="linear"` only its last layer."""

    def __init__(self, config: UniMolConfig, hidden_size: int):
        super().__init__(config, hidden_size)
        if config.head_type == "linear":
            self.dense = None

    def logits(self, embedding: torch.Tensor) -> torch.Tensor:
        return super().logits(embedding) if self.dense is not None else self.out_proj(self.dropout(embedding))


class UniMolForPropertyPrediction(UniMolPreTrainedModel):
    """Molecular properties from the state of the first special token."""

    def __init__(self, config: UniMolConfig):
        super().__init__(config)
        self.uni_mol = UniMolModel(config)
        self.head = UniMolPropertyHead(config, config.hidden_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        pos: torch.FloatTensor,
        attention_mask: torch.Tensor | None = None,
        conformer_mask: torch.Tensor | None = None,
        labels: torch.FloatTensor | None = None,
        **kwargs,
    ) -> MoleculePropertyOutput:
        """
        Args:
            input_ids, pos, attention_mask, conformer_mask: as in [`UniMolModel`]. Of several conformers, logits and
                predictions are averaged, as in the paper's evaluation, and each one's loss counts.
            labels: `[molecules, tasks]`, NaN = missing.
        """
        molecules, molecule = len(input_ids), None
        if pos.dim() == 4:
            input_ids, pos, attention_mask, molecule = as_single_conformers(
                input_ids, pos, attention_mask, conformer_mask
            )
        output = self.uni_mol(input_ids, pos, attention_mask, **kwargs)
        predicted = self.head(output.pooler_output, labels if labels is None or molecule is None else labels[molecule])
        if molecule is not None:
            predicted.logits = mean_by_molecule(predicted.logits, molecule, molecules)
            predicted.predictions = mean_by_molecule(predicted.predictions, molecule, molecules)
        return MoleculePropertyOutput(**predicted, hidden_states=output.hidden_states, attentions=output.attentions)


__all__ = [
    "UniMolConformerOutput",
    "UniMolForConformerGeneration",
    "UniMolForPreTraining",
    "UniMolForPropertyPrediction",
    "UniMolModel",
    "UniMolModelOutput",
    "UniMolPreTrainedModel",
    "UniMolPreTrainingOutput",
]
