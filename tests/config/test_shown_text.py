"""Credentials in URLs are found and removed, and control characters are escaped."""

from __future__ import annotations

import pytest

from arlow_trainer.config.shown_text import (
    has_credentials,
    printable,
    printable_lines,
    redact_tree,
    redact_urls,
)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:SECRET@host/x", "http://***@host/x"),
        ("http://user:123@host/x", "http://***@host/x"),
        ("https://SECRET@host", "https://***@host"),
        ("s3://KEY:SEC/RET+x=@bucket/a", "s3://***@bucket/a"),
        ("s3://KEY:12/SECRET@bucket/a", "s3://***@bucket/a"),
        ("s3://key:SEC@RET@bucket/folder@2", "s3://***@bucket/folder@2"),
        ("sftp://user:12345@host/x", "sftp://***@host/x"),
        ("simplecache::s3://key:SECRET@b/x", "simplecache::s3://***@b/x"),
        (
            "https://h/x?X-Amz-Signature=SECRET&X-Amz-Credential=AK%2F1&part=2",
            "https://h/x?X-Amz-Signature=***&X-Amz-Credential=***&part=2",
        ),
        ("az://container/x?sv=2024&sig=SECRET%3D", "az://container/x?sv=2024&sig=***"),
        ("https://h/x?Access_Token=SECRET#y", "https://h/x?Access_Token=***#y"),
        ("https://h/x?AWSAccessKeyId=SECRET", "https://h/x?AWSAccessKeyId=***"),
        ("https://h/x?sas=SECRET", "https://h/x?sas=***"),
        ("https://h/x?jwt=SECRET&code=SECRET", "https://h/x?jwt=***&code=***"),
        ("https://h/x?authkey=SECRET", "https://h/x?authkey=***"),
        ("https://h/x?passphrase=SECRET", "https://h/x?passphrase=***"),
        ("http://user:SE'CRET@host/x", "http://***@host/x"),
        ('http://user:SE"CRET@host/x', "http://***@host/x"),
        ("http://user:SE<CR`ET@host/x", "http://***@host/x"),
        (f"http://AKIA:12/{'SECRET/x+' * 4}S@host", "http://***@host"),
        ("http://user:12/SECRET@host:9000/x", "http://***@host:9000/x"),
        ("https://h/x?a=1&sig=SE'CRET&b", "https://h/x?a=1&sig=***&b"),
    ],
)
def test_credentials_are_removed_from_urls_and_from_texts_that_hold_them(
    url: str, shown: str
) -> None:
    assert has_credentials(url)
    assert redact_urls(url) == shown
    assert redact_urls(shown) == shown
    assert not has_credentials(shown)
    text = 'Cannot read {}: refused, as "{}" too.'
    assert redact_urls(text.format(url, url)) == text.format(shown, shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("user:SECRET@host/x", "***@host/x"),
        ("//user:SECRET@host", "//***@host"),
        ("http:/user:SECRET@host", "http:/***@host"),
        (
            "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=SECRET==;EndpointSuffix=x",
            "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=***;EndpointSuffix=x",
        ),
        ("SharedAccessKey=SECRET;", "SharedAccessKey=***;"),
        ('AccountKey="SECRET==";x', 'AccountKey="***";x'),
        ("AccountKey = SECRET;", "AccountKey = ***;"),
        ("AccountKey=SEC'RET;", "AccountKey=***;"),
        ("user:SE'CRET@host/x", "***@host/x"),
        (f"AKIA:{'SECRET/x+' * 4}SECR@host/x", "***@host/x"),
    ],
)
def test_credentials_outside_of_whole_urls_are_removed(text: str, shown: str) -> None:
    assert redact_urls(text) == redact_urls(shown) == shown
    message = "Cannot read '{}': refused"
    assert redact_urls(message.format(text)) == message.format(shown)


@pytest.mark.parametrize(
    "text",
    [
        "registry.example/arlow:1@sha256:abc",
        "arlow:1@sha256:abc",
        "git@github.com:x/y",
        "/folder/a:b@c",
        '{"url":"http://host:8080","mail":"a@b"}',
        "http://host:8080, a@b",
        "run.yaml:12: mail a@b",
        "registry:5000/arlow@sha256:0123",
        "localhost:8080/runs/a@b",
        "{mail:'a@b'}",
        "AccountKey is not set; AccountKey= is empty",
    ],
)
def test_texts_without_credentials_are_left(text: str) -> None:
    assert redact_urls(text) == text


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/folder@2/x:y@z",
        "s3://arn:aws:s3:us-east-1:1:accesspoint/name/a@b",
        "abfs://container@account.dfs.core.windows.net/x",
        "http://host:8080/a@b",
        "http://registry:5000/arlow@sha256:0123",
        "http://[::1]:8080/a@b",
        "https://h/x?part=2&monkey=3",
        "hf://datasets/a/b@main/x",
        "sftp://user@host/x",
        "/folder/a:b@c",
        "./photographs?key=1",
    ],
)
def test_what_only_looks_like_credentials_is_left(url: str) -> None:
    assert not has_credentials(url)
    if "://" in url:
        assert redact_urls(url) == url


def test_a_file_of_a_url_may_be_named_like_credentials() -> None:
    assert not has_credentials("s3://bucket/a folder/ x:y@z")


def test_a_long_text_takes_no_long_time() -> None:
    for part in ("://u:", ",u:", " u:x", "//u:"):
        redact_urls("@" + part * 20_000)


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert printable("a photo é 写真.jpg") == "a photo é 写真.jpg"
    assert printable("\x1b[31mred\r\n\t\x07") == r"\x1b[31mred\r\n\t\x07"
    assert printable("\udcff\u202e\x9b") == r"\udcff\u202e\x9b"
    assert printable_lines("one\ntwo\x1b") == "one\ntwo\\x1b"


def test_variables_whose_names_are_those_of_secrets_have_no_value() -> None:
    names = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "api_key", "KEY", "AZURE_SAS")
    tree = {"env": [{"name": name, "value": "HIDDEN"} for name in names]}
    assert "HIDDEN" not in str(redact_tree(tree))
    kept = {"env": [{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "KEYBOARD", "value": "us"}]}
    assert redact_tree(kept) == kept
