"""What the README shows is run: every Python block as it stands, and the `hf-molrep` commands in their order."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [
    line
    for language, text in BLOCKS
    if language == "bash"
    for line in text.replace("\\\n", " ").splitlines()
    if line.startswith("hf-molrep ")
]


@pytest.fixture
def workplace(tmp_path, monkeypatch, mini_checkpoint):
    """A folder that has `examples/data` as the repository has it; what is written stays here."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "data").symlink_to(ROOT / "examples" / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_something_is_shown():
    assert len(PYTHON) >= 3
    assert {shlex.split(line)[1] for line in COMMANDS} >= {"embed", "search", "finetune", "predict"}


@pytest.mark.parametrize("source", PYTHON, ids=lambda source: source.split("\n")[0][:40])
def test_python_block(source, workplace):
    exec(compile(source, "README.md", "exec"), {"__name__": "readme"})


def test_commands(workplace):
    from hf_molrep.cli import main

    for line in COMMANDS:
        arguments = shlex.split(line, comments=True)[1:]
        if arguments[0] == "finetune":
            arguments += ["--epochs", "1"]  # the README's run takes minutes
        assert main(arguments) == 0, line
    for file in ("embeddings.parquet", "predictions.csv", "runs/solubility/report/metrics.json"):
        assert (workplace / file).stat().st_size > 0
