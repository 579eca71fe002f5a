"""
GROVER: attention whose queries, keys and values come from message passing, over atoms and over directed bonds; each of
these views gives outputs for atoms and for bonds.

Paper: Rong, Bian, Xu, Xie, Wei, Huang, Huang, "Self-Supervised Graph Transformer on Large-Scale Molecular Data",
NeurIPS 2020 (arXiv 2007.02835). Original code: github.com/tencent-ailab/grover (MIT), `grover/model/layers.py` and
`grover/model/models.py`.

As in the original, and perhaps unexpected: the attention of an atom is among its own heads (a sequence of
`num_attention_heads` states), never among atoms; the first state is added in every hop; `hops - 1` updates are made;
inputs are not masked in pre-training, only labels are chosen.
Different from the original: queries, keys and values of all heads pass messages in one batched product per hop (on a
CPU without gradients one after the other, see `pass_messages_by_channel`); sums go over real edges only, and the terms
of the original's padding are computed separately, if configured (`padded_neighbors`, `legacy_padding`); without padding
the disagreement losses have no padding rows; hops are drawn by torch; unused parts are not built: two activations of
the encoder, and the input layer of a block whose input is as wide as its states.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from ...compat import ALL_ATTENTION_FUNCTIONS, GradientCheckpointingLayer, can_return_tuple, init
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
from ...nn.gather_sum import GatherSum
from ...nn.heads import PropertyHead
from .configuration_grover import GroverConfig

ACTIVATIONS: dict[str, Callable] = {
    "relu": F.relu,
    "leaky_relu": lambda states: F.leaky_relu(states, 0.1),
    "tanh": torch.tanh,
    "selu": F.selu,
    "elu": F.elu,
}
BRANCHES = ("atom_from_atom", "atom_from_bond", "bond_from_atom", "bond_from_bond")


class ChannelSum:
    """
    Computes `sums[.., t] = sum of rows[.., s] over the pairs (s, t)`, `[.., rows, width] -> [.., sums, width]`, for a
    varying number of channels with the same pairs. The plan for each number of channels is made once per batch.

    Args:
        source, target: `[pairs]`.
        rows, sums: number of rows and of sums.
        fill: `[sums, padding]`, how often each of the first rows (the padding) is added to each sum. These are not
            pairs, since the gradient of a single row would be a sum over all atoms.
    """

    def __init__(
        self, source: torch.Tensor, target: torch.Tensor, rows: int, sums: int, fill: torch.Tensor | None = None
    ):
        self.source, self.target, self.rows, self.sums, self.fill = source, target, rows, sums, fill
        self.plans: dict[tuple[int, bool], GatherSum] = {}

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        sums = self.sum_pairs(states)
        if self.fill is None:
            return sums
        fill = self.fill.to(states.dtype)
        padding = states[..., : fill.shape[1], :]
        if states.dim() == 2:
            return torch.addmm(sums, fill, padding)
        return torch.baddbmm(sums, fill.expand(len(states), -1, -1), padding)

    def sum_pairs(self, states: torch.Tensor) -> torch.Tensor:
        *leading, _, width = states.shape
        channels = leading[0] if leading else 1
        if torch.compiler.is_compiling():
            zeros = states.new_zeros(*leading, self.sums, width)
            return zeros.index_add(-2, self.target, states.index_select(-2, self.source))
        plan = self.plans.get((channels, torch.is_grad_enabled()))
        if plan is None:
            place = torch.arange(channels, device=self.source.device)[:, None]
            source, target = self.source + place * self.rows, self.target + place * self.sums
            plan = GatherSum(source.flatten(), target.flatten(), channels * self.rows, channels * self.sums)
            self.plans[channels, torch.is_grad_enabled()] = plan
        return plan(states.reshape(channels * self.rows, width)).view(*leading, self.sums, width)


class GroverGraph(NamedTuple):
    """
    A batch in the form that the layers need. The first `padding` rows of atoms and of edges are padding: one row for
    each length to which lists of neighbours are padded in this batch.

    Args:
        x: `[atoms, 151]`; edges: `[edges, 165]`, features of the source atom and of the bond.
        to_atoms_from_atoms: sums over neighbours; to_atoms_from_edges: over arriving edges.
        to_edges_from_edges: over edges that arrive at the source of an edge, but for its reverse.
        to_edges_from_atoms: over the source of an edge and the sources of those.
        atom_batch, edge_batch: molecule of each atom and edge, without the padding.
    """

    x: torch.Tensor
    edges: torch.Tensor
    to_atoms_from_atoms: ChannelSum
    to_atoms_from_edges: ChannelSum
    to_edges_from_edges: ChannelSum
    to_edges_from_atoms: ChannelSum
    atom_batch: torch.Tensor
    edge_batch: torch.Tensor
    num_graphs: int
    padding: int

    def mean(self, states: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        """Average over the atoms or edges of each molecule, `[molecules, width]`; zeros if there are none."""
        states = states[self.padding :]
        sums = states.new_zeros(self.num_graphs, states.shape[1], dtype=torch.float32)
        sums = sums.index_add(0, batch, states.float())
        counts = torch.zeros(self.num_graphs, device=batch.device)
        counts = counts.index_add(0, batch, torch.ones_like(batch, dtype=torch.float32))
        return (sums / counts.clamp(min=1)[:, None]).to(states.dtype)


@torch.compiler.disable
def make_graph(
    x: torch.Tensor,
    edge_index: torch.Tensor,
    edge_attr: torch.Tensor,
    batch: torch.Tensor | None,
    num_graphs: int | None,
    model: PreTrainedModel,
) -> GroverGraph:
    """
    Make a [`GroverGraph`] from a joined graph (see [`~hf_molrep.data.batching.join_graphs`]), in the type of the
    model's weights, padded as its configuration says (`padded_neighbors`, `legacy_padding`).

    Raises:
        ValueError: the batch was cut, as `nn.DataParallel` does; columns are not of the scheme `grover`; or edges do
            not come in pairs, refer to missing atoms, or lack features.
    """
    atoms, device, config = len(x), x.device, model.config
    widths = config.atom_features, config.bond_features
    if x.shape[1:] != widths[:1] or edge_attr.shape[1:] != widths[1:]:
        raise ValueError(
            f"x {tuple(x.shape)} and edge_attr {tuple(edge_attr.shape)} are not of the scheme 'grover', which GROVER "
            f"takes: {widths[0]} columns and {widths[1]} (GroverFeatureExtractor makes them)"
        )
    if edge_index.shape[0] != 2:
        raise ValueError(
            f"edge_index has the shape {tuple(edge_index.shape)}: a joined graph must not be cut as nn.DataParallel "
            "does; use torchrun for several GPUs"
        )
    x, edge_attr = x.to(model.dtype), edge_attr.to(model.dtype)
    if batch is None:
        batch = torch.zeros(atoms, dtype=torch.int64, device=device)
    if num_graphs is None:
        num_graphs = int(batch.max()) + 1
    source, target = edge_index
    if (edge_index.numel() and int(edge_index.max()) >= atoms) or len(batch) != atoms:
        raise ValueError(
            "edge_index names atoms that are not in x: a joined graph cannot be cut among devices (nn.DataParallel "
            "does that); use torchrun"
        )
    if len(source) % 2 or not torch.equal(edge_index[:, ::2], edge_index[:, 1::2].flip(0)):
        raise ValueError("edges are not in pairs: the reverse of edge 2k must be edge 2k + 1 (see from_pyg)")
    if len(edge_attr) != len(source):
        raise ValueError(f"{len(edge_attr)} rows of edge_attr for {len(source)} edges")
    edge_batch = batch[source]
    reverse = torch.arange(len(source), device=device) ^ 1
    padding = 0
    if config.legacy_padding or config.padded_neighbors is not None:
        # the length to which the lists of neighbours of each molecule are padded, and the padding row that they use:
        # one row for each length, whose own list holds only itself, as often as the length says
        degree = torch.bincount(target, minlength=atoms)
        lengths = degree.new_zeros(num_graphs).scatter_reduce_(0, batch, degree, "amax")
        if config.legacy_padding:
            lengths = lengths.max().clamp(min=1).expand(num_graphs)
        else:
            lengths = lengths.clamp(min=config.padded_neighbors)
        of_rows, row = lengths.unique(return_inverse=True)
        padding = len(of_rows)
        rows = torch.arange(padding, device=device)
        missing = torch.cat([of_rows, lengths[batch] - degree])
        row = torch.cat([rows, row[batch]])
        x, edge_attr = F.pad(x, (0, 0, padding, 0)), F.pad(edge_attr, (0, 0, padding, 0))
        source, target = torch.cat([rows, source + padding]), torch.cat([rows, target + padding])
        reverse = torch.cat([rows, reverse + padding])
        atoms += padding
    edges = len(source)
    every_edge = torch.arange(edges, device=device)

    # pairs (arriving edge, atom), the real ones sorted by atom
    real = every_edge[padding:]
    arriving = real[target[real].argsort(stable=True)]
    at = target[arriving]
    degree = torch.bincount(at, minlength=atoms)
    # pairs (edge before, edge): edges that arrive at the source of an edge, except its reverse
    count = degree[source]
    edge = every_edge.repeat_interleave(count)
    within = torch.arange(len(edge), device=device) - (count.cumsum(0) - count).repeat_interleave(count)
    before = arriving[((degree.cumsum(0) - degree)[source]).repeat_interleave(count) + within]
    keep = before != reverse[edge]
    before, edge = before[keep], edge[keep]
    at_atoms = at_edges = None
    if padding:
        at_atoms = F.one_hot(row, padding) * missing[:, None]
        at_edges = at_atoms[source]
        at_edges.diagonal().sub_(1)  # a padding edge is its own reverse, which does not count
        at_atoms, at_edges = at_atoms.to(x.dtype), at_edges.to(x.dtype)
    return GroverGraph(
        x,
        torch.cat([x[source], edge_attr], dim=1),
        ChannelSum(source[arriving], at, atoms, atoms, at_atoms),
        ChannelSum(arriving, at, edges, atoms, at_atoms),
        ChannelSum(before, edge, edges, edges, at_edges),
        ChannelSum(torch.cat([source, source[before]]), torch.cat([every_edge, edge]), atoms, edges, at_edges),
        batch,
        edge_batch,
        num_graphs,
        padding,
    )


def draw_hops(depth: int, channels: int, device: torch.device | str = "cpu") -> list[int]:
    """
    Draw the hops of each channel from a normal distribution with mean `depth` and deviation 1, cut off at +-3, rounded
    down (dyMPN of the paper; `MPNEncoder.forward` of the original), by the inverse of the distribution function.
    """
    low, high = torch.special.ndtr(torch.tensor([-3.0, 3.0], dtype=torch.float64)).tolist()
    share = low + (high - low) * torch.rand(channels, dtype=torch.float64, device=device)
    return (depth + torch.special.ndtri(share).clamp(-3, 3)).floor().long().tolist()


class GroverActivation(nn.Module):
    """Activation of `[rows, width]` or `[channels, rows, width]`; PReLU has one learned slope per channel."""

    def __init__(self, config: GroverConfig, channels: int = 1):
        super().__init__()
        self.hidden_act = config.hidden_act
        if self.hidden_act == "prelu":
            self.slopes = nn.Parameter(torch.full((channels,), 0.25))

    def forward(self, states: torch.Tensor, channels: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the activation; `channels` are those that `states` holds (None: all)."""
        if self.hidden_act != "prelu":
            return ACTIVATIONS[self.hidden_act](states)
        slopes = (self.slopes if channels is None else self.slopes[channels]).to(states.dtype)
        return F.prelu(states.reshape(1, len(slopes), -1), slopes).view(states.shape)

    def of_channel_(self, states: torch.Tensor, channel: int) -> torch.Tensor:
        """Apply the activation to `[rows, width]` of one channel, which may be overwritten."""
        if self.hidden_act != "prelu":
            return ACTIVATIONS[self.hidden_act](states)
        return F.leaky_relu_(states, self.slopes[channel].item())


