"""Cache results as they are computed, and choose settings on the validation part."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path


class Cache:
    """Results in a file of JSON lines; a line that was cut off by an interruption is ignored."""

    def __init__(self, file: Path):
        self.file, self.records = file, {}
        if file.is_file():
            text = file.read_text()
            if text and not text.endswith("\n"):
                with file.open("a") as lines:
                    lines.write("\n")  # do not append to the broken line
            for line in text.splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    continue
                self.records[json.dumps(record["key"])] = record["value"]

    def known(self, key: dict) -> dict | None:
        """Return the value of `key`, or None."""
        return self.records.get(json.dumps(key))

    def get(self, key: dict, compute: Callable[[], dict]) -> dict:
        """Return the value of `key`; compute and save it if it is not known."""
        name = json.dumps(key)
        if name not in self.records:
            self.records[name] = compute()
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a") as lines:
                lines.write(json.dumps({"key": key, "value": self.records[name]}) + "\n")
        return self.records[name]


def better(value: float, than: float, greater_is_better: bool) -> bool:
    """Return whether a validation score is better than the best so far; NaN never is."""
    if math.isnan(value) or math.isnan(than):
        return not math.isnan(value)
    return value > than if greater_is_better else value < than


def choose_then_seed(
    settings: Sequence[dict], seeds: Sequence[int], run: Callable[[dict, int], dict], greater_is_better: bool
) -> list[dict]:
    """
    Try each setting with the first seed, then run the best one with all seeds.

    Args:
        settings: settings to choose from, most usual first; of equals the first is taken.
        run: computes the result of a setting and a seed; its `valid` is the score on the validation part.
    Returns:
        One record per seed: `seed`, `setting` (the same in all) and the result of `run`.
    """
    chosen, best = settings[0], math.nan
    if len(settings) > 1:
        for setting in settings:
            value = run(setting, seeds[0])["valid"]
            if better(value, best, greater_is_better):
                chosen, best = setting, value
    return [{"seed": seed, "setting": chosen, **run(chosen, seed)} for seed in seeds]
