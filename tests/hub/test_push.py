"""The real `huggingface_hub` client against a Hub on the loopback: what is pushed comes back, and nothing else is."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from hf_molrep.cli import push as push_command
from tests.hub.loopback import TOKEN, Hub

CARD = "---\nlicense: apache-2.0\nlibrary_name: transformers\ntags:\n- hf_molrep\n---\n\n# tiny\n"
REPOSITORY = {
    "README.md",
    "config.json",
    "hf_molrep_shim.py",
    "iupac_tokenizer/tokenizer.json",
    "iupac_tokenizer/tokenizer_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}

# Every process has its own empty cache. The environment is set before Python starts: it is read on import.
PUSH = """
import argparse, sys
from pathlib import Path
import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_molrep.cli import push as command
from hf_molrep.hub import push, save_checkpoint
from hf_molrep.training.trainer import MoleculeTrainer
from tests.models.mm_deacon.tiny import SMILES, tiny_config, tiny_processor
from hf_molrep import MMDeaconDataCollator, MMDeaconForPreTraining, MMDeaconForPropertyPrediction

work, card = Path(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)
model, processor = MMDeaconForPreTraining(tiny_config()).eval(), tiny_processor()
model.save_pretrained(work / "reference")

# a model, a folder, the command
push(model, processor=processor, card=card, repo_id="tester/model", private=True)
assert model.dtype == torch.float32 and getattr(model.config, "dtype", None) != torch.bfloat16
save_checkpoint(model, processor, work / "folder", card)
(work / "folder" / "optimizer.pt").write_bytes(b"a pickle")
(work / "folder" / "labels.csv").write_text("not ours to publish")
push(work / "folder", "tester/folder", revision="v1")
parser = argparse.ArgumentParser()
command.add_arguments(parser)
before = [str(work / "folder"), "tester/command"]
assert command.run(parser.parse_args([*before, "--dry-run"])) == 0
assert command.run(parser.parse_args([*before, "--private", "--message", "From the command line"])) == 0
with pytest.raises(ValueError, match="tester/folder exists and is public: nothing was uploaded"):
    push(work / "folder", "tester/folder", private=True, commit_message="never")

# what transformers brings itself
model.push_to_hub("tester/parts", commit_message="weights")
processor.push_to_hub("tester/parts", commit_message="processor")
processor.save_pretrained(work / "saved_and_pushed", push_to_hub=True, repo_id="tester/processor", private=True)
model.config.save_pretrained(work / "saved_and_pushed", push_to_hub=True, repo_id="tester/config")
model.save_pretrained(work / "saved_and_pushed", push_to_hub=True, repo_id="tester/weights")

# Trainer
config = tiny_config(num_labels=1)
rows = [{"smiles": smiles, "labels": [float(len(smiles))]} for smiles in SMILES]
arguments = dict(
    output_dir=work / "run", max_steps=1, per_device_train_batch_size=8, save_steps=1, report_to="none", use_cpu=True,
    remove_unused_columns=False, label_names=["labels"], push_to_hub=True, hub_model_id="tester/trained",
    hub_private_repo=True, disable_tqdm=True, dataloader_pin_memory=False,
)
def trainer(**options):
    model, settings = MMDeaconForPropertyPrediction(config), TrainingArguments(**arguments, **options)
    return MoleculeTrainer(model, settings, MMDeaconDataCollator(processor), rows, processing_class=processor)
with pytest.raises(ValueError, match="hub_strategy 'every_save' uploads pickles"):
    trainer()
run = trainer(hub_strategy="end")
run.train()
run.push_to_hub(license="mit", tags=["hf_molrep"])
assert (work / "run" / "training_args.bin").exists()
"""

LOAD = """
import json, sys
from pathlib import Path
import torch
import transformers
from huggingface_hub import HfApi, snapshot_download
from safetensors.torch import load_file

work, texts = Path(sys.argv[1]), ["CCO", "c1ccccc1O"]
model = transformers.AutoModelForPreTraining.from_pretrained("tester/model", trust_remote_code=True)
processor = transformers.AutoProcessor.from_pretrained("tester/model", trust_remote_code=True)
assert type(model).__module__.startswith("hf_molrep."), type(model)
reference = load_file(work / "reference" / "model.safetensors")
weights = model.state_dict()
assert weights.keys() == reference.keys()
assert all(torch.equal(weights[name], reference[name]) for name in reference), "the weights came back changed"

# the same with weights stored as bfloat16
rounded = transformers.AutoModelForPreTraining.from_pretrained("tester/folder", revision="v1").state_dict()
assert all(torch.equal(rounded[name], reference[name].bfloat16().float()) for name in reference)

# a copy of what came from the Hub points to itself
model.save_pretrained(work / "copy")
assert "--" not in json.dumps(json.loads((work / "copy" / "config.json").read_text())["auto_map"])

