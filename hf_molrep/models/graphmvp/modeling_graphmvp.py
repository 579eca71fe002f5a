"""
GraphMVP: a graph encoder, pre-trained so that a molecule's graph and its conformer tell of each other.

Paper: Liu, Wang, Liu, Lasenby, Guo, Tang, "Pre-training molecular graph representation with 3D geometry", ICLR 2022
(arXiv 2110.07728). Original code: github.com/chao1224/GraphMVP (MIT). Its GIN is that of
github.com/snap-stanford/pretrain-gnns (MIT; Hu et al., ICLR 2020), or for regression that of the Open Graph Benchmark
(MIT); its SchNet (Schütt et al., NeurIPS 2017) is derived from PyG's and is not PyG's: 119 elements, output layers as
wide as the states, the mean over the atoms.

Ours: one filter per pair of atoms and not per direction (the two are equal); bond embeddings of the first GIN are added
as (number of bonds of each kind) times (table), once per atom; no message passing of PyG, which stores a row per edge
(see `nn/gather_sum.py`); in evaluation mode reconstruction decodes the mean and draws no noise, so that a validation
loss is the same every time; one learning rate (the original trains SchNet and the head from conformer to graph at a
tenth). Negatives of context prediction skip molecules that have no context, as the original's batches do.
"""

import copy
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from ...compat import GradientCheckpointingLayer, can_return_tuple, init
from ...hub import RemoteCodeMixin
from ...losses import context_prediction, descriptor_loss, ebm_nce, info_nce, masked_cross_entropy
from ...modeling_outputs import (
    MoleculeModelOutput,
    MoleculePreTrainingOutput,
    MoleculePropertyOutput,
    recorded_outputs,
)
from ...nn.gather_sum import GatherSum
from ...nn.heads import PropertyHead
from ...nn.joined_graph import check_whole
from ...nn.radial_basis import cosine_cutoff, gaussian_basis
from ...nn.radius_graph import radius_graph
from .configuration_graphmvp import FINETUNING_DROPOUTS, GraphMVPConfig

SELF_LOOP = 4  # bond type of the scheme pretrain_gnns; its direction is 0
ATOM_CLASSES = 119  # that attribute masking tells apart
TYPICAL_ATOMS = 16  # of a molecule: the sum beside the mean is divided by it, so that both are of one size


# ---- graphs ---------------------------------------------------------------------------------------------------------


class GraphMVPEdges(NamedTuple):
    """
    The edges of a batch in the form that the layers need; made once per batch.

    Args:
        source, bond: `[edges]`, `[edges, columns]`.
        messages: the plan of the sum over the edges that arrive at an atom.
        neighbours: the plan of the sum over neighbours and the atom itself.
        bond_counts: `[atoms, rows of all bond embeddings]`, bonds of each kind that arrive at an atom, and its
            self-loop. Of the scheme `pretrain_gnns` alone, as `neighbours`; `messages` of `ogb`.
    """

    source: torch.Tensor
    bond: torch.Tensor
    messages: GatherSum | None
    neighbours: GatherSum | None
    bond_counts: torch.Tensor | None


def check_graph(x: torch.Tensor, edge_index: torch.Tensor, edge_attr: torch.Tensor, config: GraphMVPConfig) -> None:
    """
    Raises:
        ValueError: the batch was cut, as `nn.DataParallel` does; columns or values that are not of the scheme.
    """
    check_whole(edge_index, edge_attr)
    for name, value, dims in (
        ("x", x, config.atom_feature_dims),
        ("edge_attr", edge_attr, config.bond_feature_dims),
    ):
        if value.shape[1:] != (len(dims),):
            raise ValueError(
                f"{name} {tuple(value.shape)} is not of the scheme {config.graph_scheme!r}, which this model takes: "
                f"{len(dims)} columns (GraphMVPFeatureExtractor makes them)"
            )
        # columns share a table, where a value too large would be taken for one of the next column
        fits = ((value >= 0) & (value < value.new_tensor(dims))).all()
        complaint = f"{name} of the scheme {config.graph_scheme!r} holds values below {dims}, column by column"
        if torch.compiler.is_compiling() or fits.device.type != "cpu":
            torch._assert_async(fits, complaint)  # the host neither waits for a GPU nor leaves a compiled graph
        elif not fits:
            raise ValueError(f"{complaint}; here {value.amin(dim=0).tolist()} ... {value.amax(dim=0).tolist()}")


