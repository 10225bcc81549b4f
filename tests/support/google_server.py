"""An in-process server of Google Cloud Storage's JSON API, and of the tokens that it takes.

https://cloud.google.com/storage/docs/json_api/v1/objects
"""

from __future__ import annotations

import base64
import email
import email.policy
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.object_servers import Handler, serving

PAGE = 5
"""A listing's page, smaller than any provider's, so that every test reads several."""


@dataclass
class Tokens:
    """Which keys of a service account are valid now, and the access tokens that were issued."""

    session_s: float
    keys: set[str] = field(default_factory=set)
    issued: dict[str, float] = field(default_factory=dict)
    """When each token ends."""

    def issue(self) -> str:
        token = uuid.uuid4().hex
        self.issued[token] = time.monotonic() + self.session_s
        return token

    def valid(self, token: str) -> bool:
        return self.issued.get(token, 0.0) > time.monotonic()


class _Handler(Handler):
    tokens: Tokens | None

    def _allowed(self, generation: int) -> bool:
        expected = self.query.get("ifGenerationMatch")
        return expected is None or int(expected) == generation

    def _name(self) -> str:
        return unquote(urlsplit(self.path).path.partition("/o/")[2])

    def _refused(self) -> bool:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens is None or self.tokens.valid(token):
            return False
        self.body()
        self._fail(401, "Invalid Credentials")
        return True

    def do_POST(self) -> None:
        if self.tokens is not None and urlsplit(self.path).path == "/token":
            self._exchange(self.tokens)
            return
        if self._refused():
            return
        body, name = self.body(), self.query.get("name", "")
        if self.query["uploadType"] == "multipart":
            head = f"Content-Type: {self.headers['Content-Type']}\n\n".encode()
            parts = email.message_from_bytes(head + body, policy=email.policy.HTTP).get_payload()
            name = json.loads(parts[0].get_payload(decode=True))["name"]  # type: ignore[index,union-attr]
            body = body.rpartition(b"\n--==0==--")[0].split(b"\n\n", 2)[2]
        generation = self.objects.put(name, body, self._allowed)
        if generation is None:
            self._fail(412, "conditionNotMet")
        else:
            self._answer(self._described(name, body, generation))

    def _exchange(self, tokens: Tokens) -> None:
        """https://developers.google.com/identity/protocols/oauth2/service-account"""
        assertion = parse_qs(self.body().decode())["assertion"][0]
        head = json.loads(base64.urlsafe_b64decode(assertion.partition(".")[0] + "=="))
        if head["kid"] not in tokens.keys:
            self._answer({"error": "invalid_grant", "error_description": "Invalid JWT"}, 400)
            return
        issued = {"access_token": tokens.issue(), "token_type": "Bearer", "expires_in": 3600}
        self._answer(issued)

    def do_GET(self) -> None:
        if self._refused():
            return
        if urlsplit(self.path).path.endswith("/o"):
            self._list()
            return
        found = self.objects.get(self._name())
        if found is None:
            self._fail(404, "notFound")
        elif self.query.get("alt") == "media":
            data, generation = found
            wanted = self.headers.get("Range")
            self.answer_content(data, wanted, x_goog_generation=str(generation))
        else:
            self._answer(self._described(self._name(), *found))

    def _list(self) -> None:
        query = self.query
        names, folders, following = self.objects.page(
            query.get("prefix", ""), query.get("delimiter", ""), query.get("pageToken", ""), PAGE
        )
        items = [self._described(name, *(self.objects.get(name) or (b"", 0))) for name in names]
        listed = {"kind": "storage#objects", "items": items, "prefixes": folders}
        self._answer(listed | ({"nextPageToken": following} if following else {}))

    def do_DELETE(self) -> None:
        if self._refused():
            return
        name = self._name()
        if self.objects.get(name) is None:
            self._fail(404, "notFound")
        elif self.objects.delete(name, self._allowed):
            self.answer(204)
        else:
            self._fail(412, "conditionNotMet")

    def _described(self, name: str, data: bytes, generation: int) -> dict[str, str]:
        return {
            "kind": "storage#object",
            "bucket": urlsplit(self.path).path.partition("/b/")[2].partition("/")[0],
            "name": name,
            "size": str(len(data)),
            "generation": str(generation),
            "updated": "2026-01-01T00:00:00.000Z",
        }

    def _answer(self, answer: dict[str, Any], status: int = 200) -> None:
        self.answer(status, json.dumps(answer).encode(), Content_Type="application/json")

    def _fail(self, status: int, reason: str) -> None:
        self._answer(
            {"error": {"code": status, "message": reason, "errors": [{"reason": reason}]}}, status
        )


@contextmanager
def google_server(tokens: Tokens | None = None) -> Iterator[dict[str, Any]]:
    """Yields the options of a store at gs://, which anybody may use.

    With `tokens` the server issues and demands them, and the options name no credentials: see
    `write_account`.
    """
    with serving(_Handler, tokens=tokens) as url:
        yield {"endpoint_url": url} | ({"token": "anon"} if tokens is None else {})


def write_account(path: Path, endpoint: str, key: str) -> None:
    """Writes the file that GOOGLE_APPLICATION_CREDENTIALS names, with a key of this name."""
    account = {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": key,
        "private_key": _private_key(),
        "client_email": "trainer@project.iam.gserviceaccount.com",
        "token_uri": f"{endpoint}/token",
    }
    new = path.with_suffix(".new")
    new.write_text(json.dumps(account))
    new.rename(path)


@cache
def _private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