folder = Path(snapshot_download("tester/model"))
files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
assert files == {".gitattributes", *json.loads(sys.argv[2])}, files
parts = transformers.AutoProcessor.from_pretrained("tester/parts", trust_remote_code=True)
assert parts(texts)["input_ids"].tolist() == processor(texts)["input_ids"].tolist()
trained = transformers.AutoModelForSequenceClassification.from_pretrained("tester/trained")
assert trained.config.num_labels == 1
pipe = transformers.pipeline("molecule-embedding", model="tester/model", trust_remote_code=True, device="cpu")
vectors = [result["embedding"].tolist() for result in pipe(texts)]
with torch.no_grad():
    base = transformers.AutoModel.from_pretrained("tester/model")
    expected = base(**processor(texts, return_tensors="pt")).pooler_output
torch.testing.assert_close(torch.tensor(vectors), expected)
(work / "expected.json").write_text(json.dumps(expected.tolist()))
"""

OFFLINE = """
import json, sys
from pathlib import Path
import torch
import transformers

model = transformers.AutoModel.from_pretrained("tester/model", trust_remote_code=True)
processor = transformers.AutoProcessor.from_pretrained("tester/model", trust_remote_code=True)
with torch.no_grad():
    vectors = model(**processor(["CCO", "c1ccccc1O"], return_tensors="pt")).pooler_output
assert vectors.tolist() == json.loads((Path(sys.argv[1]) / "expected.json").read_text())
"""

STRANGER = """
from huggingface_hub import snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError
import sys

snapshot_download("tester/folder", revision="v1")
for private in ("tester/model", "tester/command", "tester/trained"):
    try:
        snapshot_download(private)
    except RepositoryNotFoundError:
        continue
    sys.exit(f"anybody can read {private}")
"""


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """(hub after the pushes and loads, working folder); the processes run once for all tests here."""
    work = tmp_path_factory.mktemp("hub")
    with Hub() as hub:
        run(PUSH, work, str(work), CARD, url=hub.url, home="pusher", token=TOKEN)
        run(LOAD, work, str(work), json.dumps(sorted(REPOSITORY)), url=hub.url, home="reader", token=TOKEN)
        run(STRANGER, work, url=hub.url, home="stranger")
    run(OFFLINE, work, str(work), url=hub.url, home="reader", offline=True)
    return hub, work


def run(script: str, work, *arguments: str, url: str, home: str, token: str | None = None, offline: bool = False):
    root = str(push_command.__file__).split("/hf_molrep/")[0]
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(work / home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": str(int(offline)),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": root,
        "PYTHONWARNINGS": "ignore",
    }
    if token:
        env["HF_TOKEN"] = token
    process = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=env,
        cwd=work,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stdout + process.stderr


def files(hub: Hub, name: str, revision: str = "main") -> set[str]:
    return set(hub.repositories[name].files(revision)) - {".gitattributes"}


def test_a_pushed_repository_holds_card_processor_and_weights(pushed):
    hub, _ = pushed
    assert files(hub, "tester/model") == REPOSITORY
    assert hub.repositories["tester/model"].files()["README.md"].decode() == CARD
    assert hub.repositories["tester/model"].messages == ["initial commit", "Upload model"]  # one commit


def test_a_folder_goes_to_a_branch_without_what_lies_beside(pushed):
    hub, work = pushed
    assert (work / "folder" / "optimizer.pt").exists()
    assert files(hub, "tester/folder", "v1") == REPOSITORY
    assert files(hub, "tester/folder", "main") == set()


def test_the_command(pushed):
    hub, _ = pushed
    assert files(hub, "tester/command") == REPOSITORY
    assert hub.repositories["tester/command"].messages == ["initial commit", "From the command line"]


def test_private(pushed):
    """That a stranger cannot read them was checked by another process; here that nothing went to the public one."""
    hub, _ = pushed
    private = {name for name, repository in hub.repositories.items() if repository.private}
    assert private == {"tester/model", "tester/command", "tester/trained", "tester/processor"}
    assert hub.repositories["tester/folder"].messages == ["initial commit", "Upload model"]


def test_what_transformers_pushes_carries_the_shim(pushed):
    hub, _ = pushed
    assert files(hub, "tester/parts") == REPOSITORY
    assert files(hub, "tester/processor") == REPOSITORY - {"config.json", "model.safetensors"}
    assert files(hub, "tester/config") == {"README.md", "config.json", "hf_molrep_shim.py"}
    assert {"config.json", "model.safetensors", "hf_molrep_shim.py"} <= files(hub, "tester/weights")


def test_trainer_pushes_no_pickle(pushed):
    hub, _ = pushed
    assert files(hub, "tester/trained") == REPOSITORY
    card = yaml.safe_load(hub.repositories["tester/trained"].files()["README.md"].decode().split("---")[1])
    assert card["license"] == "mit"
    assert "hf_molrep" in card["tags"]


def test_no_pickle_went_anywhere(pushed):
    hub, _ = pushed
    uploaded = {path for repo in hub.repositories.values() for commit in repo.commits.values() for path in commit}
    assert {path.rpartition(".")[2] for path in uploaded} <= {"md", "json", "py", "safetensors", "gitattributes"}