def make_edges(
    edge_index: torch.Tensor, edge_attr: torch.Tensor, atoms: int, dtype: torch.dtype, config: GraphMVPConfig
) -> GraphMVPEdges:
    """Edges `[2, edges]`, `[edges, columns]` of a joined graph to [`GraphMVPEdges`]."""
    source, target = edge_index
    if config.graph_scheme == "ogb":
        own = torch.arange(len(source), device=source.device)
        return GraphMVPEdges(source, edge_attr, GatherSum(own, target, len(source), atoms), None, None)
    loops = torch.arange(atoms, device=source.device)
    source, target = torch.cat([source, loops]), torch.cat([target, loops])
    bond = torch.cat([edge_attr, edge_attr.new_tensor([[SELF_LOOP, 0]]).expand(atoms, 2)])
    dims = config.bond_feature_dims
    place = target[:, None] * sum(dims) + bond + bond.new_tensor([0, dims[0]])
    counts = torch.zeros(atoms * sum(dims), dtype=dtype, device=source.device)
    counts = counts.scatter_add_(0, place.flatten(), counts.new_ones(place.numel())).view(atoms, -1)
    return GraphMVPEdges(source, bond, None, GatherSum(source, target, atoms, atoms), counts)


def mean_of_molecules(states: torch.Tensor, batch: torch.Tensor, num_graphs: int) -> torch.Tensor:
    """Mean of the rows of each molecule, `[rows, width] -> [molecules, width]`; 0 where there are none."""
    rows = torch.arange(len(batch), device=batch.device)
    size = torch.zeros(num_graphs, dtype=states.dtype, device=batch.device)
    size = size.scatter_add_(0, batch, size.new_ones(len(batch)))
    return GatherSum(rows, batch, len(batch), num_graphs)(states) / size.clamp(min=1)[:, None]


def molecules_of(atoms: torch.Tensor, batch: torch.Tensor | None, num_graphs: int | None) -> tuple[torch.Tensor, int]:
    """The molecule of each atom, and how many there are: without `batch` all atoms are of one."""
    if batch is None:
        return torch.zeros(len(atoms), dtype=torch.long, device=atoms.device), 1
    return batch, int(batch.max()) + 1 if num_graphs is None else num_graphs


def conformers_as_molecules(
    z: torch.Tensor, pos: torch.Tensor, batch: torch.Tensor, num_graphs: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """
    The conformers `pos` `[conformers, atoms, 3]` of all molecules as molecules of one large batch: elements,
    coordinates, the molecule of each atom, and the number of molecules; molecule m of conformer c is
    `c * num_graphs + m`. One conformer, `[atoms, 3]`, stays as it is.
    """
    if pos.dim() != 3:
        return z, pos, batch, num_graphs
    shift = torch.arange(len(pos), device=batch.device)[:, None] * num_graphs
    return z.repeat(len(pos)), pos.flatten(0, 1), (batch + shift).flatten(), len(pos) * num_graphs


class GraphMVPFeatureEmbeddings(nn.Module):
    """Sum of an embedding of each column, `[rows, columns] -> [rows, width]`."""

    def __init__(self, dims: list[int], width: int):
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(size, width) for size in dims])

    def table(self) -> torch.Tensor:
        """`[rows of all columns, width]`."""
        return torch.cat([each.weight for each in self.tables])

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return sum(table(values[:, column]) for column, table in enumerate(self.tables))