class GroverBlock(GradientCheckpointingLayer):
    """
    A GTransformer block over atoms or over directed edges, `[rows, features] -> [rows, width]`. Its channels are the
    queries (the first `heads` channels), keys and values of the heads; each has its own message-passing network.
    """

    def __init__(self, config: GroverConfig, input_dim: int):
        super().__init__()
        width, heads = config.embedding_dim, config.num_attention_heads
        self.config, self.heads, self.depth = config, heads, config.depth
        self.head_dim = width // heads
        self.is_causal = False
        self.scaling = self.head_dim**-0.5
        self.dropout = nn.Dropout(config.dropout)
        self.projects = input_dim != width  # as in the original, an input of the right width is not projected
        if self.projects:
            self.input_proj = nn.Linear(input_dim, width, bias=config.bias)
            self.input_activation = GroverActivation(config)
            self.input_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.message_weight = nn.Parameter(torch.empty(3 * heads, width, width))  # [channels, out, in]
        self.message_bias = nn.Parameter(torch.empty(3 * heads, width)) if config.bias else None
        self.message_activation = GroverActivation(config, 3 * heads)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width, bias=config.bias)
        self.heads_proj = nn.Linear(heads * width, width, bias=config.bias)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def pass_messages(self, first: torch.Tensor, add: ChannelSum) -> torch.Tensor:
        """Pass messages, `[rows, width] -> [channels, rows, width]`: a hop is `activation(first + W neighbours)`."""
        # CPU fast path, in evaluation without gradients: run channel by channel, each stays in cache through all hops;
        # saves a sixth (bf16: a third) of the time of the batched products
        in_cache = first.device.type == "cpu" and not (torch.is_grad_enabled() or torch.compiler.is_compiling())
        if in_cache and not self.training:
            return self.pass_messages_by_channel(first, add)
        channels = len(self.message_weight)
        weight, bias, order, updates = self.message_weight, self.message_bias, None, [self.depth - 1] * channels
        if self.training and self.config.dynamic_depth == "truncnorm":
            # sort channels by falling number of hops, so that those that still pass messages are a slice
            updates = torch.tensor([max(hops - 1, 0) for hops in draw_hops(self.depth, channels)])
            updates, order = updates.sort(descending=True, stable=True)
            updates, order = updates.tolist(), order.to(first.device)
            weight = weight[order]
            bias = None if bias is None else bias[order]
        if torch.is_autocast_enabled(first.device.type):
            # convert once, not in every hop, and the first states not once per channel
            dtype = torch.get_autocast_dtype(first.device.type)
            first, weight = first.to(dtype), weight.to(dtype)
        weight = weight.transpose(1, 2)
        start = first if bias is None else first + bias[:, None].to(first.dtype)
        states, finished = None, []
        for hop in range(updates[0] + 1):
            active = sum(update > hop for update in updates)
            present = channels if states is None else len(states)
            if active < present:
                rest = first.expand(present - active, -1, -1) if states is None else states[active:]
                finished.append(rest)
                if not active:
                    break
            # all channels begin with the same states, so the first sum is computed once
            summed = add(first).expand(active, -1, -1) if states is None else add(states[:active])
            begin = start.expand(active, -1, -1) if start.dim() == 2 else start[:active]
            states = torch.baddbmm(begin, summed, weight[:active])
            states = self.message_activation(states, None if order is None else order[:active])
            states = self.dropout(states)
        if order is None:
            return states
        return torch.cat(finished[::-1])[order.argsort()]

    def pass_messages_by_channel(self, first: torch.Tensor, add: ChannelSum) -> torch.Tensor:
        """See [`pass_messages`]: one channel after the other, without gradients and drawn hops."""
        weight, depth = self.message_weight, self.depth
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            first, weight = first.to(dtype), weight.to(dtype)
        sum_of_first = add(first)
        messages = first.new_empty(len(weight), *first.shape)
        for channel, matrix in enumerate(weight):
            start = first if self.message_bias is None else first + self.message_bias[channel].to(first.dtype)
            states, summed = first, sum_of_first
            for hop in range(depth - 1):
                states = self.message_activation.of_channel_(torch.addmm(start, summed, matrix.T), channel)
                if hop < depth - 2:
                    summed = add(states)
            messages[channel] = states
        return messages

    def forward(
        self, features: torch.Tensor, add: ChannelSum
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """
        Returns:
            The states that messages start from `[rows, width]`, the states of the block, and (for the eager
            implementation) the attention weights `[rows, heads, heads, heads]`.
        """
        start = features
        if self.projects:
            start = self.dropout(self.input_norm(self.input_activation(self.input_proj(start))))
        rows = len(start)
        messages = self.pass_messages(start, add).chunk(3)
        # the heads of an atom are the sequence: [rows, attention heads, message heads, width / heads]
        query, key, value = (
            proj(states).view(self.heads, rows, self.heads, self.head_dim).permute(1, 2, 0, 3)
            for proj, states in zip((self.q_proj, self.k_proj, self.v_proj), messages, strict=True)
        )
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        context, weights = query, query.new_zeros(0, self.heads, self.heads, self.heads)
        if rows:  # a batch may have no edges
            dropout = self.dropout.p if self.training else 0.0
            context, weights = attention(self, query, key, value, None, dropout=dropout, scaling=self.scaling)
        context = self.out_proj(context.reshape(rows, self.heads, self.heads * self.head_dim))
        return start, self.dropout(self.norm(self.heads_proj(context.flatten(1)))), weights


class GroverBranch(nn.Module):
    """One of the four outputs, from features and summed states: `[rows, features + width] -> [rows, width]`."""

    def __init__(self, config: GroverConfig, features: int):
        super().__init__()
        width = config.embedding_dim
        self.up_proj = nn.Linear(features + width, 4 * width)
        self.activation = GroverActivation(config)
        self.down_proj = nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: torch.Tensor, summed: torch.Tensor) -> torch.Tensor:
        states = self.up_proj(torch.cat([features.to(summed.dtype), summed], dim=1))
        return self.dropout(self.norm(self.down_proj(self.dropout(self.activation(states)))))


