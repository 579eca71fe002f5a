"""MM-Deacon: processor and collator, good input and bad."""

import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast

from hf_molrep import MMDeaconDataCollator, MMDeaconProcessor
from hf_molrep.chem.smiles import MoleculeError, canonical_smiles
from tests.models.mm_deacon.tiny import MAX_LENGTH, NAMES, PAIRS, SMILES, save_tiny_checkpoint, tiny_processor


@pytest.fixture(scope="module")
def processor() -> MMDeaconProcessor:
    return tiny_processor()


# ---- processor


def test_views(processor):
    smiles = processor(SMILES, return_tensors="pt")
    names = processor(iupac_name=NAMES, return_tensors="pt")
    both = processor(smiles=SMILES, iupac_name=NAMES, return_tensors="pt")
    assert list(smiles) == ["input_ids", "attention_mask"]
    assert list(names) == ["iupac_input_ids", "iupac_attention_mask"]
    assert sorted(both) == sorted(processor.model_input_names)
    for key, value in both.items():
        assert torch.equal(value, (names if key.startswith("iupac_") else smiles)[key])
        assert value.dtype == torch.int64
        assert value.shape[0] == 8


def test_a_string_is_a_batch_of_one(processor):
    assert torch.equal(
        processor("CCO", return_tensors="pt")["input_ids"], processor(["CCO"], return_tensors="pt")["input_ids"]
    )


def test_tokens_spell_the_canonical_smiles_and_the_name(processor):
    batch = processor(SMILES, NAMES, return_tensors="pt")
    assert processor.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True) == [
        canonical_smiles(smiles) for smiles in SMILES
    ]
    assert processor.iupac_tokenizer.batch_decode(batch["iupac_input_ids"], skip_special_tokens=True) == NAMES
    assert (batch["input_ids"][:, 0] == processor.tokenizer.bos_token_id).all()
    padded = batch["attention_mask"] == 0
    assert padded.any()
    assert (batch["input_ids"][padded] == processor.tokenizer.pad_token_id).all()


def test_written_in_another_way(processor):
    """Any SMILES of a molecule gives the same tokens."""
    same = processor(["OCC", "C(O)C", " CCO "], return_tensors="pt")["input_ids"]
    assert (same == same[0]).all()


def test_padding_and_tensors(processor):
    ragged = processor(["C", "CCO"], padding=False)
    assert [len(ids) for ids in ragged["input_ids"]] == [3, 5]
    assert isinstance(processor(["C", "CCO"], return_tensors="np")["input_ids"], np.ndarray)
    with pytest.raises(ValueError, match="tensor"):
        processor(["C", "CCO"], padding=False, return_tensors="pt")


def test_too_long(processor):
    long = "C" * 60
    with pytest.raises(MoleculeError, match=rf"62 tokens, the model takes {MAX_LENGTH}") as error:
        processor(["CCO", long])
    assert error.value.smiles == long
    assert processor(["CCO", long], truncation=True, return_tensors="pt")["input_ids"].shape == (2, MAX_LENGTH)
    (feature,) = processor.featurize({"smiles": [long]}, truncation=True, max_length=10)
    assert feature["truncated"]
    assert feature["input_ids"].tolist() == [0, *[processor.tokenizer.convert_tokens_to_ids("C")] * 8, 2]
    name = "1-" * 40 + "methane"
    with pytest.raises(MoleculeError, match="the model takes"):
        processor(iupac_name=[name])
    assert processor(iupac_name=[name], truncation=True, return_tensors="pt")["iupac_input_ids"].shape == (
        1,
        MAX_LENGTH,
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "not empty"),
        ("  ", "not empty"),
        (None, "a string"),
        (7, "a string"),
        ("乙醇", "'乙', '醇'"),
        ("etanol™", "'™'"),
    ],
)
def test_bad_names(processor, name, reason):
    with pytest.raises(MoleculeError, match=reason) as error:
        processor(iupac_name=["ethanol", name])
    assert error.value.smiles == name
    assert pickle.loads(pickle.dumps(error.value)).reason == error.value.reason
    results = processor.featurize({"iupac_name": ["ethanol", name, "phenol"]}, on_error="skip")
    assert [isinstance(result, MoleculeError) for result in results] == [False, True, False]


