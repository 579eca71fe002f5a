"""Results that are kept as soon as they are there, and the choice of a setting on the validation part."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path


class Cache:
    """Results as JSON lines; a line that an interruption cut off is dropped."""

    def __init__(self, file: Path):
        self.file, self.records = file, {}
        if file.is_file():
            text = file.read_text()
            if text and not text.endswith("\n"):
                with file.open("a") as lines:
                    lines.write("\n")  # what comes next must not continue the broken line
            for line in text.splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    continue
                self.records[json.dumps(record["key"])] = record["value"]

    def known(self, key: dict) -> dict | None:
        """The value of `key`; None where there is none."""
        return self.records.get(json.dumps(key))

    def get(self, key: dict, compute: Callable[[], dict]) -> dict:
        """The value of `key`; `compute()`d and written if it is not known."""
        name = json.dumps(key)
        if name not in self.records:
            self.records[name] = compute()
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a") as lines:
                lines.write(json.dumps({"key": key, "value": self.records[name]}) + "\n")
        return self.records[name]


def better(value: float, than: float, greater_is_better: bool) -> bool:
    """Whether a validation score is better than the best so far; one that is not defined (NaN) never is."""
    if math.isnan(value) or math.isnan(than):
        return not math.isnan(value)
    return value > than if greater_is_better else value < than


def choose_then_seed(
    settings: Sequence[dict], seeds: Sequence[int], run: Callable[[dict, int], dict], greater_is_better: bool
) -> list[dict]:
    """
    Try each setting with the first seed, then run the best one with all seeds.

    Args:
        settings: to choose from, most usual first; of equals the first is taken.
        run: result of a setting and a seed; its `valid` is the score on the validation part.

    Returns:
        one record per seed: `seed`, `setting` (the same in all) and what `run` gave.
    """
    chosen, best = settings[0], math.nan
    if len(settings) > 1:
        for setting in settings:
            value = run(setting, seeds[0])["valid"]
            if better(value, best, greater_is_better):
                chosen, best = setting, value
    return [{"seed": seed, "setting": chosen, **run(chosen, seed)} for seed in seeds]