class GroverPreTrainedModel(RemoteCodeMixin, PreTrainedModel):
    config: GroverConfig
    base_model_prefix = "grover"
    main_input_name = "x"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # all losses are means
    _no_split_modules = ["GroverBlock"]
    _supports_sdpa = True
    # unused outputs are not built, see `GroverModel`
    _keys_to_ignore_on_load_unexpected = [r"(atom|bond)_from_(atom|bond)\.", r"_context_from_", r"motif_heads\."]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Initialise as torch, like the original; the readout by Xavier."""
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, GroverActivation):
            if module.hidden_act == "prelu":
                init.constant_(module.slopes, 0.25)
        elif isinstance(module, GroverBlock):
            bound = module.message_weight.shape[-1] ** -0.5
            init.uniform_(module.message_weight, -bound, bound)
            if module.message_bias is not None:
                init.uniform_(module.message_bias, -bound, bound)
        elif isinstance(module, GroverReadout):
            init.xavier_normal_(module.hidden_weight)
            init.xavier_normal_(module.head_weight)

    def new_record(self, arguments: Mapping[str, Any]) -> dict[str, tuple]:
        """
        Make the requested fields `hidden_states` and `attentions` of an output.

        Raises:
            ValueError: attention weights are requested, but the implementation gives none.
        """
        recorded = recorded_outputs(self.config, arguments)
        if "output_attentions" in recorded:
            require_attention_weights(self.config)
        return {flag.removeprefix("output_"): () for flag in recorded}


class GroverModel(GroverPreTrainedModel):
    """
    Both GTransformers and the output branches. `outputs` (default: `config.fingerprint_source`) chooses the branches
    that are built: those to atoms (`"atom"`), to bonds (`"bond"`) or all (`"both"`).
    """

    def __init__(self, config: GroverConfig, outputs: str | None = None):
        super().__init__(config)
        outputs = outputs or config.fingerprint_source
        edge_features = config.atom_features + config.bond_features
        width = config.embedding_dim
        self.node_blocks = nn.ModuleList(
            GroverBlock(config, config.atom_features if place == 0 else width) for place in range(config.num_blocks)
        )
        self.edge_blocks = nn.ModuleList(
            GroverBlock(config, edge_features if place == 0 else width) for place in range(config.num_blocks)
        )
        if outputs in ("atom", "both"):
            self.atom_from_atom = GroverBranch(config, config.atom_features)
            self.atom_from_bond = GroverBranch(config, config.atom_features)
        if outputs in ("bond", "both"):
            self.bond_from_atom = GroverBranch(config, edge_features)
            self.bond_from_bond = GroverBranch(config, edge_features)
        self.branches = [branch for branch in BRANCHES if outputs in ("both", branch[:4])]
        self.gradient_checkpointing = False
        self.post_init()

    def encode(self, graph: GroverGraph, record: dict[str, tuple] | None = None) -> dict[str, torch.Tensor]:
        """
        Args:
            record: filled with the states of the blocks over atoms (over edges, if the first branch is to bonds),
                without padding rows, see [`GroverPreTrainedModel.new_record`].
        Returns:
            The states of each branch, `[atoms, width]` or `[edges, width]` (padding rows included).
        """
        kept: dict[str, list] = {"hidden_states": [], "attentions": []}
        views = []
        for view, blocks, states, add in (
            ("atom", self.node_blocks, graph.x, graph.to_atoms_from_atoms),
            ("bond", self.edge_blocks, graph.edges, graph.to_edges_from_edges),
        ):
            if self.gradient_checkpointing and self.training:
                # reentrant checkpointing gives no gradients to a layer without differentiable inputs
                states = states.detach().requires_grad_()
            for place, block in enumerate(blocks):
                start, states, weights = block(states, add)
                if record and self.branches[0].startswith(view):
                    kept["hidden_states"] += [states] if place else [start, states]
                    kept["attentions"].append(weights)
            views.append(states)
        nodes, edges = views
        for name in record or ():
            # a slice of all rows would be a tensor beside the path to the loss, and get no gradient
            record[name] = tuple(value[graph.padding :] if graph.padding else value for value in kept[name])
        sums = {
            "atom_from_atom": (graph.x, graph.to_atoms_from_atoms, nodes),
            "atom_from_bond": (graph.x, graph.to_atoms_from_edges, edges),
            "bond_from_atom": (graph.edges, graph.to_edges_from_atoms, nodes),
            "bond_from_bond": (graph.edges, graph.to_edges_from_edges, edges),
        }
        found = {}
        for branch in self.branches:
            features, add, states = sums[branch]
            found[branch] = getattr(self, branch)(features, add(states))
        return found

    def read_out(self, graph: GroverGraph, states: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Average the states of each molecule by branch, `[molecules, width]` each."""
        return {
            branch: graph.mean(value, graph.atom_batch if branch.startswith("atom") else graph.edge_batch)
            for branch, value in states.items()
        }

    @can_return_tuple
    def forward(
        self,
        x: torch.Tensor,
        edge_index: torch.LongTensor,
        edge_attr: torch.Tensor,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
        **kwargs,
    ) -> MoleculeModelOutput:
        """
        Args:
            x: `[atoms, 151]`; edge_index: `[2, edges]`, the reverse of edge 2k is 2k + 1; edge_attr: `[edges, 14]`.
            batch: molecule of each atom, ascending (None: one molecule); num_graphs: number of molecules.
        Returns:
            `pooler_output` `[molecules, hidden_size]`: the means of the branches, side by side (the original's
            fingerprint); `embeddings`: the same by branch; `last_hidden_state`: both atom outputs side by side,
            `[atoms, 2 * embedding_dim]` (of bonds, `[edges, ..]`, with `fingerprint_source="bond"`); `hidden_states`:
            the states that messages start from, then those of the blocks over atoms (or bonds), each
            `[atoms, embedding_dim]`; `attentions`: of each atom among its own heads, `[atoms, heads, heads, heads]`.
        Raises:
            ValueError: see [`make_graph`] and [`GroverPreTrainedModel.new_record`].
        """
        record = self.new_record(kwargs)
        graph = make_graph(x, edge_index, edge_attr, batch, num_graphs, self)
        states = self.encode(graph, record)
        means = self.read_out(graph, states)
        last = torch.cat([states[branch] for branch in self.branches[:2]], dim=1)
        return MoleculeModelOutput(
            pooler_output=torch.cat(list(means.values()), dim=1),
            last_hidden_state=last[graph.padding :],
            embeddings=means,
            **record,
        )


