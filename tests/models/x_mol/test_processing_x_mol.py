"""X-MOL's tokens, processor and collators."""

import numpy as np
import pytest
import torch

from hf_molrep import MoleculeError, XMolDataCollator, XMolPropertyCollator
from hf_molrep.chem.smiles import canonical_smiles
from hf_molrep.tokenization.x_mol import BASE_VOCABULARY, EXTENSION, build_x_mol, knowledge_ids, tokens
from tests.models.x_mol.tiny import tiny_processor

# ids, link, ring and type as the functions of the original give them
VECTORS = {
    "CC(=O)Oc1ccccc1C(=O)O": (
        [1, 25, 25, 9, 22, 30, 10, 30, 33, 13, 33, 33, 33, 33, 33, 13, 25, 9, 22, 30, 10, 30, 2],
        [0, 1, 1, 2, 2, 2, 5, 2, 7, 8, 8, 10, 11, 12, 13, 14, 14, 16, 16, 16, 19, 16, 22],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 14, 10, 11, 12, 13, 14, 8, 16, 17, 18, 19, 20, 21, 22],
        [0, 1, 1, 7, 3, 1, 7, 1, 2, 4, 2, 2, 2, 2, 2, 4, 1, 7, 3, 1, 7, 1, 0],
    ),
    "C[C@@H](Cl)Br": ([1, 25, 49, 9, 26, 10, 24, 2], [0, 1, 1, 2, 2, 4, 2, 7], None, [0, 1, 6, 7, 1, 7, 1, 0]),
    "C1CC2CC1CN2": (
        [1, 25, 13, 25, 25, 14, 25, 25, 13, 25, 29, 14, 2],
        [0, 1, 1, 1, 3, 4, 4, 6, 7, 7, 9, 10, 12],
        [0, 1, 7, 3, 4, 10, 6, 7, 1, 9, 10, 4, 12],
        None,
    ),
    "OC(C)(N)c1cc[nH]c1": (
        [1, 30, 25, 9, 25, 10, 9, 29, 10, 33, 13, 33, 33, 105, 33, 13, 2],
        [0, 1, 1, 2, 2, 4, 2, 2, 7, 2, 9, 9, 11, 12, 13, 14, 16],
        None,
        [0, 1, 1, 7, 1, 7, 7, 1, 7, 2, 4, 2, 2, 2, 2, 4, 0],
    ),
}


@pytest.mark.parametrize("smiles", VECTORS)
def test_ids_of_the_original(smiles):
    ids, *expected = VECTORS[smiles]
    for tokenizer in (build_x_mol(()), build_x_mol()):
        assert tokenizer(smiles)["input_ids"] == ids
    found = knowledge_ids([tokens(smiles)])
    for name, values in zip(("link", "ring", "type"), expected, strict=True):
        if values is not None:
            assert found[name].tolist() == values, name
    processor = tiny_processor(standardize="none", canonical=False, knowledge_embeddings=["link", "ring", "type"])
    (feature,) = processor.featurize({"smiles": [smiles]})
    assert feature["input_ids"].tolist() == ids
    assert feature["link_ids"].tolist() == expected[0]


def test_vocabulary():
    assert len(BASE_VOCABULARY) == 112
    assert BASE_VOCABULARY.index("[UNK]") == 111
    assert EXTENSION[0] == "."
    assert build_x_mol(())("[Na+].[Cl-]")["input_ids"] == [1, 111, 111, 111, 2]
    tokenizer = build_x_mol()
    ids = tokenizer("[Na+].[Cl-]")["input_ids"]
    assert all(place > 111 for place in ids[1:-1])
    assert tokenizer.decode(ids, skip_special_tokens=True) == "[Na+].[Cl-]"
    with pytest.raises(ValueError, match="in the vocabulary already"):
        build_x_mol(["C"])
    with pytest.raises(ValueError, match="'CC' is not one token"):
        build_x_mol(["CC"])


def test_processor_and_tokenizer_split_alike():
    rng = np.random.default_rng(0)
    letters = [*"CNOclr()[]=#%123+-@.Hs", "[nH]", "%12", "Br"]
    tokenizer = build_x_mol()
    vocabulary = tokenizer.get_vocab()
    for _ in range(300):
        text = "".join(rng.choice(letters, 12))
        assert [vocabulary.get(token, 111) for token in tokens(text)] == tokenizer(text)["input_ids"][1:-1], text


