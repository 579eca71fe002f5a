"""X-MOL: the laws, and what is its own."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoModelForCausalLM, BertConfig, BertLMHeadModel, BertModel

from hf_molrep import (
    AutoModelForMoleculeInteractionPrediction,
    XMolConfig,
    XMolDataCollator,
    XMolForConditionalGeneration,
    XMolForPreTraining,
    XMolForPropertyPrediction,
    XMolModel,
    XMolPropertyCollator,
)
from hf_molrep.models.x_mol.modeling_x_mol import positions, segments, unilm_mask
from tests.models.common import MethodLaws, draw_weights
from tests.models.x_mol.tiny import tiny_config, tiny_processor


def bert_weights(model: XMolModel) -> dict[str, torch.Tensor]:
    """The weights under the names of transformers' BERT."""
    ours = model.state_dict()
    theirs = {}
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        theirs[f"embeddings.{name}.weight"] = ours[f"embeddings.{name}.weight"]
    parts = {
        "attention.out_proj": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "up_proj": "intermediate.dense",
        "down_proj": "output.dense",
        "mlp_norm": "output.LayerNorm",
    }
    for end in ("weight", "bias"):
        theirs[f"embeddings.LayerNorm.{end}"] = ours[f"embeddings.norm.{end}"]
        for layer in range(model.config.num_hidden_layers):
            qkv = ours[f"layers.{layer}.attention.qkv_proj.{end}"].chunk(3)
            for name, value in zip(("query", "key", "value"), qkv, strict=True):
                theirs[f"encoder.layer.{layer}.attention.self.{name}.{end}"] = value
            for name, other in parts.items():
                theirs[f"encoder.layer.{layer}.{other}.{end}"] = ours[f"layers.{layer}.{name}.{end}"]
    return theirs


def bert_config(config: XMolConfig) -> BertConfig:
    return BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        layer_norm_eps=config.layer_norm_eps,
        pad_token_id=0,
        attn_implementation="eager",
        is_decoder=True,
    )