class GroverBondHead(nn.Module):
    """Logits of the context of each bond, from both directions: `[edges, width] -> [bonds, contexts]`."""

    def __init__(self, config: GroverConfig):
        super().__init__()
        self.forward_proj = nn.Linear(config.embedding_dim, config.bond_vocab_size)
        self.reverse_proj = nn.Linear(config.embedding_dim, config.bond_vocab_size)

    def forward(self, states: torch.Tensor, padding: int) -> torch.Tensor:
        forward, reverse = states[padding::2], states[padding + 1 :: 2]
        if padding:  # a padding row is its own reverse
            forward, reverse = torch.cat([states[:padding], forward]), torch.cat([states[:padding], reverse])
        return self.forward_proj(forward) + self.reverse_proj(reverse)


def context_loss(log_probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of the labels that are not 0; 0 if there are none (the original: NaN)."""
    total = F.nll_loss(log_probabilities, labels, ignore_index=0, reduction="sum")
    return total / (labels != 0).sum().clamp(min=1)


def disagreement(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Mean squared difference; 0 for empty inputs."""
    return F.mse_loss(first, second, reduction="sum") / max(first.numel(), 1)


class GroverForPreTraining(GroverPreTrainedModel):
    """
    Pre-training: predict the context of 15 % of the atoms and bonds, and the functional groups of the molecule, from
    every suitable branch (`GroverTask` of the original).
    """

    def __init__(self, config: GroverConfig):
        super().__init__(config)
        self.grover = GroverModel(config, outputs="both")
        width = config.embedding_dim
        self.atom_context_from_atom = nn.Linear(width, config.atom_vocab_size)
        self.atom_context_from_bond = nn.Linear(width, config.atom_vocab_size)
        self.bond_context_from_atom = GroverBondHead(config)
        self.bond_context_from_bond = GroverBondHead(config)
        self.motif_heads = nn.ModuleDict({branch: nn.Linear(width, config.num_motifs) for branch in BRANCHES})
        self.post_init()

    def predict(self, graph: GroverGraph, states: dict[str, torch.Tensor], means: dict[str, torch.Tensor]) -> dict:
        """Compute log-probabilities of contexts (with padding) and logits of motifs, float32, by task and branch."""
        return {
            "atom_context": {
                source: head(states[f"atom_from_{source}"]).float().log_softmax(dim=1)
                for source, head in (("atom", self.atom_context_from_atom), ("bond", self.atom_context_from_bond))
            },
            "bond_context": {
                source: head(states[f"bond_from_{source}"], graph.padding).float().log_softmax(dim=1)
                for source, head in (("atom", self.bond_context_from_atom), ("bond", self.bond_context_from_bond))
            },
            "motif": {branch: head(means[branch]).float() for branch, head in self.motif_heads.items()},
        }

    @can_return_tuple
    def forward(
        self,
        x: torch.Tensor,
        edge_index: torch.LongTensor,
        edge_attr: torch.Tensor,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
        atom_labels: torch.LongTensor | None = None,
        bond_labels: torch.LongTensor | None = None,
        motif_labels: torch.FloatTensor | None = None,
        **kwargs,
    ) -> MoleculePreTrainingOutput:
        """
        Args:
            x, edge_index, edge_attr, batch, num_graphs: see [`GroverModel`].
            atom_labels `[atoms]`, bond_labels `[bonds]`: indices into the vocabularies, 0: not predicted.
            motif_labels: `[molecules, motifs]`, 0 or 1. Without labels there is no loss.
        Returns:
            `losses`: for each branch the context term (`atom_context_from_bond`, ..) and the motif term
            (`motif_atom_from_bond`, ..), and the `atom_disagreement`, `bond_disagreement`, `motif_disagreement` of the
            branches; `loss`: their sum, the first two disagreements times `config.disagreement_weight`. `embeddings`:
            mean state by branch; `hidden_states`, `attentions`: of the blocks over atoms.
        """
        record = self.new_record(kwargs)
        graph = make_graph(x, edge_index, edge_attr, batch, num_graphs, self)
        states = self.grover.encode(graph, record)
        means = self.grover.read_out(graph, states)
        if atom_labels is None or bond_labels is None or motif_labels is None:
            return MoleculePreTrainingOutput(embeddings=means, **record)
        atom_labels, bond_labels = F.pad(atom_labels, (graph.padding, 0)), F.pad(bond_labels, (graph.padding, 0))
        predictions = self.predict(graph, states, means)
        losses = {}
        for task, labels in (("atom", atom_labels), ("bond", bond_labels)):
            contexts = predictions[f"{task}_context"]
            for source, values in contexts.items():
                losses[f"{task}_context_from_{source}"] = context_loss(values, labels)
            losses[f"{task}_disagreement"] = disagreement(contexts["atom"], contexts["bond"])
        motifs = predictions["motif"]
        for branch, logits in motifs.items():
            losses[f"motif_{branch}"] = F.binary_cross_entropy_with_logits(logits, motif_labels.float())
        losses["motif_disagreement"] = sum(
            disagreement(motifs[f"{kind}_from_atom"].sigmoid(), motifs[f"{kind}_from_bond"].sigmoid())
            for kind in ("atom", "bond")
        )
        weighted = ("atom_disagreement", "bond_disagreement")
        loss = sum(
            value * (self.config.disagreement_weight if name in weighted else 1.0) for name, value in losses.items()
        )
        return MoleculePreTrainingOutput(loss=loss, losses=losses, embeddings=means, **record)


class GroverReadout(nn.Module):
    """
    Self-attentive readout (Lin et al. 2017, eq. 6): `softmax(W2 tanh(W1 X^T)) X` over the atoms X of each molecule,
    flattened, `[atoms, width] -> [molecules, readout_heads * width]`.
    """

    def __init__(self, config: GroverConfig):
        super().__init__()
        self.hidden_weight = nn.Parameter(torch.empty(config.readout_hidden, config.embedding_dim))
        self.head_weight = nn.Parameter(torch.empty(config.readout_heads, config.readout_hidden))

    def forward(self, states: torch.Tensor, batch: torch.Tensor, num_graphs: int) -> torch.Tensor:
        counts = torch.bincount(batch, minlength=num_graphs)
        place = torch.arange(len(batch), device=batch.device) - (counts.cumsum(0) - counts)[batch]
        dense = states.new_zeros(num_graphs, int(counts.max()), states.shape[1])
        dense = dense.index_put((batch, place), states)
        scores = F.linear(torch.tanh(F.linear(dense, self.hidden_weight)), self.head_weight)
        absent = torch.arange(dense.shape[1], device=batch.device) >= counts[:, None]
        weights = scores.float().masked_fill(absent[..., None], -torch.inf).softmax(dim=1)
        return (weights.to(dense.dtype).transpose(1, 2) @ dense).flatten(1)


class GroverFeedForward(nn.Module):
    """Dropout, linear, then (activation, dropout, linear) per further layer; the layers share one activation."""

    def __init__(self, config: GroverConfig, input_dim: int):
        super().__init__()
        width = config.ffn_dim or config.embedding_dim
        widths = [input_dim, *[width] * (config.ffn_layers - 1), config.num_labels]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in itertools.pairwise(widths))
        self.activation = GroverActivation(config) if config.ffn_layers > 1 else None
        self.dropout = nn.Dropout(config.dropout if config.classifier_dropout is None else config.classifier_dropout)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        for place, layer in enumerate(self.layers):
            states = layer(self.dropout(states if place == 0 else self.activation(states)))
        return states.float()


