"""Drug-drug interaction: the divisions that the protocol asks for, the shared head, and the whole command."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import interaction
from hf_molrep.chem import inchikey_block
from hf_molrep.models.mm_deacon import MMDeaconForInteractionPrediction
from tests.models.mm_deacon.tiny import save_tiny_checkpoint, tiny_config, tiny_processor
from tests.models.x_mol.tiny import save_tiny_checkpoint as save_tiny_x_mol

# stereoisomers share a block; butan-1-ol stands under two identifiers
SMILES = ["C[C@H](N)O", "C[C@@H](N)O", "CCCCO", "CCCCO"]
SMILES += [f"{'C' * n}{end}" for n in range(3, 13) for end in ("N", "Cl", "Br")]
DRUGS = {f"D{number:02}": smiles for number, smiles in enumerate(SMILES)}


@pytest.fixture
def table(tmp_path):
    """Pairs of all drugs: type 1 if one of both is an amine, else 2; type 3 is rare, one pair has two types."""
    names = sorted(DRUGS)
    rows = []
    for first in range(len(names)):
        for second in range(first + 1, len(names)):
            amine = "N" in DRUGS[names[first]] or "N" in DRUGS[names[second]]
            rows.append((names[first], names[second], 1 if amine else 2))
    rows += [
        (names[5], names[4], rows[0][2]),
        (names[10], names[11], 3),
        (names[4], names[5], 1),
        (names[5], names[4], 2),
    ]
    columns = list(zip(*((a, b, DRUGS[a], DRUGS[b], label) for a, b, label in rows), strict=True))
    keys = ["drugbank_id_1", "drugbank_id_2", "smiles_1", "smiles_2", "label"]
    path = tmp_path / "interactions.parquet"
    pq.write_table(pa.table(dict(zip(keys, map(list, columns), strict=True))), path)
    return path


def test_pairs_are_unordered_and_rare_types_are_pooled(table):
    data = interaction.read_interactions(table)
    assert (data.pairs[:, 0] < data.pairs[:, 1]).all()
    rows = np.c_[data.pairs, data.labels]
    assert len(np.unique(rows, axis=0)) == len(rows)
    pairs = len(DRUGS) * (len(DRUGS) - 1) // 2
    assert len(rows) == pairs + 2  # one pair has types 1 and 2, one has a type and the rare one
    assert data.classes == ["1", "2", "rare"]
    assert np.bincount(data.labels)[2] == 1


def test_drugs_of_one_block_stay_together():
    blocks = [inchikey_block(smiles) for smiles in DRUGS.values()]
    seen = set()
    for seed in range(20):
        parts = interaction.divide_drugs(blocks, seed)
        part_of = {drug: part for part, drugs in parts.items() for drug in drugs}
        assert sorted(part_of) == list(range(len(blocks)))
        assert part_of[0] == part_of[1]
        assert part_of[2] == part_of[3]
        assert len(parts["test"]) == pytest.approx(0.2 * len(blocks), abs=3)
        seen.add(tuple(parts["test"]))
    assert len(seen) == 20


def test_folds_hold_the_drugs_they_are_named_after(table):
    data = interaction.read_interactions(table)
    drugs = interaction.divide_drugs(data.blocks, seed=1)
    folds = interaction.folds_of(data.pairs, drugs)
    number = {
        part: np.isin(data.pairs, drugs[part]).sum(axis=1) for part in ("train", "valid", "test")
    }  # of both drugs of a pair
    assert (number["train"][folds["train"]] == 2).all()
    assert (number["test"][folds["one drug unseen"]] == 1).all()
    assert (number["train"][folds["one drug unseen"]] == 1).all()
    assert (number["test"][folds["both unseen"]] == 2).all()
    assert (number["valid"][folds["valid"]] >= 1).all()
    assert (number["test"][folds["valid"]] == 0).all()
    unused = ((number["valid"] == 1) & (number["test"] == 1)).sum()
    assert sum(map(len, folds.values())) + unused == len(data.pairs)
    # a pair with several types is in one fold
    for fold in folds.values():
        others = np.setdiff1d(np.arange(len(data.pairs)), fold)
        assert not set(map(tuple, data.pairs[fold])) & set(map(tuple, data.pairs[others]))


def test_the_feature_head_is_the_head_of_the_model():
    model = MMDeaconForInteractionPrediction(
        tiny_config(interaction_symmetric=True, num_labels=4, problem_type="single_label_classification")
    ).eval()
    features = np.random.default_rng(0).standard_normal((6, 16)).astype(np.float32)
    head = interaction.FeatureInteraction(features, classes=4, hidden=20, dropout=0.3).eval()
    with torch.no_grad():
        left, right = model.dense.weight.chunk(2, dim=1)
        head.dense.weight.copy_(torch.cat([left, right]))
        head.bias.copy_(model.dense.bias.normal_())
        head.out_proj.load_state_dict(model.out_proj.state_dict())
        first, second, labels = torch.tensor([0, 3, 5]), torch.tensor([1, 3, 2]), torch.tensor([0, 3, 1])
        table = torch.from_numpy(features)
        expected = model(embeddings=table[first], second_embeddings=table[second], labels=labels)
        found = head(first, second, labels)
    torch.testing.assert_close(found["logits"], expected.logits)
    torch.testing.assert_close(found["loss"], expected.loss)


def test_embeddings_in_place_of_smiles_give_the_same():
    config = tiny_config(num_labels=3, problem_type="single_label_classification")
    model = MMDeaconForInteractionPrediction(config).eval()
    batch = dict(tiny_processor()(["CCO", "CCN"], return_tensors="pt"))
    other = dict(tiny_processor()(["CCCCl", "O"], return_tensors="pt"))
    with torch.no_grad():
        whole = model(**batch, **{f"second_{key}": value for key, value in other.items()})
        half = model(**batch, second_embeddings=model.mm_deacon(**other).pooler_output)
        none = model(
            embeddings=model.mm_deacon(**batch).pooler_output, second_embeddings=model.mm_deacon(**other).pooler_output
        )
    torch.testing.assert_close(half.logits, whole.logits)
    torch.testing.assert_close(none.logits, whole.logits)
    with pytest.raises(ValueError, match="each of the two molecules"):
        model(**batch)
    with pytest.raises(ValueError, match="each of the two molecules"):
        model(**batch, embeddings=none.logits, second_embeddings=none.logits)


def test_the_command_learns_what_structure_tells(table, tmp_path):
    checkpoint = save_tiny_checkpoint(tmp_path / "model")
    arguments = ["--model", checkpoint, "--interactions", table, "--seeds", "0", "--epochs", "8", "--batch-size", "32"]
    arguments += ["--hidden", "16", "--learning-rate", "0.01", "--splits", tmp_path / "splits", "--threads", "1"]
    assert interaction.main([*map(str, arguments), "--results", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "interaction.json").read_text())["by_seed"]["0"]
    assert (tmp_path / "splits" / "deepddi.drugs-0.json").is_file()
    # that a drug is an amine is in its fingerprint, and not in the name of a drug never seen
    assert found["Morgan"]["both unseen"]["accuracy"] > 0.9
    assert found["identifiers only"]["both unseen"] == found["most frequent class"]["both unseen"]
    assert set(found) >= {"frozen, pre-trained", "frozen, random weights"}
    assert sum(found["pairs"].values()) <= 34 * 33 // 2 + 2


def test_pairs_are_drawn_from_their_folds():
    folds = {"train": np.arange(100), "valid": np.arange(100, 120), **dict.fromkeys(interaction.TESTS, np.arange(9))}
    sizes = {"train": 30, "valid": None, **dict.fromkeys(interaction.TESTS, 20)}
    found = interaction.drawn(folds, sizes, seed=1)
    assert len(set(found["train"].tolist()) & set(range(100))) == 30
    np.testing.assert_array_equal(found["train"], interaction.drawn(folds, sizes, seed=1)["train"])
    assert not np.array_equal(found["train"], interaction.drawn(folds, sizes, seed=2)["train"])
    for fold in ("valid", *interaction.TESTS):
        np.testing.assert_array_equal(found[fold], folds[fold])


def test_a_method_that_reads_pairs_together(table, tmp_path, monkeypatch):
    checkpoint = save_tiny_x_mol(tmp_path / "model")
    arguments = ["--model", checkpoint, "--interactions", table, "--seeds", "0", "--epochs", "2", "--batch-size", "32"]
    arguments += ["--splits", tmp_path / "splits", "--threads", "1", "--name", "x_mol", "--results", tmp_path]
    arguments += ["--cache", tmp_path / "cache.jsonl", "--train-pairs", "150", "--together-epochs", "12"]
    arguments = [*map(str, arguments), "--together-learning-rate", "3e-3", "--together-batch-size", "16"]
    assert interaction.main(arguments) == 0
    found = json.loads((tmp_path / "x_mol.json").read_text())["by_seed"]["0"]
    assert found["pairs"]["train"] == 150
    assert set(found) >= {"frozen, pre-trained", "Morgan", *interaction.TOGETHER}
    for column in interaction.TOGETHER:
        assert found[column]["both unseen"]["accuracy"] > found["most frequent class"]["both unseen"]["accuracy"]
    monkeypatch.setattr(interaction, "read_together", None)  # known now
    assert interaction.main(arguments) == 0