class GraphMVPGINLayer(GradientCheckpointingLayer):
    """
    GIN with bonds (Hu et al. 2020, eq. 2), `[atoms, hidden] -> [atoms, hidden]`: MLP(sum over neighbours and self of
    state + bond). Normalisation comes after it and outside, so that gradient checkpointing does not count a batch twice
    in the running statistics.
    """

    def __init__(self, config: GraphMVPConfig):
        super().__init__()
        self.bond_embeddings = GraphMVPFeatureEmbeddings(config.bond_feature_dims, config.embedding_dim)
        self.up_proj = nn.Linear(config.embedding_dim, 2 * config.embedding_dim)
        self.down_proj = nn.Linear(2 * config.embedding_dim, config.embedding_dim)

    def forward(self, states: torch.Tensor, edges: GraphMVPEdges) -> torch.Tensor:
        messages = edges.neighbours(states) + edges.bond_counts @ self.bond_embeddings.table()
        return self.down_proj(F.relu(self.up_proj(messages), inplace=True))


class GraphMVPMessages(GradientCheckpointingLayer):
    """`(1 + eps) h_i + sum over neighbours of relu(h_j + bond)`, `[atoms, hidden] -> [atoms, hidden]`."""

    def __init__(self, config: GraphMVPConfig):
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(1))
        self.bond_embeddings = GraphMVPFeatureEmbeddings(config.bond_feature_dims, config.embedding_dim)

    def forward(self, states: torch.Tensor, edges: GraphMVPEdges) -> torch.Tensor:
        of_edges = F.relu(states[edges.source] + self.bond_embeddings(edges.bond), inplace=True)
        return (1 + self.eps) * states + edges.messages(of_edges)


class GraphMVPOGBLayer(nn.Module):
    """GIN of the Open Graph Benchmark: a batch norm within the MLP, no self-loop."""

    def __init__(self, config: GraphMVPConfig):
        super().__init__()
        self.messages = GraphMVPMessages(config)
        self.up_proj = nn.Linear(config.embedding_dim, 2 * config.embedding_dim)
        self.norm = GraphMVPBatchNorm(2 * config.embedding_dim)
        self.down_proj = nn.Linear(2 * config.embedding_dim, config.embedding_dim)

    def forward(self, states: torch.Tensor, edges: GraphMVPEdges) -> torch.Tensor:
        return self.down_proj(F.relu(self.norm(self.up_proj(self.messages(states, edges)))))


class GraphMVPBatchNorm(nn.BatchNorm1d):
    """Batch norm. One row alone (methane as the last batch of an epoch) has no variance: it is normalised as in
    evaluation, where torch would raise."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if self.training and len(states) == 1:
            return F.batch_norm(states, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(states)


# ---- conformers -----------------------------------------------------------------------------------------------------


class GraphMVPPairs(NamedTuple):
    """
    Neighbours in space, made once per batch.

    Args:
        source, pair: `[edges]`, where a message comes from, and which pair of atoms it is: both directions of a pair
            have one filter.
        basis: `[pairs, gaussians]`; weight: `[pairs, 1]`, falling to 0 at the cutoff.
        messages: the plan of the sum over the edges that arrive at an atom.
    """

    source: torch.Tensor
    pair: torch.Tensor
    basis: torch.Tensor
    weight: torch.Tensor
    messages: GatherSum


@torch.compiler.disable  # shapes depend on the coordinates
def make_pairs(pos: torch.Tensor, batch: torch.Tensor, dtype: torch.dtype, config: GraphMVPConfig) -> GraphMVPPairs:
    """Coordinates `[atoms, 3]`, angstrom, to [`GraphMVPPairs`]; distances are float32 whatever `dtype` of the rest."""
    atoms = len(pos)
    pos = pos.to(torch.promote_types(pos.dtype, torch.float32))
    source, target = radius_graph(pos, batch, config.cutoff, config.max_neighbors)
    pairs, pair = torch.unique(
        torch.minimum(source, target) * atoms + torch.maximum(source, target), return_inverse=True
    )
    distance = (pos[pairs // atoms] - pos[pairs % atoms]).norm(dim=-1)
    basis = gaussian_basis(distance, config.cutoff, config.num_gaussians)
    weight = cosine_cutoff(distance, config.cutoff)[:, None]
    own = torch.arange(len(source), device=pos.device)
    return GraphMVPPairs(source, pair, basis.to(dtype), weight.to(dtype), GatherSum(own, target, len(own), atoms))


def shifted_softplus(states: torch.Tensor) -> torch.Tensor:
    """`log(exp(x) / 2 + 1 / 2)`."""
    return F.softplus(states) - math.log(2.0)


class GraphMVPGlorotLinear(nn.Linear):
    """A linear map whose weights start from Glorot's distribution, and its bias from 0 unless `drawn_bias`."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, drawn_bias: bool = False):
        super().__init__(inputs, outputs, bias=bias)
        self.drawn_bias = drawn_bias