class GroverPropertyHead(PropertyHead):
    """
    One readout of both atom outputs and a network for each (`GroverFinetuneTask`). In training the loss is the sum of
    both losses plus `disagreement_weight` times the squared difference of the predictions. In evaluation values or
    probabilities are averaged; `logits` are those of the mean probabilities.
    """

    def __init__(self, config: GroverConfig):
        nn.Module.__init__(self)
        self.config = config
        self.readout = GroverReadout(config) if config.readout == "self_attention" else None
        width = config.embedding_dim * (config.readout_heads if self.readout is not None else 1) + config.features_dim
        self.from_atom = GroverFeedForward(config, width)
        self.from_bond = GroverFeedForward(config, width)

    def forward(
        self,
        graph: GroverGraph,
        states: dict[str, torch.Tensor],
        features: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> MoleculePropertyOutput:
        given = 0 if features is None else features.shape[-1]
        if given != self.config.features_dim:
            raise ValueError(
                f"{given} features per molecule are given, features_dim of this model is {self.config.features_dim} "
                "(GroverFeatureExtractor(descriptors=True) gives 200, False none)"
            )
        found = []
        for branch, network in (("atom_from_atom", self.from_atom), ("atom_from_bond", self.from_bond)):
            if self.readout is None:
                pooled = graph.mean(states[branch], graph.atom_batch)
            else:
                pooled = self.readout(states[branch][graph.padding :], graph.atom_batch, graph.num_graphs)
            if features is not None:
                pooled = torch.cat([pooled, features.to(pooled.dtype)], dim=1)
            found.append(network(pooled))
        first, second = found
        if self.config.problem_type == "regression":
            mean, std = self._label_scale(first)
            logits = (first + second) / 2
            predictions = logits * std + mean
            targets = None if labels is None else (labels - mean) / std
        else:
            # the logit of the mean of two probabilities
            logits = torch.logaddexp(F.logsigmoid(first), F.logsigmoid(second))
            logits = logits - torch.logaddexp(F.logsigmoid(-first), F.logsigmoid(-second))
            predictions = torch.sigmoid(logits)
            targets = labels
        losses = None
        if targets is not None and self.training:
            present = ~torch.isnan(targets)
            apart = torch.where(present, (first - second) ** 2, 0.0).sum() / present.sum().clamp(min=1)
            losses = {
                "property_from_atom": property_loss(first, targets, self.config.problem_type),
                "property_from_bond": property_loss(second, targets, self.config.problem_type),
                "property_disagreement": self.config.disagreement_weight * apart,
            }
        elif targets is not None:
            losses = {"property": property_loss(logits, targets, self.config.problem_type)}
        return MoleculePropertyOutput(
            loss=None if losses is None else sum(losses.values()),
            losses=None if losses is None else {name: value.detach() for name, value in losses.items()},
            logits=logits,
            predictions=predictions,
        )


class GroverForPropertyPrediction(GroverPreTrainedModel):
    """Molecular properties from both atom outputs; the branches to bonds are neither built nor loaded."""

    def __init__(self, config: GroverConfig):
        super().__init__(config)
        self.grover = GroverModel(config, outputs="atom")
        self.head = GroverPropertyHead(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        x: torch.Tensor,
        edge_index: torch.LongTensor,
        edge_attr: torch.Tensor,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
        features: torch.FloatTensor | None = None,
        labels: torch.FloatTensor | None = None,
        **kwargs,
    ) -> MoleculePropertyOutput:
        """
        Args:
            x, edge_index, edge_attr, batch, num_graphs: see [`GroverModel`].
            features: `[molecules, features_dim]`, if `features_dim` is not 0.
            labels: `[molecules, tasks]`, NaN = missing.
        """
        record = self.new_record(kwargs)
        graph = make_graph(x, edge_index, edge_attr, batch, num_graphs, self)
        states = self.grover.encode(graph, record)
        return MoleculePropertyOutput(**self.head(graph, states, features, labels), **record)


__all__ = ["GroverForPreTraining", "GroverForPropertyPrediction", "GroverModel", "GroverPreTrainedModel"]
