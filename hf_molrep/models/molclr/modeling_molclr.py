"""
MolCLR: graph neural networks with contrastive pre-training on augmented views of molecules.

Paper: Wang, Wang, Cao, Barati Farimani, "Molecular contrastive learning of representations via graph neural networks",
Nature Machine Intelligence 2022 (arXiv 2102.10056). Original code: github.com/yuyangw/MolCLR (MIT), `models/` and
`nt_xent.py`; its GIN and the layers of `gnn_type` `"gcn_normalized"`, `"graphsage"`, `"gat"` are those of
github.com/snap-stanford/pretrain-gnns (MIT; Hu et al., ICLR 2020).

As in the original, and unlike textbooks: `"gcn"` adds neighbours without a norm (the original computes it but does not
use it), and `"gat"` normalises attention over the edges that leave an atom, not over those that arrive.
Different from the original: bond embeddings are added as (number of bonds of each kind) times (table), once per atom
instead of per edge; there is one logit per binary task and one model for all tasks, instead of a two-class model per
task; PyG's message passing, which stores a row per edge, is not used (see `nn/gather_sum.py`);
`jumping_knowledge="sum"` sums all layers (the original takes only the first). Negatives of context prediction skip
molecules without a context, as the original's batches do.
"""

import copy
import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from ...compat import GradientCheckpointingLayer, can_return_tuple, init
from ...hub import RemoteCodeMixin
from ...losses import context_prediction, descriptor_loss, masked_cross_entropy, nt_xent
from ...modeling_outputs import (
    MoleculeModelOutput,
    MoleculePreTrainingOutput,
    MoleculePropertyOutput,
    recorded_outputs,
)
from ...nn.gather_sum import GatherSum
from ...nn.heads import PropertyHead
from ...nn.joined_graph import check_whole
from .configuration_molclr import MolCLRConfig

SELF_LOOP = 4  # bond type; its direction is 0
ATOM_CLASSES, BOND_CLASSES = 119, 4  # number of bond types that attribute masking predicts
TYPICAL_ATOMS = 16  # of a molecule: the sum beside the mean is divided by it, so that both are of one size


class MolCLREdges(NamedTuple):
    """
    The edges of a batch with a self-loop at every atom, in the form that the layers need.

    Args:
        source, target, bond: `[edges]`, `[edges]`, `[edges, 2]` (type, direction).
        neighbours: plan of the sum over the neighbours of an atom and itself.
        degree: `[atoms]`, number of terms of that sum.
        bond_counts: `[atoms, bond types + directions + 1]`, number of bonds of each kind at an atom, and 1.
    """

    source: torch.Tensor
    target: torch.Tensor
    bond: torch.Tensor
    neighbours: GatherSum
    degree: torch.Tensor
    bond_counts: torch.Tensor


def check_graph(x: torch.Tensor, edge_index: torch.Tensor, edge_attr: torch.Tensor, config: MolCLRConfig) -> None:
    """
    Check that a batch is whole and of the scheme `pretrain_gnns`. (Atoms out of range fail in the embeddings.)

    Raises:
        ValueError: the batch was cut, as `nn.DataParallel` does; or columns, bond types or bond directions do not fit.
    """
    check_whole(edge_index, edge_attr)
    if x.shape[1:] != (2,) or edge_attr.shape[1:] != (2,):
        raise ValueError(
            f"x {tuple(x.shape)} and edge_attr {tuple(edge_attr.shape)} are not of the scheme 'pretrain_gnns', which "
            "MolCLR takes: two columns each (MolCLRFeatureExtractor makes them)"
        )
    # types are counted, not looked up: one out of range would be taken for a direction
    kinds = {"bond types": config.num_bond_types, "directions": config.num_bond_directions}
    fits = ((edge_attr >= 0) & (edge_attr < edge_attr.new_tensor(list(kinds.values())))).all()
    complaint = " and ".join(f"{name} 0 ... {size - 1}" for name, size in kinds.items())
    complaint = f"edge_attr of the scheme 'pretrain_gnns' holds {complaint} of this model"
    if torch.compiler.is_compiling() or fits.device.type != "cpu":
        torch._assert_async(fits, complaint)  # a check on the host would wait for a GPU and break a compiled graph
    elif not fits:
        low, high = edge_attr.amin(dim=0).tolist(), edge_attr.amax(dim=0).tolist()
        raise ValueError(f"{complaint}; here {low[0]} ... {high[0]} and {low[1]} ... {high[1]}")


