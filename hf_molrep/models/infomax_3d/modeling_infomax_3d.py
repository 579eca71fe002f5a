"""
3D Infomax: a network over molecular graphs, pre-trained so that it tells what a network over conformers tells.

Paper: Stärk, Beaini, Corso, Tossou, Dallago, Günnemann, Liò, "3D Infomax improves GNNs for molecular property
prediction", ICML 2022 (arXiv 2110.04126). The authors' repository (github.com/HannesStark/3DInfomax) has no licence:
this is written from the paper and from a description of what that code computes, and agrees with its numbers.

As the original does, and not as a textbook: delta of PNA's scalers (Corso et al., NeurIPS 2020) is 1, whatever the
degrees of the data; batch norm stands behind the activation; NT-Xent goes one way, from graphs to conformers, and the
positive is not in its denominator. Linear layers are drawn by Glorot with the gain 1 / inputs, which gives weights of
about 1e-4 at the paper's size: the variance of their output is far below the eps of the batch norm behind them, which
so does not blow it up. Each layer begins as almost nothing beside its residual, and a fresh network passes on the
embeddings of the atoms.

Ours: the first linear map of a message is applied to atoms and to kinds of bonds before they are brought to the edges,
in one sum (see `nn/gather_sum.py`); no message passing of DGL. The three scales of an aggregate depend on its degree
alone, so on a CPU they are put into the matrix that follows, one for each degree in the batch (a loop over at most six
or so), which takes a third of the multiplications. A distance predicted from the linear map g of (h_i, h_j) and of
(h_j, h_i) is the sum of one number for each atom. `pooler_output` is the readout of the atoms, which goes downstream,
and not the output of the readout network, which does not.
With gradient checkpointing, layers see a batch twice: the momentum of their batch norms is then such that the running
statistics move as far as by seeing it once.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from ...compat import GradientCheckpointingLayer, can_return_tuple, init
from ...hub import RemoteCodeMixin
from ...losses import descriptor_loss, mean_absolute_error, one_sided_nt_xent
from ...modeling_outputs import (
    MoleculeModelOutput,
    MoleculePreTrainingOutput,
    MoleculePropertyOutput,
    recorded_outputs,
)
from ...nn.atom_pairs import count_atoms, pairs_within_molecules
from ...nn.gather_sum import GatherSum
from ...nn.heads import PropertyHead
from ...nn.joined_graph import check_whole
from .configuration_infomax_3d import AUGMENTATIONS, Infomax3DConfig

AGGREGATORS, SCALERS = 4, 3  # mean, max, min, std; each as it is, times log(degree + 1), divided by it
STD_EPS = 1e-5


class Infomax3DEdges(NamedTuple):
    """
    The edges of a batch in the form that the layers need; made once per batch.

    Args:
        source, target: `[edges]`.
        kind: `[edges]`, row of the table of all kinds of bonds.
        parts: the plan of the sum of three rows for each edge, of [sources; targets; kinds of bonds].
        arriving: the plan of the sum over the edges that arrive at an atom.
        degree: `[atoms, 1]`, how many do; any: bool `[atoms, 1]`; amplification: `[atoms, 1]`, log(degree + 1).
        by_degree: `[atoms]`, the atoms in the order of their degrees; sizes: how many atoms of each degree there are,
            from 0 on. None on a GPU, where one large product is faster than several small ones, and in a compiled
            graph, whose shapes would depend on the degrees.
    """

    source: torch.Tensor
    target: torch.Tensor
    kind: torch.Tensor
    parts: GatherSum
    arriving: GatherSum
    degree: torch.Tensor
    any: torch.Tensor
    amplification: torch.Tensor
    by_degree: torch.Tensor | None
    sizes: list[int] | None


def check_graph(x: torch.Tensor, edge_index: torch.Tensor, edge_attr: torch.Tensor, config: Infomax3DConfig) -> None:
    """
    Raises:
        ValueError: the batch was cut, as `nn.DataParallel` does; columns or values of another scheme than `ogb`, or
            that this model has no rows for.
    """
    check_whole(edge_index, edge_attr)
    if x.shape[1:] != (9,) or edge_attr.shape[1:] != (3,):
        raise ValueError(
            f"x {tuple(x.shape)} and edge_attr {tuple(edge_attr.shape)} are not of the scheme 'ogb', which 3D Infomax "
            "takes: nine and three columns (Infomax3DFeatureExtractor makes them)"
        )
    for name, values, sizes in (("x", x, config.atom_sizes), ("edge_attr", edge_attr, config.bond_sizes)):
        fits = ((values >= 0) & (values < values.new_tensor(sizes))).all()
        complaint = f"{name} has values for which this model has no row: its columns hold {', '.join(map(str, sizes))}"
        if torch.compiler.is_compiling() or fits.device.type != "cpu":
            torch._assert_async(fits, complaint)  # the host neither waits for a GPU nor leaves a compiled graph
        elif not fits:
            raise ValueError(f"{complaint}; the highest here are {', '.join(map(str, values.amax(dim=0).tolist()))}")


def make_edges(
    edge_index: torch.Tensor, edge_attr: torch.Tensor, atoms: int, dtype: torch.dtype, sizes: Sequence[int]
) -> Infomax3DEdges:
    """Edges `[2, edges]`, `[edges, 3]` of a joined graph to [`Infomax3DEdges`]."""
    source, target = edge_index
    kind = (edge_attr[:, 0] * sizes[1] + edge_attr[:, 1]) * sizes[2] + edge_attr[:, 2]
    kinds, edges = sizes[0] * sizes[1] * sizes[2], len(source)
    number = torch.arange(edges, device=source.device)
    rows = torch.cat([source, target + atoms, kind + 2 * atoms])
    parts = GatherSum(rows, number.repeat(3), 2 * atoms + kinds, edges)
    degree = torch.zeros(atoms, dtype=dtype, device=source.device).scatter_add_(
        0, target, torch.ones(edges, dtype=dtype, device=source.device)
    )[:, None]
    arriving = GatherSum(number, target, edges, atoms)
    by_degree = sizes = None
    if source.device.type == "cpu" and not torch.compiler.is_compiling():
        whole = degree.flatten().long()
        by_degree, sizes = whole.argsort(stable=True), torch.bincount(whole).tolist()
    plans = (parts, arriving, degree, degree > 0, (degree + 1).log(), by_degree, sizes)
    return Infomax3DEdges(source, target, kind, *plans)


def pool(states: torch.Tensor, batch: torch.Tensor, num_graphs: int, readout: Sequence[str]) -> torch.Tensor:
    """Atoms `[atoms, width]` to molecules `[molecules, len(readout) * width]`."""
    pooled = {}
    if {"sum", "mean"} & set(readout):
        number = torch.arange(len(batch), device=batch.device)
        pooled["sum"] = GatherSum(number, batch, len(batch), num_graphs)(states)
        pooled["mean"] = pooled["sum"] / count_atoms(batch, num_graphs)[:, None]
    place = batch[:, None].expand_as(states)
    for name in {"min", "max"} & set(readout):
        empty = states.new_zeros(num_graphs, states.shape[1])
        pooled[name] = empty.scatter_reduce(0, place, states, f"a{name}", include_self=False)
    return torch.cat([pooled[name] for name in readout], dim=-1)


class Infomax3DLinear(nn.Linear):
    """A linear map that starts from Glorot's distribution with the gain 1 / inputs, its bias at 0."""


