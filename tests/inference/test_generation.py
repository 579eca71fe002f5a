"""Writing molecules: seeded, constrained, counted; the pipeline and the command."""

import csv
from functools import partial

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, LogitsProcessorList, pipeline

from hf_molrep.chem.smiles import MoleculeError, canonical_smiles
from hf_molrep.cli import main
from hf_molrep.inference import generation
from hf_molrep.inference.files import FileRun
from hf_molrep.inference.generation import (
    GenerationOptions,
    NewMolecules,
    select,
)
from hf_molrep.inference.logits import SeededSampling, SmilesLogitsProcessor
from tests.models.mm_deacon.tiny import save_tiny_checkpoint as save_reader
from tests.models.x_mol.tiny import save_tiny_checkpoint, tiny_processor

SHORT = {"max_new_tokens": 24}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("writer"))


@pytest.fixture(scope="module")
def pipe(checkpoint):
    return pipeline("molecule-generation", model=checkpoint, device="cpu")


@pytest.fixture(scope="module")
def model(checkpoint):
    return AutoModelForCausalLM.from_pretrained(checkpoint).eval()


def smiles_of(results) -> list[str]:
    return [result["smiles"] for result in results]


def test_new_molecules(pipe):
    results = pipe(num_return_sequences=40, seed=1, **SHORT)
    assert all(set(result) == {"smiles", "score", "valid"} and result["valid"] for result in results)
    assert all(canonical_smiles(text) == text for text in smiles_of(results))
    assert len(set(smiles_of(results))) == len(results) > 3
    counts = pipe.counts
    assert (counts.written, counts.kept, counts.source) == (40, len(results), 0)
    assert counts.invalid + counts.duplicate + counts.kept == 40
    everything = pipe(num_return_sequences=40, seed=1, keep_all=True, **SHORT)
    assert len(everything) == 40
    assert sum(not result["valid"] for result in everything) == counts.invalid > 0


def test_the_same_seed_gives_the_same_molecules(pipe):
    first = smiles_of(pipe(num_return_sequences=20, seed=3, **SHORT))
    torch.manual_seed(5)
    assert smiles_of(pipe(num_return_sequences=20, seed=3, batch_rows=7, **SHORT)) == first
    assert (
        smiles_of(pipe(num_return_sequences=12, seed=3, **SHORT))
        == first[: len(smiles_of(pipe(num_return_sequences=12, seed=3, **SHORT)))]
    )
    assert smiles_of(pipe(num_return_sequences=20, seed=4, **SHORT)) != first


def test_relatives_of_one_and_of_several(pipe):
    several = pipe(["CCO", ("CCO", "N"), "c1ccccc1"], num_return_sequences=6, seed=2, **SHORT)
    assert [type(found) for found in several] == [list] * 3
    assert smiles_of(several[0]) != smiles_of(several[1])
    alone = pipe("c1ccccc1", num_return_sequences=6, seed=2, **SHORT)
    assert smiles_of(alone) == smiles_of(several[2])
    np.testing.assert_allclose(
        [result["score"] for result in alone], [result["score"] for result in several[2]], rtol=1e-4
    )
    with pytest.raises(MoleculeError, match="ring 1 not closed"):
        pipe("C1CC")


def test_beams(pipe):
    found = pipe("CCO", num_beams=4, num_return_sequences=3, keep_all=True, **SHORT)
    scores = [result["score"] for result in found]
    assert len(found) == 3
    again = pipe("CCO", num_beams=4, num_return_sequences=3, keep_all=True, seed=9, **SHORT)
    assert smiles_of(again) == smiles_of(found)
    assert all(score < 0 for score in scores)


@torch.no_grad()
def test_the_score_is_the_chance_of_the_text(model):
    processor = tiny_processor()
    options = GenerationOptions(num_return_sequences=3, max_new_tokens=16, temperature=1.5, top_k=40)
    (prompt,) = processor.prompt_ids(["CCO"])
    (texts,) = generation.write_texts(model, processor, [prompt], [[0]], options)
    for text, score in texts:
        ids = [*prompt.tolist(), *processor.token_ids(text), 2]
        chances = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = sum(chances[place - 1, ids[place]] for place in range(len(prompt), len(ids)))
        assert score == pytest.approx(float(expected), rel=1e-4)


def test_sampling_follows_the_chances():
    """Gumbel noise and the largest score: each token as often as its softmax says."""
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(4000, 3)
    noise = SeededSampling([[7, row] for row in range(4000)])
    drawn = noise(torch.zeros(4000, 1, dtype=torch.long), logits).argmax(-1)
    share = torch.bincount(drawn, minlength=3) / 4000
    torch.testing.assert_close(share, logits[0].softmax(-1), atol=0.03, rtol=0)