def count_bonds(target: torch.Tensor, bond: torch.Tensor, weight: torch.Tensor, atoms: int, config) -> torch.Tensor:
    """Sum weights `[edges]` by target atom and kind of bond, `[atoms, bond types + directions]`."""
    kinds = config.num_bond_types + config.num_bond_directions
    place = target[:, None] * kinds + bond + torch.tensor([0, config.num_bond_types], device=bond.device)
    counts = torch.zeros(atoms * kinds, dtype=weight.dtype, device=weight.device)
    return counts.scatter_add_(0, place.flatten(), weight[:, None].expand(-1, 2).flatten()).view(atoms, kinds)


def make_edges(edge_index: torch.Tensor, edge_attr: torch.Tensor, atoms: int, dtype, config) -> MolCLREdges:
    """Make [`MolCLREdges`] from the edges `[2, edges]`, `[edges, 2]` of a joined graph."""
    loops = torch.arange(atoms, device=edge_index.device)
    source, target = torch.cat([edge_index[0], loops]), torch.cat([edge_index[1], loops])
    bond = torch.cat([edge_attr, edge_attr.new_tensor([[SELF_LOOP, 0]]).expand(atoms, 2)])
    ones = torch.ones(len(source), dtype=dtype, device=source.device)
    if config.gnn_type == "gcn_normalized":  # 1 / sqrt(degree) of the source atoms
        degree = torch.zeros(atoms, dtype=dtype, device=source.device).scatter_add_(0, source, ones)
        weight = degree.rsqrt()[source]
    else:
        degree = torch.zeros(atoms, dtype=dtype, device=source.device).scatter_add_(0, target, ones)
        weight = ones
    counts = torch.cat([count_bonds(target, bond, weight, atoms, config), ones[:atoms, None]], dim=1)
    return MolCLREdges(source, target, bond, GatherSum(source, target, atoms, atoms), degree, counts)


class MolCLRLayer(GradientCheckpointingLayer):
    """
    Base of the message-passing layers, `[atoms, hidden] -> [atoms, hidden]`. Normalisation is outside of it, so that
    gradient checkpointing does not update the running statistics twice.
    """

    def __init__(self, config: MolCLRConfig, bond_dim: int):
        super().__init__()
        self.bond_embeddings = nn.Embedding(config.num_bond_types, bond_dim)
        self.direction_embeddings = nn.Embedding(config.num_bond_directions, bond_dim)

    def bond_table(self) -> torch.Tensor:
        """Return the bond embeddings `[bond types + directions, width]`."""
        return torch.cat([self.bond_embeddings.weight, self.direction_embeddings.weight])

    def add_messages(self, states: torch.Tensor, edges: MolCLREdges) -> torch.Tensor:
        """Sum the neighbours, the atom itself and the embeddings of the bonds to them."""
        messages = edges.neighbours(states)
        # in place, as the ReLUs: the layer is bound by memory
        messages += edges.bond_counts[:, :-1] @ self.bond_table()
        return messages


class MolCLRGINLayer(MolCLRLayer):
    """GIN with bonds (Hu et al. 2020, eq. 2): MLP(sum over neighbours and self of state + bond)."""

    def __init__(self, config: MolCLRConfig):
        super().__init__(config, config.embedding_dim)
        self.up_proj = nn.Linear(config.embedding_dim, 2 * config.embedding_dim)
        self.down_proj = nn.Linear(2 * config.embedding_dim, config.embedding_dim)

    def up(self, states: torch.Tensor, edges: MolCLREdges) -> torch.Tensor:
        """
        Apply `up_proj` to the messages without making them: the bond table is projected before it is multiplied by
        the counts, and the bias is a further row of count 1.
        """
        if type(self.up_proj) is not nn.Linear:  # replaced by an adapter
            return self.up_proj(self.add_messages(states, edges))
        table = F.linear(self.bond_table(), self.up_proj.weight)
        hidden = edges.bond_counts @ torch.cat([table, self.up_proj.bias[None].to(table.dtype)])
        sums, weight = edges.neighbours(states).to(hidden.dtype), self.up_proj.weight.to(hidden.dtype)
        return hidden.addmm_(sums, weight.T)  # in place: the layer is bound by memory

    def forward(self, states: torch.Tensor, edges: MolCLREdges, norm: nn.BatchNorm1d | None = None) -> torch.Tensor:
        """Run the layer; a `norm` in evaluation mode is merged into `down_proj`."""
        hidden = F.relu(self.up(states, edges), inplace=True)
        if norm is None or type(self.down_proj) is not nn.Linear:
            states = self.down_proj(hidden)
            return states if norm is None else norm(states)
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = (self.down_proj.bias - norm.running_mean) * scale + norm.bias
        return F.linear(hidden, self.down_proj.weight * scale[:, None], shift)