class Infomax3DGlorotLinear(nn.Linear):
    """A linear map that starts from Glorot's distribution, its bias at 0 (torch's multi-head attention)."""


class Infomax3DAttentionOut(nn.Linear):
    """A linear map that starts from torch's distribution, its bias at 0 (torch's multi-head attention)."""


class Infomax3DBatchNorm(nn.BatchNorm1d):
    """Batch norm over atoms, edges or molecules. One row alone has no variance: it is normalised as in evaluation,
    where torch would raise, and so is none at all."""

    def statistics_momentum(self) -> float:
        return self.momentum

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        own = self.training and len(states) > 1
        return F.batch_norm(
            states,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=own,
            momentum=self.statistics_momentum(),
            eps=self.eps,
        )


class Infomax3DLayerBatchNorm(Infomax3DBatchNorm):
    """Batch norm of a layer that checkpointing computes twice: two steps of this momentum are one of `momentum`."""

    gradient_checkpointing = False  # set by transformers

    def statistics_momentum(self) -> float:
        return 1 - (1 - self.momentum) ** 0.5 if self.gradient_checkpointing else self.momentum


class Infomax3DBlock(nn.Module):
    """Linear layer, activation, dropout, batch norm, in this order."""

    def __init__(self, config: Infomax3DConfig, inputs: int, outputs: int, activation=None, norm=Infomax3DBatchNorm):
        super().__init__()
        self.dense = Infomax3DLinear(inputs, outputs)
        self.norm = None if norm is None else norm(outputs, momentum=config.batch_norm_momentum)
        self.activation, self.dropout = activation, config.dropout

    def behind(self, states: torch.Tensor) -> torch.Tensor:
        """What comes behind the linear layer."""
        if self.activation is not None:
            states = self.activation(states)
        states = F.dropout(states, self.dropout, self.training)
        return states if self.norm is None else self.norm(states)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.behind(self.dense(states))


