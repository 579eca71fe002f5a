"""`hf-molrep pretrain`: every method, from anywhere, without a checkpoint; rows that are refused; wrong options."""

import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from hf_molrep import MolCLRFeatureExtractor
from hf_molrep.chem.smiles import MoleculeError
from hf_molrep.cli import main
from hf_molrep.configuration import check_fields
from hf_molrep.inference.checkpoints import resolve_checkpoint
from hf_molrep.models.auto import METHODS
from hf_molrep.models.pretraining import PreTraining, PreTrainingOptions, pretraining_of
from hf_molrep.training.pretraining import load_processor, prepare
from tests.models.mm_deacon.tiny import PAIRS

TOKENIZERS = Path(__file__).resolve().parents[2] / "tokenizers"
TOWER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SIZES = {
    "dmp": {"smiles_config": TOWER, "graph_config": {"hidden_size": 8, "num_hidden_layers": 2}, "projection_dim": 8},
    "graphmvp": {"embedding_dim": 16, "num_layers": 2, "num_interactions": 1, "num_filters": 8, "num_gaussians": 8},
    "grover": {"embedding_dim": 16, "num_attention_heads": 2, "depth": 4},
    "infomax_3d": {"embedding_dim": 8, "num_layers": 2, "readout_dim": 8, "projection_dim": 6, "net_3d_dim": 6},
    "mm_deacon": {"smiles_config": TOWER, "iupac_config": TOWER, "projection_dim": 8},
    "molclr": {"embedding_dim": 16, "num_layers": 2, "feature_dim": 24, "projection_dim": 8},
    "uni_mol": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
    "x_mol": TOWER,
}
OWN_OPTIONS = {
    "dmp": ["--processor", str(TOKENIZERS / "dmp"), "--max_length", "48"],
    "graphmvp": ["--num_conformers", "2", "--explicit_hydrogens", "False"],
    "grover": ["--min_frequency", "2"],
    "infomax_3d": [],
    "mm_deacon": ["--max_length", "24", "--group_by", "smiles", "--smiles_augmentation", "0.5"],
    "molclr": ["--collator", '{"augmentation": "subgraph"}'],
    "uni_mol": [],
    "x_mol": ["--processor", str(TOKENIZERS / "x_mol"), "--max_length", "48", "--empty_source", "0.5"],
}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder far from the repository, with eight pairs and a row that does not parse."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "cache"))
    pd.DataFrame([*PAIRS, ("C1CC", "nothing")], columns=["smiles", "iupac_name"]).to_parquet("pairs.parquet")
    return tmp_path


def arguments(method: str, output: str) -> list[str]:
    """Three steps of four molecules with a tiny model; a checkpoint and a line of the log after each."""
    with open(f"{method}.json", "w") as file:
        json.dump(SIZES[method], file)
    given = ["--train_data", "pairs.parquet", "--validation_data", "pairs.parquet", "--config", f"{method}.json"]
    given += ["--output_dir", output, "--max_steps", "3", "--per_device_train_batch_size", "4", "--use_cpu"]
    given += ["--logging_steps", "1", "--save_steps", "1", "--bf16", "False", "--report_to", "none"]
    return [*given, *OWN_OPTIONS[method]]


def losses(output: str) -> dict[int, float]:
    with open(f"{output}/trainer_state.json") as file:
        return {entry["step"]: entry["loss"] for entry in json.load(file)["log_history"] if "loss" in entry}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_resumes(method, workplace, capfd):
    given = arguments(method, "through")
    assert main(["pretrain", method, *given]) == 0
    told = capfd.readouterr().err
    assert "training data: 1 of 9 rows refused" in told
    assert "1: ring 1 not closed (for instance row 8, 'C1CC')" in told
    run = json.loads((workplace / "through" / "run.json").read_text())
    assert shlex.split(run["command"]) == ["hf-molrep", "pretrain", method, *given]  # as a shell reads it
    assert (run["steps"], run["train_rows"], run["validation_rows"]) == (3, 8, 8)
    retrieval = {key for key in run["metrics"] if "recall@1" in key}
    assert bool(retrieval) == (method == "mm_deacon")
    model, processor = AutoModel.from_pretrained("through"), AutoProcessor.from_pretrained("through")
    with torch.no_grad():
        output = model(**processor([smiles for smiles, _ in PAIRS], return_tensors="pt"))
    assert output.pooler_output.isfinite().all()
    check_fields(type(model.config), json.loads((workplace / "through" / "config.json").read_text()))

    # as a run that was stopped after its first checkpoint left it
    (workplace / "stopped").mkdir()
    (workplace / "through" / "checkpoint-1").rename(workplace / "stopped" / "checkpoint-1")
    assert main(["pretrain", method, *arguments(method, "stopped")]) == 0
    assert json.loads((workplace / "stopped" / "run.json").read_text())["resumed_from"] == "checkpoint-1"
    assert sorted(losses("through")) == [1, 2, 3]
    assert losses("stopped") == losses("through")
    through, stopped = (load_file(workplace / name / "model.safetensors") for name in ("through", "stopped"))
    assert all(torch.equal(stopped[name], through[name]) for name in through)


