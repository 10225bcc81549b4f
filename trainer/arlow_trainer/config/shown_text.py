"""Text that others wrote, made safe to show: without credentials, without control characters.

URLs, names and messages reach terminals, logs, events, model cards and reports. Pure functions.
"""

from __future__ import annotations

import re
from typing import Any

REDACTED = "***"

# What may follow a host's colon is a port; anything else before an @ is a password. A bucket has no
# port, and a secret key of AWS may hold a slash; `arn:` begins the name of an S3 access point.
_USER = r"[^\s\"'<>`@/?#:\[]*:"
_SECRET = r"[^\s@]{0,4096}@(?:[^\s\"'<>`@/]*@)*"
_PORT = r"\d{1,5}(?:[/?#\"'<>`,;)\]}]|$)"
# `host:80/x@y` is a host and a file, unless what looks like a port begins a secret key of AWS,
# which has 40 characters, or a host and a port follow the @.
_AWS_SECRET = r"[\w/+=]{40}@"
_KEY_LIKE = rf"(?:{_AWS_SECRET}|[^\s@\"'<>`]{{0,4096}}@(?!sha\d+:)(?=[\w.-]+:{_PORT}))"
# A quote within a word does not end what it is in.
_QUOTE = r"[\"'<>`](?<=\w.)(?=\w)"
_PASSWORDS = (
    re.compile(rf"(://)(?!arn:){_USER}(?!{_PORT}){_SECRET}"),
    re.compile(rf"((?:s3a?|gs|gcs|az|abfss?)://)(?!arn:){_USER}{_SECRET}"),
    re.compile(rf"(://)(?!arn:){_USER}(?=\d{{1,5}}/){_KEY_LIKE}"),
    # A token alone is a user of HTTP; elsewhere (`abfs://container@account`) a user is no secret.
    re.compile(r"((?:http|https)://)(?:[^\s\"'<>`@/?#]*@)+"),
)
# URLs that lost their scheme or a slash. `name:tag@sha256:...` is an image of a container.
_BROKEN_URLS = (
    re.compile(rf"((?<![:/\w])//|\b(?:https?|s?ftp|s3|gs|gcs|az|abfs):/(?!/)){_USER}{_SECRET}"),
    re.compile(
        rf"((?<![\w./@:%+*-]))[\w.%+-]+:(?!//)(?:(?:[^\s@/\"'<>`]|{_QUOTE}){{1,4096}}@"
        rf"|{_AWS_SECRET})(?!sha\d+:)(?=[\w\[])"
    ),
)
_PARAMETER = re.compile(
    r"([?&;#](?:[\w.%-]*(?:token|secret|passw(?:or)?d|passphrase|signature|credential"
    r"|(?:api|access|account|auth)[-_]?key)[\w.%-]*"
    r"|sig|sas|jwt|code|auth|authorization|key|pwd|pass)=)"
    rf"(?:[^\s\"'<>`&;#\\]|{_QUOTE})*[^\s\"'<>`&;#:,.)\\]",
    re.IGNORECASE,
)
_CONNECTION_STRING = re.compile(
    r"\b((?:AccountKey|SharedAccessKey|SharedAccessSignature)(?:=| = )[\"']?)"
    rf"(?:[^\s;\"'<>`]|{_QUOTE})+",
    re.IGNORECASE,
)


def redact_urls(text: str) -> str:
    """Returns a text, such as a URL or a message, with `***` for the credentials in its URLs.

    Those are `user:password@`, also of URLs without their scheme, a user of http(s), query
    parameters that sign or authorise (`X-Amz-Signature`, `sig`, `token`, ...), and the keys of
    Azure's connection strings.
    """
    text = _redact_whole_urls(text)
    if "@" in text:
        for pattern in _BROKEN_URLS:
            text = pattern.sub(rf"\g<1>{REDACTED}@", text)
    return _CONNECTION_STRING.sub(rf"\g<1>{REDACTED}", text) if "=" in text else text


def _redact_whole_urls(text: str) -> str:
    if "@" in text:
        for pattern in _PASSWORDS:
            text = pattern.sub(rf"\g<1>{REDACTED}@", text)
    return _PARAMETER.sub(rf"\g<1>{REDACTED}", text) if "=" in text else text


_SECRET_NAME = re.compile(
    r"token|secret|passw|passphrase|pwd|credential|signature|(?:api|access|account|private)_?key"
    r"|(?:^|_)(?:key|sas|auth|jwt)(?:$|_)",
    re.IGNORECASE,
)


def redact_tree(value: Any) -> Any:
    """Returns what JSON or YAML held with `redact_urls` of every text in it.

    An environment variable, `{name: ..., value: ...}`, whose name is one of a secret has no value.
    """
    if isinstance(value, dict):
        clean = {redact_tree(key): redact_tree(inner) for key, inner in value.items()}
        if "value" in clean and _SECRET_NAME.search(str(clean.get("name", ""))):
            clean["value"] = REDACTED
        return clean
    if isinstance(value, list):
        return [redact_tree(inner) for inner in value]
    return redact_urls(value) if isinstance(value, str) else value


def has_credentials(url: str) -> bool:
    """Whether a URL holds credentials. A local path holds none, whatever its characters."""
    return "://" in url and _redact_whole_urls(url) != url


def printable(text: str) -> str:
    r"""Returns a text on one line, with escapes (`\x1b`, `\n`) for what is not printable.

    A terminal obeys escape sequences, and a line break in a name would begin a line of its own.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def printable_lines(text: str) -> str:
    """Returns a text with its line breaks kept and every line `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def shown(text: str) -> str:
    """Returns a message as it is shown and stored: printable lines without credentials.

    UTF-8 can hold any of it, also where names of files are not UTF-8.
    """
    return printable_lines(redact_urls(text))
