"""DMP: the laws, and what is its own."""

import zlib

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import RobertaConfig, RobertaForMaskedLM

from hf_molrep import (
    DMPConfig,
    DMPDataCollator,
    DMPForPreTraining,
    DMPForPropertyPrediction,
    DMPModel,
)
from hf_molrep.losses import negative_cosine
from hf_molrep.models.dmp.configuration_dmp import DMPGraphConfig
from hf_molrep.models.dmp.modeling_dmp import DMPAtomHead, DMPGraphModel, make_edges
from tests.models.common import MethodLaws, draw_weights
from tests.models.dmp.tiny import tiny_config, tiny_processor
from tests.models.laws.hooks import GOLDENS, MOLECULES
from tests.models.laws.saving import SavingLaws
from tests.models.laws.training import TrainingLaws

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


def glorot(rows: int, columns: int) -> tuple[str, float]:
    return ("uniform", (6 / (rows + columns)) ** 0.5)


def drawn(salt: str, key: str, shape: torch.Size) -> torch.Tensor:
    """A tensor of the fixture's model by its name in the original (`fixtures/README.md`)."""
    r = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32((salt + key).encode())))
    if key.endswith("running_var"):
        return 0.5 + r.abs()
    if len(shape) == 1:
        return 1 + 0.1 * r if key.endswith("weight") else 0.05 * r
    return r / shape[-1] ** 0.5


def original_key(name: str) -> str:
    """Name in the original's graph branch of a tensor of `DMPGraphModel`, or under `atom_head.`."""
    for ours, theirs in (
        ("atom_embeddings.tables.", "atom_encoder.atom_embedding_list."),
        ("layers.", "gcns."),
        ("bond_embeddings.tables.", "edge_encoder.atom_embedding_list."),
        ("aggregate_proj.", "aggrmlp."),
        ("out_proj.", "mlp."),
    ):
        name = name.replace(ours, theirs)
    return name


def roberta(model: DMPForPreTraining) -> RobertaForMaskedLM:
    """transformers' RoBERTa with the weights of the SMILES branch; its type embedding is zero."""
    config = model.config.smiles_config
    oracle = RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_position_embeddings + 2,
            type_vocab_size=1,
            layer_norm_eps=config.layer_norm_eps,
            attn_implementation="eager",
        )
    ).eval()
    ours, head = model.dmp.smiles_model.state_dict(), model.token_head.state_dict()
    words = ours["embeddings.word_embeddings.weight"]
    theirs = {
        "roberta.embeddings.word_embeddings.weight": words,
        "roberta.embeddings.position_embeddings.weight": ours["embeddings.position_embeddings.weight"],
        "roberta.embeddings.token_type_embeddings.weight": torch.zeros(1, config.hidden_size),
        "lm_head.bias": head["bias"],
        "lm_head.decoder.bias": head["bias"],
        "lm_head.decoder.weight": words,
    }
    parts = {
        "attention.out_proj": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "up_proj": "intermediate.dense",
        "down_proj": "output.dense",
        "mlp_norm": "output.LayerNorm",
    }
    for end in ("weight", "bias"):
        theirs[f"roberta.embeddings.LayerNorm.{end}"] = ours[f"embeddings.norm.{end}"]
        theirs[f"lm_head.dense.{end}"] = head[f"dense.{end}"]
        theirs[f"lm_head.layer_norm.{end}"] = head[f"norm.{end}"]
        for layer in range(config.num_hidden_layers):
            qkv = ours[f"layers.{layer}.attention.qkv_proj.{end}"].chunk(3)
            for name, value in zip(("query", "key", "value"), qkv, strict=True):
                theirs[f"roberta.encoder.layer.{layer}.attention.self.{name}.{end}"] = value
            for name, other in parts.items():
                theirs[f"roberta.encoder.layer.{layer}.{other}.{end}"] = ours[f"layers.{layer}.{name}.{end}"]
    oracle.load_state_dict(theirs)
    return oracle