def test_a_method_without_a_file_has_the_defaults():
    assert pretraining_of("uni_mol") == PreTraining()
    assert pretraining_of("grover") != PreTraining()


def test_default_tokenizers_are_those_of_the_folder(repository, mini_checkpoint):
    folder = repository / "tokenizers" / "mm_deacon"
    files = [path.relative_to(folder) for path in folder.rglob("*.json")]
    assert len(files) == 5
    for file in files:
        assert (folder / file).read_bytes() == (resolve_checkpoint(mini_checkpoint) / file).read_bytes(), file


@pytest.mark.parametrize("method", ["molclr", "uni_mol"])
def test_default_settings_are_those_of_the_folder(repository, method):
    processor = METHODS[method].processor
    saved = processor.from_pretrained(repository / "tokenizers" / method).to_dict()
    assert {key: value for key, value in saved.items() if key != "auto_map"} == processor().to_dict()


def test_tokenizers_without_a_default_are_asked_for(monkeypatch):
    monkeypatch.setattr("hf_molrep.training.pretraining.pretraining_of", lambda method: PreTraining())
    with pytest.raises(ValueError, match=r"mm_deacon needs tokenizers: .*--processor"):
        load_processor("mm_deacon", PreTrainingOptions("pairs.parquet"))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("molclr", ["--smiles_augmentation", "0.5"], "molclr has no option --smiles_augmentation"),
        ("uni_mol", ["--min_frequency=2"], "uni_mol has no option --min_frequency"),
        ("grover", ["--encoder_chunk_size", "8"], "grover has no option --encoder_chunk_size"),
        ("molclr", ["--traindata", "x"], "molclr has no option --traindata; did you mean --train_data"),
        ("molclr", ["more"], "molclr has no argument more"),
        ("molclr", ["--seed", "one"], "argument --seed: invalid int value: 'one'"),
        ("molclr", ["--attention", "sdpa"], "molclr has no choice of attention"),
        ("molclr", ["--max_length", "9"], "max_length: MolCLRFeatureExtractor has no tokens to count"),
        ("molclr", ["--group_by", "smiles"], "group_by: batches of MolCLRFeatureExtractor are not padded"),
        ("uni_mol", ["--group_by", "formula"], "pairs.parquet has no column 'formula'; there are smiles, iupac_name"),
        ("molclr", ["--collator", '{"noise": 1}'], "--collator: MolCLRDataCollator has no option noise; it has"),
        ("molclr", ["--collator", '{"augmentation": "x"}'], "augmentation is 'node', 'subgraph' or 'mix', not 'x'"),
        ("molclr", ["--collator", "{augmentation}"], "--collator is not JSON: "),
        ("molclr", ["--collator", "[1]"], "--collator is not a JSON object: [1]"),
        ("molclr", ["--config", "wide.json"], "MolCLRConfig has no field 'width'"),
        ("grover", ["--config", "text.json"], "text.json: Validation error for field 'depth'"),
        ("molclr", ["--model", "mm-deacon-mini"], "mm-deacon-mini is a checkpoint of mm_deacon, not of molclr"),
        (
            "molclr",
            ["--model", "molclr-gin-mini", "--config", "few.json"],
            "--config: num_layers is not that of molclr-gin",
        ),
        ("molclr", ["--processor", "./nowhere"], "nowhere"),
        ("mm_deacon", ["--train_data", "unnamed.csv"], "unnamed.csv has no column 'iupac_name'; there are smiles"),
        ("molclr", ["--per_device_train_batch_size", "9"], "8 molecules to train on do not fill one batch of 9"),
        ("molclr", ["--train_data", "bad.csv"], "training data: none of 2 rows of bad.csv can be used, for instance"),
    ],
)
def test_wrong_options_are_refused_in_one_line(method, options, message, workplace, capsys):
    (workplace / "wide.json").write_text('{"width": 3}')
    (workplace / "few.json").write_text('{"num_layers": 2}')
    (workplace / "text.json").write_text('{"depth": "six"}')
    (workplace / "unnamed.csv").write_text("smiles\nCCO\n")
    (workplace / "bad.csv").write_text("smiles\nC1CC\nnothing\n")
    assert main(["pretrain", method, *arguments(method, "out"), *options]) == 2
    *_, last = capsys.readouterr().err.rstrip("\n").split("\n")
    assert last.startswith("hf-molrep pretrain: ")
    assert message in last
    assert not (workplace / "out" / "run.json").exists()