def test_an_unknown_token_is_named_with_its_place():
    with pytest.raises(MoleculeError, match=r"the vocabulary has no '\[Rf\]' \(character 5\)"):
        tiny_processor()(["CCO.[Rf]"])
    with pytest.raises(MoleculeError, match=r"no '\[13CH4\]' \(character 1\)"):
        tiny_processor()(["[13CH4]"])


def test_too_long_or_shortened_from_the_left():
    processor = tiny_processor()
    text = "N" + "C" * 600
    with pytest.raises(MoleculeError, match="603 tokens, the model takes 512"):
        processor([text])
    (feature,) = processor.featurize({"smiles": [text + "O"]}, truncation=True, max_length=6)
    kept = processor.tokenizer.convert_ids_to_tokens(feature["input_ids"])
    written = canonical_smiles(text + "O")
    assert kept == ["[CLS]", *written[-4:], "[SEP]"]
    assert feature["truncated"]
    with pytest.raises(MoleculeError, match="links do not survive"):
        tiny_processor(knowledge_embeddings=["link"]).featurize({"smiles": [text]}, truncation=True)


def test_parts_of_a_row():
    processor = tiny_processor(knowledge_embeddings=["link", "ring", "type"])
    (feature,) = processor.featurize({"smiles": [["OCC", "C1CC1"]]})
    assert feature["smiles_used"] == ["CCO", "C1CC1"]
    assert processor.tokenizer.decode(feature["input_ids"]) == "[CLS]CCO[SEP]C1CC1[SEP]"
    assert feature["link_ids"].tolist() == [0, 1, 1, 2, 4, 5, 5, 5, 7, 8, 10]
    assert feature["ring_ids"].tolist() == [0, 1, 2, 3, 4, 5, 8, 7, 8, 5, 10]
    bad = processor.featurize({"smiles": [["CCO", "C1CC"], "CCO", []]}, on_error="skip")
    assert [type(entry) for entry in bad] == [MoleculeError, dict, MoleculeError]
    assert bad[0].smiles == "C1CC"
    salt = knowledge_ids([tokens("[Na+].[Cl-]")])
    assert salt["link"].tolist() == [0, 1, 2, 3, 4], "a dot attaches nothing"


def test_prompts_and_what_was_written():
    processor = tiny_processor()
    prompts = processor.prompts(["CCO", None, ["C", "N"]])
    texts = [processor.tokenizer.decode(row) for row in prompts["input_ids"]]
    assert texts == ["[CLS]CCO[SEP][CLS]", "[PAD]" * 3 + "[CLS][SEP][CLS]", "[CLS]C[SEP]N[SEP][CLS]"]
    assert prompts["attention_mask"].sum(1).tolist() == [6, 3, 6]
    end = torch.tensor([[25, 2, 0], [30, 30, 30], [2, 0, 0]])
    assert processor.written(torch.cat([prompts["input_ids"], end], 1)) == ["C", "OOO", ""]
    with pytest.raises(MoleculeError):
        processor.prompts(["C1CC"])


def test_pairs_of_random_smiles():
    collator = XMolDataCollator(tiny_processor(), seed=3)
    smiles = "CC(=O)Oc1ccccc1C(=O)O"
    seen = set()
    for row_id in range(20):
        batch = collator([{"smiles": smiles, "row_id": row_id}])
        text = tiny_processor().tokenizer.decode(batch["input_ids"][0])
        source, target = text.removeprefix("[CLS]").removesuffix("[SEP]").split("[SEP][CLS]")
        assert canonical_smiles(source) == canonical_smiles(target) == canonical_smiles(smiles)
        seen |= {source, target}
    assert len(seen) > 20
    empty = XMolDataCollator(tiny_processor(), empty_source=1.0)([{"smiles": smiles, "row_id": 0}])
    assert tiny_processor().tokenizer.decode(empty["input_ids"][0]).startswith("[CLS][SEP][CLS]")
    half = XMolDataCollator(tiny_processor(), empty_source=0.5)
    batch = half([{"smiles": smiles, "row_id": row_id} for row_id in range(60)])
    assert 15 < (batch["input_ids"][:, 1] == 2).sum() < 45
    with pytest.raises(ValueError, match="row_id"):
        collator([{"smiles": smiles}])
    with pytest.raises(ValueError, match="'source_smiles' and 'target_smiles'"):
        collator([{"row_id": 0}])