class Infomax3DReadout(nn.Module):
    """The network behind a readout: blocks with ReLU, the last one a linear layer alone."""

    def __init__(self, config: Infomax3DConfig, inputs: int, outputs: int, layers: int):
        super().__init__()
        widths = [inputs] + [config.readout_dim] * (layers - 1)
        self.blocks = nn.ModuleList([Infomax3DBlock(config, *pair, F.relu) for pair in itertools.pairwise(widths)])
        self.out_proj = Infomax3DLinear(widths[-1], outputs)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            pooled = block(pooled)
        return self.out_proj(pooled)


class Infomax3DLayer(GradientCheckpointingLayer):
    """
    One layer of PNA: messages from both atoms of an edge and its bond; their mean, maximum, minimum and standard
    deviation, each in three scales of the degree; and the update of the atom, beside which it stands itself.
    """

    def __init__(self, config: Infomax3DConfig):
        super().__init__()
        width = config.embedding_dim
        self.message_in = Infomax3DBlock(config, 3 * width, width, F.relu, Infomax3DLayerBatchNorm)
        self.message_out = Infomax3DBlock(config, width, width, None, Infomax3DLayerBatchNorm)
        inputs = (1 + AGGREGATORS * SCALERS) * width
        self.update = Infomax3DBlock(config, inputs, width, None, Infomax3DLayerBatchNorm)

    def messages(self, states: torch.Tensor, bonds: torch.Tensor, edges: Infomax3DEdges) -> torch.Tensor:
        """`[edges, width]`, from atoms `[atoms, width]` and kinds of bonds `[kinds, width]`."""
        dense = self.message_in.dense
        if type(dense) is not Infomax3DLinear:  # an adapter has taken its place
            ends = torch.cat([states[edges.source], states[edges.target], bonds[edges.kind]], dim=-1)
            return self.message_out(self.message_in(ends))
        of_source, of_target, of_bond = dense.weight.chunk(3, dim=1)
        rows = [F.linear(states, of_source), F.linear(states, of_target, dense.bias), F.linear(bonds, of_bond)]
        return self.message_out(self.message_in.behind(edges.parts(torch.cat(rows))))

    def aggregate(self, messages: torch.Tensor, edges: Infomax3DEdges) -> torch.Tensor:
        """`[edges, width] -> [atoms, 4 * width]`, 0 for an atom without bonds."""
        count = edges.degree.clamp(min=1).to(messages.dtype)
        sums = edges.arriving(torch.cat([messages, messages.square()], dim=-1)) / count
        mean, square = sums.chunk(2, dim=-1)
        std = (F.relu(square - mean.square()) + STD_EPS).sqrt() * edges.any
        place = edges.target[:, None].expand_as(messages)
        empty = torch.zeros_like(mean)
        largest = empty.scatter_reduce(0, place, messages, "amax", include_self=False)
        smallest = empty.scatter_reduce(0, place, messages, "amin", include_self=False)
        return torch.cat([mean, largest, smallest, std], dim=-1)

    def forward(self, states: torch.Tensor, bonds: torch.Tensor, edges: Infomax3DEdges) -> torch.Tensor:
        messages = self.messages(states, bonds, edges)
        # the variance is a small difference of large numbers
        messages = messages.to(torch.promote_types(messages.dtype, torch.float32))
        around = self.aggregate(messages, edges).to(states.dtype)
        if edges.by_degree is not None and type(self.update.dense) is Infomax3DLinear:  # else it is an adapter
            return states + self.update.behind(self.scaled_sum(states, around, edges))
        amplification = edges.amplification.to(states.dtype)
        attenuation = torch.where(edges.any, 1 / amplification, 0.0)
        scaled = [states, around, around * amplification, around * attenuation]
        return states + self.update(torch.cat(scaled, dim=-1))

    def scaled_sum(self, states: torch.Tensor, around: torch.Tensor, edges: Infomax3DEdges) -> torch.Tensor:
        """
        The linear map of the update, of atoms `[atoms, width]` and aggregates `[atoms, 4 * width]` in their three
        scales: `W0 h + (W1 + log(d + 1) W2 + W3 / log(d + 1)) a` for an atom of degree d; an atom without bonds has the
        aggregate 0.
        """
        dense, width = self.update.dense, states.shape[1]
        own, plain, amplified, attenuated = dense.weight.split([width, *[AGGREGATORS * width] * SCALERS], dim=1)
        scales = [math.log(degree + 1) for degree in range(len(edges.sizes))]
        sums = [
            F.linear(rows, plain + scale * amplified + attenuated / scale if scale else plain)
            for rows, scale in zip(around[edges.by_degree].split(edges.sizes), scales, strict=True)
            if len(rows)
        ]
        mixed = torch.empty_like(by_degree := torch.cat(sums)).index_copy(0, edges.by_degree, by_degree)
        return F.linear(states, own, dense.bias) + mixed