class GraphMVPElementEmbeddings(nn.Embedding):
    """Embeddings that start from N(0, 1)."""


class GraphMVPInteraction(GradientCheckpointingLayer):
    """SchNet's interaction, `[atoms, hidden] -> [atoms, hidden]`: neighbours through a filter of their distance."""

    def __init__(self, config: GraphMVPConfig):
        super().__init__()
        width, filters = config.embedding_dim, config.num_filters
        self.filter_in = GraphMVPGlorotLinear(config.num_gaussians, filters)
        # the original means to clear this bias, and clears the other one twice
        self.filter_out = GraphMVPGlorotLinear(filters, filters, drawn_bias=True)
        self.in_proj = GraphMVPGlorotLinear(width, filters, bias=False)
        self.out_proj = GraphMVPGlorotLinear(filters, width)
        self.dense = GraphMVPGlorotLinear(width, width)

    def forward(self, states: torch.Tensor, pairs: GraphMVPPairs) -> torch.Tensor:
        filters = self.filter_out(shifted_softplus(self.filter_in(pairs.basis))) * pairs.weight
        messages = pairs.messages(self.in_proj(states)[pairs.source] * filters[pairs.pair])
        return self.dense(shifted_softplus(self.out_proj(messages)))


class GraphMVPSchNet(nn.Module):
    """Elements and coordinates to an embedding of each conformer."""

    def __init__(self, config: GraphMVPConfig):
        super().__init__()
        self.config = config
        self.element_embeddings = GraphMVPElementEmbeddings(config.num_elements, config.embedding_dim)
        self.interactions = nn.ModuleList([GraphMVPInteraction(config) for _ in range(config.num_interactions)])
        self.dense = GraphMVPGlorotLinear(config.embedding_dim, config.embedding_dim)
        self.out_proj = GraphMVPGlorotLinear(config.embedding_dim, config.embedding_dim)

    def pairs(self, z: torch.Tensor, pos: torch.Tensor, batch: torch.Tensor) -> GraphMVPPairs:
        """The neighbours that `forward` needs. Raises ValueError: see there."""
        if z.shape != pos.shape[:-1] or pos.shape[-1:] != (3,):
            raise ValueError(
                f"z {tuple(z.shape)} and pos {tuple(pos.shape)} are not an element and a point for each atom of every "
                "conformer"
            )
        known = ((z >= 1) & (z <= self.config.num_elements)).all()
        if torch.compiler.is_compiling() or known.device.type != "cpu":
            torch._assert_async(known, "z holds atomic numbers")
        elif not known:
            low, high = int(z.min()), int(z.max())
            raise ValueError(f"z holds atomic numbers, 1 ... {self.config.num_elements}; here {low} ... {high}")
        return make_pairs(pos, batch, self.element_embeddings.weight.dtype, self.config)

    def forward(self, z: torch.Tensor, pairs: GraphMVPPairs, batch: torch.Tensor, num_graphs: int) -> torch.Tensor:
        """See [`GraphMVPForPreTraining.get_conformer_features`]; `pairs` are those of the coordinates."""
        states = self.element_embeddings(z - 1)
        for interaction in self.interactions:
            states = states + interaction(states, pairs)
        states = self.out_proj(shifted_softplus(self.dense(states)))
        return mean_of_molecules(states, batch, num_graphs)