def test_either_view_can_fail(processor):
    """In pairs the first error of a row counts, and its neighbours lose nothing."""
    results = processor.featurize(
        {"smiles": ["CCO", "C1CC", "COC", "C"], "iupac_name": ["ethanol", "ring", "", "methane"]}, on_error="skip"
    )
    assert [isinstance(result, MoleculeError) for result in results] == [False, True, True, False]
    assert "ring 1" in results[1].reason
    (alone,) = processor.featurize({"smiles": ["C"], "iupac_name": ["methane"]})
    assert results[3].keys() == alone.keys()
    assert all(np.array_equal(results[3][key], alone[key]) for key in alone)


def test_wrong_calls(processor):
    with pytest.raises(ValueError, match=r"reads smiles; or iupac_name; or .* not nothing"):
        processor()
    with pytest.raises(ValueError, match="different lengths: 2 of smiles, 1 of iupac_name"):
        processor(["C", "CC"], ["methane"])
    with pytest.raises(ValueError, match="on_error"):
        processor.featurize({"smiles": ["C"]}, on_error="ignore")
    with pytest.raises(ValueError, match="at least one molecule"):
        processor([])
    with pytest.raises(ValueError, match="standardize is"):
        tiny_processor(standardize="wash")
    with pytest.raises(ValueError, match="canonical=False"):
        tiny_processor(canonical=False)


def test_standardisation_travels(tmp_path):
    tiny_processor(standardize="parent").save_pretrained(tmp_path / "parent")
    tiny_processor(standardize="none", canonical=False).save_pretrained(tmp_path / "as_written")
    parent = MMDeaconProcessor.from_pretrained(tmp_path / "parent")
    assert parent.featurize({"smiles": ["CC(=O)[O-].[Na+]"]})[0]["smiles_used"] == "CC(=O)O"
    as_written = MMDeaconProcessor.from_pretrained(tmp_path / "as_written")
    assert [feature["smiles_used"] for feature in as_written.featurize({"smiles": ["OCC", " OCC\n"]})] == ["OCC", "OCC"]
    assert as_written.featurize({"smiles": ["C1CC"]}, on_error="skip")[0].reason
    assert tiny_processor().featurize({"smiles": ["CC(=O)[O-].[Na+]"]})[0]["smiles_used"] == "CC(=O)[O-].[Na+]"


def test_one_folder_for_everything(tmp_path):
    """AutoProcessor gives ours, AutoTokenizer the SMILES tokenizer."""
    folder = save_tiny_checkpoint(tmp_path)
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor) is MMDeaconProcessor
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer) is PreTrainedTokenizerFast
    assert tokenizer("CC(=O)O")["input_ids"] == processor.tokenizer("CC(=O)O")["input_ids"]
    names = AutoTokenizer.from_pretrained(f"{folder}/iupac_tokenizer")
    assert names("phenol")["input_ids"] == processor.iupac_tokenizer("phenol")["input_ids"]


