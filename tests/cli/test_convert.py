"""`hf-molrep convert`: its help, and files that are not what a method released."""

import argparse
import re
import zipfile
from inspect import Parameter, signature

import pytest
import torch

from hf_molrep.cli import main
from hf_molrep.cli.convert import METHODS, conversion, convertible
from hf_molrep.configuration import check_fields
from tests.models.graphmvp.tiny import original_parts
from tests.models.grover.test_grover import original
from tests.models.infomax_3d import tiny as infomax_3d
from tests.models.molclr.tiny import original_shapes, original_weights
from tests.models.uni_mol.test_uni_mol import SMALL, original_state

CONVERTIBLE = convertible()
# X-MOL's weights are a folder of Paddle's files, and DMP needs a dictionary: tests/models/<m>/test_conversion_<m>.py
FILES = [method for method in CONVERTIBLE if method not in ("dmp", "x_mol")]


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
    assert CONVERTIBLE == ["dmp", "graphmvp", "grover", "infomax_3d", "molclr", "uni_mol", "x_mol"]
    assert "{dmp,graphmvp,grover,infomax_3d,molclr,uni_mol,x_mol} method of the weights" in shown(capsys)
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
    assert "padded_neighbors (whole number or null; null): fixed length" in page
    assert "legacy_padding (true or false; false): true pads" in page
    assert "dynamic_depth (truncnorm or none; truncnorm): " in page
    assert "ffn_dim (whole number or null; null): " in page
    assert "layer_norm_eps (number; 1e-05)" in page
    names = re.findall(r"(\w+) \((?:number|text|true|whole|list|\w+ or)", page.partition("does not determine:")[2])
    config_class = METHODS["grover"].config
    assert len(names) == len(set(names))
    assert set(names) == set(config_class.__annotations__) | {"label_mean", "label_std", "label_units"}
    check_fields(config_class, dict.fromkeys(names))


def test_other_values_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["convert", "molclr", str(tmp_path / "a.pth"), str(tmp_path / "out"), "--gnn-type", "gine"])
    assert ended.value.code == 2
    assert "'gcn_normalized'" in capsys.readouterr().err


SAID = {"uni_mol": ["--hydrogens", "all"], "grover": ["--option", "depth=5"]}