class Hooks:
    model_type = "dmp"
    initial_values = {
        r"(smiles_model.*|token_head\.)norm\.weight$": ("constant", 1.0),
        r"(smiles_model.*|token_head\.)norm\.bias$": ("constant", 0.0),
        r"norms?\.(\d+\.)?weight$": ("constant", 1.0),
        r"norms?\.(\d+\.)?bias$": ("constant", 0.0),
        r"(token|atom)_head\.bias$": ("constant", 0.0),
        r"smiles_model\..*bias$": ("constant", 0.0),
        r"smiles_model\..*weight$": ("normal", 0.02),
        **{
            rf"atom_embeddings\.tables\.{place}\.weight$": glorot(size, 16)
            for place, size in enumerate(DMPGraphConfig().atom_feature_dims)
        },
        **{
            rf"bond_embeddings\.tables\.{place}\.weight$": glorot(size, 16)
            for place, size in enumerate(DMPGraphConfig().bond_feature_dims)
        },
        # torch's own for a linear layer: 1 / sqrt(inputs), weight and bias
        r"aggregate_proj\.": ("uniform", 48**-0.5),
        r"(graph_model.*out_proj|atom_head\.dense)\.": ("uniform", 16**-0.5),
        r"projectors\..*up_proj\.": ("uniform", 32**-0.5),
        r"projectors\..*down_proj\.": ("uniform", 64**-0.5),
        r"predictors\..*up_proj\.": ("uniform", 24**-0.5),
        r"predictors\..*down_proj\.": ("uniform", 48**-0.5),
        r"head\.choice\.": ("constant", 0.0),
        r"(token_head\.dense|head)\.": ("uniform", 32**-0.5),
    }
    hidden_states = 3
    attentions = 2
    options: dict = {}

    def config(self, dropout: float = 0.0, **options):
        return tiny_config(dropout, **{**self.options, **options})

    def processor(self):
        return tiny_processor()

    def collator(self, seed: int = 0):
        return DMPDataCollator(tiny_processor(), seed=seed, masked_share=0.3)

    def build(self, kind, attention=None, **options):
        """Running statistics of batch norm as after training: drawn ones let the states grow a hundredfold."""
        model = super().build(kind, attention, **options)
        inputs = self.inputs()
        for branch in [part for part in model.modules() if isinstance(part, DMPGraphModel)]:
            for norm in branch.norms:
                norm.momentum = 1.0
            with torch.no_grad():
                branch.train()(**{name: inputs[name] for name in ("x", "edge_index", "edge_attr", "batch")})
        return model.eval()


class TestDMP(Hooks, MethodLaws):
    does_not_apply = {"law_05_motion": "SMILES and molecular graphs have no coordinates"}

    def agreement(self):
        """
        The SMILES branch against transformers' RoBERTa, padded on either side; the graph branch at full size against
        the original's on six molecules with weights drawn by name (DVMP, `fairseq/models/gnn.py`).
        """
        model, inputs = self.build("pre-training"), self.inputs()
        oracle, found = roberta(model), {}
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        lengths = mask.sum(dim=1)
        left = [torch.roll(row, int(len(row) - count)) for row, count in zip(ids, lengths, strict=True)]
        for side, given in (("right", ids), ("left", torch.stack(left))):
            real = (given != 1).long()
            with torch.no_grad():
                expected = oracle(input_ids=given, attention_mask=real, output_hidden_states=True)
                ours = model.dmp.smiles_model(given, real)
                logits = model.token_head(ours.last_hidden_state, model.get_input_embeddings().weight)
            ends = real.shape[1] - 1 if side == "left" else lengths - 1
            feature = expected.hidden_states[-1][torch.arange(len(ids)), ends]
            found |= {
                f"states, {side}": (ours.last_hidden_state[real.bool()], expected.hidden_states[-1][real.bool()], 1e-5),
                f"feature, {side}": (ours.pooler_output, feature, 1e-5),
                f"logits, {side}": (logits[real.bool()], expected.logits[real.bool()], 1e-5),
            }
        golden = np.load(GOLDENS / "dmp.npz")
        salt, config = str(golden["salt"]), DMPGraphConfig()
        graph, head = DMPGraphModel(config).eval(), DMPAtomHead(config).eval()
        for module, prefix in ((graph, ""), (head, "atom_head.")):
            for name, tensor in module.state_dict().items():
                if tensor.is_floating_point():
                    tensor.copy_(drawn(salt, original_key(prefix + name), tensor.shape))
        batch = {key: torch.from_numpy(golden[key]) for key in ("x", "edge_index", "edge_attr", "batch")}
        with torch.no_grad():
            output = graph(**batch)
            masked = output.last_hidden_state[torch.from_numpy(golden["masked_atoms"])]
            logits = head(masked, graph.atom_embeddings.tables[0].weight)
        for name, ours in (
            ("graph_feature", output.pooler_output),
            ("atom_feature", output.last_hidden_state),
            ("atom_logits", logits),
        ):
            found[name] = (ours, torch.from_numpy(golden[name]), 1e-5)
        return found


class TestDMPSmiles(TestDMP):
    """The SMILES branch alone: what of the laws depends on it."""

    options = {"branch": "smiles"}