class MolCLRGlorotLinear(nn.Linear):
    """A linear layer with Glorot initialisation (the original's `glorot`)."""


class MolCLRGCNLayer(MolCLRLayer):
    """MolCLR's GCN: sum over neighbours and self of W state + one number per bond; then the bias."""

    def __init__(self, config: MolCLRConfig):
        super().__init__(config, 1)
        self.dense = MolCLRGlorotLinear(config.embedding_dim, config.embedding_dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.embedding_dim))

    def forward(self, states: torch.Tensor, edges: MolCLREdges) -> torch.Tensor:
        return self.add_messages(self.dense(states), edges) + self.bias


class MolCLRNormalizedGCNLayer(MolCLRLayer):
    """GCN of pretrain-gnns: sum of (W state + bond) / sqrt(degree of both ends)."""

    def __init__(self, config: MolCLRConfig):
        super().__init__(config, config.embedding_dim)
        self.dense = nn.Linear(config.embedding_dim, config.embedding_dim)

    def forward(self, states: torch.Tensor, edges: MolCLREdges) -> torch.Tensor:
        scale = edges.degree.rsqrt()[:, None]
        return self.add_messages(self.dense(states) * scale, edges) * scale


class MolCLRGraphSAGELayer(MolCLRLayer):
    """GraphSAGE of pretrain-gnns: mean of W state + bond, normalised to length 1."""

    def __init__(self, config: MolCLRConfig):
        super().__init__(config, config.embedding_dim)
        self.dense = nn.Linear(config.embedding_dim, config.embedding_dim)

    def forward(self, states: torch.Tensor, edges: MolCLREdges) -> torch.Tensor:
        return F.normalize(self.add_messages(self.dense(states), edges) / edges.degree[:, None], dim=-1)


class MolCLRGATLayer(MolCLRLayer):
    """GAT of pretrain-gnns: heads averaged, attention over the edges that leave an atom (as released)."""

    def __init__(self, config: MolCLRConfig):
        super().__init__(config, config.num_heads * config.embedding_dim)
        self.num_heads = config.num_heads
        self.dense = nn.Linear(config.embedding_dim, config.num_heads * config.embedding_dim)
        self.attention = nn.Parameter(torch.zeros(config.num_heads, 2 * config.embedding_dim))
        self.bias = nn.Parameter(torch.zeros(config.embedding_dim))

    def forward(self, states: torch.Tensor, edges: MolCLREdges) -> torch.Tensor:
        states = self.dense(states).unflatten(-1, (self.num_heads, -1))
        bonds = self.bond_embeddings(edges.bond[:, 0]) + self.direction_embeddings(edges.bond[:, 1])
        messages = states[edges.source] + bonds.unflatten(-1, (self.num_heads, -1)).to(states.dtype)
        of_target, of_message = self.attention.chunk(2, dim=-1)
        logits = (states * of_target).sum(-1)[edges.target] + (messages * of_message).sum(-1)
        logits = F.leaky_relu(logits, 0.2).float()
        groups = edges.source[:, None].expand_as(logits)
        largest = torch.full_like(logits[: len(states)], -torch.inf).scatter_reduce_(0, groups, logits.detach(), "amax")
        weights = (logits - largest[edges.source]).exp()
        total = torch.zeros_like(largest).scatter_add(0, groups, weights)
        messages = messages * (weights / total[edges.source])[..., None].to(messages.dtype)
        return torch.zeros_like(states).index_add(0, edges.target, messages).mean(dim=1) + self.bias


LAYERS = {
    "gin": MolCLRGINLayer,
    "gcn": MolCLRGCNLayer,
    "gcn_normalized": MolCLRNormalizedGCNLayer,
    "graphsage": MolCLRGraphSAGELayer,
    "gat": MolCLRGATLayer,
}