def test_constrained_texts_have_no_open_ends(model):
    """With the processor what is invalid is aromatic; without it hardly anything random weights write is a SMILES."""
    from rdkit import Chem

    from hf_molrep.chem.smiles import rdkit_log_off

    processor = tiny_processor()
    (prompt,) = processor.prompt_ids([None])
    readable = {}
    for constrained in (True, False):
        options = GenerationOptions(num_return_sequences=60, max_new_tokens=20, constrained=constrained)
        (texts,) = generation.write_texts(model, processor, [prompt], [[1]], options)
        with rdkit_log_off:
            readable[constrained] = sum(Chem.MolFromSmiles(text, sanitize=False) is not None for text, _ in texts)
    assert readable[True] == 60
    assert readable[False] < 20


def test_the_processor_works_in_beam_search_and_stock_sampling(model):
    processor = tiny_processor()
    prompts = processor.prompts(["CCO", None])
    for search in ({"num_beams": 3}, {"do_sample": True, "temperature": 2.0}):
        torch.manual_seed(0)
        constraint = SmilesLogitsProcessor(processor.tokenizer, 16)
        sequences = model.generate(
            **prompts, max_new_tokens=16, logits_processor=LogitsProcessorList([constraint]), **search
        )
        written = sequences[:, prompts["input_ids"].shape[1] :]
        assert (written == processor.tokenizer.sep_token_id).any(dim=1).all(), "every text ends"
        for text in processor.written(sequences):
            assert text.count("(") == text.count(")")


def test_a_long_source_leaves_less_room(model):
    """Source and target share 128 positions here; what is written does not depend on the others."""
    processor, options = tiny_processor(), GenerationOptions(max_new_tokens=60)
    prompts = processor.prompt_ids(["C" * 110, "CCO", "C" * 124])
    texts = generation.write_texts(model, processor, prompts, [[0], [1], [2]], options)
    assert len(processor.token_ids(texts[0][0][0])) < model.longest_target(len(prompts[0])) == 128 - 112
    assert texts[1] == generation.write_texts(model, processor, prompts[1:2], [[1]], options)[0]
    with pytest.raises(ValueError, match="a source of 130 tokens leaves no room"):
        generation.write_texts(model, processor, processor.prompt_ids(["C" * 127]), [[0]], options)


def test_what_was_trained_generates_with_cache(checkpoint, tmp_path):
    """Trainer saves `use_cache: false`."""
    config = AutoConfig.from_pretrained(checkpoint)
    config.use_cache = False
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).to_dict().get("use_cache", True)


def test_what_is_left_out_is_counted():
    texts = [("OCC", -1.0), ("CCO", -2.0), ("CCN", -3.0), ("NCC", -4.0), ("C1CC", -5.0), ("", -6.0)]
    kept, counts = select(texts, "CCO", GenerationOptions())
    assert [tuple(molecule) for molecule in kept] == [("CCN", -3.0, True)]
    assert vars(counts) == {"written": 6, "invalid": 2, "duplicate": 1, "source": 2, "kept": 1}
    assert str(counts) == "6 written, 1 kept, 2 invalid, 1 duplicates, 2 the same as their source"
    everything, _ = select(texts, "CCO", GenerationOptions(keep_all=True))
    assert [molecule.valid for molecule in everything] == [True, True, True, True, False, False]


def test_an_empty_result_is_told(pipe, monkeypatch):
    from hf_molrep.inference import pipelines

    monkeypatch.setattr(generation, "write_texts", lambda *_: [[("C1CC", -1.0)]])
    told = []
    monkeypatch.setattr(pipelines.logger, "warning", told.append)
    assert pipe("CCO") == []
    assert told == ["no relatives of 'CCO' among 1 that were written (1 written, 0 kept, 1 invalid)"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_return_sequences": 0}, "num_return_sequences is an integer of at least 1"),
        ({"temperature": 0.0}, "temperature is above 0"),
        ({"top_p": 1.5}, "top_p is above 0 and at most 1"),
        ({"num_beams": 2, "num_return_sequences": 3}, "2 beams do not give 3 molecules"),
        ({"num_beams": 2, "temperature": 2.0}, "belong to sampling"),
        ({"condition": float("nan")}, "condition is a number"),
        ({"top_kk": 3}, "unknown argument 'top_kk'; there are num_return_sequences"),
    ],
)
def test_options_are_checked(options, complaint, pipe):
    with pytest.raises(ValueError, match=complaint):
        pipe(**options)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_wished_property(kind, checkpoint, tmp_path, monkeypatch):
    """Fine-tuned on chains with the condition 0 and rings with 1, a model writes what is wished."""
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rows = pd.DataFrame({"smiles": ["CCCCC", "c1ccccc1"] * 8, "condition": [0.0, 1.0] * 8})
    rows.to_parquet("rows.parquet") if kind == "parquet" else rows.to_csv("rows.csv", index=False)
    given = ["--model", checkpoint, "--train_data", f"rows.{kind}", "--output_dir", "tuned", "--use_cpu"]
    given += ["--empty_source", "1", "--max_steps", "60", "--learning_rate", "1e-2", "--report_to", "none"]
    given += ["--per_device_train_batch_size", "16", "--bf16", "False", "--save_strategy", "no"]
    assert main(["pretrain", "x_mol", *given]) == 0
    tuned = pipeline("molecule-generation", model="tuned", device="cpu")
    for wish, smiles in ((0.0, "CCCCC"), (1.0, "c1ccccc1")):
        found = tuned(num_return_sequences=30, condition=wish, keep_all=True, **SHORT)
        assert smiles_of(found).count(smiles) > 20
    assert smiles_of(tuned(num_beams=2, condition=0.0, **SHORT)) == ["CCCCC"]
    assert generate("out.csv", "--model", "tuned", "--condition", "0", "--number", "5", "--no-picture") == 0
    assert "CCCCC" in (tmp_path / "out.csv").read_text()


