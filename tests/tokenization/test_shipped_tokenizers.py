"""All shipped tokenizers: they load with stock transformers, are lossless, and can be rebuilt."""

import random
import re
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from benchmarks.build_tokenizer import BUILDERS, RULES_ALONE, main
from hf_molrep.tokenization.fast import PRINTABLE_ASCII, SPECIAL_TOKENS, as_fast_tokenizer, sha256
from hf_molrep.tokenization.smiles_atom import build_smiles_atom

NAMES = tuple(BUILDERS)


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def tokenizer(name, repository):
    return AutoTokenizer.from_pretrained(repository / "tokenizers" / name)


def test_folder_holds_data_only(name, repository):
    files = sorted(path.name for path in (repository / "tokenizers" / name).iterdir())
    assert files == ["tokenizer.json", "tokenizer_config.json"]


def test_special_tokens_and_template(tokenizer):
    assert tokenizer.convert_ids_to_tokens(range(5)) == list(SPECIAL_TOKENS)
    assert (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert (tokenizer.unk_token_id, tokenizer.mask_token_id) == (3, 4)
    ids = tokenizer("C")["input_ids"]
    assert (ids[0], len(ids), ids[-1]) == (0, 3, 2)
    assert tokenizer.model_max_length == 512
    assert tokenizer.clean_up_tokenization_spaces is False


def test_vocabulary_is_small_and_without_gaps(tokenizer):
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert len(tokenizer) <= 1_000


def test_any_printable_ascii_comes_back(tokenizer):
    rng = random.Random(0)
    strings = ["".join(rng.choices(PRINTABLE_ASCII, k=rng.randint(1, 60))) for _ in range(2_000)]
    strings += [PRINTABLE_ASCII, "", " ", "a  b ", "%(100)", "[[]"]
    strings += ["tricyclo[8.2.1.0^{2,9}]tridecane", "[.02,9]^.013,18"]
    ids = tokenizer(strings)["input_ids"]
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == strings
    assert not any(tokenizer.unk_token_id in row for row in ids)


def test_characters_beyond_are_unknown_rather_than_lost(tokenizer):
    assert tokenizer("C\u6f22C")["input_ids"][2] == tokenizer.unk_token_id


def test_checksums_stand_in_readme(repository):
    readme = (repository / "tokenizers" / "README.md").read_text(encoding="utf-8")
    written = dict(re.findall(r"^\| `(\w+)` \|.*`([0-9a-f]{64})` \|$", readme, flags=re.MULTILINE))
    assert written == {name: sha256(repository / "tokenizers" / name / "tokenizer.json") for name in NAMES}


@pytest.mark.parametrize("by_rules", RULES_ALONE)
def test_rule_tokenizers_are_rebuilt_exactly(by_rules, repository, tmp_path, capsys):
    assert main([by_rules, "--data", str(tmp_path / "no data needed"), "--out", str(tmp_path)]) == 0
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / file).read_bytes() == (repository / "tokenizers" / by_rules / file).read_bytes()
    assert sha256(tmp_path / "tokenizer.json") in capsys.readouterr().out


def test_loads_without_the_package(repository):
    code = (
        "import sys; from transformers import AutoTokenizer\n"
        f"for name in {NAMES!r}:\n"
        f"    t = AutoTokenizer.from_pretrained({str(repository / 'tokenizers')!r} + '/' + name)\n"
        "    assert t.is_fast and t.decode(t('CCO')['input_ids'], skip_special_tokens=True) == 'CCO'\n"
        "assert 'hf_molrep' not in sys.modules and 'torch_geometric' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_saving_again_changes_nothing(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert again.init_kwargs.get("selfies_version") == tokenizer.init_kwargs.get("selfies_version")


def test_wrong_ids_of_special_tokens_are_refused():
    tokenizer = build_smiles_atom(["[Na+]"], min_count=1)
    tokenizer.add_tokens(["late"])
    as_fast_tokenizer(tokenizer)  # further tokens do no harm
    from tokenizers import Tokenizer, models

    with pytest.raises(ValueError, match="special tokens have the ids"):
        as_fast_tokenizer(Tokenizer(models.WordLevel({"C": 0, "<unk>": 1}, unk_token="<unk>")))
