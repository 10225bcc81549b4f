"""The options of a checkpoint section, as fsspec's file systems call them."""

from __future__ import annotations

from typing import Any

import pytest

from arlow_trainer.config import ConfigError, load_run
from arlow_trainer.config.errors import CredentialsError
from arlow_trainer.config.models import CheckpointSection
from arlow_trainer.storage.options import (
    STORE_OPTIONS_VARIABLE,
    access_by,
    inherited_options,
    store_for,
    store_of,
)
from support.s3_server import S3


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        ("s3://b/r", None, {}),
        ("s3://b/r", {}, {}),
        ("s3://b/r", {"endpoint": "http://x:9"}, {"endpoint_url": "http://x:9"}),
        ("s3://b/r", {"anonymous": True}, {"anon": True}),
        (
            "gs://b/r",
            {"endpoint": "http://x:9", "anonymous": True},
            {"endpoint_url": "http://x:9", "token": "anon"},
        ),
        ("az://c/r", {"endpoint": "https://a.example/"}, {"account_host": "a.example"}),
        ("abfs://c/r", {"anonymous": True}, {"anon": True}),
        ("s3://b/r", {"requesterPays": True}, {"requester_pays": True}),
        ("gs://b/r", {"requesterPays": True}, {"requester_pays": True}),
        ("s3://b/r", {"profile": "lab"}, {"profile": "lab"}),
        (
            "s3://b/r",
            {"pathStyle": True},
            {"config_kwargs": {"s3": {"addressing_style": "path"}}},
        ),
        ("runs", None, {}),
    ],
)
def test_friendly_names(url: str, options: dict[str, Any] | None, expected: Any) -> None:
    section = CheckpointSection.model_validate({"url": url, "options": options})
    assert access_by(section.options, url).of(url) == expected


def test_a_server_is_reached_by_its_endpoint(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.options["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.options["secret"])
    endpoint = s3.options["endpoint_url"]
    run = load_run(
        "tiny", [f"checkpoint={{url: {s3.url('runs')}, options: {{endpoint: {endpoint}}}}}"]
    )
    store = store_of(run)
    store.write_bytes("a", b"b")
    assert store.read_bytes("a") == b"b"
    # Another URL beside the run's: the same server.
    assert store_for(run, store.url).read_bytes("a") == b"b"


@pytest.mark.parametrize(
    ("scheme", "name", "value"),
    [
        ("gs", "profile", "lab"),
        ("gs", "pathStyle", "true"),
        ("az", "requesterPays", "true"),
    ],
)
def test_what_a_store_has_not_is_refused(scheme: str, name: str, value: str) -> None:
    options = [f"checkpoint={{url: '{scheme}://b/r', options: {{{name}: {value}}}}}"]
    with pytest.raises(ConfigError, match=rf"options\.{name}: .*since {scheme}:// has none"):
        load_run("tiny", options)


def test_a_profile_that_is_not_there_is_one_of_credentials() -> None:
    run = load_run("tiny", ["checkpoint={url: 's3://b/r', options: {profile: nobody}}"])
    with pytest.raises(CredentialsError, match=r"nobody.*options\.profile") as raised:
        store_of(run).read_bytes("a")
    assert raised.value.exit_code == 77


@pytest.mark.parametrize("text", ["nojson", "[1]", "1", "null", "[" * 10_000, "\udcff", "{"])
def test_options_handed_over_wrongly_name_the_variable(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(STORE_OPTIONS_VARIABLE, text)
    with pytest.raises(ConfigError, match=r"^ARLOW_STORE_OPTIONS: it (is|holds)"):
        inherited_options()


@pytest.mark.parametrize(
    ("text", "options"), [("", {}), ("{}", {}), ('{"anon": true}', {"anon": True})]
)
def test_options_handed_over(
    monkeypatch: pytest.MonkeyPatch, text: str, options: dict[str, Any]
) -> None:
    monkeypatch.setenv(STORE_OPTIONS_VARIABLE, text)
    assert inherited_options() == options