class GraphMVPReconstruction(nn.Module):
    """
    The variational heads of one direction: the embedding of one view to a Gaussian, a draw of it to the embedding of
    the other view (variational representation reconstruction, Liu et al. 2022, eq. 7 and 8).
    """

    def __init__(self, config: GraphMVPConfig):
        super().__init__()
        width = config.embedding_dim
        self.mean_proj = nn.Linear(width, width)
        self.log_variance_proj = nn.Linear(width, width)
        self.dense = nn.Linear(width, width)
        self.norm = GraphMVPBatchNorm(width)
        self.out_proj = nn.Linear(width, width)

    def encode(self, embedding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logarithm of the variance, `[molecules, hidden]` each."""
        return self.mean_proj(embedding), self.log_variance_proj(embedding)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """`[molecules, hidden] -> [molecules, hidden]`."""
        return self.out_proj(F.relu(self.norm(self.dense(latent))))

    def forward(self, embedding: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Mean squared error to the target, through which no gradient flows, and the divergence from N(0, 1), summed over
        the dimensions; both are means over the molecules. Noise is drawn in training alone.
        """
        mean, log_variance = self.encode(embedding)
        latent = mean
        if self.training:
            latent = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        error = F.mse_loss(self.decode(latent).float(), target.detach().float())
        mean, log_variance = mean.float(), log_variance.float()
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=-1).mean()
        return error, divergence


# ---- models ---------------------------------------------------------------------------------------------------------


class GraphMVPPreTrainedModel(RemoteCodeMixin, PreTrainedModel):
    config: GraphMVPConfig
    base_model_prefix = "graphmvp"
    main_input_name = "x"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # every loss here is a mean
    _no_split_modules = ["GraphMVPGINLayer", "GraphMVPOGBLayer", "GraphMVPInteraction"]
    _keys_to_ignore_on_load_unexpected = [
        r"^schnet\.",
        r"^(graph_to_conformer|conformer_to_graph)\.",
        r"^(atom_head|descriptor_head|context_model)\.",
    ]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """As the original: Glorot for the embeddings of graphs and within SchNet, torch's defaults for the rest."""
        if isinstance(module, GraphMVPGlorotLinear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                bound = module.in_features**-0.5 if module.drawn_bias else 0.0
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Linear):
            # torch draws weight and bias from +-1 / sqrt(inputs)
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, GraphMVPElementEmbeddings):
            init.normal_(module.weight)
        elif isinstance(module, nn.Embedding):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.BatchNorm1d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)
        elif isinstance(module, GraphMVPMessages):
            init.zeros_(module.eps)


