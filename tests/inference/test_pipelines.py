"""`pipeline("molecule-embedding")` and `pipeline("molecule-property-prediction")`."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor, pipeline
from transformers.pipelines.pt_utils import KeyDataset

import hf_molrep
from hf_molrep import MMDeaconForPropertyPrediction
from hf_molrep.chem.smiles import MoleculeError, canonical_smiles
from tests.models.mm_deacon.tiny import NAMES, SMILES, save_tiny_checkpoint, tiny_config, tiny_processor


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def pipe(checkpoint):
    return pipeline("molecule-embedding", model=checkpoint, device="cpu")


@pytest.fixture(scope="module")
def expected(checkpoint):
    model, processor = AutoModel.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    with torch.inference_mode():
        return model(**processor(SMILES, return_tensors="pt")).pooler_output.numpy()


def check(results, expected):
    results = list(results)
    assert all(set(result) == {"embedding", "smiles_used"} for result in results)
    assert all(result["embedding"].dtype == np.float32 for result in results)
    np.testing.assert_allclose(np.stack([result["embedding"] for result in results]), expected, atol=1e-5)


def test_one_string(pipe, expected):
    result = pipe(SMILES[3])
    assert isinstance(result, dict)
    check([result], expected[3:4])


@pytest.mark.parametrize("container", [list, tuple])
def test_lists_and_tuples_give_lists(pipe, expected, container):
    results = pipe(container(SMILES))
    assert isinstance(results, list)
    check(results, expected)


def test_empty_inputs(pipe):
    assert pipe([]) == []
    assert pipe(()) == []
    assert list(pipe(iter([]))) == []


def test_a_generator_is_read_as_the_results_are(pipe, expected):
    read = []
    results = pipe((read.append(smiles) or smiles for smiles in SMILES * 10), window=4)
    check([next(results)], expected[:1])
    assert len(read) < 20


def test_datasets(pipe, expected):
    from datasets import Dataset

    dataset = Dataset.from_dict({"smiles": SMILES, "iupac_name": NAMES, "other": list(range(8))})
    check(pipe(dataset), expected)
    check(pipe(KeyDataset(dataset, "smiles")), expected)
    check(pipe(dataset["smiles"]), expected)
    check(pipe(dataset.to_iterable_dataset()), expected)
    names = [result["embedding"] for result in pipe(dataset, kind="iupac")]
    np.testing.assert_array_equal(names, [result["embedding"] for result in pipe(NAMES, kind="iupac")])
    check(pipe(dataset.rename_column("smiles", "structure"), column="structure"), expected)
    with pytest.raises(ValueError, match="no column 'smiles'; it has structure"):
        pipe(dataset.rename_column("smiles", "structure"))


def test_names_are_not_smiles(pipe):
    assert set(pipe("phenol", kind="iupac")) == {"embedding"}
    assert not np.allclose(pipe("phenol", kind="iupac")["embedding"], pipe("c1ccccc1O")["embedding"], atol=1e-3)


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_the_same_vector_whatever_the_batch(pipe, expected, batch_tokens):
    check(pipe(SMILES, batch_tokens=batch_tokens), expected)


def test_failures_keep_their_place(pipe, expected):
    good, bad = pipe([SMILES[0], "C1CC"], on_error="skip")
    check([good], expected[:1])
    assert good["smiles_used"] == canonical_smiles(SMILES[0])
    assert bad["embedding"] is None
    assert "ring" in bad["error"]
    assert pipe("", on_error="skip") == {"embedding": None, "error": "empty"}
    with pytest.raises(MoleculeError, match=r"ring.*index 1"):
        pipe([SMILES[0], "C1CC"])
    with pytest.raises(MoleculeError):
        pipe("C1CC")


def test_unknown_arguments_are_refused(pipe, checkpoint):
    with pytest.raises(ValueError, match=r"unknown argument 'batch_length'.*batch_tokens"):
        pipe(SMILES, batch_length=8)
    with pytest.raises(ValueError, match="batch_size is an integer of at least 1"):
        pipe(SMILES, batch_size=0)
    with pytest.raises(ValueError, match="unknown argument 'colour'"):
        pipeline("molecule-embedding", model=checkpoint, device="cpu", colour="red")
    with pytest.raises(ValueError, match="kind is"):
        pipe(SMILES, kind="inchi")
    with pytest.raises(ValueError, match="molecules are strings"):
        pipe(5)


@pytest.mark.parametrize("where", ["pipeline", "call"])
def test_batch_size_bounds_the_molecules_of_a_batch(checkpoint, pipe, where):
    """As every pipeline of transformers takes it."""
    options = {"batch_size": 3}
    at_first = options if where == "pipeline" else {}
    bounded = pipeline("molecule-embedding", model=checkpoint, device="cpu", **at_first)
    sizes = []
    hook = lambda module, args, kwargs: sizes.append(len(kwargs["input_ids"]))  # noqa: E731
    bounded.model.register_forward_pre_hook(hook, with_kwargs=True)
    results = bounded(SMILES, **({} if where == "pipeline" else options))
    assert max(sizes) == 3
    for result, expected in zip(results, pipe(SMILES), strict=True):
        np.testing.assert_allclose(result["embedding"], expected["embedding"], atol=1e-5)


def test_options_of_the_pipeline_are_defaults_of_the_call(checkpoint):
    pipe = pipeline("molecule-embedding", model=checkpoint, device="cpu", on_error="skip", kind="iupac")
    assert pipe([None])[0]["embedding"] is None
    assert pipe(["ethanol"])[0]["embedding"].shape == (16,)
    with pytest.raises(MoleculeError):
        pipe(["C1CC"], on_error="raise", kind="smiles")


def test_a_model_object_with_its_processor(checkpoint, expected):
    model, processor = AutoModel.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    check(pipeline("molecule-embedding", model=model, processor=processor, device="cpu")(SMILES), expected)


def test_bf16(checkpoint, expected):
    by_name = pipeline("molecule-embedding", model=checkpoint, device="cpu", dtype=torch.bfloat16)
    assert by_name.model.dtype == torch.bfloat16
    model, processor = AutoModel.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    options = {"device": "cpu", "dtype": torch.bfloat16}
    by_object = pipeline("molecule-embedding", model=model, processor=processor, **options)
    assert by_object.model.dtype == torch.float32
    for pipe in (by_name, by_object):
        rows = np.stack([result["embedding"] for result in pipe(SMILES)])
        assert rows.dtype == np.float32
        assert 0 < np.abs(rows - expected).max() < 0.05


def test_the_default_model_is_the_shipped_one(mini_checkpoint):
    result = pipeline("molecule-embedding", device="cpu")("CCO")
    np.testing.assert_array_equal(
        result["embedding"], pipeline("molecule-embedding", model=mini_checkpoint, device="cpu")("CCO")["embedding"]
    )


def test_a_saved_pipeline_asks_for_no_remote_code(pipe, tmp_path, expected):
    pipe.save_pretrained(tmp_path)
    assert "custom_pipelines" not in json.loads((tmp_path / "config.json").read_text())
    check(pipeline("molecule-embedding", model=str(tmp_path), device="cpu")(SMILES), expected)


def test_registering_twice_changes_nothing(caplog):
    from hf_molrep.inference.pipelines import register

    register()
    assert not caplog.records
    assert hf_molrep.inference.pipelines.register is register


@pytest.fixture(scope="module")
def property_checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("property")
    names = {"num_labels": 2, "id2label": {0: "logS", 1: "mp"}, "label2id": {"logS": 0, "mp": 1}}
    scale = {"label_mean": [-2.0, 300.0], "label_std": [0.5, 50.0], "label_units": ["log mol/L", "K"]}
    torch.manual_seed(0)
    MMDeaconForPropertyPrediction(tiny_config(**names, **scale)).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)


def test_properties(property_checkpoint):
    pipe = pipeline("molecule-property-prediction", model=property_checkpoint, device="cpu")
    model = MMDeaconForPropertyPrediction.from_pretrained(property_checkpoint).eval()
    with torch.inference_mode():
        expected = model(**pipe.processor(SMILES, return_tensors="pt")).predictions.numpy()
    results = pipe(SMILES)
    assert all(result["units"] == {"logS": "log mol/L", "mp": "K"} for result in results)
    rows = [[result["predictions"]["logS"], result["predictions"]["mp"]] for result in results]
    np.testing.assert_allclose(rows, expected, rtol=1e-4)
    assert pipe(["", "C"], on_error="skip")[0] == {"predictions": None, "error": "empty"}


def test_probabilities(tmp_path):
    config = tiny_config(
        problem_type="multi_label_classification", num_labels=1, id2label={0: "toxic"}, label2id={"toxic": 0}
    )
    pipe = pipeline(
        "molecule-property-prediction",
        model=MMDeaconForPropertyPrediction(config),
        processor=tiny_processor(),
        device="cpu",
    )
    result = pipe("CCO")
    assert 0 < result["predictions"]["toxic"] < 1
    assert result["units"] == {"toxic": "probability"}


def test_graph_checkpoint(tmp_path):
    """A method whose preprocessing is a feature extractor, by name and as objects; bad molecules keep their places."""
    hf_molrep.MolCLRModel(hf_molrep.MolCLRConfig(embedding_dim=16, feature_dim=12)).save_pretrained(tmp_path)
    hf_molrep.MolCLRFeatureExtractor().save_pretrained(tmp_path)
    pipe = pipeline("molecule-embedding", model=str(tmp_path))
    found = pipe(["CCO", "C1CC", "CC*", "c1ccccc1O", "[Na+].[Cl-]"], on_error="skip")
    assert [each["embedding"] is None for each in found] == [False, True, True, False, False]
    assert "dummy atom" in found[2]["error"]
    assert found[0]["embedding"].shape == (12,)
    given = pipeline("molecule-embedding", model=pipe.model, feature_extractor=pipe.processor)
    np.testing.assert_allclose(given("CCO")["embedding"], found[0]["embedding"], atol=1e-5)