# ---- the command


def generate(*arguments) -> int:
    return main(["generate", *map(str, arguments), "--device", "cpu", "--quiet", "--max-tokens", "24"])


def test_new_molecules_to_a_table(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(generation, "NewMolecules", partial(NewMolecules, chunk=10))
    given = ["--model", checkpoint, "--number", "35", "--seed", "5"]
    assert generate(tmp_path / "whole.parquet", *given) == 0
    said = capsys.readouterr().out
    table = pq.read_table(tmp_path / "whole.parquet")
    assert table.column_names == ["smiles", "score", "valid"]
    assert f"35 written, {len(table)} kept" in said
    assert (tmp_path / "whole.parquet.png").stat().st_size > 1000

    texts = NewMolecules.texts

    def stop(self, number):
        if number == 2:
            raise KeyboardInterrupt
        return texts(self, number)

    output = tmp_path / "stopped.csv"
    with monkeypatch.context() as patch:
        patch.setattr(NewMolecules, "texts", stop)
        assert generate(output, *given) == 130
    assert len(list((tmp_path / "stopped.csv.parts").glob("part-*"))) == 2
    assert generate(output, *given) == 2
    assert generate(output, *given, "--resume", "--temperature", "2") == 2
    assert "temperature was 1.0 and is 2.0" in capsys.readouterr().err
    assert generate(output, *given, "--resume") == 0
    with open(output) as file:
        assert [row["smiles"] for row in csv.DictReader(file)] == table["smiles"].to_pylist()
    assert not (tmp_path / "stopped.csv.parts").exists()
    assert generate(output, *given) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert generate(output, *given, "--resume") == 0
    assert "nothing to resume" in capsys.readouterr().out


def test_relatives_of_a_file(checkpoint, pipe, tmp_path, capsys, monkeypatch):
    source, output = tmp_path / "in.csv", tmp_path / "out.parquet"
    source.write_text("id,smiles\na,CCO\nb,C1CC\nc,c1ccccc1\nd,OCC\ne,CCN\n")
    given = ["--model", checkpoint, "--number", "6", "--window", "2"]
    assert generate(source, output, *given) == 0
    assert "4 of 5 molecules" in capsys.readouterr().out
    rows = pq.read_table(output).to_pylist()
    names = ["id", "smiles", "smiles_used", "error", "generated", "generated_score", "invalid", "duplicates", "same"]
    assert list(rows[0]) == names
    assert rows[1]["generated"] is None
    assert "ring 1" in rows[1]["error"]
    expected = pipe(["CCO", "c1ccccc1"], num_return_sequences=6, seed=0, **SHORT)
    assert rows[0]["generated"] == rows[3]["generated"] == smiles_of(expected[0])
    assert rows[2]["generated"] == smiles_of(expected[1])
    assert sum(rows[0][name] for name in ("invalid", "duplicates", "same")) + len(rows[0]["generated"]) == 6

    write = FileRun._write_part

    def stop(self, number, digest, table):
        if number == 1:
            raise KeyboardInterrupt
        write(self, number, digest, table)

    again = tmp_path / "again.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(FileRun, "_write_part", stop)
        assert generate(source, again, *given) == 130
    assert generate(source, again, *given, "--resume") == 0
    assert [row["generated"] for row in pq.read_table(again).to_pylist()] == [row["generated"] for row in rows]


def test_a_model_that_only_reads_is_refused(tmp_path, capsys):
    folder = save_reader(tmp_path / "reader")
    assert generate(tmp_path / "out.csv", "--model", folder) == 2
    assert "MMDeaconConfig" in capsys.readouterr().err


def test_the_processor_is_that_of_the_checkpoint(checkpoint):
    assert type(AutoProcessor.from_pretrained(checkpoint)) is type(tiny_processor())
