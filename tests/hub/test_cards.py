"""Cards are written from what runs left behind; a number that is missing is an error."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.harness.report import fingerprint
from hf_molrep.cards import CardTemplate, property_card, read_run, write_card
from hf_molrep.hub import check_card

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "hf_molrep" / "checkpoints").glob("*-mini"))
METADATA = "---\nlicense: apache-2.0\nlibrary_name: transformers\ntags: [hf_molrep]\n---\n"
TABLE = """# Retrieval

| pool | query | recall@1 |
|---|---|---:|
| random | model | **0.912** |
| hard | model | 0.79 |

```
# not a heading
```

## Stereoisomers

| pool | query | recall@1 |
|---|---|---:|
| hard | model | 0.77 |
"""
CELL = "${results.a: random; model; recall@1}"
SETTINGS = '\n## Settings\n\n```json\n{"checkpoint": "abc", "arguments": {}}\n```\n'


@pytest.fixture
def run_folder(tmp_path):
    """A run of three steps whose second was the best, as `Trainer` and a training command leave it."""
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-10").mkdir()
    run = {"command": "python train.py", "seed": 7, "exclusions": {"rows": 215000, "left out: MassBank": 12345}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    log = [
        {"step": 2, "epoch": 0.5, "eval_recall": 0.91234567},
        {"step": 3, "epoch": 0.75, "eval_recall": 0.8},
        {"step": 3, "epoch": 0.75, "train_runtime": 12345.6},
    ]
    state = {"log_history": log, "global_step": 3, "epoch": 0.75, "max_steps": 4, "num_train_epochs": 1}
    best = {"best_global_step": 2, "best_metric": 0.91234567}
    (tmp_path / "checkpoint-2" / "trainer_state.json").write_text(json.dumps({"log_history": []}))
    (tmp_path / "checkpoint-10" / "trainer_state.json").write_text(json.dumps(state | best))
    return tmp_path


def test_figures_come_from_the_run(run_folder, tmp_path):
    text = (
        METADATA
        + "${run.command} ${run.seed} ${trainer.global_step} ${trainer.eval_recall} ${trainer.best.eval_recall} "
        "${trainer.train_runtime} $5 ${run.exclusions.rows}\n${run.exclusions}\n"
        "${results.retrieval: random; model; recall@1} ${results.retrieval: Stereoisomers; hard; recall@1}\n"
    )
    card = write_card(text, read_run(run_folder), {"retrieval": TABLE + SETTINGS}, tmp_path / "README.md", "abc")
    body = (
        "python train.py 7 3 0.8 0.9123 12,346 $5 215,000\n- rows: 215,000\n- left out: MassBank: 12,345\n0.912 0.77\n"
    )
    assert body in str(card)
    assert (tmp_path / "README.md").read_text() == str(card)
    assert card.data.license == "apache-2.0"


def test_the_state_of_the_run_is_preferred_to_that_of_a_checkpoint(run_folder):
    assert read_run(run_folder)["trainer"]["global_step"] == 3
    state = {"log_history": [], "global_step": 4, "epoch": 1.0, "max_steps": 4, "num_train_epochs": 1}
    (run_folder / "trainer_state.json").write_text(json.dumps(state))
    assert read_run(run_folder)["trainer"]["global_step"] == 4
    assert "best" not in read_run(run_folder)["trainer"]


def test_a_folder_without_a_run_is_refused(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"no trainer_state\.json"):
        read_run(tmp_path)


def test_everything_that_is_missing_is_named(tmp_path):
    text = METADATA + "${run.seed} ${run.data.pairs} ${results.screening: MUV; AUC}"
    with pytest.raises(ValueError, match="cannot be written") as error:
        write_card(text, {"run": {"seed": None, "data": {"rows": 1}}}, tmp_path, tmp_path / "README.md")
    for problem in (
        "${run.seed}: a value is missing: None",
        "the run has no 'pairs'; there is rows",
        "${results.screening: MUV; AUC}: no such results",
    ):
        assert problem in str(error.value)
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "", "n/a", [], {}, [1, None]])
def test_no_number_is_no_value(value):
    with pytest.raises(ValueError, match="a value is missing"):
        write_card(METADATA + "${run.auc}", {"run": {"auc": value}}, {})


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "-", "–", "n/a", "**nan**", "`TODO`"])
def test_a_cell_without_a_number_is_refused(cell):
    with pytest.raises(ValueError, match=r"random; model; recall@1\}: a number is missing in this cell"):
        write_card(METADATA + CELL, {}, {"a": TABLE.replace("**0.912**", cell)})


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("a: easy; recall@1", "no such cell"),
        ("a: hard; recall@5", "no such cell"),
        ("a: not a heading; hard; recall@1", "no such cell"),
        ("a: hard; recall@1", "different cells: 0.77, 0.79"),
        ("a", "say which cell"),
        ("a: recall@1", "say which cell"),
    ],
)
def test_a_cell_is_one_cell(place, problem):
    with pytest.raises(ValueError, match=problem):
        write_card(METADATA + f"${{results.{place}}}", {}, {"a": TABLE})


def test_results_of_another_checkpoint_are_refused():
    tables = {"a": TABLE + SETTINGS, "b": TABLE + SETTINGS.replace("abc", "def")}
    with pytest.raises(ValueError, match="not one checkpoint"):
        write_card(METADATA + CELL + CELL.replace("a:", "b:"), {}, tables)
    with pytest.raises(ValueError, match="not one checkpoint: the card is of def"):
        write_card(METADATA + CELL, {}, tables, checkpoint="def")
    assert "0.912" in str(write_card(METADATA + CELL, {}, tables | {"c": TABLE}, checkpoint="abc"))


def test_the_metadata_must_name_a_licence():
    with pytest.raises(ValueError, match="license, library_name and tags"):
        write_card("---\nlibrary_name: transformers\ntags: [x]\n---\n", {}, {})


def test_a_template_is_no_card():
    with pytest.raises(ValueError, match=r"unfilled placeholder: \$\{run\.seed\}"):
        check_card(METADATA + "${run.seed}")
    with pytest.raises(ValueError, match="begins with its metadata"):
        check_card("# no metadata")
    assert check_card(METADATA + "export X=${HOME}").data.tags == ["hf_molrep"]


def test_the_card_of_a_classifier():
    scores = {"roc_auc": 0.75, "pr_auc": 0.5, "skipped_tasks": 1}
    metrics = {
        "task_names": ["NR-AR", "NR-AhR"],
        "problem_type": "multi_label_classification",
        "label_units": None,
        "valid": {**scores, "per_task": {}},
        "test": {
            **scores,
            "per_task": {
                "NR-AR": {"roc_auc": 0.75, "pr_auc": 0.5},
                "NR-AhR": {"roc_auc": None, "pr_auc": float("nan")},
            },
        },
        "selected_by": "roc_auc",
        "best_epoch": 3.0,
        "best_update": 30,
        "epochs": 10,
        "updates": 100,
        "data": "someone/tox.csv",
        "rows": {"read": 1000, "skipped": 2},
        "split": {"name": "scaffold", "seed": None, "include_chirality": False, "train": 800, "valid": 100, "test": 98},
        "seconds": 12.3,
        "device": "CPU, 2 threads",
        "settings": {"checkpoint": "x/mini", "from_scratch": True, "seed": 0, "learning_rate": 1e-4, "batch_size": 32},
    }
    text = str(property_card(metrics, "tox"))
    assert "the probabilities of NR-AR, NR-AhR. Fine-tuned" in text
    assert "random weights of the architecture of `mini`" in text
    assert "`tox.csv`: 1,000 rows, 2 skipped. Split `scaffold`, chirality no: train 800, valid 100, test 98." in text
    assert "someone" not in text
    assert text.rstrip().endswith(
        "| part | roc_auc | pr_auc |\n|---|---|---|\n| validation | 0.75 | 0.5 |\n| test | 0.75 | 0.5 |\n"
        "| test: NR-AR | 0.75 | 0.5 |\n| test: NR-AhR | not measurable | not measurable |"
    )
    assert check_card(text).data.license is None


def headings(text: str) -> list[str]:
    return re.findall(r"^## .+$", text, flags=re.MULTILINE)


def with_values(text: str) -> tuple[dict, dict[str, str]]:
    """A value for every placeholder of a run, and what it stands for."""
    run: dict = {}
    values = {}
    for name in CardTemplate(text).get_identifiers():
        if not name.startswith("results."):
            *parts, last = name.split(".")
            place = run
            for part in parts:
                place = place.setdefault(part, {})
            values[name] = place[last] = f"value-{len(values)}-"
    return run, values


def test_every_method_has_a_card_with_all_sections(repository):
    import hf_molrep

    template = headings((repository / "model_cards" / "TEMPLATE.md").read_text(encoding="utf-8"))
    assert len(template) == 7
    cards = sorted((repository / "model_cards").glob("*.md"))
    assert set(hf_molrep.METHODS) <= {path.stem for path in cards}
    for path in cards:
        if path.stem == "TEMPLATE":
            continue
        text = path.read_text(encoding="utf-8")
        assert headings(text) == template, path.stem
        assert len(text.splitlines()) <= 90, f"{path.name} is longer than a screen: link to tables"
        names = CardTemplate(text).get_identifiers()
        assert {name.partition(".")[0] for name in names} <= {"run", "trainer", "data", "results"}
        assert {"run.command", "run.seed", "run.hardware", "trainer.global_step"} <= set(names)
        assert any(name.startswith("results.") for name in names) or "Not measured yet" in text
        prose = re.sub(r"<https?://[^>]+>|`[^`]*`|```.*?```|\$\{[^}]*\}", "", text, flags=re.DOTALL)
        assert "<" not in prose, "unedited template"
        # the prose is complete once every placeholder of the run has a value; the results are those at hand
        card = write_card(text, with_values(text)[0], repository / "benchmarks" / "results")
        assert card.data.license == "apache-2.0"
        assert card.data.pipeline_tag == "feature-extraction"
        assert {path.stem, path.stem.partition("-")[0]} & set(card.data.tags)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_shipped_card_is_the_template_with_the_results_at_hand(folder, repository):
    """Results of other weights than the shipped ones are refused; what the run left is any text."""
    template = repository / "model_cards" / f"{folder.name}.md"
    if not template.exists():  # trained by its method's own recipe
        template = template.with_stem(json.loads((folder / "config.json").read_text())["model_type"])
    text = template.read_text(encoding="utf-8")
    run, values = with_values(text)
    card = write_card(text, run, repository / "benchmarks" / "results", checkpoint=fingerprint(folder))
    pattern = re.escape(str(card))
    for value in values.values():
        pattern = pattern.replace(re.escape(value), ".+?")
    assert re.fullmatch(pattern, (folder / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_the_example_of_a_card_runs(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path))
    text = (folder / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    exec(compile(example, f"{folder.name}/README.md", "exec"), {"__name__": "card"})


def test_files_that_cards_name_exist(repository):
    """Links of a card on the Hub are paths in this repository, in words."""
    for path in sorted((repository / "model_cards").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"`((?:benchmarks|examples|tests|hf_molrep)/[\w./-]+)`", text):
            assert (repository / name).exists(), f"{path.name} names {name}"