def test_drawn_pairs_need_no_rdkit(monkeypatch):
    from hf_molrep.models.x_mol import collation_x_mol

    monkeypatch.setattr(collation_x_mol, "random_smiles", None)
    rows = [{"source_smiles": ["C(C)O", "N"], "target_smiles": "OCC", "condition": 0.5}]
    batch = XMolDataCollator(tiny_processor())(rows)
    assert tiny_processor().tokenizer.decode(batch["input_ids"][0]) == "[CLS]C(C)O[SEP]N[SEP][CLS]OCC[SEP]"
    assert batch["condition"].tolist() == [0.5]
    for wrong in (None, "high", float("nan")):
        with pytest.raises(ValueError, match="condition of OCC is a number, not"):
            XMolDataCollator(tiny_processor())([{"target_smiles": "OCC", "source_smiles": [], "condition": wrong}])


def test_long_pairs_are_cut_as_in_the_original():
    """A source keeps its end, a target its beginning."""
    rows = [{"source_smiles": "NCCCCO", "target_smiles": "OCCCCN"}]
    batch = XMolDataCollator(tiny_processor(), max_length=5)(rows)
    assert tiny_processor().tokenizer.decode(batch["input_ids"][0]) == "[CLS]CCO[SEP][CLS]OCCC"


def test_a_random_smiles_with_unknown_tokens_gives_way():
    """`[C@H]` may become `[C@@H]`, which this vocabulary does not have: the canonical SMILES is used."""
    from hf_molrep import XMolProcessor

    processor = XMolProcessor(build_x_mol(["[13C@H]"]))
    smiles = canonical_smiles("C[13C@H](N)O")
    smiles = smiles if "@@" not in smiles else canonical_smiles("C[13C@@H](N)O")
    (feature,) = processor.featurize({"smiles": [smiles]})
    collator, changed = XMolDataCollator(processor), 0
    for row_id in range(10):
        ids = collator([{"smiles": smiles, "row_id": row_id, **feature}])["input_ids"][0].tolist()
        changed += ids == [*feature["input_ids"].tolist(), *feature["input_ids"].tolist()]
        assert 111 not in ids
    assert changed


def test_augmented_properties():
    collator = XMolPropertyCollator(tiny_processor(), smiles_augmentation=1.0)
    (feature,) = tiny_processor().featurize({"smiles": ["CC(=O)Oc1ccccc1C(=O)O"]})
    row = {**feature, "smiles": feature["smiles_used"], "row_id": 0, "labels": np.array([1.0])}
    plain = XMolPropertyCollator(tiny_processor())([row])
    assert plain["input_ids"][0].tolist() == feature["input_ids"].tolist()
    drawn = {tuple(collator([{**row, "row_id": place}])["input_ids"][0].tolist()) for place in range(8)}
    assert len(drawn) > 4
    assert plain["labels"].tolist() == [[1.0]]
    with pytest.raises(ValueError, match="smiles_augmentation needs"):
        collator([{**feature, "labels": 1.0}])
    ids = np.array([1, *[25] * 258, 2])
    pair = {"smiles": "C", "input_ids": ids, "second_smiles": "C", "second_input_ids": ids, "labels": 1}
    with pytest.raises(MoleculeError, match="519 tokens"):
        XMolPropertyCollator(tiny_processor(), truncation=False)([pair])


def test_options_are_checked():
    with pytest.raises(ValueError, match="knowledge_embeddings are link, ring, type, not rings"):
        tiny_processor(knowledge_embeddings=["rings"])
    with pytest.raises(ValueError, match="standardize='none'"):
        tiny_processor(canonical=False)
    with pytest.raises(ValueError, match="prompts"):
        tiny_processor()()
