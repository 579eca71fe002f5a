"""What every test may rely on: no network, no trace in the user's caches, figures without a display."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

# These are read when transformers, huggingface_hub and matplotlib are first imported, hence before anything else.
_HOME = tempfile.mkdtemp(prefix="hf_molrep_tests_")
os.environ.update(
    HF_HOME=_HOME,
    HF_HUB_DISABLE_XET="1",  # the loopback Hub of tests/hub speaks LFS, not Xet
    HF_HUB_DISABLE_TELEMETRY="1",
    MPLBACKEND="Agg",
    MPLCONFIGDIR=_HOME,
    TOKENIZERS_PARALLELISM="false",  # forked workers would warn
)
if "PYTEST_XDIST_WORKER" in os.environ:  # each process of several has a core, not all of them
    os.environ["OMP_NUM_THREADS"] = "1"
for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE"):
    os.environ.pop(name, None)

import pytest  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


def pytest_sessionfinish():
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Connections leave this machine in no test; a loopback server is fine."""
    connect = socket.socket.connect

    def connect_to_loopback_only(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0])
            if not (host.startswith("127.") or host in ("::1", "localhost")):
                raise ConnectionError(f"tests run without a network; this one wanted {host}:{address[1]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_to_loopback_only)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def example_molecules() -> Path:
    """The 500 rows of `examples/data/molecules.csv`; one of them, `broken-1`, does not parse."""
    return ROOT / "examples" / "data" / "molecules.csv"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets (`HF_MOLREP_DATA`, else `../shared/data`); skips where there is none."""
    folder = Path(os.environ.get("HF_MOLREP_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the data sets; no folder {folder} (set HF_MOLREP_DATA)")
    return folder


@pytest.fixture(scope="session")
def original_outputs() -> Path:
    """Folder of arrays that the original codes made (`HF_MOLREP_FIXTURES`, else `../shared/fixtures`); may skip."""
    folder = Path(os.environ.get("HF_MOLREP_FIXTURES", ROOT.parent / "shared" / "fixtures"))
    if not folder.is_dir():
        pytest.skip(f"needs outputs of the original codes; no folder {folder} (set HF_MOLREP_FIXTURES)")
    return folder


@pytest.fixture(scope="session")
def mini_checkpoint() -> str:
    """Folder of the shipped `mm-deacon-mini`; skips where the package was installed without it."""
    import hf_molrep

    try:
        return hf_molrep.checkpoint_path("mm-deacon-mini")
    except (FileNotFoundError, ValueError) as error:
        pytest.skip(f"needs the shipped checkpoint: {error}")
