"""Many molecules through a model: order, errors in place, independence of the batch, bounded look-ahead."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hf_molrep.chem.smiles import MoleculeError
from hf_molrep.inference.checkpoints import load_checkpoint
from hf_molrep.inference.embedding import embed, embedding_step
from hf_molrep.inference.engine import infer
from hf_molrep.inference.prediction import predict, task_names, task_units
from hf_molrep.models.mm_deacon import MMDeaconForPropertyPrediction, MMDeaconModel
from tests.models.mm_deacon.tiny import NAMES, SMILES, save_tiny_checkpoint, tiny_config, tiny_processor

BAD = {
    "": "empty",
    " \t": "white space",
    "C1CC": "ring",
    "C(C)(C)(C)(C)C": "valence",
    "C" * 100_000: "100,000 characters",
    None: "not a string",
    float("nan"): "not a string",
    17: "not a string",
}
ODD = ["[Na+].[Cl-]", "[Fe+2]", "[13CH4]", "C*", "[CH3:7]O", "C"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MMDeaconModel(tiny_config()).eval()


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def alone(model, processor):
    """The embedding of each molecule, run alone."""
    with torch.inference_mode():
        return np.stack([model(**processor(smiles, return_tensors="pt")).pooler_output[0].numpy() for smiles in SMILES])


@pytest.mark.parametrize("window", [1, 3, 100])
@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_vectors_do_not_depend_on_the_batch_and_keep_the_order(model, processor, alone, window, batch_tokens):
    rows = list(embed(model, processor, SMILES, window=window, batch_tokens=batch_tokens))
    assert all(row.dtype == np.float32 and row.shape == (16,) for row in rows)
    np.testing.assert_allclose(np.stack(rows), alone, atol=1e-5)


def test_a_batch_holds_at_most_the_token_budget(model, processor):
    shapes = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    list(embed(model, processor, SMILES * 4, batch_tokens=60))
    hook.remove()
    assert sum(molecules for molecules, _ in shapes) == 4 * len(SMILES)
    assert all(molecules * length <= 60 for molecules, length in shapes)
    assert [length for _, length in shapes] == sorted((length for _, length in shapes), reverse=True)


def test_a_window_depends_on_nothing_outside_it(model, processor):
    molecules = (SMILES * 3)[:20]
    whole = list(embed(model, processor, molecules, window=5))
    tail = list(embed(model, processor, molecules[10:], window=5))
    for row, again in zip(whole[10:], tail, strict=True):
        np.testing.assert_array_equal(row, again)


def test_an_endless_generator_is_read_a_few_windows_ahead(model, processor):
    read = itertools.count()
    results = embed(model, processor, (SMILES[next(read) % 8] for _ in itertools.count()), window=4)
    assert len(list(itertools.islice(results, 6))) == 6
    results.close()
    assert next(read) <= 16


def test_nothing_gives_nothing(model, processor):
    assert list(embed(model, processor, [])) == []


@pytest.mark.parametrize(
    ("bad", "reason"), BAD.items(), ids=[str(reason) + str(i) for i, reason in enumerate(BAD.values())]
)
def test_a_bad_molecule_is_reported_in_its_place(model, processor, alone, bad, reason):
    results = list(embed(model, processor, [SMILES[0], bad, SMILES[1]], on_error="skip"))
    assert isinstance(results[1], MoleculeError)
    assert reason in results[1].reason
    np.testing.assert_allclose(np.stack([results[0], results[2]]), alone[:2], atol=1e-5)


def test_the_first_bad_molecule_is_named_after_those_before_it_have_come_out(model, processor):
    results = embed(model, processor, [*SMILES[:3], "C1CC", *SMILES], window=2)
    assert len([next(results) for _ in range(3)]) == 3
    with pytest.raises(MoleculeError, match=r"ring.*index 3 of the input"):
        next(results)


def test_only_bad_molecules(model, processor):
    assert all(
        isinstance(row, MoleculeError) for row in embed(model, processor, ["", "C1CC"], on_error="skip", window=1)
    )


def test_an_error_among_the_molecules_comes_through(model, processor):
    unreadable = MoleculeError("record 2", "not a readable mol block")
    results = list(embed(model, processor, ["CCO", unreadable], on_error="skip"))
    assert results[1] is unreadable


@pytest.mark.parametrize("smiles", ODD)
def test_unusual_molecules_work(model, processor, smiles):
    (row,) = embed(model, processor, [smiles])
    assert np.isfinite(row).all()


def test_duplicates_get_the_same_vector(model, processor):
    first, *others = embed(model, processor, ["OCC", "CCO", "CCO"])
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-6)


def test_the_smiles_that_was_used_is_reported(model, processor):
    (result,) = infer(model, processor, [{"smiles": "OCC"}], embedding_step)
    assert result.report == {"smiles_used": "CCO"}
    (result,) = infer(model, processor, [{"iupac_name": "ethanol"}], embedding_step)
    assert result.report == {}


def test_a_step_gives_anything(model, processor):
    """Token states of unequal length, strings, scalars: one result per molecule, in the order of the input."""

    def states(model, batch):
        found = model(**batch).last_hidden_state
        return [row[: int(mask.sum())] for row, mask in zip(found, batch["attention_mask"], strict=True)]

    rows = [{"smiles": smiles} for smiles in SMILES]
    results = [result.output for result in infer(model, processor, rows, states, batch_tokens=40)]
    lengths = [len(processor(smiles, return_tensors="pt")["input_ids"][0]) for smiles in SMILES]
    assert [result.shape for result in results] == [(length, results[0].shape[1]) for length in lengths]
    assert all(result.dtype == np.float32 for result in results)

    texts = infer(model, processor, rows, lambda model, batch: [str(row.tolist()) for row in batch["input_ids"]])
    assert all(text.output.count(",") + 1 >= length for text, length in zip(texts, lengths, strict=True))
    counts = infer(model, processor, rows, lambda model, batch: batch["attention_mask"].sum(dim=1), batch_tokens=30)
    assert [int(count.output) for count in counts] == lengths
    with pytest.raises(ValueError, match="1 results for"):
        next(infer(model, processor, rows, lambda model, batch: [None]))


def test_several_threads_give_the_same(model, processor, alone):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        rows = list(embed(model, processor, SMILES * 20, batch_tokens=40))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(np.stack(rows), np.tile(alone, (20, 1)), atol=1e-5)


def test_tensors_of_unequal_length_and_dicts_are_results(model, processor):
    """Padded token states differ in length between batches; numbers in dicts and lists are checked as arrays are."""
    rows = [{"smiles": smiles} for smiles in SMILES]

    def states(model, batch):
        return model(**batch).last_hidden_state

    shapes = {result.output.shape for result in infer(model, processor, rows, states, batch_tokens=30)}
    assert len(shapes) > 1

    def named(model, batch):
        values = embedding_step(model, batch)
        return [{"mean": value.mean(), "score": float("nan") if length > 5 else 1.0, "all": [value]}
                for value, length in zip(values, batch["attention_mask"].sum(dim=1), strict=True)]  # fmt: skip

    good, bad = infer(model, processor, [{"smiles": "CC"}, {"smiles": "c1ccccc1O"}], named, on_error="skip")
    assert isinstance(good.output["mean"], np.ndarray)
    assert isinstance(good.output["all"][0], np.ndarray)
    assert isinstance(bad, MoleculeError)


def test_batch_size_bounds_the_molecules_of_a_batch(model, processor, alone):
    sizes = []

    def step(model, batch):
        sizes.append(len(batch["input_ids"]))
        return embedding_step(model, batch)

    rows = [{"smiles": smiles} for smiles in SMILES]
    results = [result.output for result in infer(model, processor, rows, step, batch_size=3)]
    assert max(sizes) == 3
    np.testing.assert_allclose(np.stack(results), alone, atol=1e-5)


def test_a_result_that_is_not_finite_is_a_failure(model, processor):
    def step(model, batch):
        embedding = embedding_step(model, batch)
        return torch.where((batch["attention_mask"].sum(dim=1) > 5)[:, None], torch.nan, embedding)

    rows = [{"smiles": "CC"}, {"smiles": "c1ccccc1O"}]
    good, bad = infer(model, processor, rows, step, on_error="skip")
    assert np.isfinite(good.output).all()
    assert (bad.smiles, bad.reason) == ("c1ccccc1O", "the model's output is not finite")
    with pytest.raises(MoleculeError, match=r"not finite \(index 1"):
        list(infer(model, processor, rows, step))


def test_rows_are_given_by_what_the_processor_reads(model, processor):
    with pytest.raises(ValueError, match=r"reads smiles; or iupac_name; .* not z"):
        next(infer(model, processor, [{"z": [6]}], embedding_step))
    with pytest.raises(ValueError, match="the rows differ"):
        list(infer(model, processor, [{"smiles": "C"}, {"iupac_name": "methane"}], embedding_step))


def test_names(model, processor):
    rows = np.stack(list(embed(model, processor, NAMES, kind="iupac", batch_tokens=50)))
    with torch.inference_mode():
        expected = model(**processor(iupac_name=NAMES, return_tensors="pt")).pooler_output.numpy()
    np.testing.assert_allclose(rows, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["乙醇", "", None, "but" * 60])
def test_a_name_that_cannot_be_read_is_reported(model, processor, name):
    good, bad = embed(model, processor, ["ethanol", name], kind="iupac", on_error="skip")
    assert np.isfinite(good).all()
    assert isinstance(bad, MoleculeError)


def test_a_molecule_longer_than_the_model_is_reported(model, processor):
    good, bad = embed(model, processor, ["CCO", "C" * 200], on_error="skip")
    assert np.isfinite(good).all()
    assert "200" in bad.reason or "202" in bad.reason


def test_dropout_is_off_and_the_mode_is_given_back(processor):
    torch.manual_seed(0)
    model = MMDeaconModel(tiny_config({"hidden_dropout": 0.5})).train()
    first, second = (np.stack(list(embed(model, processor, SMILES))) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert model.training


def test_bf16_gives_float32_arrays_near_those_of_fp32(model, processor, alone):
    rows = np.stack(list(embed(model, processor, SMILES, dtype="bfloat16")))
    assert rows.dtype == np.float32
    assert 0 < np.abs(rows - alone).max() < 0.05
    half = MMDeaconModel(tiny_config()).to(torch.bfloat16).eval()
    half.load_state_dict(model.state_dict())
    rows = np.stack(list(embed(half, processor, SMILES)))
    assert rows.dtype == np.float32
    assert 0 < np.abs(rows - alone).max() < 0.05


def test_autocast_casts_a_weight_once(model, processor):
    """As long as batches run, however often it is used."""

    class Casts(TorchDispatchMode):
        of_weights = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if result is not args[0] and getattr(result, "dtype", None) == torch.bfloat16 and args[0] is layer.weight:
                self.of_weights += 1
            return result

    layer, casts = torch.nn.Linear(16, 16), Casts()

    def step(model, batch):
        output = model(**batch)
        with casts:
            layer(output.pooler_output)
            return layer(output.pooler_output)

    for _ in infer(model, processor, [{"smiles": text} for text in SMILES[:4]], step, dtype="bfloat16"):
        pass
    assert casts.of_weights == 1


def test_a_worker_process_gives_the_same(model, processor):
    molecules = [*SMILES, "C1CC"]
    here = list(embed(model, processor, molecules, window=3, on_error="skip"))
    there = list(embed(model, processor, molecules, window=3, on_error="skip", num_workers=1))
    assert here[-1].reason == there[-1].reason
    for row, again in zip(here[:-1], there[:-1], strict=True):
        np.testing.assert_array_equal(row, again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "selfies"}, "kind is"),
        ({"on_error": "ignore"}, "on_error is"),
        ({"dtype": "int8"}, "dtype is"),
        ({"batch_tokens": 0}, "batch_tokens is"),
        ({"window": 2.5}, "window is"),
        ({"num_workers": -1}, "num_workers is"),
    ],
)
def test_arguments_that_cannot_be_are_refused_at_once(model, processor, options, message):
    with pytest.raises(ValueError, match=message):
        embed(model, processor, SMILES, **options)


def test_one_string_is_not_taken_for_its_letters(model, processor):
    with pytest.raises(ValueError, match="one string"):
        embed(model, processor, "CCO")


def test_a_model_with_a_head_is_refused(processor):
    head = MMDeaconForPropertyPrediction(tiny_config(num_labels=1))
    with pytest.raises(ValueError, match="no pooler_output"):
        next(embed(head, processor, SMILES))
    with pytest.raises(ValueError, match="no predictions"):
        next(predict(MMDeaconModel(tiny_config()), processor, SMILES))


def test_predictions_come_in_the_units_of_the_labels(processor):
    labels = {"num_labels": 2, "id2label": {0: "solubility", 1: "mp"}, "label2id": {"solubility": 0, "mp": 1}}
    scale = {"label_mean": [-2.0, 300.0], "label_std": [0.5, 50.0], "label_units": ["log mol/L", "K"]}
    torch.manual_seed(0)
    model = MMDeaconForPropertyPrediction(tiny_config(**labels, **scale)).eval()
    rows = np.stack(list(predict(model, processor, SMILES, batch_tokens=30)))
    with torch.inference_mode():
        logits = model(**processor(SMILES, return_tensors="pt")).logits.numpy()
    np.testing.assert_allclose(rows, logits * [0.5, 50.0] + [-2.0, 300.0], rtol=1e-4)
    assert task_names(model.config) == ["solubility", "mp"]
    assert task_units(model.config) == {"solubility": "log mol/L", "mp": "K"}


def test_predictions_of_classes_are_probabilities(processor):
    torch.manual_seed(0)
    config = tiny_config(
        problem_type="multi_label_classification", num_labels=1, id2label={0: "toxic"}, label2id={"toxic": 0}
    )
    model = MMDeaconForPropertyPrediction(config).eval()
    rows = np.stack(list(predict(model, processor, SMILES)))
    assert ((rows > 0) & (rows < 1)).all()
    assert task_units(config) == {"toxic": "probability"}


def test_a_checkpoint_is_loaded_in_fp32(tmp_path, alone):
    from transformers import AutoModel

    model, processor = load_checkpoint(AutoModel, save_tiny_checkpoint(tmp_path, dtype="bfloat16"), "cpu")
    assert next(model.parameters()).dtype == torch.float32
    assert not model.training
    assert next(embed(model, processor, SMILES)).shape == alone[0].shape