class GraphMVPModel(GraphMVPPreTrainedModel):
    """The graph encoder, which is all that goes downstream: a molecular graph to atom states and their mean."""

    def __init__(self, config: GraphMVPConfig):
        super().__init__(config)
        layer = GraphMVPOGBLayer if config.graph_scheme == "ogb" else GraphMVPGINLayer
        self.atom_embeddings = GraphMVPFeatureEmbeddings(config.atom_feature_dims, config.embedding_dim)
        self.layers = nn.ModuleList([layer(config) for _ in range(config.num_layers)])
        self.norms = nn.ModuleList([GraphMVPBatchNorm(config.embedding_dim) for _ in range(config.num_layers)])
        self.dropout = config.dropout
        self.gradient_checkpointing = False
        self.post_init()

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
            x: `[atoms, columns]` of `graph_scheme`; edge_index: `[2, edges]`, each bond twice; edge_attr:
            `[edges, columns]`; batch: `[atoms]`, molecule of each atom (None: all of one); num_graphs: molecules (None:
            counted).
        Returns:
            `pooler_output` `[molecules, hidden_size]`, the readout of the atoms; `last_hidden_state`
            `[atoms, embedding_dim]`; `hidden_states`: the embeddings of the atoms and their states after each layer
            with its norm, activation and dropout.
        Raises:
            ValueError: see [`check_graph`]; `output_attentions`, which no layer returns.
        """
        recorded = recorded_outputs(self.config, kwargs)
        if "output_attentions" in recorded:
            raise ValueError("GraphMVP returns no attention weights (output_attentions)")
        check_graph(x, edge_index, edge_attr, self.config)
        batch, num_graphs = molecules_of(x, batch, num_graphs)
        states = self.atom_embeddings(x)
        edges = make_edges(edge_index, edge_attr, len(x), states.dtype, self.config)
        of_layers = [states]
        for depth, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            states = norm(layer(states, edges))
            if depth < len(self.layers) - 1:
                states = F.relu(states)
            states = F.dropout(states, self.dropout, self.training)
            if recorded:
                of_layers.append(states)
        pooled = mean_of_molecules(states, batch, num_graphs)
        if self.config.readout == "mean_sum":
            rows = torch.arange(len(batch), device=batch.device)
            total = GatherSum(rows, batch, len(batch), num_graphs)(states)
            pooled = torch.cat([pooled, total / TYPICAL_ATOMS], dim=-1)
        return MoleculeModelOutput(
            last_hidden_state=states,
            pooler_output=pooled,
            hidden_states=tuple(of_layers) if recorded else None,
        )


class GraphMVPForPreTraining(GraphMVPPreTrainedModel):
    """
    Graph and conformer of a molecule are brought together: each must be told from that of another molecule (contrast),
    and each must be rebuilt from the other (reconstruction). By `config.objective` a term on graphs alone comes on top:
    the types of masked atoms, or which surroundings belong to an atom. With the objective `"descriptors"` there are no
    conformers: a linear map of the graph's embedding predicts scaled descriptors of RDKit.
    """

    def __init__(self, config: GraphMVPConfig):
        super().__init__(config)
        self.graphmvp = GraphMVPModel(config)
        if config.objective == "descriptors":
            self.descriptor_head = nn.Linear(config.hidden_size, config.num_descriptors)
        else:
            self.schnet = GraphMVPSchNet(config)
            self.graph_to_conformer = GraphMVPReconstruction(config)
            self.conformer_to_graph = GraphMVPReconstruction(config)
        if config.objective == "graphmvp_g":
            self.atom_head = nn.Linear(config.embedding_dim, ATOM_CLASSES)
        elif config.objective == "graphmvp_c":
            of_context = copy.deepcopy(config)
            of_context.num_layers = config.context_size
            self.context_model = GraphMVPModel(of_context)
        self.post_init()

    def get_graph_features(
        self,
        x: torch.LongTensor,
        edge_index: torch.LongTensor,
        edge_attr: torch.LongTensor,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
    ) -> torch.Tensor:
        """Graphs, as [`GraphMVPModel`] takes them, to what the contrast compares, `[molecules, hidden_size]`."""
        return self.graphmvp(x, edge_index, edge_attr, batch, num_graphs).pooler_output

    def get_conformer_features(
        self,
        z: torch.LongTensor,
        pos: torch.Tensor,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
    ) -> torch.Tensor:
        """
        Conformers to what the contrast compares, the mean of SchNet's states.

        Args:
            z: `[atoms]`, atomic numbers; pos: `[atoms, 3]`, angstrom, or `[conformers, atoms, 3]`; batch, num_graphs:
                as in [`GraphMVPModel`].
        Returns:
            `[molecules, hidden_size]`, or of several conformers `[molecules, conformers, hidden_size]`.
        Raises:
            ValueError: `z` and `pos` do not fit each other, or what is no element; the objective has no conformers.
        """
        if self.config.objective == "descriptors":
            raise ValueError("the objective 'descriptors' has no encoder of conformers")
        batch, num_graphs = molecules_of(z, batch, num_graphs)
        joined = conformers_as_molecules(z, pos, batch, num_graphs)
        features = self.schnet(joined[0], self.schnet.pairs(*joined[:3]), *joined[2:])
        return features.unflatten(0, (len(pos), num_graphs)).transpose(0, 1) if pos.dim() == 3 else features

    def contrast(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """One direction of the contrast."""
        if self.config.contrastive_loss == "info_nce":
            return info_nce(first, second, 1 / self.config.temperature)
        return ebm_nce(first, second, self.config.temperature, self.config.num_negatives)

    @can_return_tuple
    def forward(
        self,
        x: torch.LongTensor,
        edge_index: torch.LongTensor,
        edge_attr: torch.LongTensor,
        z: torch.LongTensor | None = None,
        pos: torch.FloatTensor | None = None,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
        masked_x: torch.LongTensor | None = None,
        masked_atoms: torch.LongTensor | None = None,
        masked_atom_types: torch.LongTensor | None = None,
        substructure_x: torch.LongTensor | None = None,
        substructure_edge_index: torch.LongTensor | None = None,
        substructure_edge_attr: torch.LongTensor | None = None,
        centers: torch.LongTensor | None = None,
        context_x: torch.LongTensor | None = None,
        context_edge_index: torch.LongTensor | None = None,
        context_edge_attr: torch.LongTensor | None = None,
        anchors: torch.LongTensor | None = None,
        anchor_batch: torch.LongTensor | None = None,
        descriptor_places: torch.LongTensor | None = None,
        descriptor_targets: torch.FloatTensor | None = None,
        **kwargs,
    ) -> MoleculePreTrainingOutput:
        """
        Args:
            x, edge_index, edge_attr, batch, num_graphs: the graphs, as in [`GraphMVPModel`].
            z, pos: the conformers, of the same atoms in the same order: `[atoms]`, `[atoms, 3]`, angstrom; of several
                conformers `[conformers, atoms, 3]`, each of which is a sample of its own, as in the original; here
                they share one pass of the graph encoder.
            masked_x: attribute masking: `x` with masked atoms; masked_atoms: `[masked]`, their places;
                masked_atom_types: what stood there.
            substructure_x, ...: context prediction: the parts around `centers`, `[molecules]`, an atom of each;
                context_x, ...: the contexts; anchors: atoms of the contexts whose states are averaged; anchor_batch:
                the molecule of each. A molecule may have none.
            descriptor_places, descriptor_targets: descriptors: `[molecules, asked]`, which descriptors, and their
                scaled values, NaN = missing.
        Returns:
            `losses`, each the mean over both directions and all conformers: `contrastive`
            ([`~hf_molrep.losses.ebm_nce`] or [`~hf_molrep.losses.info_nce`]), `reconstruction` (mean squared error),
            `divergence` (from N(0, 1)); and of the hybrids `atoms` ([`~hf_molrep.losses.masked_cross_entropy`]) or
            `context` ([`~hf_molrep.losses.context_prediction`]). `loss` is

                contrastive_weight * contrastive + reconstruction_weight * (reconstruction + kl_weight * divergence)
                + hybrid_weight * (atoms or context)

            Of the objective `"descriptors"` there is the loss `descriptors` ([`~hf_molrep.losses.descriptor_loss`])
            alone, and no `embeddings`.
            `embeddings`: `graph` and `conformer` (of several the mean), `[molecules, hidden_size]`. `hidden_states`:
            of the graphs.
        Raises:
            ValueError: no conformers, or the batch was made for another objective; see also
                [`~GraphMVPForPreTraining.get_conformer_features`].
        """
        config = self.config
        if config.objective == "descriptors":
            if descriptor_targets is None:
                raise ValueError("this batch was not made for objective 'descriptors': give it to the data collator")
            output = self.graphmvp(x, edge_index, edge_attr, batch, num_graphs, **kwargs)
            predictions = self.descriptor_head(output.pooler_output)
            loss = descriptor_loss(predictions, descriptor_targets, descriptor_places)
            return MoleculePreTrainingOutput(
                loss=loss, losses={"descriptors": loss}, hidden_states=output.hidden_states
            )
        if z is None or pos is None:
            raise ValueError("pre-training compares graphs with conformers: z and pos are missing")
        if len(z) != len(x):
            raise ValueError(f"graphs of {len(x)} atoms and conformers of {len(z)}: both views have the same atoms")
        needed = {"graphmvp": x, "graphmvp_g": masked_x, "graphmvp_c": substructure_x}
        if needed[config.objective] is None:
            raise ValueError(
                f"this batch was not made for objective {config.objective!r}: give it to the data collator"
            )
        batch, num_graphs = molecules_of(x, batch, num_graphs)
        joined = conformers_as_molecules(z, pos, batch, num_graphs)
        pairs = self.schnet.pairs(*joined[:3])  # first: here a compiled graph ends, before there are states
        output = self.graphmvp(x, edge_index, edge_attr, batch, num_graphs, **kwargs)
        graph, conformers = output.pooler_output, self.schnet(joined[0], pairs, *joined[2:])
        of_each = conformers.unflatten(0, (-1, num_graphs))
        # conformer by conformer: another conformer of a molecule is no negative of it
        contrasts = [self.contrast(graph, each) + self.contrast(each, graph) for each in of_each]
        contrast = sum(contrasts) / (2 * len(contrasts))
        graphs = graph.repeat(len(of_each), 1)
        directions = (self.graph_to_conformer(graphs, conformers), self.conformer_to_graph(conformers, graphs))
        error, divergence = (sum(terms) / 2 for terms in zip(*directions, strict=True))
        losses = {"contrastive": contrast, "reconstruction": error, "divergence": divergence}
        reconstruction = error + config.kl_weight * divergence
        loss = config.contrastive_weight * contrast + config.reconstruction_weight * reconstruction
        if config.objective == "graphmvp_g":
            states = self.graphmvp(masked_x, edge_index, edge_attr, batch, num_graphs).last_hidden_state
            losses["atoms"] = masked_cross_entropy(self.atom_head(states[masked_atoms]), masked_atom_types)
            loss = loss + config.hybrid_weight * losses["atoms"]
        elif config.objective == "graphmvp_c":
            states = self.graphmvp(substructure_x, substructure_edge_index, substructure_edge_attr).last_hidden_state
            of_centers = states[centers]
            contexts, present = self._contexts(
                of_centers, context_x, context_edge_index, context_edge_attr, anchors, anchor_batch
            )
            losses["context"] = context_prediction(of_centers, contexts, present)
            loss = loss + config.hybrid_weight * losses["context"]
        return MoleculePreTrainingOutput(
            loss=loss,
            losses=losses,
            embeddings={"graph": graph, "conformer": of_each.mean(dim=0)},
            hidden_states=output.hidden_states,
        )

    def _contexts(
        self,
        of_centers: torch.Tensor,
        x: torch.Tensor,
        edge_index: torch.Tensor,
        edge_attr: torch.Tensor,
        anchors: torch.Tensor,
        anchor_batch: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The embedding of each context, as `of_centers`, and whether there is one, bool `[molecules]`."""
        molecules = len(of_centers)
        if len(x) < 2:  # batch norm needs two atoms; the sum keeps every parameter in the graph
            contexts = of_centers * 0 + sum(weight.sum() * 0 for weight in self.context_model.parameters())
            anchor_batch = anchor_batch[:0]
        else:
            states = self.context_model(x, edge_index, edge_attr).last_hidden_state[anchors]
            contexts = mean_of_molecules(states, anchor_batch, molecules)
        present = torch.zeros(molecules, dtype=torch.bool, device=x.device).index_fill(0, anchor_batch, True)
        return contexts, present