def test_tokenizers_without_this_package(tmp_path):
    """Stock AutoTokenizer reads a processor's folder, and (refusing remote code) a checkpoint's."""
    save_tiny_checkpoint(tmp_path / "checkpoint")
    processor = tiny_processor()
    processor.save_pretrained(tmp_path / "processor")
    program = (
        "import sys; sys.modules['hf_molrep'] = None\n"
        "from transformers import AutoTokenizer\n"
        "print(AutoTokenizer.from_pretrained('processor')('CC(=O)O')['input_ids'])\n"
        "print(AutoTokenizer.from_pretrained('processor/iupac_tokenizer')('phenol')['input_ids'])\n"
        "print(AutoTokenizer.from_pretrained('checkpoint', trust_remote_code=False)('CC(=O)O')['input_ids'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=600)
    smiles, name = processor.tokenizer("CC(=O)O")["input_ids"], processor.iupac_tokenizer("phenol")["input_ids"]
    assert done.stdout.splitlines() == [str(smiles), str(name), str(smiles)], done.stderr


# ---- collator


def test_raw_and_cached_rows_give_the_same_batch(processor):
    collator = MMDeaconDataCollator(processor)
    raw = collator([{"smiles": smiles, "iupac_name": name} for smiles, name in zip(SMILES, NAMES, strict=True)])
    cached = collator(processor.featurize({"smiles": SMILES, "iupac_name": NAMES}))
    listed = collator(
        [
            {key: value.tolist() for key, value in feature.items() if isinstance(value, np.ndarray)}
            for feature in processor.featurize({"smiles": SMILES, "iupac_name": NAMES})
        ]
    )
    for batch in (raw, listed):
        assert batch.keys() == cached.keys() == set(processor.model_input_names)
        assert all(torch.equal(batch[key], cached[key]) for key in batch)


def test_augmentation_keeps_the_molecule(processor):
    collator = MMDeaconDataCollator(processor, smiles_augmentation=1.0)
    rows = [{"smiles": smiles, "iupac_name": name, "row_id": place} for place, (smiles, name) in enumerate(PAIRS)]
    plain = MMDeaconDataCollator(processor)(rows)
    written = set()
    for epoch in range(4):
        collator.epoch = epoch
        batch = collator(rows)
        texts = processor.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
        assert [canonical_smiles(text) for text in texts] == [canonical_smiles(smiles) for smiles in SMILES]
        assert torch.equal(batch["iupac_input_ids"], plain["iupac_input_ids"])
        written.update(texts)
    assert len(written) > 2 * len(SMILES)
    for column in ("smiles", "row_id"):
        incomplete = {key: rows[0][key] for key in rows[0] if key != column} | processor.featurize({"smiles": ["C"]})[0]
        with pytest.raises(ValueError, match="'smiles' and 'row_id'"):
            collator([incomplete])


def test_augmentation_rate(processor):
    collator = MMDeaconDataCollator(processor, smiles_augmentation=0.25)
    rows = [{"smiles": SMILES[3], "row_id": row_id} for row_id in range(400)]
    changed = sum(collator._random_smiles(row) is not None for row in rows)
    assert abs(changed - 100) < 5 * math.sqrt(400 * 0.25 * 0.75)


def test_long_rows(processor):
    rows = [{"smiles": "C" * 60, "row_id": 0}, {"smiles": "CCO", "row_id": 1}]
    for augmentation in (0.0, 1.0):
        short = MMDeaconDataCollator(processor, smiles_augmentation=augmentation)(rows)
        assert short["input_ids"].shape == (2, MAX_LENGTH)
        assert short["input_ids"][0, -1] == processor.tokenizer.eos_token_id
        with pytest.raises(MoleculeError, match="62 tokens"):
            MMDeaconDataCollator(processor, smiles_augmentation=augmentation, truncation=False)(rows)


def test_bad_row_is_named(processor):
    with pytest.raises(MoleculeError, match="C1CC"):
        MMDeaconDataCollator(processor)([{"smiles": "CCO"}, {"smiles": "C1CC"}])


def test_labels_and_second_molecules(processor):
    collator = MMDeaconDataCollator(processor)
    batch = collator(
        [
            {"smiles": "CCO", "second_smiles": "c1ccccc1", "labels": 2},
            {"smiles": "C", "second_smiles": "O", "labels": 0},
        ]
    )
    assert batch["labels"].dtype == torch.int64
    second = processor(["c1ccccc1", "O"], return_tensors="pt")
    assert torch.equal(batch["second_input_ids"], second["input_ids"])
    assert torch.equal(batch["second_attention_mask"], second["attention_mask"])
    tasks = collator([{"smiles": "C", "labels": [1.5, math.nan]}, {"smiles": "O", "labels": [None, 2.0]}])["labels"]
    assert tasks.dtype == torch.float32
    assert tasks.isnan().tolist() == [[False, True], [True, False]]