class TestXMol(MethodLaws):
    model_type = "x_mol"
    does_not_apply = {"law_05_motion": "SMILES have no coordinates"}
    initial_values = {
        r"lm_head\.norm\.bias$": ("constant", 1.0),
        r"norm\.weight$": ("constant", 1.0),
        r"bias$": ("constant", 0.0),
        r"weight$": ("normal", 0.02 * 0.8796),  # of a normal distribution that is cut at two widths
    }
    refuses = {
        "isotope": "the vocabulary has no [13CH4]",
    }
    hidden_states = 3
    attentions = 2

    def config(self, dropout: float = 0.0, **options):
        return tiny_config(dropout, **options)

    def processor(self):
        return tiny_processor()

    def collator(self, seed: int = 0):
        return XMolDataCollator(tiny_processor(), seed=seed, empty_source=0.25)

    def share(self, rank: int, world: int) -> dict:
        """Pairs drawn before, with equally many tokens of the target in each process: the loss is a mean over them."""
        rows = [{"source_smiles": text, "target_smiles": text[::-1]} for text in ("CCO", "COC", "CCN", "C=CC")]
        rows += [{"source_smiles": row["target_smiles"], "target_smiles": row["source_smiles"]} for row in rows]
        size = len(rows) // world
        return XMolDataCollator(tiny_processor())(rows[rank * size : (rank + 1) * size])

    def cases(self):
        interactions = {"problem_type": "single_label_classification", "id2label": {0: "a", 1: "b", 2: "c"}}
        pairs = [{"smiles": first, "second_smiles": "CCO", "labels": 1} for first in self.molecules]
        read = XMolPropertyCollator(tiny_processor())(pairs)
        written = {**self.collator()(self.rows())}
        written["labels"] = written["input_ids"].masked_fill(written["attention_mask"] == 0, -100)
        return [
            *super().cases(),
            ("interaction-prediction", AutoModelForMoleculeInteractionPrediction, interactions, read),
            ("conditional-generation", AutoModelForCausalLM, {}, written),
        ]

    def agreement(self):
        """
        The original runs on no Paddle of today and its weights are not to be had; what it computes is BERT with this
        mask, so transformers' BERT stands in for it, masks, types and positions as in its `batching.py` and
        `task_reader.py`.
        """
        model = self.build("pre-training")
        config, rows = model.config, [("CCO", "OCC"), ("CC(=O)Oc1ccccc1C(=O)O", "c1ccccc1")]
        batch = XMolDataCollator(tiny_processor())(
            [{"source_smiles": source, "target_smiles": target} for source, target in rows]
        )
        ids, length = batch["input_ids"], batch["input_ids"].shape[1]
        mask, types = torch.zeros(2, length, length), torch.zeros_like(ids)
        for row, sequence in enumerate(ids.tolist()):
            start, end = sequence.index(1, 1), int(batch["attention_mask"][row].sum())
            mask[row, :end, :start] = 1
            mask[row, start:end, start:end] = torch.ones(end - start, end - start).tril()
            types[row, start:] = 1
        oracle = BertLMHeadModel(bert_config(config)).eval()
        head = model.lm_head.state_dict()
        weights = {f"bert.{name}": value for name, value in bert_weights(model.x_mol).items()}
        for end in ("weight", "bias"):
            weights[f"cls.predictions.transform.dense.{end}"] = head[f"dense.{end}"]
            weights[f"cls.predictions.transform.LayerNorm.{end}"] = head[f"norm.{end}"]
        weights["cls.predictions.bias"] = weights["cls.predictions.decoder.bias"] = head["bias"]
        weights["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
        oracle.load_state_dict(weights)
        added = (mask[:, None] - 1) * 10000
        with torch.no_grad():
            expected = oracle(input_ids=ids, attention_mask=added, token_type_ids=types, output_hidden_states=True)
            _, target = segments(config, ids)
            given = model.x_mol(ids, batch["attention_mask"], target=target)
            logits = model._logits(given.last_hidden_state)
            loss = model(**batch).loss
            alone = BertModel(bert_config(config), add_pooling_layer=False).eval()
            alone.load_state_dict(bert_weights(model.x_mol))
            alone.config.is_decoder = False
            molecules = self.inputs()
            outer = molecules["attention_mask"][:, None, :] * molecules["attention_mask"][:, :, None]
            states = alone(input_ids=molecules["input_ids"], attention_mask=(outer[:, None] - 1.0) * 10000)[0]
            read = model.x_mol(**molecules)
        real = batch["attention_mask"].bool()
        chances = expected.logits.log_softmax(-1)
        written = [
            -chances[row, place, ids[row, place + 1]]
            for row in range(2)
            for place in range(length - 1)
            if target[row, place] and real[row, place + 1]
        ]
        return {
            "states": (given.last_hidden_state[real], expected.hidden_states[-1][real], 1e-5),
            "logits": (logits[real], expected.logits[real], 1e-5),
            "loss": (loss, torch.stack(written).mean(), 1e-5),
            "source alone": (
                read.last_hidden_state[molecules["attention_mask"].bool()],
                states[molecules["attention_mask"].bool()],
                1e-5,
            ),
            "embedding": (read.pooler_output, states[:, 0], 1e-5),
        }


@pytest.fixture
def writer() -> XMolForConditionalGeneration:
    torch.manual_seed(0)
    return draw_weights(XMolForConditionalGeneration(tiny_config())).eval()


SOURCES = ["CCO", None, "CC(=O)Oc1ccccc1C(=O)O", ["CCO", "c1ccccc1"]]


def test_paper_size():
    with torch.device("meta"):
        writer = XMolForPreTraining(XMolConfig())
        reader = XMolForPropertyPrediction(XMolConfig(num_labels=1))
    assert sum(parameter.numel() for parameter in writer.parameters()) == 86_130_544
    pooler = sum(parameter.numel() for parameter in reader.head.dense.parameters())
    assert 86_130_544 + pooler == 86_721_136


def test_segments_and_positions():
    ids = torch.tensor([[0, 1, 25, 25, 2, 30, 2, 1, 25, 2], [1, 25, 2, 1, 25, 25, 2, 0, 0, 0]])
    real = torch.tensor([[0] + [1] * 9, [1] * 7 + [0] * 3])
    config = tiny_config(target_type_id=2)
    types, target = segments(config, ids)
    assert types[0, 1:].tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2]
    assert target[0].tolist() == [False] * 7 + [True] * 3
    assert types[1, :7].tolist() == [0, 0, 0, 2, 2, 2, 2]
    through = positions(config, real, types, target)
    assert through[0, 1:].tolist() == list(range(9))
    assert through[1, :7].tolist() == list(range(7))
    again = positions(tiny_config(target_type_id=2, continuous_position=False), real, types, target)
    assert again[0, 1:].tolist() == [0, 1, 2, 3, 1, 2, 0, 1, 2]
    assert again[1, :7].tolist() == [0, 1, 2, 0, 1, 2, 3]