class GraphMVPPropertyHead(PropertyHead):
    """The original's: one linear map."""

    def __init__(self, config: GraphMVPConfig):
        nn.Module.__init__(self)
        self.config = config
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)

    def logits(self, embedding: torch.Tensor) -> torch.Tensor:
        return self.out_proj(embedding)


class GraphMVPForPropertyPrediction(GraphMVPPreTrainedModel):
    """
    Molecular properties from the graph encoder; no conformers are needed. The original fine-tunes with Adam, batches of
    256, learning rate 1e-3, 100 epochs, and `finetuning_dropout` in the encoder.
    """

    def __init__(self, config: GraphMVPConfig):
        super().__init__(config)
        self.graphmvp = GraphMVPModel(config)
        dropout = config.finetuning_dropout
        self.graphmvp.dropout = FINETUNING_DROPOUTS[config.problem_type] if dropout is None else dropout
        self.head = GraphMVPPropertyHead(config)
        self.post_init()

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
            x, edge_index, edge_attr, batch, num_graphs: as in [`GraphMVPModel`]; labels: `[molecules, tasks]`,
            NaN = missing.
        """
        output = self.graphmvp(x, edge_index, edge_attr, batch, num_graphs, **kwargs)
        return MoleculePropertyOutput(**self.head(output.pooler_output, labels), hidden_states=output.hidden_states)


__all__ = [
    "GraphMVPForPreTraining",
    "GraphMVPForPropertyPrediction",
    "GraphMVPModel",
    "GraphMVPPreTrainedModel",
]
