"""Folders that are a model repository: how they are written, what they may hold, and those shipped with the package."""

import json
from importlib import resources

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForPreTraining, AutoProcessor

from hf_molrep.cli import main
from hf_molrep.cli import push as push_command
from hf_molrep.hub import PICKLES, check_card, push, repository_files, save_checkpoint
from hf_molrep.models.mm_deacon import MMDeaconForPreTraining
from tests.models.mm_deacon.tiny import SMILES, tiny_config, tiny_processor

CARD = "---\nlicense: apache-2.0\nlibrary_name: transformers\ntags: [hf_molrep]\n---\n# tiny\n"
LIMIT = 12_000_000  # bytes of a mini's weights
SHIPPED = [entry for entry in (resources.files("hf_molrep") / "checkpoints").iterdir() if entry.is_dir()]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MMDeaconForPreTraining(tiny_config()).eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return save_checkpoint(model, tiny_processor(), tmp_path_factory.mktemp("checkpoint") / "tiny", CARD)


def test_weights_are_stored_as_bfloat16_and_loaded_as_float32(model, folder):
    stored = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    config = json.loads((folder / "config.json").read_text())
    assert [config["dtype"], config["smiles_config"]["dtype"], config["iupac_config"]["dtype"]] == ["float32"] * 3
    for options in ({}, {"dtype": "auto"}, {"dtype": torch.float32}):
        loaded = AutoModelForPreTraining.from_pretrained(folder, **options)
        assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
        assert all(torch.equal(tensor, stored[name].float()) for name, tensor in loaded.state_dict().items())
    loaded = AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.bfloat16}
    batch = AutoProcessor.from_pretrained(folder)(SMILES, return_tensors="pt")
    assert loaded(**batch).pooler_output.isfinite().all()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}  # the saved one is untouched
    assert model.config.architectures is None


def test_saving_what_was_loaded_changes_nothing_more(folder, tmp_path):
    for dtype in (torch.float32, torch.bfloat16):
        loaded = AutoModelForPreTraining.from_pretrained(folder, dtype=dtype)
        again = save_checkpoint(loaded, AutoProcessor.from_pretrained(folder), tmp_path / str(dtype), CARD)
        assert repository_files(again) == repository_files(folder)
        for name in repository_files(folder)[0]:
            if name.endswith("tokenizer_config.json"):  # transformers adds where it was loaded from
                texts = [json.loads((place / name).read_text()) for place in (folder, again)]
                assert texts[0] | {"is_local": True, "local_files_only": False} == texts[1]
            else:
                assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def test_weights_can_be_kept_as_they_are(model, tmp_path):
    save_checkpoint(model, tiny_processor(), tmp_path, weights_dtype=None)
    stored = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(stored[name], tensor) for name, tensor in model.state_dict().items())
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "rng_state.pth", "model.ckpt"])
def test_a_training_folder_is_refused(model, tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"holds {name}"):
        save_checkpoint(model, tiny_processor(), tmp_path, CARD)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_only_the_repository_is_taken_from_a_folder(folder, tmp_path):
    own, _ = repository_files(folder)
    for name in own:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    beside = [
        "checkpoint-3/config.json",
        "checkpoint-3/model.safetensors",
        "iupac_tokenizer/notes.txt",
        "labels.csv",
        "metrics.json",
        "optimizer.pt",
        "other.safetensors",
        "trainer_state.json",
        "training_args.bin",
    ]
    for name in beside:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert repository_files(tmp_path) == (own, beside)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("README.md", "a card"),
        ("config.json", "a configuration"),
        ("model.safetensors", "weights"),
        ("processor_config.json", "a processor"),
    ],
)
def test_an_incomplete_repository_is_refused(model, tmp_path, name, what):
    save_checkpoint(model, tiny_processor(), tmp_path, CARD)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"it lacks {what}"):
        push(tmp_path, "tester/never")


def test_arguments_that_do_not_fit_are_refused(model, folder, tmp_path):
    with pytest.raises(ValueError, match="with its processor and its card"):
        push(model, "tester/never", processor=tiny_processor())
    with pytest.raises(ValueError, match="as it is"):
        push(folder, "tester/never", card=CARD)
    with pytest.raises(ValueError, match="no folder"):
        push(tmp_path / "nothing", "tester/never")


def test_a_dry_run_needs_no_network(folder, capsys):
    import argparse

    parser = argparse.ArgumentParser()
    push_command.add_arguments(parser)
    assert push_command.run(parser.parse_args([str(folder), "tester/tiny", "--dry-run"])) == 0
    printed = capsys.readouterr().out
    assert "MB  model.safetensors" in printed
    assert printed.endswith("would go to tester/tiny; nothing was uploaded\n")


def test_a_fine_tuned_folder_gets_its_card_from_its_report(folder, tmp_path, capsys):
    data, out = tmp_path / "data.csv", tmp_path / "out"
    rows = [f"{'C' * length}{end},{length}" for length in range(1, 11) for end in ("O", "N", "Cl")]
    data.write_text("\n".join(["smiles,length", *rows, "C1CC,3"]))
    run = [
        "finetune",
        str(data),
        "--model",
        str(folder),
        "--output",
        str(out),
        "--labels",
        "length",
        "--units",
        "bonds",
    ]
    assert main([*run, "--split", "random", "--epochs", "1", "--quiet"]) == 0
    push_it = ["push", str(out), "tester/lengths", "--dry-run"]
    assert main([*push_it, "--license", "mit"]) == 0
    assert main([*push_it, "--license", "mit"]) == 2  # it has a card now
    assert main(push_it) == 0
    assert "README.md was written from report/metrics.json" in capsys.readouterr().out
    card = (out / "README.md").read_text()
    assert check_card(card).data.license == "mit"
    metrics = json.loads((out / "report" / "metrics.json").read_text())
    for text in ("values of length (bonds)", f"`{folder.name}`", "31 rows, 1 skipped", "| part | rmse | mae | r2 |"):
        assert text in card
    assert f"| test | {metrics['test']['rmse']:.4g} |" in card
    assert f"| test, predicting the training mean | {metrics['baseline']['test']['rmse']:.4g} |" in card
    assert str(tmp_path) not in card
    files, beside = repository_files(out)
    assert {"README.md", "model.safetensors"} <= set(files)
    assert "report/predictions.csv" in beside


@pytest.mark.skipif(not SHIPPED, reason="no checkpoint is shipped yet")
@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda entry: entry.name)
def test_shipped_checkpoints(shipped):
    files, beside = repository_files(shipped)  # complete, and its card is filled
    assert beside == []
    assert not [path for pattern in PICKLES for path in shipped.rglob(pattern)]
    assert sum((shipped / name).stat().st_size for name in files if name.endswith(".safetensors")) <= LIMIT
    with safe_open(shipped / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} - {"I64"} == {"BF16"}  # noqa: SIM118
    assert json.loads((shipped / "config.json").read_text())["dtype"] == "float32"
    model = AutoModel.from_pretrained(shipped)
    assert model.dtype == torch.float32
    vectors = model(**AutoProcessor.from_pretrained(shipped)(["CCO", "c1ccccc1O"], return_tensors="pt")).pooler_output
    assert vectors.isfinite().all()
    assert not torch.allclose(vectors[0], vectors[1])
