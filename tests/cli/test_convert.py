"""The help of `hf-molrep convert`."""

import re
from inspect import Parameter, signature

import pytest

from hf_molrep.cli import main
from hf_molrep.cli.convert import METHODS, conversion, convertible
from hf_molrep.configuration import check_fields

CONVERTIBLE = convertible()


def shown(capsys, *arguments: str) -> str:
    """A help page as one line."""
    with pytest.raises(SystemExit) as ended:
        main(["convert", *arguments, "--help"])
    assert ended.value.code == 0
    return re.sub(r"\s+", " ", capsys.readouterr().out)


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")


def test_methods_and_their_options(capsys):
    assert CONVERTIBLE == ["grover", "molclr", "uni_mol"]
    assert "{grover,molclr,uni_mol} whose weights" in shown(capsys)
    assert "--gnn-type {gin,gcn,gcn_normalized,graphsage,gat}" in shown(capsys, "molclr")
    assert "--problem-type {regression,classification,multi_label_classification}" in shown(capsys, "uni_mol")
    assert "--option NAME=VALUE" in shown(capsys, "grover")


@pytest.mark.parametrize("method", CONVERTIBLE)
def test_every_option_is_explained(method, capsys):
    page = shown(capsys, method)
    for option in list(signature(conversion(method)).parameters.values())[2:]:
        if option.kind is not Parameter.VAR_KEYWORD:
            assert re.search(rf"--{option.name.replace('_', '-')} \S+ \w+( \S+){{5}}", page.partition(" options: ")[2])
    assert not re.search(r"see above|`|\[\w+Config\]|Args:|Raises:|\b(None|True|False)\b", page)


def test_fields_for_options(capsys):
    """Every field of GROVER's own, with what it takes; the names are those that the converter accepts."""
    page = shown(capsys, "grover")
    assert "legacy_padding (true or false; false): the original pads" in page
    assert "dynamic_depth (truncnorm or none; truncnorm): " in page
    assert "ffn_dim (whole number or null; null): " in page
    assert "layer_norm_eps (number; 1e-05)" in page
    names = re.findall(r"(\w+) \((?:number|text|true|whole|list|\w+ or)", page.partition("tells nothing:")[2])
    config_class = METHODS["grover"].config
    assert len(names) == len(set(names))
    assert set(names) == set(config_class.__annotations__) | {"label_mean", "label_std", "label_units"}
    check_fields(config_class, dict.fromkeys(names))


def test_other_values_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["convert", "molclr", str(tmp_path / "a.pth"), str(tmp_path / "out"), "--gnn-type", "gine"])
    assert ended.value.code == 2
    assert "'gcn_normalized'" in capsys.readouterr().err