class TestDMPGraph(TestDMP):
    """The graph branch alone."""

    options = {"branch": "graph"}

    def cases(self):
        """Pre-training always has both, and records of the SMILES."""
        return [case for case in super().cases() if case[0] != "pre-training"]


class TestDMPMomentum(Hooks, SavingLaws, TrainingLaws):
    """BYOL's second network, saved with the model and absent from `DMPModel`."""

    options = {"momentum_target": True}
    frozen = {r"^target\.": "it follows the trained network"}


class TestDMPChoice(TestDMP):
    """A learned choice between the branches."""

    options = {"branch_choice": "learned"}


for _class, _kept in (
    (TestDMPSmiles, ("law_01", "law_03", "law_04", "law_09_property", "law_10_odd", "law_12_bf16")),
    (TestDMPGraph, ("law_01", "law_03", "law_04", "law_09_property", "law_10_odd", "law_12_bf16")),
    (TestDMPChoice, ("law_01_save", "law_02", "law_08", "law_09_property")),
):
    _class.does_not_apply = {
        name.removeprefix("test_"): "does not depend on the branch, see TestDMP"
        for name in dir(_class)
        if name.startswith("test_law_") and not name.removeprefix("test_").startswith((*_kept, "law_11"))
    }


# ---- sizes, vocabulary, features


