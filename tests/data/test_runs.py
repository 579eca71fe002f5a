"""Settings of a run that was stopped against those of the one that would continue it."""

import json

import pytest

from hf_molrep.data.runs import check_continues


def test_the_same_settings_continue_a_run(tmp_path):
    path, settings = tmp_path / "run" / "settings.json", {"rate": 0.1, "parts": (1, 2), "nested": {1: None}}
    check_continues(path, settings, resume=True)  # nothing is there: it begins
    before = path.read_text()
    assert json.loads(before) == {"rate": 0.1, "parts": [1, 2], "nested": {"1": None}}
    check_continues(path, settings, resume=True)  # tuples and numbers as keys are not taken for a difference
    assert path.read_text() == before
    assert [file.name for file in path.parent.iterdir()] == ["settings.json"]


def test_each_setting_that_differs_is_named(tmp_path):
    path = tmp_path / "settings.json"
    check_continues(path, {"rate": 0.1, "seed": 0, "old": None, "same": "x"}, resume=False)
    with pytest.raises(ValueError, match="cannot continue the run") as refused:
        check_continues(path, {"rate": 0.2, "seed": 0, "new": True, "same": "x"}, resume=True)
    message = str(refused.value)
    assert str(tmp_path) in message
    assert "rate was 0.1 and is 0.2" in message
    assert "old was None and is not known" in message
    assert "new was not known and is True" in message
    assert "seed" not in message
    assert "same" not in message
    assert json.loads(path.read_text())["rate"] == 0.1  # what is recorded stays


def test_a_new_run_replaces_the_record(tmp_path):
    path = tmp_path / "settings.json"
    check_continues(path, {"rate": 0.1}, resume=False)
    check_continues(path, {"rate": 0.2}, resume=False)
    assert json.loads(path.read_text()) == {"rate": 0.2}
