"""
DMP: a SMILES and a graph of one molecule, each read by its own network, pre-trained to tell of each other.

Paper: Zhu, Xia, Wu, Xie, Zhou, Qin, Li, Liu, "Dual-view molecular pre-training", KDD 2023 (arXiv 2106.10234). Original
code: github.com/microsoft/DVMP (MIT), on fairseq (MIT). Written anew from what it computes; the numbers of the graph
branch agree with it, and those of the SMILES branch with transformers' RoBERTa.

As the original, and not as one might think: the feature of a SMILES is the state of `</s>`, the last token; an atom
receives maximum, minimum and mean of (neighbour + bond), without an activation; each layer but the first stands behind
norm, ReLU and dropout, and the first norm behind the last layer; projections are batch-normalised, and the target of
the consistency is stopped before the projector (SimSiam, Chen and He 2021), not a network of its own (BYOL, Grill et
al. 2020), which is an option here.

Ours: a projection serves as prediction's input and as target, so that batch norms see a batch once a step (the
original: twice); neighbours are padded to the highest degree of the batch by repeating one, so that a layer has no
scattering; weights of the losses are per batch and not per molecule; the learned choice between the branches.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

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
from ...losses import masked_cross_entropy, negative_cosine
from ...modeling_outputs import (
    MoleculeModelOutput,
    MoleculePreTrainingOutput,
    MoleculePropertyOutput,
    recorded_outputs,
    require_attention_weights,
)
from ...nn.attention import eager_attention_forward
from ...nn.gather_sum import GatherSum
from ...nn.heads import PropertyHead
from ...nn.joined_graph import check_whole
from .configuration_dmp import DMPConfig, DMPGraphConfig, DMPSmilesConfig

# ---- SMILES ---------------------------------------------------------------------------------------------------------


class DMPEmbeddings(nn.Module):
    """Token and learned position embedding, layer norm, dropout. Padding has the position `pad_token_id`."""

    def __init__(self, config: DMPSmilesConfig):
        super().__init__()
        padding, rows = config.pad_token_id, config.max_position_embeddings + config.pad_token_id + 1
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=padding)
        self.position_embeddings = nn.Embedding(rows, config.hidden_size, padding_idx=padding)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor) -> torch.Tensor:
        real = attention_mask.long()
        positions = real.cumsum(dim=1) * real + self.word_embeddings.padding_idx
        hidden_states = self.norm(self.word_embeddings(input_ids) + self.position_embeddings(positions))
        device = hidden_states.device.type
        if device == "cpu" and torch.is_autocast_enabled(device):
            # CPU fast path: norms keep the type of their input, so the residual stream takes half the memory
            hidden_states = hidden_states.to(torch.get_autocast_dtype(device))
        return self.dropout(hidden_states)


class DMPAttention(nn.Module):
    """Multi-head self-attention; query, key and value come from one matrix product."""

    def __init__(self, config: DMPSmilesConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.is_causal = False  # otherwise sdpa would be causal for batches without padding
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        molecules, length, _ = hidden_states.shape
        qkv = self.qkv_proj(hidden_states).view(molecules, length, 3, -1, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
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


class DMPLayer(GradientCheckpointingLayer):
    """Self-attention and feed-forward network, each with dropout, residual and layer norm."""

    def __init__(self, config: DMPSmilesConfig):
        super().__init__()
        self.attention = DMPAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> torch.Tensor:
        attended, _ = self.attention(hidden_states, attention_mask, **kwargs)
        hidden_states = self.attention_norm(hidden_states + self.dropout(attended))
        inner = self.down_proj(self.activation(self.up_proj(hidden_states)))
        return self.mlp_norm(hidden_states + self.dropout(inner))


class DMPTokenHead(nn.Module):
    """Linear, activation, layer norm, then the product with the word embeddings, as the head of RoBERTa."""

    def __init__(self, config: DMPSmilesConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_states: torch.Tensor, word_embeddings: torch.Tensor) -> torch.Tensor:
        """`[..., hidden]` -> logits of the tokens, float32 `[..., vocab_size]`."""
        hidden_states = self.norm(self.activation(self.dense(hidden_states)))
        return F.linear(hidden_states, word_embeddings, self.bias).float()


# ---- graphs ---------------------------------------------------------------------------------------------------------


class DMPEdges(NamedTuple):
    """
    The edges of a batch in the form that the layers need; made once per batch.

    Args:
        target: `[edges]`.
        messages: the plan of state plus bond: of `[atoms; kinds of bonds]` to `[atoms * slots]`, or (compiled) to
            `[edges]`.
        weight: `[atoms, slots, 1]`, 1 / degree where a slot holds a neighbour, 0 where it repeats one; None if
            compiled.
        bonded: `[atoms, 1]`, 0 for an atom without neighbours, else 1.
        degree: `[atoms, 1]`, at least 1.
    """

    target: torch.Tensor
    messages: GatherSum
    weight: torch.Tensor | None
    bonded: torch.Tensor
    degree: torch.Tensor


def check_graph(x: torch.Tensor, edge_index: torch.Tensor, edge_attr: torch.Tensor, config: DMPGraphConfig) -> None:
    """
    Raises:
        ValueError: the batch was cut, as `nn.DataParallel` does; columns or values that are not of the scheme.
    """
    check_whole(edge_index, edge_attr)
    for name, value, dims in (("x", x, config.atom_feature_dims), ("edge_attr", edge_attr, config.bond_feature_dims)):
        if value.shape[1:] != (len(dims),):
            raise ValueError(
                f"{name} {tuple(value.shape)} is not of the scheme 'dmp', which this model takes: {len(dims)} columns "
                "(DMPProcessor makes them)"
            )
        fits = ((value >= 0) & (value < value.new_tensor(dims))).all()
        complaint = f"{name} of the scheme 'dmp' holds values below {dims}, column by column"
        if torch.compiler.is_compiling() or fits.device.type != "cpu":
            torch._assert_async(fits, complaint)  # the host neither waits for a GPU nor leaves a compiled graph
        elif not fits:
            raise ValueError(f"{complaint}; here {value.amin(dim=0).tolist()} ... {value.amax(dim=0).tolist()}")


def make_edges(
    edge_index: torch.Tensor, edge_attr: torch.Tensor, atoms: int, dtype: torch.dtype, dims: list[int]
) -> DMPEdges:
    """Edges `[2, edges]`, `[edges, 3]` of a joined graph to [`DMPEdges`]."""
    source, target = edge_index
    kind = (edge_attr[:, 0] * dims[1] + edge_attr[:, 1]) * dims[2] + edge_attr[:, 2]
    rows, edges = atoms + dims[0] * dims[1] * dims[2], len(source)
    counted = torch.zeros(atoms, dtype=torch.long, device=source.device)
    counted = counted.scatter_add_(0, target, torch.ones_like(target))
    bonded, degree = (counted > 0).to(dtype)[:, None], counted.clamp(min=1).to(dtype)[:, None]
    if torch.compiler.is_compiling() or not edges:  # the highest degree would depend on the data
        number = torch.arange(edges, device=source.device)
        plan = GatherSum(torch.cat([source, kind + atoms]), number.repeat(2), rows, edges)
        return DMPEdges(target, plan, None, bonded, degree)
    order = target.argsort(stable=True)
    first = counted.cumsum(0) - counted
    slot = torch.arange(int(counted.max()), device=source.device)
    filled = slot < counted[:, None]
    # an empty slot repeats the first neighbour; an atom without neighbours repeats anything, and is set to 0
    edge = order[torch.where(filled, first[:, None] + slot, first[:, None].clamp(max=edges - 1))].flatten()
    number = torch.arange(len(edge), device=source.device)
    plan = GatherSum(torch.cat([source[edge], kind[edge] + atoms]), number.repeat(2), rows, len(edge))
    return DMPEdges(target, plan, (filled.to(dtype) / degree)[..., None], bonded, degree)


class DMPFeatureEmbeddings(nn.Module):
    """Sum of an embedding of each column, `[rows, columns] -> [rows, width]`."""

    def __init__(self, dims: list[int], width: int):
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(size, width) for size in dims])

    def kinds(self) -> torch.Tensor:
        """Embeddings of all combinations of three columns, `[product of their sizes, width]`."""
        first, second, third = (table.weight for table in self.tables)
        return (first[:, None, None] + second[:, None] + third).flatten(0, 2)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return sum(table(values[:, column]) for column, table in enumerate(self.tables))


class DMPGraphLayer(GradientCheckpointingLayer):
    """
    `W (h_i + V [max; min; mean over neighbours j of h_j + bond_ij])`, `[atoms, hidden] -> [atoms, hidden]`. Norms are
    outside, so that gradient checkpointing does not count a batch twice in the running statistics.
    """

    def __init__(self, config: DMPGraphConfig):
        super().__init__()
        self.bond_embeddings = DMPFeatureEmbeddings(config.bond_feature_dims, config.hidden_size)
        self.aggregate_proj = nn.Linear(3 * config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def aggregate(self, states: torch.Tensor, edges: DMPEdges) -> torch.Tensor:
        """Maximum, minimum and mean of the messages, `[atoms, 3 * hidden]`; 0 for an atom without neighbours."""
        atoms, width = states.shape
        messages = edges.messages(torch.cat([states, self.bond_embeddings.kinds().to(states.dtype)]))
        if edges.weight is None:
            place, empty = edges.target[:, None].expand_as(messages), states.new_zeros(atoms, width)
            highest = empty.scatter_reduce(0, place, messages, "amax", include_self=False)
            lowest = empty.scatter_reduce(0, place, messages, "amin", include_self=False)
            mean = empty.index_add(0, edges.target, messages) / edges.degree.to(states.dtype)
        else:
            messages = messages.view(atoms, -1, width)
            highest, lowest = messages.amax(dim=1), messages.amin(dim=1)
            mean = (messages * edges.weight.to(states.dtype)).sum(dim=1)
        return torch.cat([highest, lowest, mean], dim=-1) * edges.bonded.to(states.dtype)

    def forward(self, states: torch.Tensor, edges: DMPEdges) -> torch.Tensor:
        return self.out_proj(states + self.aggregate_proj(self.aggregate(states, edges)))


class DMPBatchNorm(nn.BatchNorm1d):
    """Batch norm over atoms or molecules. One row alone has no variance: it is normalised as in evaluation, where torch
    would raise, and so is none at all."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if self.training and len(states) < 2:
            return F.batch_norm(states, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(states)


class DMPAtomHead(nn.Module):
    """Linear, ReLU, batch norm, then the product with the embeddings of the elements."""

    def __init__(self, config: DMPGraphConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = DMPBatchNorm(config.hidden_size)
        self.bias = nn.Parameter(torch.zeros(config.atom_feature_dims[0]))

    def forward(self, states: torch.Tensor, elements: torch.Tensor) -> torch.Tensor:
        """`[atoms, hidden]` -> logits of the elements, float32 `[atoms, 120]`."""
        return F.linear(self.norm(F.relu(self.dense(states))), elements, self.bias).float()


def pool(states: torch.Tensor, batch: torch.Tensor, num_graphs: int) -> torch.Tensor:
    """Maximum beside mean of the atoms of each molecule, `[atoms, width] -> [molecules, 2 * width]`."""
    place, empty = batch[:, None].expand_as(states), states.new_zeros(num_graphs, states.shape[1])
    highest = empty.scatter_reduce(0, place, states, "amax", include_self=False)
    size = torch.zeros(num_graphs, dtype=states.dtype, device=batch.device)
    size = size.scatter_add_(0, batch, size.new_ones(len(batch))).clamp(min=1)[:, None]
    own = torch.arange(len(batch), device=batch.device)
    return torch.cat([highest, GatherSum(own, batch, len(batch), num_graphs)(states) / size], dim=-1)


# ---- models ---------------------------------------------------------------------------------------------------------


class DMPPreTrainedModel(RemoteCodeMixin, PreTrainedModel):
    config: DMPConfig
    base_model_prefix = "dmp"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # all losses are means
    _no_split_modules = ["DMPLayer", "DMPGraphLayer"]
    _supports_sdpa = True
    _can_record_outputs = {"hidden_states": DMPLayer, "attentions": DMPAttention}
    # heads of pre-training, and the branch that `config.branch` does not name
    _keys_to_ignore_on_load_unexpected = [
        r"^(token|atom)_head\.",
        r"^(projectors|predictors|target)\.",
        r"^target_steps$",
        r"^(dmp\.)?(smiles|graph)_model\.",
    ]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Heads keep torch's defaults, as in the original; the branches see to themselves."""
        if isinstance(module, DMPBranchChoice):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5  # torch draws weight and bias from +-1 / sqrt(inputs)
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm1d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            if isinstance(module, nn.BatchNorm1d):
                init.zeros_(module.running_mean)
                init.ones_(module.running_var)
                init.zeros_(module.num_batches_tracked)
        elif isinstance(module, DMPTokenHead | DMPAtomHead):
            init.zeros_(module.bias)
        elif isinstance(module, DMPForPreTraining) and module.target is not None:
            init.zeros_(module.target_steps)


class DMPSmilesModel(DMPPreTrainedModel):
    """The SMILES branch: token ids to token states and that of the last token, `</s>`."""

    config: DMPSmilesConfig
    base_model_prefix = "smiles_model"

    def __init__(self, config: DMPSmilesConfig):
        super().__init__(config)
        self.embeddings = DMPEmbeddings(config)
        self.layers = nn.ModuleList([DMPLayer(config) for _ in range(config.num_hidden_layers)])
        self.gradient_checkpointing = False
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Initialise as BERT: normal weights of `initializer_range`, zero biases, unit norms."""
        if isinstance(module, nn.Linear | nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
            padding = getattr(module, "padding_idx", None)
            if padding is not None and not getattr(module.weight, "_is_hf_initialized", False):
                init.zeros_(module.weight[padding])
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)

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
            input_ids: `[molecules, length]`, `SMILES </s>`, padded on either side; attention_mask: the same shape, 0
            where padded (None: where the padding token stands).
        Returns:
            `pooler_output` `[molecules, hidden]`, the state of the last token; `last_hidden_state`.
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
        if attention_mask is None:
            attention_mask = (input_ids != self.config.pad_token_id).long()
        hidden_states = self.embeddings(input_ids, attention_mask)
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask)
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, **kwargs)
        places = torch.arange(length, device=input_ids.device)
        last = (attention_mask.long() * places).argmax(dim=1)
        pooled = hidden_states[torch.arange(len(last), device=last.device), last]
        return MoleculeModelOutput(last_hidden_state=hidden_states, pooler_output=pooled)


class DMPGraphModel(DMPPreTrainedModel):
    """The graph branch: a joined graph to states of the atoms and an embedding of each molecule."""

    config: DMPGraphConfig
    base_model_prefix = "graph_model"
    main_input_name = "x"

    def __init__(self, config: DMPGraphConfig):
        super().__init__(config)
        self.atom_embeddings = DMPFeatureEmbeddings(config.atom_feature_dims, config.hidden_size)
        self.layers = nn.ModuleList([DMPGraphLayer(config) for _ in range(config.num_hidden_layers)])
        self.norms = nn.ModuleList([DMPBatchNorm(config.hidden_size) for _ in range(config.num_hidden_layers)])
        self.gradient_checkpointing = False
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Initialise as the original: Glorot for embeddings, torch's defaults otherwise."""
        if isinstance(module, nn.Embedding):
            init.xavier_uniform_(module.weight)
        else:
            super()._init_weights(module)

    def get_input_embeddings(self) -> nn.Module:
        return self.atom_embeddings.tables[0]

    def set_input_embeddings(self, value: nn.Module):
        self.atom_embeddings.tables[0] = value

    def forward(
        self,
        x: torch.LongTensor,
        edge_index: torch.LongTensor,
        edge_attr: torch.LongTensor,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
        **kwargs,
    ) -> MoleculeModelOutput:
        """
        Args:
            x: `[atoms, 9]`; edge_index: `[2, edges]`, each bond twice; edge_attr: `[edges, 3]`; batch: `[atoms]`,
            molecule of each atom (None: all of one); num_graphs: molecules (None: counted).
        Returns:
            `pooler_output` `[molecules, 2 * hidden]`, maximum and mean of the atoms; `last_hidden_state` `[atoms,
            hidden]`; `hidden_states`: the embeddings of the atoms and their states after each layer.
        Raises:
            ValueError: see [`check_graph`]; or `output_attentions` is requested, which there are not.
        """
        recorded = recorded_outputs(self.config, kwargs)
        if "output_attentions" in recorded:
            raise ValueError("the graph branch of DMP returns no attention weights (output_attentions)")
        check_graph(x, edge_index, edge_attr, self.config)
        if batch is None:
            batch, num_graphs = x.new_zeros(len(x)), 1
        if num_graphs is None:
            num_graphs = int(batch.max()) + 1
        states = self.atom_embeddings(x)
        edges = make_edges(edge_index, edge_attr, len(x), states.dtype, self.config.bond_feature_dims)
        of_layers = [states]
        for depth, layer in enumerate(self.layers):
            states = layer(states, edges) if not depth else states + layer(self._between(states, depth), edges)
            of_layers.append(states)
        states = self._between(states, 0)  # the first norm is the last one
        return MoleculeModelOutput(
            last_hidden_state=states,
            pooler_output=pool(states, batch, num_graphs),
            hidden_states=tuple(of_layers) if recorded else None,
        )

    def _between(self, states: torch.Tensor, norm: int) -> torch.Tensor:
        return F.dropout(F.relu(self.norms[norm](states)), self.config.dropout, self.training)


class DMPModel(DMPPreTrainedModel):
    """The branches that `config.branch` names (`both=True`: both)."""

    def __init__(self, config: DMPConfig, both: bool = False):
        super().__init__(config)
        self.branches = ("smiles", "graph") if both else tuple(config.widths)
        if "smiles" in self.branches:
            self.smiles_model = DMPSmilesModel._from_config(config.smiles_config)
        if "graph" in self.branches:
            self.graph_model = DMPGraphModel._from_config(config.graph_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return getattr(self, f"{self.branches[0]}_model").get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        getattr(self, f"{self.branches[0]}_model").set_input_embeddings(value)

    def _branch(self, name: str) -> nn.Module:
        if name not in self.branches:
            raise ValueError(f"this model has the branch {self.config.branch!r} alone: load it with branch='both'")
        return getattr(self, f"{name}_model")

    def get_smiles_features(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> torch.FloatTensor:
        """Embed SMILES, `[molecules, length] -> [molecules, hidden]`: the state of `</s>`, before the projector."""
        return self._branch("smiles")(input_ids, attention_mask, **kwargs).pooler_output

    def get_graph_features(
        self,
        x: torch.LongTensor,
        edge_index: torch.LongTensor,
        edge_attr: torch.LongTensor,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
        **kwargs,
    ) -> torch.FloatTensor:
        """Embed a joined graph, `[molecules, 2 * width]`: maximum beside mean of the atoms, before the projector."""
        return self._branch("graph")(x, edge_index, edge_attr, batch, num_graphs, **kwargs).pooler_output

    def encode(self, **inputs) -> dict[str, MoleculeModelOutput]:
        """Run the branches that there are; extra outputs are recorded of the first alone. Raises ValueError: an input
        is missing."""
        of_smiles = {name: inputs.pop(name, None) for name in ("input_ids", "attention_mask")}
        of_graphs = {name: inputs.pop(name, None) for name in ("x", "edge_index", "edge_attr", "batch", "num_graphs")}
        recorded = recorded_outputs(self.config, inputs)
        outputs = {}
        for name in self.branches:
            given, needed = (of_smiles, "input_ids") if name == "smiles" else (of_graphs, "x")
            if given[needed] is None:
                raise ValueError(f"the branch {name!r} needs {needed}: DMPProcessor makes both views of a molecule")
            flags = {"output_hidden_states": False, "output_attentions": False} if outputs else recorded
            outputs[name] = self._branch(name)(**given, **(inputs | flags))
        return outputs

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        x: torch.LongTensor | None = None,
        edge_index: torch.LongTensor | None = None,
        edge_attr: torch.LongTensor | None = None,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
        **kwargs,
    ) -> MoleculeModelOutput:
        """
        Args:
            input_ids, attention_mask: as in [`DMPSmilesModel`]; x, edge_index, edge_attr, batch, num_graphs: as in
            [`DMPGraphModel`], of the same molecules. What `config.branch` does not name is not used.
        Returns:
            `pooler_output` `[molecules, hidden_size]`, by `config.branch`; `embeddings`: the features by branch.
            `last_hidden_state`, `hidden_states`, `attentions`: of the SMILES, or of the graph if that is the branch.
        Raises:
            ValueError: the input of a branch is missing.
        """
        graph = {"x": x, "edge_index": edge_index, "edge_attr": edge_attr, "batch": batch, "num_graphs": num_graphs}
        outputs = self.encode(input_ids=input_ids, attention_mask=attention_mask, **graph, **kwargs)
        views = {name: output.pooler_output for name, output in outputs.items()}
        first = next(iter(outputs.values()))
        return MoleculeModelOutput(
            pooler_output=torch.cat(list(views.values()), dim=-1) if len(views) > 1 else first.pooler_output,
            last_hidden_state=first.last_hidden_state,
            embeddings=views,
            hidden_states=first.hidden_states,
            attentions=first.attentions,
        )


class DMPBottleneck(nn.Module):
    """Projector or predictor: linear, batch norm, ReLU, linear, `[molecules, inputs] -> [molecules, outputs]`."""

    def __init__(self, inputs: int, outputs: int, ratio: int):
        super().__init__()
        self.up_proj = nn.Linear(inputs, ratio * inputs)
        self.norm = DMPBatchNorm(ratio * inputs)
        self.down_proj = nn.Linear(ratio * inputs, outputs)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.relu(self.norm(self.up_proj(features))))


def make_projectors(config: DMPConfig) -> nn.ModuleDict:
    """The projector of each branch."""
    widths = {"smiles": config.smiles_config.hidden_size, "graph": 2 * config.graph_config.hidden_size}
    outputs, ratio = config.projection_dim, config.bottleneck_ratio
    return nn.ModuleDict({name: DMPBottleneck(width, outputs, ratio) for name, width in widths.items()})


@torch.no_grad()
def feature_spread(features: torch.Tensor) -> torch.Tensor:
    """Mean standard deviation of the normalised features over a batch: 0 if all molecules look the same."""
    return F.normalize(features.float(), dim=-1).std(dim=0, correction=0).mean()


class DMPForPreTraining(DMPPreTrainedModel):
    """
    Pre-training: predict masked tokens of the SMILES and masked elements of the graph, and from the projection of each
    view that of the other.
    """

    def __init__(self, config: DMPConfig):
        super().__init__(config)
        self.dmp = DMPModel(config, both=True)
        self.token_head = DMPTokenHead(config.smiles_config)
        self.atom_head = DMPAtomHead(config.graph_config)
        self.projectors = make_projectors(config)
        size, ratio = config.projection_dim, config.bottleneck_ratio
        self.predictors = nn.ModuleDict({name: DMPBottleneck(size, size, ratio) for name in self.projectors})
        self.target = None
        if config.momentum_target:
            parts = {"dmp": DMPModel(copy.deepcopy(config), both=True), "projectors": make_projectors(config)}
            self.target = nn.ModuleDict(parts).requires_grad_(False)
            self.register_buffer("target_steps", torch.zeros((), dtype=torch.long))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.dmp.get_input_embeddings()

    def get_output_embeddings(self) -> None:
        """There are none: the heads use the embeddings."""

    @torch.no_grad()
    def update_target(self) -> None:
        """
        Let the second network follow after a step of the optimizer: `target_decay` of it stays. The first time it takes
        all weights, so that it begins as the trained network. Batch norms of it keep their own statistics.
        """
        keep = self.config.target_decay if int(self.target_steps) else 0.0
        for name, part in self.target.items():
            for mine, theirs in zip(part.parameters(), getattr(self, name).parameters(), strict=True):
                mine.lerp_(theirs.to(mine.dtype), 1 - keep)
        self.target_steps += 1

    def project(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Project the feature of each branch, `[molecules, projection_dim]`."""
        return {name: self.projectors[name](feature) for name, feature in features.items()}

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        x: torch.LongTensor,
        edge_index: torch.LongTensor,
        edge_attr: torch.LongTensor,
        masked_tokens: torch.LongTensor | None = None,
        masked_token_ids: torch.LongTensor | None = None,
        masked_atoms: torch.LongTensor | None = None,
        masked_atom_types: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
        **kwargs,
    ) -> MoleculePreTrainingOutput:
        """
        Args:
            input_ids, attention_mask, x, edge_index, edge_attr, batch, num_graphs: both views, masked, as in
                [`DMPModel`].
            masked_tokens: `[masked]`, indices into the flattened `input_ids`; masked_token_ids: the true tokens.
            masked_atoms: `[masked]`, indices into `x`; masked_atom_types: the true values of its first column.
        Returns:
            `losses`: `tokens` and `atoms` ([`~hf_molrep.losses.masked_cross_entropy`]), and `consistency`, the sum over
            both directions of [`~hf_molrep.losses.negative_cosine`] (-2 at best); `monitors`: `smiles_spread` and
            `graph_spread`, see [`feature_spread`]; `embeddings`: `smiles` and `graph`, the features before the
            projectors; `hidden_states` and `attentions`: of the SMILES.
        Raises:
            ValueError: the batch was not made for pre-training.
        """
        if masked_tokens is None or masked_atoms is None:
            raise ValueError("this batch was not made for pre-training: give it to the data collator")
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "x": x, "edge_index": edge_index}
        inputs |= {"edge_attr": edge_attr, "batch": batch, "num_graphs": num_graphs}
        outputs = self.dmp.encode(**inputs, **kwargs)
        features = {name: output.pooler_output for name, output in outputs.items()}
        projections = self.project(features)
        predictions = {name: self.predictors[name](value) for name, value in projections.items()}
        if self.target is None:
            targets = projections  # the loss stops their gradient
        else:
            with torch.no_grad():
                encoded = self.target["dmp"].encode(**inputs, output_hidden_states=False, output_attentions=False)
                heads = self.target["projectors"]
                targets = {name: heads[name](output.pooler_output) for name, output in encoded.items()}
        tokens = outputs["smiles"].last_hidden_state.flatten(0, 1)[masked_tokens]
        atoms = outputs["graph"].last_hidden_state[masked_atoms]
        words = self.dmp.smiles_model.embeddings.word_embeddings.weight
        elements = self.dmp.graph_model.atom_embeddings.tables[0].weight
        losses = {
            "tokens": masked_cross_entropy(self.token_head(tokens, words), masked_token_ids),
            "atoms": masked_cross_entropy(self.atom_head(atoms, elements), masked_atom_types),
            "consistency": negative_cosine(predictions["smiles"], targets["graph"])
            + negative_cosine(predictions["graph"], targets["smiles"]),
        }
        return MoleculePreTrainingOutput(
            loss=sum(getattr(self.config, f"{name}_weight") * value for name, value in losses.items()),
            losses=losses,
            monitors={f"{name}_spread": feature_spread(value) for name, value in features.items()},
            embeddings=features,
            hidden_states=outputs["smiles"].hidden_states,
            attentions=outputs["smiles"].attentions,
        )


class DMPBranchChoice(nn.Linear):
    """Features of both branches to the logits of their weights; it begins with 0, so that both count alike."""


class DMPPropertyHead(PropertyHead):
    """
    The head of the original: a linear layer and tanh for each branch, and one linear layer for both. Of two branches it
    takes the mean of the hidden layers, or with `branch_choice="learned"` weights that are computed for each molecule
    from both features.
    """

    def __init__(self, config: DMPConfig):
        nn.Module.__init__(self)
        self.config = config
        self.dropout = nn.Dropout(config.classifier_dropout)
        width = max(config.widths.values())
        self.dense = nn.ModuleDict({name: nn.Linear(size, width) for name, size in config.widths.items()})
        self.choice = DMPBranchChoice(config.hidden_size, 2) if config.branch_choice == "learned" else None
        self.out_proj = nn.Linear(width, config.num_labels)

    def branch_weights(self, embedding: torch.Tensor) -> torch.Tensor:
        """How much each branch counts, `[molecules, hidden] -> [molecules, branches]`, their sum is 1."""
        if self.choice is not None:
            return self.choice(embedding).softmax(dim=-1)
        return embedding.new_full((len(embedding), len(self.dense)), 1 / len(self.dense))

    def logits(self, embedding: torch.Tensor) -> torch.Tensor:
        features = self.dropout(embedding).split(list(self.config.widths.values()), dim=-1)
        hidden = [torch.tanh(dense(part)) for dense, part in zip(self.dense.values(), features, strict=True)]
        if len(hidden) == 1:
            return self.out_proj(self.dropout(hidden[0]))
        weights = self.branch_weights(embedding)[..., None].to(hidden[0].dtype)
        return self.out_proj(self.dropout((torch.stack(hidden, dim=1) * weights).sum(dim=1)))


class DMPForPropertyPrediction(DMPPreTrainedModel):
    """
    Molecular properties from the branches that `config.branch` names. The original fine-tunes with Adam (0.9, 0.98),
    learning rate 1e-4, weight decay 0.01, batches of 8 (larger sets 32), 10 epochs, and dropout 0.1 in the branches.
    """

    def __init__(self, config: DMPConfig):
        super().__init__(config)
        self.dmp = DMPModel(config)
        self.head = DMPPropertyHead(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        x: torch.LongTensor | None = None,
        edge_index: torch.LongTensor | None = None,
        edge_attr: torch.LongTensor | None = None,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
        labels: torch.FloatTensor | None = None,
        **kwargs,
    ) -> MoleculePropertyOutput:
        """
        Args:
            input_ids, attention_mask, x, edge_index, edge_attr, batch, num_graphs: as in [`DMPModel`];
            labels: `[molecules, tasks]`, NaN = missing.
        """
        output = self.dmp(input_ids, attention_mask, x, edge_index, edge_attr, batch, num_graphs, **kwargs)
        return MoleculePropertyOutput(
            **self.head(output.pooler_output, labels), hidden_states=output.hidden_states, attentions=output.attentions
        )


__all__ = ["DMPForPreTraining", "DMPForPropertyPrediction", "DMPModel", "DMPPreTrainedModel"]