class MolCLRBatchNorm(nn.BatchNorm1d):
    """
    Batch norm over atoms. A batch of one atom (methane) has no variance and is normalised as in evaluation, where torch
    would raise.
    """

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if self.training and len(states) == 1:
            return F.batch_norm(states, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(states)


class MolCLRPreTrainedModel(RemoteCodeMixin, PreTrainedModel):
    config: MolCLRConfig
    base_model_prefix = "molclr"
    main_input_name = "x"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # all losses are means
    _no_split_modules = ["MolCLRLayer"]
    _keys_to_ignore_on_load_unexpected = [
        r"^contrast_(dense|out)\.",
        r"^(atom|bond|descriptor)_head\.",
        r"^context_model\.",
    ]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Initialise as the original: Glorot for embeddings and weights of GCN and GAT, torch's defaults otherwise."""
        if isinstance(module, MolCLRGlorotLinear):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Linear):
            # torch draws weight and bias from +-1 / sqrt(inputs)
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Embedding):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.BatchNorm1d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)
        elif isinstance(module, MolCLRGCNLayer):
            init.zeros_(module.bias)
        elif isinstance(module, MolCLRGATLayer):
            # PyG's glorot of a [1, heads, 2 * hidden] tensor
            bound = (6 / sum(module.attention.shape)) ** 0.5
            init.uniform_(module.attention, -bound, bound)
            init.zeros_(module.bias)


