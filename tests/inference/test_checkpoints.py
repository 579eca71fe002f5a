"""A checkpoint never answers with what it does not hold."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, pipeline

from hf_molrep import MMDeaconForPropertyPrediction, MoleculeEmbedder
from hf_molrep.cli import main
from hf_molrep.inference.checkpoints import load_checkpoint, load_finetuned
from hf_molrep.inference.embedding import embed
from hf_molrep.inference.prediction import predict
from tests.models.mm_deacon.tiny import SMILES, save_tiny_checkpoint, tiny_config, tiny_processor


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
    """A property model of MM-Deacon: the encoder of SMILES and a head, no encoder of names."""
    folder = tmp_path_factory.mktemp("finetuned")
    torch.manual_seed(0)
    MMDeaconForPropertyPrediction(tiny_config(num_labels=1, id2label={0: "logS"})).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def changed(tmp_path):
    """A checkpoint whose weights a function changes."""

    def change(function) -> str:
        folder = save_tiny_checkpoint(tmp_path / "changed")
        path = f"{folder}/model.safetensors"
        weights = load_file(path)
        function(weights)
        save_file(weights, path, {"format": "pt"})
        return str(folder)

    return change


def test_a_part_that_was_left_out_is_refused(finetuned, tmp_path, capsys):
    """By every way to ask for it; what is there answers, the same each time."""
    model, processor = load_checkpoint(AutoModel, finetuned, "cpu")
    assert model.left_out == {"iupac_name"}
    again = load_checkpoint(AutoModel, finetuned, "cpu")
    first, second = (np.stack(list(embed(*loaded, SMILES))) for loaded in ((model, processor), again))
    np.testing.assert_allclose(first, second, atol=1e-6)
    refusal = "no weights for it"
    with pytest.raises(ValueError, match=refusal):
        list(embed(model, processor, ["ethanol"], kind="iupac"))
    with pytest.raises(ValueError, match=refusal):
        pipeline("molecule-embedding", model=finetuned, device="cpu")("ethanol", kind="iupac")
    with pytest.raises(ValueError, match=refusal):
        MoleculeEmbedder(finetuned, kind="iupac", device="cpu").fit_transform(["ethanol"])
    with pytest.raises(ValueError, match=refusal):
        list(predict(*load_finetuned(finetuned, "cpu"), ["ethanol"], kind="iupac"))

    (tmp_path / "names.csv").write_text("iupac_name\nethanol\n")
    (tmp_path / "smiles.csv").write_text("smiles\nCCO\nCC\n")
    for arguments in (
        ["embed", tmp_path / "names.csv", tmp_path / "out.parquet", "--kind", "iupac"],
        ["search", tmp_path / "smiles.csv", "ethanol", "--query-kind", "iupac"],
    ):
        assert main([*map(str, arguments), "--model", finetuned, "--device", "cpu"]) == 2
        assert refusal in capsys.readouterr().err
    assert not (tmp_path / "out.parquet").exists()


def test_random_weights_are_not_saved_as_if_trained(finetuned, tmp_path):
    """Neither by the model nor by the pipeline: the copy refuses names as the original does."""
    model, processor = load_checkpoint(AutoModel, finetuned, "cpu")
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    pipeline("molecule-embedding", model=finetuned, device="cpu").save_pretrained(tmp_path / "pipeline")
    for folder in ("model", "pipeline"):
        names = load_file(tmp_path / folder / "model.safetensors")
        assert not [name for name in names if name.startswith("iupac_")]
        copy = pipeline("molecule-embedding", model=str(tmp_path / folder), device="cpu")
        np.testing.assert_allclose(copy("CCO")["embedding"], next(embed(model, processor, ["CCO"])), atol=1e-6)
        with pytest.raises(ValueError, match="no weights for it"):
            copy("ethanol", kind="iupac")


def test_a_processor_that_is_given_is_restricted_and_left_as_it_is(finetuned, tmp_path):
    own = tiny_processor()
    with pytest.raises(ValueError, match="no weights for it"):
        MoleculeEmbedder(finetuned, own, kind="iupac", device="cpu").fit_transform(["ethanol"])
    with pytest.raises(ValueError, match="no weights for it"):
        pipeline("molecule-embedding", model=finetuned, processor=own, device="cpu")("ethanol", kind="iupac")
    whole = save_tiny_checkpoint(tmp_path)
    assert len(pipeline("molecule-embedding", model=whole, processor=own, device="cpu")("ethanol", kind="iupac"))


def test_a_restricted_processor_is_saved_whole(finetuned, tmp_path):
    """Embedding a file saves the processor to recognise it again."""
    (tmp_path / "in.csv").write_text("smiles\nCCO\n")
    command = ["embed", str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), "--model", finetuned, "--device", "cpu"]
    assert main(command) == 0


def test_a_file_without_any_input_is_refused(changed):
    def empty(weights):
        for name in list(weights):
            weights[f"other.{name}"] = weights.pop(name)

    with pytest.raises(ValueError, match="holds none of the weights of MMDeaconModel"):
        load_checkpoint(AutoModel, changed(empty), "cpu")


def test_missing_weights_are_named(changed, tmp_path, capsys):
    """Random numbers would stand in their place, others in each process."""
    folder = changed(lambda weights: weights.pop("smiles_projection.weight"))
    with pytest.raises(ValueError, match=r"lacks 1 of the weights of MMDeaconModel: smiles_projection\.weight"):
        load_checkpoint(AutoModel, folder, "cpu")
    with pytest.raises(ValueError, match=r"smiles_projection\.weight"):
        pipeline("molecule-embedding", model=folder, device="cpu")
    (tmp_path / "in.csv").write_text("smiles\nC\n")
    capsys.readouterr()
    assert main(["embed", str(tmp_path / "in.csv"), str(tmp_path / "out.parquet"), "--model", folder]) == 2
    error = capsys.readouterr().err.strip()
    assert "smiles_projection.weight" in error
    assert "\n" not in error


def test_an_encoder_of_which_a_part_is_missing_is_not_left_out(changed):
    folder = changed(lambda weights: weights.pop("iupac_projection.bias"))
    with pytest.raises(ValueError, match=r"iupac_projection\.bias"):
        load_checkpoint(AutoModel, folder, "cpu")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_result_that_is_not_finite_is_a_failed_row(changed, tmp_path, capsys, number):
    def spoil(weights):
        weights["smiles_projection.weight"] = torch.full_like(weights["smiles_projection.weight"], number)

    (tmp_path / "in.csv").write_text("smiles\nCCO\nC1CC\n")
    output = tmp_path / "out.parquet"
    assert main(["embed", str(tmp_path / "in.csv"), str(output), "--model", changed(spoil), "--device", "cpu"]) == 1
    table = pq.read_table(output).to_pydict()
    assert table["error"] == ["the model's output is not finite", "ring 1 not closed"]
    assert table["embedding"] == [None, None]
    assert "0 of 2 molecules embedded, 2 failed" in capsys.readouterr().out


def test_loading_is_silent(finetuned, capfd):
    """transformers would report the encoder of names and the head, which are of no consequence here."""
    load_checkpoint(AutoModel, finetuned, "cpu")
    printed = capfd.readouterr()
    assert not printed.out
    assert not printed.err