def count(*modules: torch.nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_paper_size():
    with torch.device("meta"):
        model = DMPForPreTraining(DMPConfig())
    assert count(model.dmp.smiles_model, model.token_head) == 87_852_337
    assert count(model.dmp.graph_model, model.atom_head) == 7_380_984
    assert count(model.projectors, model.predictors) == 18_914_304
    assert count(model) == 114_147_625


@pytest.mark.parametrize(
    ("smiles", "ids"),
    [
        (ASPIRIN, [5, 5, 6, 10, 9, 7, 9, 4, 8, 4, 4, 4, 4, 4, 8, 5, 6, 10, 9, 7, 9, 2]),
        ("C[C@@H](Cl)Br", [5, 21, 6, 19, 7, 28, 2]),
        ("[Na+].[Cl-]", [48, 25, 49, 2]),
    ],
)
def test_tokens_are_those_of_the_original(smiles, ids):
    tokenizer = tiny_processor().tokenizer
    assert tokenizer(smiles)["input_ids"] == ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == smiles


def test_special_tokens():
    tokenizer = tiny_processor().tokenizer
    assert tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>"]) == [0, 1, 2, 3]
    assert tokenizer.mask_token_id == len(tokenizer) - 1
    assert tokenizer.tokenize("[13CH4]") == list("[13CH4]")


def test_features_are_those_of_the_original():
    processor = tiny_processor(standardize="none", canonical=False)
    (feature,) = processor.featurize({"smiles": ["C[C@@H](Cl)Br"]})
    assert feature["x"].reshape(-1, 9).tolist() == [
        [5, 0, 4, 5, 3, 0, 2, 0, 0],
        [5, 1, 4, 5, 1, 0, 2, 0, 0],
        [16, 0, 1, 5, 0, 0, 2, 0, 0],
        [34, 0, 1, 5, 0, 0, 2, 0, 0],
    ]
    assert feature["edge_index"].reshape(2, -1).T.tolist() == [[0, 1], [1, 0], [1, 2], [2, 1], [1, 3], [3, 1]]
    assert not feature["edge_attr"].any()
    (pyrrole, butene, wildcard) = processor.featurize({"smiles": ["c1cc[nH]c1", "F/C=C\\Cl", "*C"]})
    assert pyrrole["x"].reshape(-1, 9)[3].tolist() == [6, 0, 3, 5, 1, 0, 1, 1, 1]
    assert {tuple(row) for row in pyrrole["edge_attr"].reshape(-1, 3)} == {(3, 0, 1)}
    assert butene["edge_attr"].reshape(-1, 3)[2].tolist() == [1, 1, 0]
    assert wildcard["x"].reshape(-1, 9)[0].tolist() == [119, 0, 1, 5, 0, 0, 5, 0, 0]


def test_both_views_have_the_same_atoms_in_the_same_order():
    elements = {"C": 6, "c": 6, "N": 7, "n": 7, "O": 8, "o": 8, "S": 16, "Cl": 17, "[nH]": 7, "[C@H]": 6, "[C@@H]": 6}
    processor = tiny_processor()
    for smiles in [*MOLECULES, "OC(=O)c1ccccc1OC(C)=O", "O=C(O)[C@@H](N)C"]:
        (feature,) = processor.featurize({"smiles": [smiles]})
        tokens = processor.tokenizer.convert_ids_to_tokens(feature["input_ids"])
        assert [elements[token] for token in tokens if token in elements] == feature["z"].tolist()


@pytest.mark.parametrize("smiles", ["C[Pt@SP1](F)(Cl)Br", "F[S@OH1](F)(F)(F)(F)Cl", "[NH3][Pt@SP1](Cl)(Cl)[NH3]"])
def test_new_stereo_values_do_not_crash(smiles):
    (feature,) = tiny_processor(standardize="none", canonical=False).featurize({"smiles": [smiles]})
    assert feature["x"].reshape(-1, 9)[:, 1].max() == 3  # CHI_OTHER


# ---- masking


def test_masking():
    """15 % of tokens and atoms; 80 % masked, 10 % kept, 10 % replaced, an atom by one of the same molecule."""
    processor = tiny_processor()
    collator = DMPDataCollator(processor)
    (feature,) = processor.featurize({"smiles": ["CN1C=NC2=C1C(=O)N(C(=O)N2C)C"]})
    ids, x = feature["input_ids"], feature["x"].reshape(-1, 9)
    mask, seen = [118, 0, 11, 11, 9, 5, 5, 0, 0], {"tokens": [], "atoms": []}
    rows, ended = 2000, 0
    for row_id in range(rows):
        changed, found = collator.masked(feature, collator.generator({"row_id": row_id}))
        new = changed["x"].reshape(-1, 9)
        assert (found["token_ids"] == ids[found["tokens"]]).all()
        assert (found["atom_types"] == x[found["atoms"], 0]).all()
        others = np.setdiff1d(np.arange(len(ids)), found["tokens"])
        assert (changed["input_ids"][others] == ids[others]).all()
        assert (np.delete(new, found["atoms"], axis=0) == np.delete(x, found["atoms"], axis=0)).all()
        seen["tokens"] += (changed["input_ids"][found["tokens"]] == processor.tokenizer.mask_token_id).tolist()
        seen["atoms"] += [row.tolist() == mask for row in new[found["atoms"]]]
        for row in new[found["atoms"]]:
            assert row.tolist() == mask or row.tolist() in x.tolist()
        ended += len(ids) - 1 in found["tokens"]
    for name, count in (("tokens", len(ids)), ("atoms", len(x))):
        assert len(seen[name]) / rows == pytest.approx(0.15 * count, rel=0.05)
        assert np.mean(seen[name]) == pytest.approx(0.8, abs=0.03)
    assert ended / rows == pytest.approx(0.15, abs=0.03)  # </s> too
    with pytest.raises(ValueError, match="masked_share"):
        DMPDataCollator(processor, masked_share=0)


def test_masked_places_are_those_of_the_batch():
    laws = TestDMP()
    rows, batch = laws.rows(), laws.collator()(laws.rows())
    ids = tiny_processor().pad(rows)
    assert torch.equal(ids["input_ids"].flatten()[batch["masked_tokens"]], batch["masked_token_ids"])
    assert torch.equal(ids["x"][batch["masked_atoms"], 0], batch["masked_atom_types"])


# ---- losses and targets


def test_consistency():
    torch.manual_seed(0)
    one, other = torch.randn(4, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    loss = negative_cosine(one, other)
    torch.testing.assert_close(loss, -torch.cosine_similarity(one, other).mean())
    loss.backward()
    assert one.grad.any()
    assert other.grad is None
    assert negative_cosine(one, 3 * one).item() == pytest.approx(-1)


def test_the_target_is_stopped_before_its_projector():
    """The consistency of one direction gives the other branch no gradient."""
    laws = TestDMP()
    model = laws.build("pre-training")
    features = {"smiles": torch.randn(4, 32, requires_grad=True), "graph": torch.randn(4, 32, requires_grad=True)}
    projections = model.project(features)
    negative_cosine(model.predictors["smiles"](projections["smiles"]), projections["graph"]).backward()
    assert features["graph"].grad is None
    assert model.projectors["graph"].down_proj.weight.grad is None
    assert features["smiles"].grad.any()


def test_weights_of_the_losses_and_monitors():
    laws = TestDMP()
    batch = laws.collator()(laws.rows())
    output = laws.build("pre-training", tokens_weight=2.0, atoms_weight=0.5, consistency_weight=3.0)(**batch)
    terms = output.losses
    torch.testing.assert_close(output.loss, 2 * terms["tokens"] + 0.5 * terms["atoms"] + 3 * terms["consistency"])
    spread = torch.nn.functional.normalize(output.embeddings["graph"], dim=-1).std(dim=0, correction=0).mean()
    torch.testing.assert_close(output.monitors["graph_spread"], spread.detach())
    assert output.monitors["smiles_spread"] > 0


def test_the_second_network_follows():
    model = draw_weights(DMPForPreTraining(tiny_config(momentum_target=True, target_decay=0.9)))
    pairs = list(zip(model.target["dmp"].parameters(), model.dmp.parameters(), strict=True))
    assert not all(torch.equal(*pair) for pair in pairs)
    model.update_target()
    assert all(torch.equal(*pair) for pair in pairs)
    with torch.no_grad():
        model.dmp.smiles_model.embeddings.norm.bias += 1
    before = model.target["dmp"].smiles_model.embeddings.norm.bias.clone()
    model.update_target()
    torch.testing.assert_close(model.target["dmp"].smiles_model.embeddings.norm.bias, before + 0.1)
    assert int(model.target_steps) == 2


def test_the_second_network_is_not_in_the_model(tmp_path):
    model = DMPForPreTraining(tiny_config(momentum_target=True))
    assert any(name.startswith("target.") for name in model.state_dict())
    model.save_pretrained(tmp_path)
    loaded, info = DMPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any("target" in name for name in loaded.state_dict())
    assert not info["unexpected_keys"]


# ---- branches


def test_pooler_output_follows_the_branch(tmp_path):
    laws = TestDMP()
    inputs = laws.inputs()
    laws.build("pre-training").save_pretrained(tmp_path)
    models = {
        branch: DMPModel.from_pretrained(tmp_path, branch=branch).eval() for branch in ("smiles", "graph", "both")
    }
    graph = {name: inputs[name] for name in ("x", "edge_index", "edge_attr", "batch", "num_graphs")}
    both = models["both"]
    smiles = both.get_smiles_features(inputs["input_ids"], inputs["attention_mask"])
    atoms = both.get_graph_features(**graph)
    for branch, expected in (("smiles", smiles), ("graph", atoms), ("both", torch.cat([smiles, atoms], dim=-1))):
        assert torch.equal(models[branch](**inputs).pooler_output, expected)
        assert models[branch].config.hidden_size == expected.shape[1]
    with pytest.raises(ValueError, match="this model has the branch 'smiles' alone: load it with branch='both'"):
        models["smiles"].get_graph_features(**graph)
    with pytest.raises(ValueError, match="the branch 'graph' needs x"):
        both(input_ids=inputs["input_ids"])


def test_learned_choice_between_the_branches():
    """It begins as the mean, differs from molecule to molecule once trained, and needs both branches."""
    laws = TestDMP()
    inputs, task = laws.inputs(), {"id2label": {0: "a"}}
    torch.manual_seed(0)
    model = DMPForPropertyPrediction(tiny_config(branch_choice="learned", **task)).eval()
    embedding = model.dmp(**inputs).pooler_output
    assert torch.equal(model.head.branch_weights(embedding), torch.full((8, 2), 0.5))
    draw_weights(model.head.choice)
    weights = model.head.branch_weights(embedding)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(8))
    assert weights.std(dim=0).min() > 1e-4
    smiles, graph = embedding.split([32, 32], dim=-1)
    hidden = weights[:, :1] * torch.tanh(model.head.dense["smiles"](smiles))
    hidden = hidden + weights[:, 1:] * torch.tanh(model.head.dense["graph"](graph))
    torch.testing.assert_close(model(**inputs).logits, model.head.out_proj(hidden))
    with pytest.raises(StrictDataclassClassValidationError, match="needs branch 'both'"):
        tiny_config(branch="smiles", branch_choice="learned")


# ---- aggregation


def test_aggregation_against_loops():
    laws = TestDMP()
    inputs = laws.inputs(["C", "[Na+].[Cl-]", ASPIRIN, "FS(F)(F)(F)(F)F"])
    layer = laws.build("model").graph_model.layers[0]
    states = torch.randn(len(inputs["x"]), 16)
    dims = DMPGraphConfig().bond_feature_dims
    edges = make_edges(inputs["edge_index"], inputs["edge_attr"], len(states), states.dtype, dims)
    with torch.no_grad():
        found = layer.aggregate(states, edges)
        messages = states[inputs["edge_index"][0]] + layer.bond_embeddings(inputs["edge_attr"])
    for atom in range(len(states)):
        own = messages[inputs["edge_index"][1] == atom]
        expected = torch.zeros(48)
        if len(own):
            expected = torch.cat([own.amax(dim=0), own.amin(dim=0), own.mean(dim=0)])
        torch.testing.assert_close(found[atom], expected, atol=1e-5, rtol=1e-5)