def test_the_mask_of_unilm():
    real = torch.tensor([[0, 1, 1, 1, 1]])
    mask = unilm_mask(real, torch.tensor([[False, False, False, True, True]]), 5)[0, 0].int().tolist()
    assert mask == [[1, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 1]]
    assert unilm_mask(real, None, 1)[0, 0].int().tolist() == [[0, 1, 1, 1, 1]]


@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("search", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
@torch.no_grad()
def test_cached_generation_is_that_without_cache(search, continuous):
    writer = draw_weights(XMolForConditionalGeneration(tiny_config(continuous_position=continuous))).eval()
    prompts = tiny_processor().prompts(SOURCES)
    results = []
    for use_cache in (True, False):
        torch.manual_seed(1)
        lengths = []
        hook = writer.x_mol.register_forward_pre_hook(
            lambda _, args, lengths=lengths: lengths.append(args[0].shape[1]), with_kwargs=False
        )
        results.append(
            writer.generate(
                **prompts,
                max_new_tokens=12,
                use_cache=use_cache,
                output_logits=True,
                return_dict_in_generate=True,
                **search,
            )
        )
        hook.remove()
        expected = [1] * (len(lengths) - 1) if use_cache else [lengths[0] + step for step in range(1, len(lengths))]
        assert lengths[1:] == expected, "a step with cache reads one token"
    assert torch.equal(results[0].sequences, results[1].sequences)
    for ours, theirs in zip(results[0].logits, results[1].logits, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


@torch.no_grad()
def test_generated_alone_is_generated_in_a_batch(writer):
    processor = tiny_processor()
    together = processor.written(writer.generate(**processor.prompts(SOURCES), max_new_tokens=12, do_sample=False))
    alone = [
        processor.written(writer.generate(**processor.prompts([source]), max_new_tokens=12, do_sample=False))[0]
        for source in SOURCES
    ]
    assert together == alone
    assert len(set(together)) > 1


@torch.no_grad()
def test_generation_writes_what_training_scores(writer):
    """The logits of a prompt, step by step, are those of the whole pair in training."""
    processor = tiny_processor()
    batch = XMolDataCollator(processor)([{"source_smiles": "CCO", "target_smiles": "OCC"}])
    whole = writer(**batch).logits
    prompt = processor.prompts(["CCO"])["input_ids"]
    assert prompt.tolist()[0] == batch["input_ids"][0, : prompt.shape[1]].tolist()
    last = writer(prompt).logits[:, -1]
    torch.testing.assert_close(last, whole[:, prompt.shape[1] - 1], atol=1e-5, rtol=0)
    assert writer(prompt, logits_to_keep=1).logits.shape[1] == 1


def test_labels_of_the_writer_and_pre_training(writer):
    pre_training = XMolForPreTraining(writer.config)
    pre_training.load_state_dict(writer.state_dict())
    batch = XMolDataCollator(tiny_processor())([{"source_smiles": "CCO", "target_smiles": "OCC"}])
    _, target = segments(writer.config, batch["input_ids"])
    labels = batch["input_ids"].masked_fill(~target, -100)
    labels[target & (target.cumsum(1) == 1)] = -100  # the [CLS] of the target is given
    with torch.no_grad():
        assert writer(**batch).loss is None
        torch.testing.assert_close(writer(**batch, labels=labels).loss, pre_training.eval()(**batch).loss)


@torch.no_grad()
def test_condition_scales_the_first_token(writer):
    """Goal-directed generation: the embedding of the first [CLS], and only that, times the property."""
    prompts = tiny_processor().prompts([None, None])
    assert prompts["input_ids"].tolist() == [[1, 2, 1]] * 2
    logits = writer(**prompts, condition=torch.tensor([1.0, 0.3])).logits
    torch.testing.assert_close(logits[0], writer(**prompts).logits[0])
    scale = torch.tensor([[1.0, 1.0, 1.0], [0.3, 1.0, 1.0]])
    _, target = segments(writer.config, prompts["input_ids"])
    states = writer.x_mol(**prompts, target=target, scale=scale).last_hidden_state
    torch.testing.assert_close(logits, writer._logits(states))
    sequences = [
        writer.generate(**prompts, condition=torch.tensor([1.0, 0.3]), max_new_tokens=8, use_cache=cache)
        for cache in (True, False)
    ]
    assert torch.equal(*sequences)


def test_vocabulary_grows_with_the_bias(writer):
    old = writer.lm_head.bias.detach().clone()
    writer.resize_token_embeddings(230)
    assert writer.config.vocab_size == 230
    assert torch.equal(writer.lm_head.bias[:224], old)
    assert not writer.lm_head.bias[224:].any()
    prompts = tiny_processor().prompts(["CCO"])
    assert writer(**prompts).logits.shape[-1] == 230


def test_knowledge_embeddings():
    names = ["link", "ring", "type"]
    processor = tiny_processor(knowledge_embeddings=names)
    model = draw_weights(XMolModel(tiny_config(knowledge_embeddings=names))).eval()
    batch = processor(["C1CC2CC1CN2", "CCO"], return_tensors="pt")
    assert processor.config_fields() == {"knowledge_embeddings": model.config.knowledge_embeddings}
    with torch.no_grad():
        expected = model(**batch).last_hidden_state
        for name in names:
            changed = {**batch, f"{name}_ids": batch[f"{name}_ids"].clone()}
            changed[f"{name}_ids"][0, 2] = 3
            assert (model(**changed).last_hidden_state[0] - expected[0]).abs().max() > 1e-3, name
            assert torch.equal(model(**changed).last_hidden_state[1], expected[1]), name
        with pytest.raises(ValueError, match="needs link_ids, ring_ids, type_ids"):
            model(batch["input_ids"])
    with pytest.raises(ValueError, match="being written"):
        XMolForPreTraining(tiny_config(knowledge_embeddings=["link"]))


def test_several_parts_are_read_together():
    processor, model = tiny_processor(), draw_weights(XMolModel(tiny_config())).eval()
    with torch.no_grad():
        one, other = model(**processor([["CCO", "CCN"], ["CCN", "CCO"]], return_tensors="pt")).pooler_output
        alone = model(**processor(["CCO"], return_tensors="pt")).pooler_output[0]
    assert (one - other).abs().max() > 1e-3
    assert (one - alone).abs().max() > 1e-3


def test_pair_of_molecules_is_the_same_from_features_and_smiles():
    for names in ([], ["link", "ring", "type"]):
        processor = tiny_processor(knowledge_embeddings=names)
        first, second = processor.featurize({"smiles": ["CCO", "C1CC1N"]})
        row = {**first, **{f"second_{key}": value for key, value in second.items()}, "labels": 1}
        raw = {"smiles": "CCO", "second_smiles": "C1CC1N", "labels": 1}
        batches = [XMolPropertyCollator(processor)([each]) for each in (row, raw)]
        assert batches[0].keys() == batches[1].keys()
        for key, value in batches[0].items():
            assert torch.equal(value, batches[1][key]), key


def test_long_input_is_refused(writer):
    ids = torch.full((1, 129), 25)
    with pytest.raises(ValueError, match="129 tokens are more than max_position_embeddings"):
        writer.x_mol(ids)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"hidden_size": 30}, "not a multiple"), ({"target_type_id": 4}, "not among the types 1 to 3")],
)
def test_configuration_is_checked(options, complaint):
    with pytest.raises(StrictDataclassClassValidationError, match=complaint):
        tiny_config(**options)


def test_configuration_round_trip(tmp_path):
    config = tiny_config(knowledge_embeddings=["type"], id2label={0: "logS"})
    config.save_pretrained(tmp_path)
    assert XMolConfig.from_pretrained(tmp_path).to_diff_dict() == config.to_diff_dict()
