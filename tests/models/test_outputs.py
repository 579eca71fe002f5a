"""What the laws do not say of outputs and checkpointing: further heads, batches in parts, refusals."""

import copy
import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, Trainer, TrainingArguments

from hf_molrep import (
    AutoModelForMoleculePropertyPrediction,
    MMDeaconForInteractionPrediction,
    MMDeaconForPropertyPrediction,
)
from hf_molrep.models.uni_mol import modeling_uni_mol
from tests.models.common import laws_of
from tests.models.uni_mol.test_conformer_generation import batch as conformer_batch

SINGLE = "single_label_classification"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "cache"))


# ---- hidden states and attention weights


def pairs() -> dict:
    """Each molecule with its neighbour in the list."""
    first = laws_of("mm_deacon").inputs()
    return first | {f"second_{key}": value.roll(1, dims=0) for key, value in first.items()}


@pytest.mark.parametrize("symmetric", [False, True])
def test_interactions_record_the_first_molecule(symmetric):
    options = {"problem_type": "multi_label_classification", "interaction_symmetric": symmetric}
    laws, batch = laws_of("mm_deacon"), pairs()
    laws.require_recorded("interaction-prediction", batch, **options)
    model = laws.build("interaction-prediction", **options)
    given = model(**batch, output_hidden_states=True).hidden_states
    expected = model.mm_deacon(**laws.inputs(), output_hidden_states=True).hidden_states
    torch.testing.assert_close(given, expected)


def test_an_embedding_has_no_hidden_states():
    model = laws_of("mm_deacon").build("interaction-prediction", problem_type="multi_label_classification")
    embeddings = {"embeddings": torch.ones(2, 16), "second_embeddings": torch.ones(2, 16)}
    assert model(**embeddings).hidden_states is None
    with pytest.raises(ValueError, match="output_hidden_states: give the first molecule as input_ids"):
        model(**embeddings, output_hidden_states=True)


def test_conformer_generation_records():
    laws_of("uni_mol").require_recorded("conformer-generation", conformer_batch(), num_recycles=1)


def test_conformer_generation_records_every_pass():
    model = laws_of("uni_mol").build("conformer-generation", num_recycles=3)
    output = model(**conformer_batch(), output_hidden_states=True, output_attentions=True)
    assert (len(output.hidden_states), len(output.attentions)) == (1 + 3 * 2, 3 * 2)


@pytest.mark.parametrize("kind", ["model", "pre-training", "property-prediction", "conformer-generation"])
def test_parts_do_not_lose_hidden_states(kind, monkeypatch):
    """Uni-Mol computes a large batch in parts on a CPU; what is recorded is of the whole batch."""
    laws = laws_of("uni_mol")
    model = laws.build(kind)
    batch = {name: made for name, _, _, made in laws.cases()}.get(kind) or conformer_batch()
    expected = model(**batch, output_hidden_states=True, output_attentions=True)
    monkeypatch.setattr(modeling_uni_mol, "CPU_TOKENS", 20)
    given = model(**batch, output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(given.hidden_states, expected.hidden_states)
    torch.testing.assert_close(given.attentions, expected.attentions)
    assert given.hidden_states[0].shape[:2] == batch["input_ids"].shape


def test_several_conformers_are_rows_of_hidden_states():
    laws = laws_of("uni_mol")
    model, inputs = laws.build("property-prediction"), laws.inputs()
    pos = torch.stack([inputs["pos"], inputs["pos"] * 1.1], dim=1)
    mask = torch.ones(8, 2)
    mask[3, 1] = 0
    given = model(**inputs | {"pos": pos, "conformer_mask": mask}, output_hidden_states=True).hidden_states
    assert given[-1].shape[0] == 15
    torch.testing.assert_close(given[-1][0], model(**inputs, output_hidden_states=True).hidden_states[-1][0])


def test_chunks_do_not_lose_hidden_states():
    """MM-Deacon with `encoder_chunk_size`: the same loss, and hidden states of the whole batch."""
    laws = laws_of("mm_deacon")
    batch = dict(laws.collator()(laws.rows()))
    chunked, whole = (laws.build("pre-training", encoder_chunk_size=size) for size in (3, 0))
    given, expected = (model(**batch, output_hidden_states=True) for model in (chunked, whole))
    torch.testing.assert_close(given.hidden_states, expected.hidden_states)
    torch.testing.assert_close(given.loss, chunked(**batch).loss)


@pytest.mark.parametrize("fields", [{}, {"legacy_padding": True}, {"padded_neighbors": 3}])
def test_padding_rows_are_no_atoms(fields):
    """GROVER's hidden states have a row per atom, also where padding rows are computed."""
    laws = laws_of("grover")
    inputs = laws.inputs()
    model = laws.build("model", "eager", **fields)
    output = model(**inputs, output_hidden_states=True, output_attentions=True)
    assert [len(value) for value in output.hidden_states] == [len(inputs["x"])] * 2
    torch.testing.assert_close(output.attentions[0].sum(dim=-1), torch.ones(len(inputs["x"]), 2, 2))


def test_recorded_states_are_those_that_the_embedding_is_made_of():
    """GROVER without padding rows: a copy of a state would get no gradient from the embedding."""
    laws = laws_of("grover")
    output = laws.build("model", "eager")(**laws.inputs(), output_hidden_states=True, output_attentions=True)
    recorded = [*output.hidden_states, *output.attentions]
    gradients = torch.autograd.grad(output.pooler_output.sin().sum(), recorded, allow_unused=True)
    assert all(gradient is not None and bool(gradient.any()) for gradient in gradients)


# ---- problem types


@pytest.mark.parametrize("model_type", ["grover", "molclr", "uni_mol"])
def test_single_label_classification_is_refused(model_type, tmp_path):
    """At construction, assignment and loading, as a `ValueError` that says what there is."""
    complaint = f"problem_type '{SINGLE}' is none of 'regression', 'multi_label_classification'"
    laws = laws_of(model_type)
    with pytest.raises(ValueError, match=complaint):
        laws.config(problem_type=SINGLE, num_labels=3)
    config = laws.config(num_labels=3)
    with pytest.raises(ValueError, match=complaint):
        config.problem_type = SINGLE
    laws.build("model").save_pretrained(tmp_path)
    for auto in (AutoModelForMoleculePropertyPrediction, AutoModelForSequenceClassification):
        with pytest.raises(ValueError, match=complaint):
            auto.from_pretrained(tmp_path, problem_type=SINGLE, num_labels=3)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"problem_type": SINGLE, "num_labels": 3}))
    with pytest.raises(ValueError, match=complaint):
        AutoConfig.from_pretrained(tmp_path)