class Infomax3DConformerLayer(nn.Module):
    """
    One layer over all pairs of atoms of a conformer: gated messages, their mean, and the update of the atom beside
    which it stands itself. The states of the pairs move on by the messages.
    """

    def __init__(self, config: Infomax3DConfig):
        super().__init__()
        width = config.net_3d_dim
        self.message = Infomax3DBlock(config, 3 * width, width, F.silu)
        self.gate = nn.Linear(width, 1)
        self.update = Infomax3DBlock(config, width, width)

    def forward(self, states, pairs, source, target, arriving: GatherSum, partners: torch.Tensor):
        """Atoms `[atoms, width]` and pairs `[pairs, width]` to both; `partners` `[atoms, 1]`: other atoms of each."""
        messages = self.message(torch.cat([states[source], states[target], pairs], dim=-1))
        pairs = pairs + messages
        gated = messages * torch.sigmoid(self.gate(messages))
        mean = arriving(gated) / partners.clamp(min=1).to(gated.dtype)
        return states + self.update(mean + states), pairs


class Infomax3DConformerEncoder(nn.Module):
    """
    Net3D: a conformer to `[molecules, projection_dim]`, from the distances of all pairs of its atoms and from nothing
    else, so that mirror images are equal; all atoms begin with one learned vector.
    """

    def __init__(self, config: Infomax3DConfig):
        super().__init__()
        width = config.net_3d_dim
        self.readout, self.num_fourier = list(config.readout), config.num_fourier
        self.atom_embedding = nn.Parameter(torch.zeros(width))
        self.pair_in = Infomax3DBlock(config, 2 * config.num_fourier + 1, width, F.silu)
        self.layers = nn.ModuleList([Infomax3DConformerLayer(config) for _ in range(config.net_3d_layers)])
        self.out_proj = Infomax3DLinear(len(config.readout) * width, config.projection_dim)

    def forward(self, pos: torch.Tensor, batch: torch.Tensor, num_graphs: int, pairs: torch.Tensor) -> torch.Tensor:
        """
        Args:
            pos: `[atoms, 3]`, angstrom, or `[conformers, atoms, 3]`; batch: `[atoms]`, molecule of each; pairs:
            `[2, pairs]`, see [`~hf_molrep.nn.atom_pairs.pairs_within_molecules`].
        Returns:
            `[molecules, projection_dim]`, or `[molecules, conformers, projection_dim]`.
        """
        conformers, atoms = len(pos) if pos.dim() == 3 else 1, len(batch)
        partners = count_atoms(batch, num_graphs)[batch].repeat(conformers)[:, None] - 1
        # the conformers of all molecules are molecules of one large batch
        shift = torch.arange(conformers, device=batch.device)[:, None]
        source, target = ((index + shift * atoms).flatten() for index in pairs)
        batch = (batch + shift * num_graphs).flatten()
        positions = pos.reshape(-1, 3)
        with torch.autocast(pos.device.type, enabled=False):
            distance = (positions[source] - positions[target]).float().norm(dim=-1, keepdim=True)
            scaled = distance / 2.0 ** torch.arange(self.num_fourier, device=pos.device)
            encoded = torch.cat([scaled.sin(), scaled.cos(), distance], dim=-1)
        encoded = encoded.to(self.atom_embedding.dtype)
        of_pairs = F.silu(self.pair_in(encoded))
        states = self.atom_embedding.expand(len(batch), -1)
        arriving = GatherSum(torch.arange(len(source), device=batch.device), target, len(source), len(batch))
        for layer in self.layers:
            states, of_pairs = layer(states, of_pairs, source, target, arriving, partners)
        features = self.out_proj(pool(states, batch, conformers * num_graphs, self.readout))
        return features.unflatten(0, (conformers, num_graphs)).transpose(0, 1) if pos.dim() == 3 else features