def test_options_are_checked_before_features_are_computed(workplace, monkeypatch):
    monkeypatch.setattr("hf_molrep.training.pretraining.prepare", None)
    for options in (["--collator", '{"noise": 1}'], ["--attention", "sdpa"], ["--config", "missing.json"]):
        assert main(["pretrain", "molclr", *arguments("molclr", "out"), *options]) == 2


def test_the_help_of_a_method_shows_its_options(capsys):
    for method, there in (("grover", True), ("molclr", False)):
        with pytest.raises(SystemExit) as stopped:
            main(["pretrain", method, "--help"])
        assert stopped.value.code == 0
        assert ("--min_frequency" in capsys.readouterr().out) == there


def prepared(smiles: list[str], processor=None):
    pd.DataFrame({"smiles": smiles}).to_parquet("molecules.parquet")
    options = PreTrainingOptions("molecules.parquet")
    return prepare("molecules.parquet", processor or MolCLRFeatureExtractor(), options, "data", PreTraining())


def test_refused_rows_leave_nothing_behind(workplace, capsys):
    smiles = ["C1CC", "CCO", "", "CC*", "c1ccccc1", "C1CCC"]
    table = prepared(smiles)
    expected = MolCLRFeatureExtractor().featurize({"smiles": ["CCO", "c1ccccc1"]})
    assert table["row_id"][:] == [1, 4]
    assert table["smiles"][:] == ["CCO", "c1ccccc1"]
    for key in ("x", "edge_index", "edge_attr", "z"):
        assert table.features[key].feature.dtype == str(expected[0][key].dtype)
        for row, feature in zip(table, expected, strict=True):
            np.testing.assert_array_equal(row[key], feature[key])
    assert "reason" not in table.column_names
    told = capsys.readouterr().err
    assert "data: 4 of 6 rows refused" in told
    assert "2: ring 1 not closed (for instance row 0, 'C1CC')" in told
    assert "no atomic_num 0 (dummy atom *) (atom 0) (for instance row 3, 'CC*')" in told


def test_more_refused_rows_than_fit_a_piece_of_the_table(workplace):
    """The types of the columns do not come from the first piece, which holds refused rows alone."""
    table = prepared(["C1CC"] * 1_001 + ["CCO", "CC"])
    assert table["row_id"][:] == [1_001, 1_002]


def test_only_reasons_that_are_frequent_are_listed(workplace, capsys):
    class Picky(MolCLRFeatureExtractor):
        def featurize(self, columns, on_error="raise"):
            found, smiles = super().featurize(columns, on_error), columns["smiles"]
            return [
                MoleculeError(text, f"{len(text)} letters") if len(text) > 2 else feature
                for text, feature in zip(smiles, found, strict=True)
            ]

    table = prepared(["CC", *("C" * letters for letters in range(3, 15)), "CCC"], Picky())
    assert table["row_id"][:] == [0]
    lines = capsys.readouterr().err.splitlines()
    told = [line.strip() for line in lines if line.startswith("  ")]
    assert told[0].startswith("2: 3 letters (for instance row 1, 'CCC')")
    assert told[-1] == "2: 2 other reasons"
    assert len(told) == 11


def test_a_shortened_molecule_may_come_first(mini_checkpoint, workplace):
    """It says of itself `truncated`, which the others do not."""
    long, short = ("CCCCCCCCCCCCO", "dodecan-1-ol"), ("CO", "methanol")
    pd.DataFrame([long, short], columns=["smiles", "iupac_name"]).to_parquet("two.parquet")
    hooks = pretraining_of("mm_deacon")
    options = hooks.options("two.parquet", max_length=4)
    table = prepare("two.parquet", load_processor("mm_deacon", options), options, "data", hooks)
    assert set(table.column_names) == {"input_ids", "iupac_input_ids", "smiles", "row_id", "length"}
    assert max(map(len, table["input_ids"])) == 4


def test_features_are_computed_once(workplace):
    (workplace / "two.csv").write_text("smiles\nCCO\nCC\n")

    def files(processor: MolCLRFeatureExtractor, **options) -> list:
        given = PreTrainingOptions("two.csv", **options)
        return prepare("two.csv", processor, given, "data", PreTraining()).cache_files

    first = files(MolCLRFeatureExtractor())
    assert files(MolCLRFeatureExtractor(), restart=True, collator="{}", preprocessing_workers=1) == first
    assert files(MolCLRFeatureExtractor(explicit_hydrogens=True)) != first
