"""Settings of a run, recorded beside its output so that a stopped run is continued with the same ones."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def check_continues(path: str | Path, settings: Mapping[str, Any], resume: bool) -> None:
    """
    Check that these settings continue the run that is recorded at `path`, and record them where a run begins.

    Without `resume`, or where nothing is recorded, a new run begins: its settings are written atomically.

    Args:
        path: JSON file with the settings of the run; its folder is created.
        settings: everything that determines the results of the run, JSON values.
        resume: whether the recorded run is to be continued.
    Raises:
        ValueError: the recorded run had other settings; names each that differs, with both values.
    """
    path = Path(path)
    text = json.dumps(settings, indent=2)
    if resume and path.is_file():
        before, now = json.loads(path.read_text(encoding="utf-8")), json.loads(text)
        changed = [
            name for name in {**before, **now} if (name in before, before.get(name)) != (name in now, now.get(name))
        ]
        if changed:
            listed = ", ".join(
                f"{name} was {repr(before[name]) if name in before else 'not known'} and is "
                f"{repr(now[name]) if name in now else 'not known'}"
                for name in changed
            )
            raise ValueError(f"cannot continue the run in {path.parent}: {listed}")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.tmp")
    with open(unfinished, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
