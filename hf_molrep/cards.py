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

# Contents of a cell or field whose number is missing. Where a number cannot exist, write why.
MISSING = {"", "-", "–", "—", "?", "n/a", "nan", "none", "null", "inf", "-inf", "todo", "tbd"}
SETTINGS = "## Settings"  # the last section of a results file: arguments, versions and checkpoint as JSON


class CardTemplate(string.Template):
    """Placeholders are `${dotted.names}`; a bare dollar sign, as in `$5`, is text."""

    flags = 0
    pattern = r"\$(?:(?P<escaped>\$)|(?P<named>(?!))|\{(?P<braced>[^{}]*)\}|(?P<invalid>(?!)))"


def read_run(folder: str | Path, **more: str | Path) -> dict[str, Any]:
    """
    Read the records of a training run from its folder, for the placeholders of a card.

    Args:
        more: further JSON files, by the names of their contents in the result, such as the counts of the data.
    Returns:
        `run`: all of `run.json`, written by the training command. `trainer`: from `trainer_state.json` (of the folder
        or its last checkpoint) the steps and epochs, the last value of everything logged, and under `best`, where the
        run selected a step, what was logged at that step.
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
    Fill in a template.

    Args:
        template: text of a template, or its path (a `Path`).
        run: values by name, nested to any depth; `${trainer.best.step}` is `run["trainer"]["best"]["step"]`. A
            mapping is printed as a list. See [`read_run`].
        results: Markdown with tables by name, as text or `Path`, or the folder of `<name>.md` files;
            `${results.retrieval}` is `retrieval.md` without its section of settings, its headings two levels lower.
        path: file to write the card to.
        checkpoint: fingerprint that the settings of all results must have, where they have one.
    Raises:
        ValueError: placeholders without a value (all are listed), a number that is not finite, a table with an
            empty cell, results of different checkpoints, or metadata that is not valid.
    """
    if isinstance(results, (str, Path)):
        results = {file.stem: file for file in sorted(Path(results).glob("*.md"))}
    text = template.read_text(encoding="utf-8") if isinstance(template, Path) else template
    values, problems, measured = {}, [], {}
    for name in CardTemplate(text).get_identifiers():
        try:
            if name.startswith("results."):
                values[name], measured[name] = _read_results(results, name.removeprefix("results."))
            else:
                values[name] = _value(run, name)
        except ValueError as error:
            problems.append(f"${{{name}}}: {error}")
    if len({checkpoint, *measured.values()} - {None}) > 1:
        problems.append(f"different checkpoints: the card is of {checkpoint or 'any'}, the results are of {measured}")
    if problems:
        raise ValueError("the card cannot be written:\n" + "\n".join(problems))
    card = check_card(CardTemplate(text).substitute(values))
    if not card.data.license or not card.data.library_name or not card.data.tags:
        raise ValueError("the metadata of a card must have license, library_name and tags")
    if path is not None:
        card.save(path)
    return card


def _value(run: Mapping[str, Any], name: str) -> str:
    """Format the value at a dotted name."""
    value: Any = run
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ValueError(f"the run has no {part!r}; it has {_list_keys(value)}")
        value = value[part]
    return _format(value)


def _format(value: Any) -> str:
    """Format a value: thousands grouped, four significant digits, lists in one line, mappings one entry per line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    if isinstance(value, str) and value.strip().lower() not in MISSING:
        return value.strip()
    if isinstance(value, Mapping) and value:
        return "\n".join(f"- {key}: {_format(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)) and value:
        return ", ".join(map(_format, value))
    raise ValueError(f"a value is missing: {value!r}")


def _list_keys(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, Mapping) and value else "nothing"


def _read_results(results: Mapping[str, str | Path], name: str) -> tuple[str, str | None]:
    """Read a results file, check every cell of its tables, and return it with the fingerprint of its checkpoint."""
    if name not in results:
        raise ValueError(f"no such results; there are {_list_keys(results)}")
    text = results[name]
    text = text.read_text(encoding="utf-8") if isinstance(text, Path) else text
    text, _, settings = text.partition(f"\n{SETTINGS}")
    rows = [line.strip() for line in text.splitlines() if line.lstrip().startswith("|")]
    bodies = [
        row
        for row, following in zip(rows, [*rows, ""][1:], strict=True)
        if not _is_separator(row) and not _is_separator(following)  # not the line of dashes, nor the header above it
    ]
    if not bodies:
        raise ValueError("it has no table")
    for row in bodies:
        if any(cell.strip(" *`").lower() in MISSING for cell in row.strip("|").split("|")):
            raise ValueError(f"a number is missing in the row {row}")
    lines, in_code = [], False
    for line in text.strip().splitlines():
        in_code ^= line.startswith("```")
        lines.append(f"##{line}" if line.startswith("#") and not in_code else line)
    block = settings.partition("```json")[2].partition("```")[0]
    return "\n".join(lines), json.loads(block).get("checkpoint") if block else None


def _is_separator(row: str) -> bool:
    """Check whether a row of a table is the line of dashes under its header."""
    return "-" in row and not set(row) - set("|-: ")


def property_card(metrics: Mapping[str, Any], name: str, license: str | None = None) -> ModelCard:
    """
    Write the card of a fine-tuned model.

    Args:
        metrics: what `hf-molrep finetune` wrote to `report/metrics.json`.
        name: the heading.
        license: for the metadata; the owner of the data decides.
    """
    names, settings, split = metrics["task_names"], metrics["settings"], metrics["split"]
    units = metrics["label_units"] or [None] * len(names)
    regression = metrics["problem_type"] == "regression"
    data = ModelCardData(
        license=license,
        library_name="transformers",
        tags=["hf_molrep", "chemistry", "molecules", "molecule-property-prediction", metrics["problem_type"]],
    )
    chirality = "" if split["include_chirality"] is None else f", chirality {_format(split['include_chirality'])}"
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

{metrics["updates"]:,} updates, {metrics["epochs"]:,} epochs, weights of epoch {_format(metrics["best_epoch"])} \
(selected by {metrics["selected_by"]}), seed {settings["seed"]}, learning rate {settings["learning_rate"]}, batch size \
{settings["batch_size"]}, {_format(metrics["seconds"])} s on {metrics["device"]}.

## What was measured

{_results_table(metrics)}
"""
    return check_card(text)


def _results_table(metrics: Mapping[str, Any]) -> str:
    """Make a table with a row per part and, with several tasks, per task of the test part."""
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
        return "not measurable" if missing else _format(value)

    lines = [f"| part | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {part} | {' | '.join(cell(values.get(key)) for key in columns)} |" for part, values in rows.items()]
    return "\n".join(lines)
