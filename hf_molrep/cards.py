"""
Model cards written from a run. A template is Markdown with the Hub's metadata in front and placeholders such as
`${run.seed}`; every figure in it comes from a file that a run or a benchmark wrote, and a missing one is an error.
"""

import json
import math
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from .hub import check_card

# What stands in a cell or a field where a number is missing. Where a number cannot exist, words say why.
NOTHING = {"", "-", "–", "—", "?", "n/a", "nan", "none", "null", "inf", "-inf", "todo", "tbd"}
SETTINGS = "## Settings"  # the last section of a results file: arguments, versions and checkpoint as JSON


class CardTemplate(string.Template):
    """Placeholders are `${dotted.names}`; a bare dollar sign, as in `$5`, is text."""

    flags = 0
    pattern = r"\$(?:(?P<escaped>\$)|(?P<named>(?!))|\{(?P<braced>[^{}]*)\}|(?P<invalid>(?!)))"


def read_run(folder: str | Path, **more: str | Path) -> dict[str, Any]:
    """
    What a training run left in its folder, for the placeholders of a card.

    Args:
        more: further JSON files by the name under which their content is given, such as the counts of the data.
    Returns:
        `run`: all of `run.json`, as the training command wrote it. `trainer`: from `trainer_state.json` (of the folder,
        or of its last checkpoint) the steps and epochs, the last value of everything that was logged, and under `best`
        what was logged at the step whose weights were kept, where the run selected one.
    Raises:
        FileNotFoundError: one of the files is missing.
    """
    folder = Path(folder)
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    checkpoints = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda path: int(path.parent.name[11:]))
    states = [path for path in (folder / "trainer_state.json", *reversed(checkpoints)) if path.is_file()]
    if not states:
        raise FileNotFoundError(f"no trainer_state.json in {folder} or in a checkpoint of it")
    state = json.loads(states[0].read_text(encoding="utf-8"))
    trainer: dict[str, Any] = {}
    for record in state["log_history"]:
        trainer |= record
    trainer |= {key: state[key] for key in ("global_step", "epoch", "max_steps", "num_train_epochs")}
    if (best := state.get("best_global_step")) is not None:
        trainer["best"] = {"metric": state["best_metric"], "global_step": best}
        for record in state["log_history"]:
            if record["step"] == best:
                trainer["best"] |= record
    files = {name: json.loads(Path(path).read_text(encoding="utf-8")) for name, path in more.items()}
    return {"run": run, "trainer": trainer, **files}


def write_card(
    template: str | Path,
    run: Mapping[str, Any],
    results: Mapping[str, str | Path] | str | Path,
    path: str | Path | None = None,
    checkpoint: str | None = None,
) -> ModelCard:
    """
    Fill a template.

    Args:
        template: text of a template, or its path (a `Path`).
        run: values by name, nested as deep as wanted; `${trainer.best.step}` is `run["trainer"]["best"]["step"]`. A
            mapping is printed as a list. See [`read_run`].
        results: Markdown with tables by name, as text or `Path`, or the folder of `<name>.md` files.
            `${results.retrieval: hard pools; formula only; mrr}` is one cell of `retrieval.md`: that of the column
            `mrr` in the row with the cells `hard pools` and `formula only`. The heading above a table may be named
            like a cell, where several tables have such a row.
        path: where to write the card.
        checkpoint: the fingerprint that the settings of all results must name, where they name one.
    Raises:
        ValueError: placeholders without a value (all of them are named), a number that is not finite, no cell or
            several different ones, an empty cell, results of different checkpoints, or metadata that is not valid.
    """
    if isinstance(results, (str, Path)):
        results = {file.stem: file for file in sorted(Path(results).glob("*.md"))}
    text = template.read_text(encoding="utf-8") if isinstance(template, Path) else template
    values, problems, measured = {}, [], {}
    for name in CardTemplate(text).get_identifiers():
        try:
            if name.startswith("results."):
                values[name], measured[name] = _cell(results, name.removeprefix("results."))
            else:
                values[name] = _value(run, name)
        except ValueError as error:
            problems.append(f"${{{name}}}: {error}")
    if len({checkpoint, *measured.values()} - {None}) > 1:
        problems.append(f"not one checkpoint: the card is of {checkpoint or 'any'}, the results are of {measured}")
    if problems:
        raise ValueError("the card cannot be written:\n" + "\n".join(problems))
    card = check_card(CardTemplate(text).substitute(values))
    if not card.data.license or not card.data.library_name or not card.data.tags:
        raise ValueError("the metadata of a card names license, library_name and tags")
    if path is not None:
        card.save(path)
    return card


def _value(run: Mapping[str, Any], name: str) -> str:
    """The value at a dotted name as it is printed."""
    value: Any = run
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ValueError(f"the run has no {part!r}; there is {_keys(value)}")
        value = value[part]
    return _printed(value)


