"""Whose a run's folder is, in every kind of store."""

from __future__ import annotations

import json

import pytest

from arlow_trainer.config import ArlowPretrain, load_run
from arlow_trainer.config.errors import ConfigError, StoreError
from arlow_trainer.run.lease import LEASE_FILE
from arlow_trainer.run.options import TrainOptions
from arlow_trainer.run.owner import Owner, claim, owner_of, run_id
from arlow_trainer.run.signals import StopSignal
from arlow_trainer.run.startup import acquire_run
from arlow_trainer.storage.store import Store

A, B = Owner(name="run", namespace="a"), Owner(name="run", namespace="b")
LOCAL = Owner(name="run")

STOP = StopSignal(TrainOptions())


def owner_in(store: Store) -> dict[str, str | None]:
    found: dict[str, str | None] = json.loads(store.read_bytes("run.json"))
    found.pop("id", None)
    return found


def test_the_first_start_writes_it_and_the_same_run_keeps_it(store: Store) -> None:
    claim(store, A, adopt=False)
    assert owner_in(store) == {"name": "run", "namespace": "a"}
    # A later version may add to it.
    store.write_bytes("run.json", b'{"name": "run", "namespace": "a", "new": 1}')
    claim(store, A, adopt=False)
    assert "new" in owner_in(store)


def test_a_run_keeps_its_id_and_no_other_has_it(store: Store) -> None:
    claim(store, A, adopt=False)
    first = run_id(store)
    assert first.isalnum()
    claim(store, A, adopt=False)
    claim(store, B, adopt=True)
    assert run_id(store) == first, "it is the same training"
    store.delete("run.json")
    claim(store, A, adopt=False)
    assert run_id(store) != first, "of the same name and URL, and begun anew"


def test_a_run_of_an_earlier_version_has_an_id_too(store: Store) -> None:
    ids = []
    for content in (b'{"name": "run"}', b'{"name": "run", "namespace": "a"}'):
        store.write_bytes("run.json", content)
        ids += [run_id(store), run_id(store)]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert all(text.isalnum() for text in ids)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (A, B, ["'run' of the namespace 'a'", "'run' of the namespace 'b'"]),
        (A, LOCAL, ["'run' of the namespace 'a'", "'run' without a namespace"]),
        (LOCAL, A, ["'run' without a namespace", "'run' of the namespace 'a'"]),
        (Owner(name="copied"), LOCAL, ["'copied' without", "'run' without"]),
    ],
)
def test_another_run_is_refused_and_may_adopt(
    store: Store, first: Owner, second: Owner, words: list[str]
) -> None:
    claim(store, first, adopt=False)
    before = store.read_bytes("run.json")
    with pytest.raises(ConfigError) as refused:
        claim(store, second, adopt=False)
    for text in [*words, store.url, "--adopt", "metadata.name"]:
        assert text in str(refused.value)
    assert store.read_bytes("run.json") == before
    claim(store, second, adopt=True)
    claim(store, second, adopt=False)
    with pytest.raises(ConfigError):
        claim(store, first, adopt=False)


@pytest.mark.parametrize("damaged", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"name": 1}'])
def test_a_damaged_file_is_reported(store: Store, damaged: bytes) -> None:
    store.write_bytes("run.json", damaged)
    with pytest.raises(StoreError, match=r"run\.json is damaged.*--adopt"):
        claim(store, A, adopt=False)
    assert store.read_bytes("run.json") == damaged
    claim(store, A, adopt=True)
    claim(store, A, adopt=False)


def run_in(namespace: str | None) -> ArlowPretrain:
    run = load_run("tiny")
    metadata = run.metadata.model_copy(update={"namespace": namespace} if namespace else {})
    return run.model_copy(update={"metadata": metadata})


@pytest.mark.parametrize(
    ("variable", "declared", "namespace"),
    [(None, None, None), ("", "a", "a"), (None, "a", "a"), ("b", None, "b"), ("b", "a", "b")],
)
def test_where_the_namespace_comes_from(
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
    declared: str | None,
    namespace: str | None,
) -> None:
    monkeypatch.delenv("ARLOW_NAMESPACE", raising=False)
    if variable is not None:
        monkeypatch.setenv("ARLOW_NAMESPACE", variable)
    run = run_in(declared)
    assert owner_of(run) == Owner(name=run.metadata.name, namespace=namespace)


def test_a_refused_run_gives_the_lease_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARLOW_NAMESPACE", raising=False)
    acquire_run(store, run_in("a"), adopt=False, stop=STOP).release()
    with pytest.raises(ConfigError, match="namespace 'a'"):
        acquire_run(store, run_in("b"), adopt=False, stop=STOP)
    assert not store.exists(LEASE_FILE)
    acquire_run(store, run_in("b"), adopt=True, stop=STOP).release()


@pytest.mark.parametrize("namespace", ["a_b", "-a", "a" * 64, "\udcff", "a\n"])
def test_a_namespace_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, namespace: str
) -> None:
    monkeypatch.setenv("ARLOW_NAMESPACE", namespace)
    with pytest.raises(ConfigError, match=r"ARLOW_NAMESPACE: .* is not allowed") as refused:
        owner_of(load_run("tiny", []))
    str(refused.value).encode()