def original_file(method: str):
    """What a small file of the original holds, and its state dict."""
    if method == "graphmvp":
        state = original_parts(width=16, layers=2)["model"]
        return state, state
    if method == "molclr":
        state = original_weights(original_shapes("gin", width=12, layers=2, features=8))
        return state, state
    if method == "infomax_3d":
        state = infomax_3d.original_weights(infomax_3d.original_shapes(8, 2, 1, readouts=4))
        return {"epoch": 3, "model_state_dict": state}, state
    if method == "uni_mol":
        state = original_state("a/", **SMALL)
        return {"args": argparse.Namespace(lr=1e-4), "model": state}, state
    saved = original("pretraining")
    return saved, saved["state_dict"]


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs the command, which must fail with one sentence and leave nothing behind; that sentence."""

    def run(method: str, *options: str, source: str = "weights.pt") -> str:
        command = ["convert", method, str(tmp_path / source), str(tmp_path / "out"), *(options or SAID.get(method, []))]
        capsys.readouterr()
        assert main(command) == 2
        said = capsys.readouterr()
        assert not said.out
        assert len(said.err.splitlines()) == 1
        assert not re.search(r"Traceback|Error\b|weights_only|torch\.load", said.err)
        assert not (tmp_path / "out").is_dir()
        return said.err

    return run


@pytest.mark.parametrize("method", FILES)
def test_what_is_no_file_of_weights_is_refused(method, refused, tmp_path):
    """The same words for every method; the whole file converts."""
    file, out = tmp_path / "weights.pt", tmp_path / "out"
    assert "there is no file" in refused(method)
    file.mkdir()
    assert "is a folder" in refused(method)
    file.rmdir()
    file.write_bytes(b"")
    assert "weights.pt is empty" in refused(method)
    for foreign in (b"smiles,label\nCCO,1\n", b"\x80\x02}q\x00", bytes(range(256)), b"{"):
        file.write_bytes(foreign)
        assert "is not a complete file of weights as torch.save writes them" in refused(method)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    assert "is not a complete file of weights" in refused(method)

    saved, state = original_file(method)
    for new_format in (True, False):
        torch.save(saved, file, _use_new_zipfile_serialization=new_format)
        whole = file.read_bytes()
        for kept in (len(whole) // 2, len(whole) - 100):
            file.write_bytes(whole[:kept])
            assert ("is cut off or damaged" if new_format else "is not a complete file") in refused(method)
    torch.save({"model": state, "state_dict": state, "code": print}, file)
    assert re.search(r"other things than weights \(\S*print\)", refused(method))
    for other in ([1, 2], {"model": [1]}, {}, {"state_dict": {}}, torch.zeros(2)):
        torch.save(other, file)
        assert re.search(r"state dict|'state_dict'|'args'", refused(method))

    torch.save(saved, file)
    out.write_text("a file")
    assert "out is a file" in refused(method)
    out.unlink()
    assert main(["convert", method, str(file), str(out), *SAID.get(method, [])]) == 0


@pytest.mark.parametrize("method", FILES)
def test_weights_that_no_model_can_have_are_refused(method, refused, tmp_path):
    saved, state = original_file(method)
    matrix = next(name for name, value in state.items() if value.dim() == 2)

    def complaint(name, value) -> str:
        """What is said when `name` is `value`, or missing (None)."""
        kept = dict(state)
        state[name] = value
        if value is None:
            del state[name]
        torch.save(saved, tmp_path / "weights.pt")
        state.clear()
        state.update(kept)
        return refused(method)

    for value in (float("nan"), float("inf")):
        broken = state[matrix].clone()
        broken[0, 0] = value
        assert f"holds values that are not finite in '{matrix}'" in complaint(matrix, broken)
    assert "not finite" in complaint(matrix, torch.full_like(state[matrix], 1e300, dtype=torch.float64))
    assert "sparse, quantized or without values" in complaint(matrix, state[matrix].to_sparse())
    assert "is not a tensor" in complaint("more", 3)
    assert "'more.weight' is not a name of" in complaint("more.weight", torch.zeros(1))
    for name in [name for name, value in state.items() if value.dim() == 2][:4]:
        lacking = "do not fit|has no|no x_embedding1|message-passing|layers of the state dict are none"
        assert re.search(lacking, complaint(name, None))
        assert re.search("do not fit|has the shape|of several sizes", complaint(name, torch.zeros(2, 3, 1, 1)))


def test_what_must_be_said_is_asked_for(refused, tmp_path):
    torch.save({"model": original_state("a/", **SMALL, head="linear")}, tmp_path / "weights.pt")
    assert "say hydrogens" in refused("uni_mol", "--task-names", "x")
    assert "say its problem_type" in refused("uni_mol")
    linear = original_weights(original_shapes("gin", width=12, layers=2, features=8))
    linear = {name.replace(".mlp.0.", ".linear."): value for name, value in linear.items() if ".mlp.2." not in name}
    torch.save(linear, tmp_path / "weights.pt")
    assert "say which (--gnn-type)" in refused("molclr")
    saved = original("pretraining")
    torch.save({**saved, "args": argparse.Namespace(hidden_size=16, depth="deep")}, tmp_path / "weights.pt")
    assert "its 'args' lack depth, num_attn_head, num_mt_block" in refused("grover")
    torch.save(saved, tmp_path / "weights.pt")
    for option, complaint in (
        ("depth=1", "depth is at least 2"),
        ("depth=deep", "expected int, got str"),
        ("id2label=3", "does not take these values"),
        ("num_attention_heads=0", "does not take these values"),
        ("embedding_dim=-16", "no model has these sizes|message-passing|do not fit"),
        ("padded_neighbors=0", "at least 1"),
    ):
        assert re.search(complaint, refused("grover", "--option", option))