def _printed(value: Any) -> str:
    """Thousands grouped, four significant digits, a list in one line, a mapping as one line per entry."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    if isinstance(value, str) and value.strip().lower() not in NOTHING:
        return value.strip()
    if isinstance(value, Mapping) and value:
        return "\n".join(f"- {key}: {_printed(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)) and value:
        return ", ".join(map(_printed, value))
    raise ValueError(f"a value is missing: {value!r}")


def _keys(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, Mapping) and value else "nothing"


def _cell(results: Mapping[str, str | Path], name: str) -> tuple[str, str | None]:
    """
    The cell of a results file that `name` describes, and the fingerprint of the checkpoint that was measured.

    Args:
        name: `file: label; label; column`; labels are cells of the row, or the heading above the table.
    """
    file, _, place = name.partition(":")
    *labels, column = (part.strip() for part in place.split(";"))
    if not labels:
        raise ValueError(f"say which cell: ${{results.{file}: <cells of its row>; <its column>}}")
    if file not in results:
        raise ValueError(f"no such results; there is {_keys(results)}")
    text = results[file]
    text = text.read_text(encoding="utf-8") if isinstance(text, Path) else text
    text, _, settings = text.partition(f"\n{SETTINGS}")
    found, heading, header, in_code = set(), "", None, False
    for line in text.splitlines():
        in_code ^= line.startswith("```")
        cells = [cell.strip(" *`") for cell in line.strip().strip("|").split("|")]
        if in_code or not line.lstrip().startswith("|"):
            header = None
            if line.startswith("#") and not in_code:
                heading = line.strip("# ")
        elif header is None:
            header = cells
        elif not _is_rule(line.strip()) and column in header and set(labels) <= {heading, *cells}:
            found.add(cells[header.index(column)])
    if len(found) != 1:
        raise ValueError(f"different cells: {', '.join(sorted(found))}" if found else "no such cell")
    (cell,) = found
    if cell.lower() in NOTHING:
        raise ValueError("a number is missing in this cell")
    block = settings.partition("```json")[2].partition("```")[0]
    return cell, json.loads(block).get("checkpoint") if block else None


def _is_rule(row: str) -> bool:
    """Whether a row of a table is the line of dashes under its header."""
    return "-" in row and not set(row) - set("|-: ")


def property_card(metrics: Mapping[str, Any], name: str, license: str | None = None) -> ModelCard:
    """
    The card of a fine-tuned model.

    Args:
        metrics: what `hf-molrep finetune` wrote to `report/metrics.json`.
        name: the heading. license: for the metadata; which one is up to whoever owns the data.
    """
    names, settings, split = metrics["task_names"], metrics["settings"], metrics["split"]
    units = metrics["label_units"] or [None] * len(names)
    regression = metrics["problem_type"] == "regression"
    data = ModelCardData(
        license=license,
        library_name="transformers",
        tags=["hf_molrep", "chemistry", "molecules", "molecule-property-prediction", metrics["problem_type"]],
    )
    chirality = "" if split["include_chirality"] is None else f", chirality {_printed(split['include_chirality'])}"
    seed = "" if split["seed"] is None else f", seed {split['seed']}"
    start = "random weights of the architecture of" if settings["from_scratch"] else "the weights of"
    text = f"""---
{data.to_yaml()}
---

# {name}

Predicts from SMILES {"values of" if regression else "the probabilities of"} \
{", ".join(f"{task} ({unit})" if unit else task for task, unit in zip(names, units, strict=True))}. \
Fine-tuned by `hf-molrep finetune` from {start} `{Path(settings["checkpoint"]).name}`.

```python
import hf_molrep
from transformers import pipeline

pipeline("molecule-property-prediction", model="<this repository>")(["CCO", "c1ccccc1O"])
```

## Data

`{Path(metrics["data"]).name}`: {metrics["rows"]["read"]:,} rows, {metrics["rows"]["skipped"]:,} skipped. Split \
`{split["name"]}`{seed}{chirality}: {", ".join(f"{part} {split[part]:,}" for part in ("train", "valid", "test"))}.

## Training

{metrics["updates"]:,} updates, {metrics["epochs"]:,} epochs, weights of epoch {_printed(metrics["best_epoch"])} \
(selected by {metrics["selected_by"]}), seed {settings["seed"]}, learning rate {settings["learning_rate"]}, batch size \
{settings["batch_size"]}, {_printed(metrics["seconds"])} s on {metrics["device"]}.

## What was measured

{_measured(metrics)}
"""
    return check_card(text)


def _measured(metrics: Mapping[str, Any]) -> str:
    """One row per part and, where there are several, per task of the test part."""
    parts = {"validation": metrics["valid"], "test": metrics["test"]}
    if "baseline" in metrics:
        parts["test, predicting the training mean"] = metrics["baseline"]["test"]
    rows = {part: values for part, values in parts.items() if values}
    if not rows:
        return "Nothing: there was neither a validation nor a test part."
    if len(metrics["task_names"]) > 1 and metrics["test"]:
        rows |= {f"test: {task}": values for task, values in metrics["test"]["per_task"].items()}
    columns = [key for key in next(iter(rows.values())) if key not in ("per_task", "skipped_tasks")]

    def cell(value: Any) -> str:
        missing = value is None or (isinstance(value, float) and not math.isfinite(value))
        return "not measurable" if missing else _printed(value)

    lines = [f"| part | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {part} | {' | '.join(cell(values.get(key)) for key in columns)} |" for part, values in rows.items()]
    return "\n".join(lines)