class MolCLRModel(MolCLRPreTrainedModel):
    """Encoder: molecular graphs to states of the atoms and an embedding of each molecule."""

    def __init__(self, config: MolCLRConfig):
        super().__init__(config)
        self.atom_embeddings = nn.Embedding(config.num_atom_types, config.embedding_dim)
        self.chirality_embeddings = nn.Embedding(config.num_chiralities, config.embedding_dim)
        self.layers = nn.ModuleList([LAYERS[config.gnn_type](config) for _ in range(config.num_layers)])
        self.norms = nn.ModuleList([MolCLRBatchNorm(config.embedding_dim) for _ in range(config.num_layers)])
        self.feature = nn.Linear(config.readout_dim, config.feature_dim) if config.feature_dim else None
        self.dropout = config.dropout
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.atom_embeddings

    def set_input_embeddings(self, value: nn.Module):
        self.atom_embeddings = value

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
            x: `[atoms, 2]`, atomic number - 1 (118: masked) and chirality; edge_index: `[2, edges]`, each bond twice;
            edge_attr: `[edges, 2]`, bond type and direction; batch: `[atoms]`, molecule of each atom (None: all of
            one); num_graphs: molecules (None: counted).
        Returns:
            `pooler_output` `[molecules, hidden_size]`: the original's `h`; `last_hidden_state` `[atoms, atom_dim]`;
            `hidden_states`: the embeddings of the atoms and their states after each layer with its norm, activation and
            dropout, `[atoms, embedding_dim]`.
        Raises:
            ValueError: see [`check_graph`]; or `output_attentions` is requested, which no layer returns (`"gat"` has
                attention over edges, not pairs of atoms).
        """
        recorded = recorded_outputs(self.config, kwargs)
        if "output_attentions" in recorded:
            raise ValueError("MolCLR returns no attention weights (output_attentions)")
        check_graph(x, edge_index, edge_attr, self.config)
        atoms = len(x)
        if batch is None:
            batch, num_graphs = x.new_zeros(atoms), 1
        if num_graphs is None:
            num_graphs = int(batch.max()) + 1
        states = self.atom_embeddings(x[:, 0]) + self.chirality_embeddings(x[:, 1])
        edges = make_edges(edge_index, edge_attr, atoms, states.dtype, self.config)
        of_layers = [states]
        for depth, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            if isinstance(layer, MolCLRGINLayer) and not norm.training:
                states = layer(states, edges, norm)
            else:
                states = norm(layer(states, edges))
            if depth < len(self.layers) - 1:
                states = F.relu(states, inplace=True)
            states = F.dropout(states, self.dropout, self.training)
            if recorded or self.config.jumping_knowledge != "last":
                of_layers.append(states)
        if self.config.jumping_knowledge == "concat":
            states = torch.cat(of_layers, dim=-1)
        elif self.config.jumping_knowledge == "sum":
            states = torch.stack(of_layers).sum(dim=0)
        elif self.config.jumping_knowledge == "max":
            states = torch.stack(of_layers).amax(dim=0)
        pooled = self.pool(states, batch, num_graphs)
        if self.feature is not None:
            pooled = self.feature(pooled)
        hidden_states = tuple(of_layers) if recorded else None
        return MoleculeModelOutput(last_hidden_state=states, pooler_output=pooled, hidden_states=hidden_states)

    def pool(self, states: torch.Tensor, batch: torch.LongTensor, num_graphs: int) -> torch.Tensor:
        """Pool atoms `[atoms, width]` to `[molecules, width (mean_sum: twice)]`; a molecule without atoms gives 0."""
        if self.config.readout == "max":
            place = batch[:, None].expand_as(states)
            return states.new_zeros(num_graphs, states.shape[1]).scatter_reduce(
                0, place, states, "amax", include_self=False
            )
        pooled = GatherSum(torch.arange(len(batch), device=batch.device), batch, len(batch), num_graphs)(states)
        if self.config.readout in ("mean", "mean_sum"):
            size = torch.zeros(num_graphs, dtype=pooled.dtype, device=pooled.device)
            size = size.scatter_add_(0, batch, torch.ones_like(batch, dtype=pooled.dtype))
            mean = pooled / size.clamp(min=1)[:, None]
            pooled = mean if self.config.readout == "mean" else torch.cat([mean, pooled / TYPICAL_ATOMS], dim=-1)
        return pooled


class MolCLRForPreTraining(MolCLRPreTrainedModel):
    """
    Pre-training by `config.objective`:

    `"contrastive"` (MolCLR): match the two views of each molecule among all views of the batch.
    `"attribute_masking"` (pretrain-gnns): predict the types of masked atoms, and of masked bonds if there are any.
    `"context_prediction"` (pretrain-gnns): match atoms with their surroundings, which a second model encodes.
    `"descriptors"` (CheMeleon's): predict scaled descriptors of RDKit from the embedding of the molecule.
    """

    def __init__(self, config: MolCLRConfig):
        super().__init__(config)
        self.molclr = MolCLRModel(config)
        if config.objective == "contrastive":
            self.contrast_dense = nn.Linear(config.hidden_size, config.hidden_size)
            self.contrast_out = nn.Linear(config.hidden_size, config.projection_dim)
        elif config.objective == "attribute_masking":
            self.atom_head = nn.Linear(config.atom_dim, ATOM_CLASSES)
            if config.mask_bond_type is not None:
                self.bond_head = nn.Linear(config.atom_dim, BOND_CLASSES)
        elif config.objective == "descriptors":
            self.descriptor_head = nn.Linear(config.hidden_size, config.num_descriptors)
        else:
            of_context = copy.deepcopy(config)
            of_context.num_layers = config.context_size
            self.context_model = MolCLRModel(of_context)
        self.post_init()

    def project(self, embedding: torch.Tensor) -> torch.Tensor:
        """Project `[molecules, hidden] -> [molecules, projection_dim]`: the original's `z`."""
        return self.contrast_out(F.relu(self.contrast_dense(embedding)))

    @can_return_tuple
    def forward(
        self,
        x: torch.LongTensor,
        edge_index: torch.LongTensor,
        edge_attr: torch.LongTensor,
        batch: torch.LongTensor | None = None,
        num_graphs: int | None = None,
        second_x: torch.LongTensor | None = None,
        second_edge_index: torch.LongTensor | None = None,
        second_edge_attr: torch.LongTensor | None = None,
        second_batch: torch.LongTensor | None = None,
        second_num_graphs: int | None = None,
        masked_atoms: torch.LongTensor | None = None,
        masked_atom_types: torch.LongTensor | None = None,
        masked_bonds: torch.LongTensor | None = None,
        masked_bond_types: torch.LongTensor | None = None,
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
            x, edge_index, edge_attr, batch, num_graphs: molecules, first views, or the parts around `centers`, as in
                [`MolCLRModel`].
            second_x, ...: contrastive: the second views, in the order of the first ones. Each set of views passes the
                encoder separately, so batch norm sees one at a time, as in the original.
            masked_atoms, masked_bonds: attribute masking: `[masked]`, indices into `x` and `edge_attr`;
                masked_atom_types, masked_bond_types: the true types.
            centers: context prediction: `[molecules]`, an atom of each; context_x, ...: the contexts; anchors: atoms of
                the contexts whose states are averaged; anchor_batch: the molecule of each. A molecule may have none.
            descriptor_places, descriptor_targets: descriptors: `[molecules, asked]`, which descriptors, and their
                scaled values, NaN = missing.
        Returns:
            `losses`: `contrastive` ([`~hf_molrep.losses.nt_xent`]); or `atoms` and `bonds`
            ([`~hf_molrep.losses.masked_cross_entropy`]); or `context` ([`~hf_molrep.losses.context_prediction`]); or
            `descriptors` ([`~hf_molrep.losses.descriptor_loss`]).
            `embeddings`: contrastive `first` and `second`, `[molecules, projection_dim]`.
            `hidden_states`: of the first views.
        Raises:
            ValueError: the batch was made for another objective.
        """
        needed = {
            "contrastive": second_x,
            "attribute_masking": masked_atoms,
            "context_prediction": centers,
            "descriptors": descriptor_targets,
        }
        if needed[self.config.objective] is None:
            raise ValueError(
                f"this batch was not made for objective {self.config.objective!r}: give it to the data collator"
            )
        output = self.molclr(x, edge_index, edge_attr, batch, num_graphs, **kwargs)
        if self.config.objective == "contrastive":
            first = self.project(output.pooler_output)
            second = self.molclr(second_x, second_edge_index, second_edge_attr, second_batch, second_num_graphs)
            second = self.project(second.pooler_output)
            losses = {"contrastive": nt_xent(first, second, self.config.temperature)}
            embeddings = {"first": first, "second": second}
        elif self.config.objective == "attribute_masking":
            states = output.last_hidden_state
            losses = {"atoms": masked_cross_entropy(self.atom_head(states[masked_atoms]), masked_atom_types)}
            if self.config.mask_bond_type is not None:
                ends = states[edge_index[:, masked_bonds]].sum(dim=0)
                losses["bonds"] = masked_cross_entropy(self.bond_head(ends), masked_bond_types)
            embeddings = None
        elif self.config.objective == "descriptors":
            predictions = self.descriptor_head(output.pooler_output)
            losses = {"descriptors": descriptor_loss(predictions, descriptor_targets, descriptor_places)}
            embeddings = None
        else:
            of_centers = output.last_hidden_state[centers]
            if len(context_x) < 2:  # batch norm needs two atoms; the sum keeps every parameter in the graph
                contexts = of_centers * 0 + sum(weight.sum() * 0 for weight in self.context_model.parameters())
                anchor_batch = anchor_batch[:0]
            else:
                states = self.context_model(context_x, context_edge_index, context_edge_attr).last_hidden_state[anchors]
                contexts = self.context_model.pool(states, anchor_batch, len(centers))
            present = torch.zeros(len(centers), dtype=torch.bool, device=x.device).index_fill(0, anchor_batch, True)
            losses = {"context": context_prediction(of_centers, contexts, present)}
            embeddings = None
        return MoleculePreTrainingOutput(
            loss=sum(losses.values()), losses=losses, embeddings=embeddings, hidden_states=output.hidden_states
        )


class MolCLRPropertyHead(PropertyHead):
    """Property head of the original: `head_layers` times linear and softplus, then linear; half the embedding wide."""

    def __init__(self, config: MolCLRConfig):
        nn.Module.__init__(self)
        self.config = config
        layers = config.head_layers or (2 if config.gnn_type == "gin" else 1)
        width = config.hidden_size // 2
        widths = [config.hidden_size] + [width] * layers
        self.dense = nn.ModuleList([nn.Linear(*pair) for pair in itertools.pairwise(widths)])
        self.out_proj = nn.Linear(width, config.num_labels)

    def logits(self, embedding: torch.Tensor) -> torch.Tensor:
        for dense in self.dense:
            embedding = F.softplus(dense(embedding))
        return self.out_proj(embedding)


class MolCLRForPropertyPrediction(MolCLRPreTrainedModel):
    """
    Molecular properties from the encoder. The original fine-tunes with Adam, batches of 32, learning rate 5e-4 for the
    head and 1e-4 for the encoder, weight decay 1e-6, 100 epochs, and dropout 0.3 in the encoder.
    """

    def __init__(self, config: MolCLRConfig):
        super().__init__(config)
        self.molclr = MolCLRModel(config)
        self.molclr.dropout = config.finetuning_dropout
        self.head = MolCLRPropertyHead(config)
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
            x, edge_index, edge_attr, batch, num_graphs: as in [`MolCLRModel`]; labels: `[molecules, tasks]`,
            NaN = missing.
        """
        output = self.molclr(x, edge_index, edge_attr, batch, num_graphs, **kwargs)
        return MoleculePropertyOutput(**self.head(output.pooler_output, labels), hidden_states=output.hidden_states)


__all__ = ["MolCLRForPreTraining", "MolCLRForPropertyPrediction", "MolCLRModel", "MolCLRPreTrainedModel"]