def test_single_label_classification_is_for_interactions(tmp_path):
    """MM-Deacon tells interaction types apart with it; its property head refuses it when it is made or loaded."""
    laws = laws_of("mm_deacon")
    config = laws.config(problem_type=SINGLE, num_labels=3)
    assert MMDeaconForInteractionPrediction(copy.deepcopy(config))(**pairs()).logits.shape == (8, 3)
    complaint = f"problem_type '{SINGLE}' is for interactions; properties are 'regression'"
    with pytest.raises(ValueError, match=complaint):
        MMDeaconForPropertyPrediction(config)
    laws.build("model").save_pretrained(tmp_path)
    for auto in (AutoModelForMoleculePropertyPrediction, AutoModelForSequenceClassification):
        with pytest.raises(ValueError, match=complaint):
            auto.from_pretrained(tmp_path, problem_type=SINGLE, num_labels=3)


# ---- checkpointing


@pytest.mark.parametrize("recycles", [1, 3])
def test_conformer_generation_with_reentrant_checkpointing(recycles):
    laws, found = laws_of("uni_mol"), []
    for reentrant in (None, False, True):
        model = laws.build("conformer-generation", num_recycles=recycles).train()
        if reentrant is not None:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": reentrant})
        found.append(laws._run(model, conformer_batch()))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


@pytest.mark.parametrize("model_type", ["grover", "uni_mol"])
def test_trainer_checkpoints_reentrantly(model_type, tmp_path):
    """Trainer's own argument: one step changes the weights as without it."""
    laws, found = laws_of(model_type), []
    named = "activation" if "activation_checkpointing" in TrainingArguments.__dataclass_fields__ else "gradient"
    for options in ({}, {f"{named}_checkpointing": True, f"{named}_checkpointing_kwargs": {"use_reentrant": True}}):
        model = laws.build("pre-training")
        arguments = TrainingArguments(
            tmp_path,
            max_steps=1,
            per_device_train_batch_size=8,
            remove_unused_columns=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **options,
        )
        Trainer(model, arguments, train_dataset=laws.rows(), data_collator=laws.collator()).train()
        found.append(dict(model.named_parameters()))
    torch.testing.assert_close(*found)


# ---- embeddings of another size


@pytest.mark.parametrize(("model_type", "size"), [("mm_deacon", 100), ("molclr", 130)])
def test_resized_embeddings_are_saved(model_type, size, tmp_path):
    model = laws_of(model_type).build("model")
    model.resize_token_embeddings(size)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    torch.testing.assert_close(again.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_uni_mol_keeps_its_elements():
    with pytest.raises(ValueError, match="the tokens of Uni-Mol are the elements"):
        laws_of("uni_mol").build("model").resize_token_embeddings(40)
