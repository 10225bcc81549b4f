"""Credentials that end while a store at Google or Azure is used, through their real clients.

The servers are in-process ones of the HTTP protocols: Google's issues access tokens to a service
account's key, Azure's takes shared access signatures.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arlow_trainer.config.errors import CredentialsError, ExitCode
from arlow_trainer.run.lease import Lease
from arlow_trainer.storage.connection import connect
from arlow_trainer.storage.remote_files import read_file
from arlow_trainer.storage.store import Store
from support.azure_server import ACCOUNT, azure_server
from support.checkpoints import local_file, save
from support.google_server import Tokens, google_server, write_account
from support.waiting import wait_until

CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"


@pytest.fixture
def tokens() -> Tokens:
    """Access tokens that last; the account's key is "first"."""
    return Tokens(session_s=3600, keys={"first"})


@pytest.fixture
def google(
    tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[dict[str, Any], Path]]:
    """The options of a store at gs://, and the file of its credentials."""
    file = tmp_path / "account.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    with google_server(tokens) as options:
        write_account(file, options["endpoint_url"], "first")
        yield options, file


def test_googles_tokens_that_end_are_renewed_with_the_key(
    google: tuple[dict[str, Any], Path], tokens: Tokens, tmp_path: Path
) -> None:
    options, _ = google
    tokens.session_s = 0.5
    store = Store("gs://runs/run", options)
    large = local_file(tmp_path / "large", 2**20)
    for step in range(1, 5):
        save(store, step)
        store.put_file(large, f"large-{step}")
        time.sleep(0.3)
    assert len(tokens.issued) > 2
    assert len([key for key in store.list() if key.endswith("manifest.json")]) == 4


def test_a_key_of_google_that_is_replaced_in_its_file_is_read_again(
    google: tuple[dict[str, Any], Path], tokens: Tokens
) -> None:
    options, file = google
    store = Store("gs://runs/run", options)
    save(store, 1)
    fs, path = connect("gs://runs/run", **options)
    name = next(key for key in store.list() if key.endswith("config.json"))
    assert read_file(fs, f"{path}/{name}")
    with Lease.acquire(store, "run", ttl_s=0.6) as lease:
        write_account(file, options["endpoint_url"], "second")
        tokens.keys = {"second"}
        tokens.issued.clear()
        before = store.read_bytes("lease.json")
        wait_until(lambda: store.read_bytes("lease.json") != before)
        save(store, 2)
        assert all(read_file(fs, f"{path}/{name}") for _ in range(2))
        assert lease.loss is None
    assert not store.exists("lease.json")


def test_a_key_of_google_that_nobody_replaces_has_expired(
    google: tuple[dict[str, Any], Path], tokens: Tokens
) -> None:
    options, file = google
    store = Store("gs://runs/run", options)
    save(store, 1)
    tokens.keys.clear()
    tokens.issued.clear()
    with pytest.raises(CredentialsError, match="session credentials expired") as caught:
        save(store, 2)
    assert caught.value.exit_code is ExitCode.CREDENTIALS
    assert "GOOGLE_APPLICATION_CREDENTIALS" in str(caught.value)
    tokens.keys = {"third"}
    write_account(file, options["endpoint_url"], "third")
    assert [key for key in store.list() if key.endswith("manifest.json")] == [
        "checkpoint-1/manifest.json"
    ]


def test_a_signature_of_azure_that_is_replaced_in_the_environment_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signatures = {"first"}
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    with azure_server(signatures) as options:
        endpoint = options["connection_string"].rpartition("BlobEndpoint=")[2].rstrip(";")

        def set_signature(signature: str) -> None:
            granted = f"SharedAccessSignature=sv=2025-01-05&sig={signature}"
            monkeypatch.setenv(CONNECTION, f"BlobEndpoint={endpoint};{granted}")
            monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)

        set_signature("first")
        store = Store("az://runs/run")
        save(store, 1)
        signatures.clear()
        signatures.add("second")
        set_signature("second")
        with Lease.acquire(store, "run", ttl_s=0.6):
            save(store, 2)
        signatures.clear()
        signatures.add("third")
        with pytest.raises(CredentialsError, match="session credentials expired") as caught:
            save(store, 3)
        assert caught.value.exit_code is ExitCode.CREDENTIALS
        set_signature("third")
        manifests = [key for key in store.list() if key.endswith("manifest.json")]
        assert manifests == ["checkpoint-1/manifest.json", "checkpoint-2/manifest.json"]
