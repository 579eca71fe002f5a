"""`hf-molrep search`: nearest molecules by fingerprint and by embedding, from SMILES to SMILES, to names and back."""

import csv
import gzip

import numpy as np
import pytest
import torch

from hf_molrep.chem.smiles import MoleculeError
from hf_molrep.cli import main
from hf_molrep.inference.checkpoints import load_checkpoint
from hf_molrep.inference.search import DEFAULT_SMILES_METRIC, MoleculeIndex, choose_metric
from tests.models.mm_deacon.tiny import NAMES, SMILES, save_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def csv_file(tmp_path):
    path = tmp_path / "in.csv"
    rows = zip(range(8), SMILES, NAMES, strict=True)
    path.write_text("id,smiles,iupac_name\n" + "".join(f'{row},{s},"{n}"\n' for row, s, n in rows) + "8,C1CC,nothing\n")
    return path


@pytest.fixture
def embedded(csv_file, checkpoint, tmp_path):
    path = tmp_path / "embedded.parquet"
    assert main(["embed", str(csv_file), str(path), "--model", checkpoint, "--device", "cpu", "--quiet"]) == 0
    return str(path)


def search(*arguments):
    return main(["search", *map(str, arguments)])


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_morgan_is_the_default_from_smiles_to_smiles(csv_file, tmp_path, capsys):
    assert DEFAULT_SMILES_METRIC == "morgan"
    # no checkpoint is given, and none is needed
    assert search(csv_file, "O=C(C)Oc1ccccc1C(O)=O", "OCC", "-k", "2", "--out", tmp_path / "hits.csv") == 0
    rows = read(tmp_path / "hits.csv")
    assert list(rows[0]) == ["query", "rank", "tanimoto", "id", "smiles", "iupac_name"]
    assert [row["id"] for row in rows if row["rank"] == "1"] == ["3", "0"]
    assert float(rows[0]["tanimoto"]) == 1.0
    assert float(rows[1]["tanimoto"]) < 1.0
    output = capsys.readouterr()
    assert "2-acetyloxybenzoic acid" in output.out
    assert "4 hits for 2 queries among 9 rows (morgan)" in output.err


def test_morgan_agrees_with_rdkit(csv_file):
    from rdkit import Chem, DataStructs
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    prints = [
        GetMorganGenerator(radius=2, fpSize=2048).GetFingerprint(Chem.MolFromSmiles(smiles))
        for smiles in ("c1ccccc1C(=O)O", *SMILES)
    ]
    expected = DataStructs.BulkTanimotoSimilarity(prints[0], prints[1:])
    (hits,) = MoleculeIndex.from_file(str(csv_file)).search_fingerprints(["c1ccccc1C(=O)O"], top=100)
    assert sorted(hit.row for hit in hits) == list(range(8))  # the broken row is never found
    for hit in hits:
        assert hit.score == pytest.approx(expected[hit.row], abs=1e-6)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_molecules_drawn_differently_are_the_same(tmp_path):
    (tmp_path / "in.smi").write_text("C[N+](=O)[O-] nitromethane\nCC[Na] x\n[Na]OCC sodium ethoxide\n")
    index = MoleculeIndex.from_file(str(tmp_path / "in.smi"))
    nitro, salt = index.search_fingerprints(["CN(=O)=O", "CC[O-].[Na+]"], top=1)
    assert (nitro[0].row, nitro[0].score) == (0, 1.0)
    assert (salt[0].row, salt[0].score) == (2, 1.0)


def test_embeddings_agree_with_their_cosine(embedded, checkpoint):
    from transformers import AutoModel

    index = MoleculeIndex.from_file(embedded)
    assert index.model == checkpoint
    assert np.isnan(index.embeddings[8]).all()
    model, processor = load_checkpoint(AutoModel, checkpoint, "cpu")
    with torch.inference_mode():
        vectors = model(**processor(SMILES, return_tensors="pt")).pooler_output
    expected = torch.cosine_similarity(vectors[2:3], vectors)
    (hits,) = index.search_embeddings(vectors[2:3].numpy(), top=20)
    assert len(hits) == 8
    assert hits[0].row == 2
    assert all(hit.score == pytest.approx(float(expected[hit.row]), abs=1e-5) for hit in hits)
    with pytest.raises(ValueError, match="queries have 3 channels, the index 16"):
        index.search_embeddings(np.ones((1, 3), np.float32))