class Infomax3DDistanceHead(nn.Module):
    """
    The distances of all pairs of atoms of a molecule: a transformer layer over its atoms (post-norm, ReLU), then
    softplus(g(h_i, h_j) + g(h_j, h_i)) with one linear map g.
    """

    def __init__(self, config: Infomax3DConfig):
        super().__init__()
        width, inner = config.embedding_dim, config.transformer_dim or config.embedding_dim
        self.num_heads, self.dropout = config.transformer_heads, config.transformer_dropout
        self.qkv = Infomax3DGlorotLinear(width, 3 * width)
        self.attention_out = Infomax3DAttentionOut(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.up_proj, self.down_proj = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width)
        self.pair = nn.Linear(2 * width, 1)

    def drop(self, states: torch.Tensor) -> torch.Tensor:
        return F.dropout(states, self.dropout, self.training)

    def forward(
        self, states: torch.Tensor, batch: torch.Tensor, num_graphs: int, pairs: torch.Tensor, max_atoms: int
    ) -> torch.Tensor:
        """Atoms `[atoms, width]` to the distance of each of the pairs `[2, pairs]`, `[pairs]`, angstrom."""
        counts = count_atoms(batch, num_graphs)
        place = torch.arange(len(batch), device=batch.device) - (counts.cumsum(0) - counts)[batch]
        qkv = self.qkv(states)
        padded = qkv.new_zeros(num_graphs, max_atoms, qkv.shape[1]).index_put((batch, place), qkv)
        query, key, value = padded.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        present = torch.arange(max_atoms, device=batch.device) < counts[:, None]
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, present[:, None, None], dropout)
        mixed = mixed.transpose(1, 2).flatten(2)[batch, place]
        states = self.attention_norm(states + self.drop(self.attention_out(mixed)))
        states = self.norm(states + self.drop(self.down_proj(self.drop(F.relu(self.up_proj(states))))))
        # g(h_i, h_j) + g(h_j, h_i): each atom stands once in front and once behind
        weight = self.pair.weight.unflatten(1, (2, -1)).sum(dim=1)
        of_atom = F.linear(states, weight, self.pair.bias).squeeze(-1)
        return F.softplus(of_atom[pairs[0]] + of_atom[pairs[1]])


def distance_loss(predicted: torch.Tensor, pos: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of predicted distances `[pairs]`, angstrom; of several conformers the first counts."""
    pos = (pos[0] if pos.dim() == 3 else pos).float()
    return mean_absolute_error(predicted, (pos[pairs[0]] - pos[pairs[1]]).norm(dim=-1))


class Infomax3DPreTrainedModel(RemoteCodeMixin, PreTrainedModel):
    config: Infomax3DConfig
    base_model_prefix = "infomax_3d"
    main_input_name = "x"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # every loss here is a mean
    _no_split_modules = ["Infomax3DLayer"]
    _keys_to_ignore_on_load_unexpected = [
        r"^graph_readouts?\.",
        r"^augmentation_probabilities$",
        r"^conformer_encoder\.",
        r"^property_readout\.",
        r"^distance_head\.",
        r"^descriptor_head\.",
    ]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """As the original: see the head of this file; Glorot for embeddings, torch's defaults for the rest."""
        if isinstance(module, Infomax3DLinear | Infomax3DGlorotLinear):
            gain = 1 / module.in_features if isinstance(module, Infomax3DLinear) else 1.0
            init.xavier_uniform_(module.weight, gain=gain)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            # torch draws weight and bias from +-1 / sqrt(inputs)
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            if isinstance(module, Infomax3DAttentionOut):
                init.zeros_(module.bias)
            else:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Embedding):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.BatchNorm1d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, Infomax3DConformerEncoder):
            init.normal_(module.atom_embedding)
        elif isinstance(module, Infomax3DForPreTraining) and module.config.augmentation_choice != "given":
            init.constant_(module.augmentation_probabilities, 1 / len(AUGMENTATIONS) ** 2)


