"""`hf-molrep predict`: the file engine that `embed` has, with columns of its own."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hf_molrep import MMDeaconForPropertyPrediction
from hf_molrep.cli import main
from hf_molrep.inference.files import FileRun
from tests.models.mm_deacon.tiny import tiny_config, tiny_processor


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("property")
    torch.manual_seed(0)
    names = {"num_labels": 2, "id2label": {0: "logS", 1: "mp"}, "label2id": {"logS": 0, "mp": 1}}
    config = tiny_config(**names, label_mean=[-2.0, 300.0], label_std=[0.5, 50.0], label_units=["log mol/L", "K"])
    MMDeaconForPropertyPrediction(config).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)


def test_a_stopped_run_resumes(checkpoint, tmp_path, monkeypatch, capsys):
    rows = [f"{row},{'C' * (1 + row % 7) if row != 4 else 'C1CC'}" for row in range(20)]
    source, output = tmp_path / "in.csv", tmp_path / "out.parquet"
    source.write_text("id,smiles\n" + "\n".join(rows) + "\n")

    def run(target, *arguments):
        given = ["predict", str(source), str(target), "--model", checkpoint, "--device", "cpu", "--quiet"]
        return main([*given, "--window", "5", *arguments])

    assert run(tmp_path / "whole.parquet") == 0
    write = FileRun._write_part

    def stop(self, number, digest, table):
        if number == 2:
            raise KeyboardInterrupt
        write(self, number, digest, table)

    with monkeypatch.context() as patch:
        patch.setattr(FileRun, "_write_part", stop)
        assert run(output) == 130
    assert "--resume" in capsys.readouterr().err
    assert not output.exists()
    assert run(output) == 2
    assert run(output, "--resume", "--prefix", "other_") == 2
    assert "columns was" in capsys.readouterr().err
    assert run(output, "--resume") == 0
    assert "19 of 20 molecules predicted: logS (log mol/L), mp (K), 1 failed" in capsys.readouterr().out
    actual, expected = pq.read_table(output), pq.read_table(tmp_path / "whole.parquet")
    assert actual.column_names == ["id", "smiles", "smiles_used", "error", "predicted_logS", "predicted_mp"]
    assert actual.schema.field("predicted_mp").metadata == {b"unit": b"K"}
    for name in ("predicted_logS", "predicted_mp"):
        values = [np.array(table[name].to_pylist(), dtype=float) for table in (actual, expected)]
        np.testing.assert_allclose(*values, rtol=1e-5)
        assert np.flatnonzero(np.isnan(values[0])).tolist() == [4]