def test_the_checkpoint_is_taken_from_the_embedded_file(embedded, checkpoint, tmp_path, capsys):
    out = tmp_path / "hits.csv"
    assert search(embedded, "OCC", "--metric", "embedding", "-k", "3", "--out", out, "--device", "cpu") == 0
    rows = read(out)
    assert rows[0]["id"] == "0"
    assert float(rows[0]["cosine"]) == pytest.approx(1, abs=1e-5)
    assert list(rows[0]) == ["query", "rank", "cosine", "id", "smiles", "iupac_name", "smiles_used"]
    other = save_tiny_checkpoint(tmp_path / "other", seed=1)
    assert search(embedded, "CCO", "--metric", "embedding", "--model", other) == 2
    assert "embed it again" in capsys.readouterr().err


def test_names_find_smiles_and_smiles_find_names(embedded, csv_file, checkpoint, tmp_path):
    from transformers import AutoModel

    model, processor = load_checkpoint(AutoModel, checkpoint, "cpu")
    with torch.inference_mode():
        smiles = model(**processor(SMILES, return_tensors="pt")).pooler_output
        names = model(**processor(iupac_name=NAMES, return_tensors="pt")).pooler_output
    cosines = torch.cosine_similarity(names[:, None], smiles[None], dim=-1)
    out = tmp_path / "hits.csv"
    options = ["-k", "1", "--out", out, "--device", "cpu"]
    assert search(embedded, *NAMES, "--query-kind", "iupac", *options) == 0
    assert [int(row["id"]) for row in read(out)] == cosines.argmax(dim=1).tolist()
    # the embedded file again, but by its names, which are embedded on the way with the checkpoint that it tells
    for index, extra in ((embedded, []), (csv_file, ["--model", checkpoint])):
        smiles_queries = [*SMILES, "--kind", "iupac", "--column", "iupac_name"]
        assert search(index, *smiles_queries, *extra, *options) == 0
        found = [int(row["id"]) for row in read(out)]
        with_ninth = torch.cat(
            [names, model(**processor(iupac_name=["nothing"], return_tensors="pt")).pooler_output]
        ).detach()
        expected = torch.cosine_similarity(smiles[:, None], with_ninth[None], dim=-1).argmax(dim=1)
        assert found == expected.tolist()


def test_a_file_embedded_by_its_names(csv_file, checkpoint, tmp_path):
    path = str(tmp_path / "names.parquet")
    options = ["--model", checkpoint, "--device", "cpu", "--quiet", "--kind", "iupac"]
    assert main(["embed", str(csv_file), path, *options]) == 0
    index = MoleculeIndex.from_file(path)
    assert index.kind == "iupac"
    assert index.embeddings is not None
    assert search(path, "CCO", "--device", "cpu") == 0
    assert search(path, "CCO", "--metric", "morgan") == 2


def test_metrics():
    assert choose_metric(None, "smiles", "smiles") == DEFAULT_SMILES_METRIC
    assert choose_metric("embedding", "smiles", "smiles") == "embedding"
    assert choose_metric(None, "iupac", "smiles") == choose_metric(None, "smiles", "iupac") == "embedding"
    with pytest.raises(ValueError, match="compares SMILES with SMILES"):
        choose_metric("morgan", "iupac", "smiles")


def test_bad_queries_and_files(csv_file, tmp_path, capsys):
    assert search(csv_file, "C1CC") == 1
    assert "ring" in capsys.readouterr().err
    assert search(csv_file, "CCO", "-k", "0") == 2
    assert search(csv_file, "CCO", "--column", "none") == 2
    assert "no column 'none'" in capsys.readouterr().err
    (tmp_path / "none.csv").write_text("smiles\n")
    assert search(tmp_path / "none.csv", "CCO") == 2
    (tmp_path / "bad.csv").write_text("smiles\nC1CC\n")
    assert search(tmp_path / "bad.csv", "CCO") == 0
    with pytest.raises(MoleculeError):
        MoleculeIndex.from_file(str(csv_file)).search_fingerprints([""])


def test_zipped_files_and_sdf_are_searched(tmp_path):
    from rdkit import Chem

    (tmp_path / "in.smi.gz").write_bytes(gzip.compress("".join(f"{smiles} x\n" for smiles in SMILES).encode()))
    records = "".join(Chem.MolToMolBlock(Chem.MolFromSmiles(smiles)) + "$$$$\n" for smiles in SMILES)
    (tmp_path / "in.sdf").write_text(records + "\n\n\nbroken\nM  END\n$$$$\n")
    for name in ("in.smi.gz", "in.sdf"):
        (hits,) = MoleculeIndex.from_file(str(tmp_path / name)).search_fingerprints(["c1cnccc1Cl"], top=1)
        assert (hits[0].row, hits[0].score) == (5, 1.0)