class Infomax3DModel(Infomax3DPreTrainedModel):
    """The 2D encoder, which goes downstream: a molecular graph to atom states and their readout."""

    def __init__(self, config: Infomax3DConfig):
        super().__init__(config)
        width = config.embedding_dim
        self.atom_embeddings = nn.ModuleList([nn.Embedding(size, width) for size in config.atom_sizes])
        self.bond_embeddings = nn.ModuleList([nn.Embedding(size, width) for size in config.bond_sizes])
        self.layers = nn.ModuleList([Infomax3DLayer(config) for _ in range(config.num_layers)])
        self.readout = list(config.readout)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.atom_embeddings[0]

    def set_input_embeddings(self, value: nn.Module):
        self.atom_embeddings[0] = value

    def bond_table(self) -> torch.Tensor:
        """`[kinds, width]`: the sum of the three embeddings of every kind of bond."""
        first, second, third = (embedding.weight for embedding in self.bond_embeddings)
        return (first[:, None, None] + second[:, None] + third).flatten(0, 2)

    @can_return_tuple
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
            x: `[atoms, 9]`; edge_index: `[2, edges]`, each bond twice; edge_attr: `[edges, 3]`, both of the scheme
            `ogb`; batch: `[atoms]`, molecule of each atom (None: all of one); num_graphs: molecules (None: counted).
            Conformers (`pos`, `z`) may be given, and are not looked at.
        Returns:
            `pooler_output` `[molecules, hidden_size]`: the readout (minimum, maximum, mean) of the atoms;
            `last_hidden_state` `[atoms, embedding_dim]`; `hidden_states`: the embeddings of the atoms and their states
            after each layer.
        Raises:
            ValueError: see [`check_graph`]; `output_attentions`, of which there are none.
        """
        recorded = recorded_outputs(self.config, kwargs)
        if "output_attentions" in recorded:
            raise ValueError("3D Infomax returns no attention weights (output_attentions)")
        check_graph(x, edge_index, edge_attr, self.config)
        if batch is None:
            batch, num_graphs = torch.zeros_like(x[:, 0]), 1
        if num_graphs is None:
            num_graphs = int(batch.max()) + 1
        states = sum(embedding(column) for embedding, column in zip(self.atom_embeddings, x.unbind(1), strict=True))
        bonds = self.bond_table()
        edges = make_edges(edge_index, edge_attr, len(x), torch.float32, self.config.bond_sizes)
        of_layers = [states]
        for layer in self.layers:
            states = layer(states, bonds, edges)
            of_layers += [states] if recorded else []
        return MoleculeModelOutput(
            last_hidden_state=states,
            pooler_output=pool(states, batch, num_graphs, self.readout),
            hidden_states=tuple(of_layers) if recorded else None,
        )


class Infomax3DForPreTraining(Infomax3DPreTrainedModel):
    """
    Pre-training by `config.objective`:

    `"contrastive"` (3D Infomax): the graph of a molecule must find its conformers among those of the batch.
    `"property_prediction"`: labels of the molecules (absolute error of the scaled labels).
    `"distance_prediction"`: the distances of all pairs of atoms (absolute error).
    `"graph_contrast"` (GraphCL): one changed graph of a molecule must find another one; no conformers. With
    `augmentation_choice="joao"` or `"joao_v2"`, `augmentation_probabilities` `[5, 5]` is the distribution from which
    the data collator draws the changes; the callback `AugmentationChoice` learns it.
    `"descriptors"` (CheMeleon's): scaled descriptors of RDKit, by a linear map of the readout; no conformers.
    """

    def __init__(self, config: Infomax3DConfig):
        super().__init__(config)
        self.infomax_3d = Infomax3DModel(config)
        if config.objective == "distance_prediction":
            self.distance_head = Infomax3DDistanceHead(config)
        elif config.objective == "property_prediction":
            self.property_readout = Infomax3DPropertyHead(config, config.hidden_size)
        elif config.objective == "descriptors":
            self.descriptor_head = nn.Linear(config.hidden_size, config.num_descriptors)
        else:
            sizes = config.hidden_size, config.projection_dim, config.readout_layers
            if config.augmentation_choice == "joao_v2":
                self.graph_readouts = nn.ModuleList([Infomax3DReadout(config, *sizes) for _ in AUGMENTATIONS])
            else:
                self.graph_readout = Infomax3DReadout(config, *sizes)
            if config.augmentation_choice != "given":
                uniform = torch.full((len(AUGMENTATIONS),) * 2, 1 / len(AUGMENTATIONS) ** 2)
                self.register_buffer("augmentation_probabilities", uniform)
            if config.objective == "contrastive":
                self.conformer_encoder = Infomax3DConformerEncoder(config)
        self.post_init()

    def get_graph_features(
        self,
        x: torch.LongTensor,
        edge_index: torch.LongTensor,
        edge_attr: torch.LongTensor,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
        augmentation: torch.LongTensor | None = None,
    ) -> torch.FloatTensor:
        """
        What is contrasted of graphs, behind the readout network: `[molecules, projection_dim]`.

        Args:
            augmentation: `"joao_v2"`: what each graph was changed by, `[molecules]`, places in `AUGMENTATIONS`; None:
                by nothing.
        Raises:
            ValueError: the objective contrasts nothing.
        """
        if self.config.objective not in ("contrastive", "graph_contrast"):
            raise ValueError(f"the objective {self.config.objective!r} has no readout network of graphs")
        return self._project(self.infomax_3d(x, edge_index, edge_attr, batch, num_graphs).pooler_output, augmentation)

    def _project(self, pooled: torch.Tensor, augmentation: torch.Tensor | None) -> torch.Tensor:
        """Molecules `[molecules, hidden_size]` through the readout network, each through that of its augmentation."""
        if self.config.augmentation_choice != "joao_v2":
            return self.graph_readout(pooled)
        if augmentation is None:
            augmentation = torch.full_like(pooled[:, 0], AUGMENTATIONS.index("none"), dtype=torch.int64)
        # each network sees all molecules, so that its batch norm has enough of them
        projected = torch.stack([readout(pooled) for readout in self.graph_readouts])
        return projected[augmentation, torch.arange(len(pooled), device=pooled.device)]

    def get_conformer_features(
        self,
        z: torch.LongTensor | None,
        pos: torch.FloatTensor,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
        pairs: torch.LongTensor | None = None,
    ) -> torch.FloatTensor:
        """
        What is contrasted of conformers: `[molecules, projection_dim]`.

        Args:
            z: `[atoms]`; the network looks at distances alone and not at it.
            pos: `[atoms, 3]`, angstrom; or `[conformers, atoms, 3]`, for `[molecules, conformers, projection_dim]`.
            batch: `[atoms]`, molecule of each atom (None: all of one), in order; num_graphs: molecules (None: counted).
            pairs: `[2, pairs]`, [`~hf_molrep.nn.atom_pairs.pairs_within_molecules`] (None: made here).
        Raises:
            ValueError: the objective has no network of conformers.
        """
        if not hasattr(self, "conformer_encoder"):
            raise ValueError(f"the objective {self.config.objective!r} has no network of conformers")
        if batch is None:
            batch, num_graphs = torch.zeros(pos.shape[-2], dtype=torch.int64, device=pos.device), 1
        if num_graphs is None:
            num_graphs = int(batch.max()) + 1
        pairs = pairs_within_molecules(batch, num_graphs) if pairs is None else pairs
        return self.conformer_encoder(pos, batch, num_graphs, pairs)

    @can_return_tuple
    def forward(
        self,
        x: torch.LongTensor,
        edge_index: torch.LongTensor,
        edge_attr: torch.LongTensor,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
        z: torch.LongTensor | None = None,
        pos: torch.FloatTensor | None = None,
        pairs: torch.LongTensor | None = None,
        max_atoms: int | None = None,
        second_x: torch.LongTensor | None = None,
        second_edge_index: torch.LongTensor | None = None,
        second_edge_attr: torch.LongTensor | None = None,
        second_batch: torch.LongTensor | None = None,
        second_num_graphs: int | None = None,
        augmentation: torch.LongTensor | None = None,
        second_augmentation: torch.LongTensor | None = None,
        targets: torch.FloatTensor | None = None,
        descriptor_places: torch.LongTensor | None = None,
        descriptor_targets: torch.FloatTensor | None = None,
        **kwargs,
    ) -> MoleculePreTrainingOutput:
        """
        Args:
            x, edge_index, edge_attr, batch, num_graphs: molecules, as in [`Infomax3DModel`].
            z, pos: contrastive and distance prediction: their conformers, see [`get_conformer_features`]; of several
                conformers distance prediction takes the first.
            pairs: `[2, pairs]`, all ordered pairs of two atoms of one molecule; max_atoms: of the largest; both
                come with conformers from the data collator (None: made here).
            second_x, ...: graph contrast: the second views; molecule k of both is the same one.
            augmentation, second_augmentation: `"joao_v2"`: `[molecules]`, see [`get_graph_features`].
            targets: property prediction: labels `[molecules, tasks]`, NaN = missing.
            descriptor_places, descriptor_targets: descriptors: `[molecules, asked]`, which descriptors, and their
                scaled values, NaN = missing.
        Returns:
            `losses`: `contrastive` ([`~hf_molrep.losses.one_sided_nt_xent`]), or `property` or `distance`
            (mean absolute errors, see [`~hf_molrep.losses.mean_absolute_error`], of scaled labels and in angstrom),
            or `descriptors` ([`~hf_molrep.losses.descriptor_loss`]).
            `embeddings`: contrastive `graph` and `conformer` (of several the mean), graph contrast `first`, `second`,
            `[molecules, projection_dim]`.
            `hidden_states`: of the graphs (first views).
        Raises:
            ValueError: the batch was made for another objective.
        """
        objective = self.config.objective
        needed, what = {
            "graph_contrast": (
                second_x if self.config.augmentation_choice != "joao_v2" else second_augmentation,
                "second views",
            ),
            "property_prediction": (targets, "labels"),
            "descriptors": (descriptor_targets, "descriptors"),
        }.get(objective, (pos, "conformers (pos)"))
        if needed is None:
            raise ValueError(f"this batch has no {what}, and so was not made for objective {objective!r}")
        if batch is None:
            batch, num_graphs = torch.zeros_like(x[:, 0]), 1
        if num_graphs is None:
            num_graphs = int(batch.max()) + 1
        output = self.infomax_3d(x, edge_index, edge_attr, batch, num_graphs, **kwargs)
        embeddings = None
        if objective == "distance_prediction":
            pairs = pairs_within_molecules(batch, num_graphs) if pairs is None else pairs
            max_atoms = int(count_atoms(batch, num_graphs).max()) if max_atoms is None else max_atoms
            predicted = self.distance_head(output.last_hidden_state, batch, num_graphs, pairs, max_atoms)
            losses = {"distance": distance_loss(predicted, pos, pairs)}
        elif objective == "property_prediction":
            found = self.property_readout(output.pooler_output, targets)
            losses = {"property": found.loss}
        elif objective == "descriptors":
            predictions = self.descriptor_head(output.pooler_output)
            losses = {"descriptors": descriptor_loss(predictions, descriptor_targets, descriptor_places)}
        else:
            first, temperature = self._project(output.pooler_output, augmentation), self.config.temperature
            if objective == "contrastive":
                second = self.get_conformer_features(z, pos, batch, num_graphs, pairs)
                eps = 0.0 if pos.dim() == 3 else 1e-8
                embeddings = {"graph": first, "conformer": second.mean(dim=1) if second.dim() == 3 else second}
            else:
                graph = (second_x, second_edge_index, second_edge_attr, second_batch, second_num_graphs)
                second, eps = self.get_graph_features(*graph, second_augmentation), 1e-8
                embeddings = {"first": first, "second": second}
            losses = {"contrastive": one_sided_nt_xent(first, second, temperature, eps)}
        return MoleculePreTrainingOutput(
            loss=sum(losses.values()), losses=losses, embeddings=embeddings, hidden_states=output.hidden_states
        )


class Infomax3DPropertyHead(PropertyHead):
    """The readout network with one output per task, and the loss of `config.regression_loss`."""

    def __init__(self, config: Infomax3DConfig, inputs: int):
        nn.Module.__init__(self)
        self.config = config
        self.network = Infomax3DReadout(config, inputs, config.num_labels, config.readout_layers)

    def logits(self, embedding: torch.Tensor) -> torch.Tensor:
        return self.network(embedding)

    def forward(self, embedding: torch.Tensor, labels: torch.Tensor | None = None) -> MoleculePropertyOutput:
        output = super().forward(embedding, labels)
        if labels is not None and self.config.problem_type == "regression" and self.config.regression_loss == "l1":
            mean, std = self._label_scale(output.logits)
            output.loss = mean_absolute_error(output.logits, (labels - mean) / std)
            output.losses = {"property": output.loss.detach()}
        return output


class Infomax3DForPropertyPrediction(Infomax3DPreTrainedModel):
    """
    Molecular properties from the encoder. The original fine-tunes on QM9 with Adam, batches of 128, learning rate 7e-5,
    weight decay 1e-11 and the absolute error of z-scored labels; see `restart_batch_norm` and `unfreezing_steps` of
    [`Infomax3DConfig`] for what it takes over and when it begins to train it.
    """

    def __init__(self, config: Infomax3DConfig):
        super().__init__(config)
        self.infomax_3d = Infomax3DModel(config)
        self.infomax_3d.readout = list(config.finetuning_readout)
        self.head = Infomax3DPropertyHead(config, len(config.finetuning_readout) * config.embedding_dim)
        for module in self.modules():
            if isinstance(module, Infomax3DBatchNorm):
                module.momentum = config.finetuning_batch_norm_momentum
        self.warmup_stages: list[tuple[list[str], int]] = []
        self.post_init()

    def begin_transfer(self) -> None:
        """
        Make the model ready to be fine-tuned from a pre-trained encoder: batch norms start anew where
        `restart_batch_norm` says so, and `warmup_stages` names parameters and the updates in which their learning rate
        rises, stage after stage.
        """
        restarted = {}
        if self.config.restart_batch_norm:
            restarted = {
                f"infomax_3d.{name}": module
                for name, module in self.infomax_3d.named_modules()
                if isinstance(module, Infomax3DBatchNorm)
            }
        for module in restarted.values():
            for tensor in (*module.parameters(), *module.buffers()):
                tensor._is_hf_initialized = False  # else transformers keeps what it loaded
            self._init_weights(module)
        groups = [[], [], []]
        for name, _ in self.named_parameters():
            stage = 0 if name.rpartition(".")[0] in restarted else 1 if name.startswith("head.") else 2
            groups[stage].append(name)
        stages = zip(groups, self.config.unfreezing_steps, strict=False)
        self.warmup_stages = [(names, steps) for names, steps in stages if names]

    @can_return_tuple
    def forward(
        self,
        x: torch.LongTensor,
        edge_index: torch.LongTensor,
        edge_attr: torch.LongTensor,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
        labels: torch.FloatTensor | None = None,
        **kwargs,
    ) -> MoleculePropertyOutput:
        """
        Args:
            x, edge_index, edge_attr, batch, num_graphs: as in [`Infomax3DModel`]; labels: `[molecules, tasks]`,
            NaN = missing.
        """
        output = self.infomax_3d(x, edge_index, edge_attr, batch, num_graphs, **kwargs)
        return MoleculePropertyOutput(**self.head(output.pooler_output, labels), hidden_states=output.hidden_states)


__all__ = [
    "Infomax3DForPreTraining",
    "Infomax3DForPropertyPrediction",
    "Infomax3DModel",
    "Infomax3DPreTrainedModel",
]
