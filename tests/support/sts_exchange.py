"""AssumeRoleWithWebIdentity: an in-process service that exchanges a token for a real server's keys.

SeaweedFS verifies such tokens only against an OpenID provider, so the exchange is made here; the
keys are those of its own STS, which end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from urllib.parse import parse_qs

from support.object_servers import Handler
from support.s3_server import S3


@dataclass
class Exchange:
    """The service: its address, the one token that is valid now, and the tokens it was given."""

    keys_of: S3
    session_s: int
    valid: str
    endpoint: str = ""
    seen: list[str] = field(default_factory=list)

    def environment(self, token_file: str) -> dict[str, str]:
        """Environment variables by which an AWS client exchanges the token in a file."""
        return {
            "AWS_WEB_IDENTITY_TOKEN_FILE": token_file,
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/trainer",
            "AWS_ENDPOINT_URL_STS": self.endpoint,
        }


@contextmanager
def sts_exchange(keys_of: S3, session_s: int, valid: str) -> Iterator[Exchange]:
    """Runs the service."""
    exchange = Exchange(keys_of, session_s, valid)
    handler = type("Exchange", (_Handler,), {"exchange": exchange})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    exchange.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield exchange
    finally:
        server.shutdown()
        server.server_close()


class _Handler(Handler):
    exchange: Exchange

    def do_POST(self) -> None:
        token = parse_qs(self.body().decode())["WebIdentityToken"][0]
        self.exchange.seen.append(token)
        if token != self.exchange.valid:
            text = (
                "<ErrorResponse><Error><Code>ExpiredTokenException</Code></Error></ErrorResponse>"
            )
            self.answer(400, text.encode(), Content_Type="text/xml")
            return
        keys = self.exchange.keys_of.session_keys()
        ends = time.time() + self.exchange.session_s
        self.answer(
            200,
            (
                "<AssumeRoleWithWebIdentityResponse "
                'xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
                "<AssumeRoleWithWebIdentityResult><Credentials>"
                f"<AccessKeyId>{keys['aws_access_key_id']}</AccessKeyId>"
                f"<SecretAccessKey>{keys['aws_secret_access_key']}</SecretAccessKey>"
                f"<SessionToken>{keys['aws_session_token']}</SessionToken>"
                f"<Expiration>{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(ends))}</Expiration>"
                "</Credentials></AssumeRoleWithWebIdentityResult>"
                "</AssumeRoleWithWebIdentityResponse>"
            ).encode(),
            Content_Type="text/xml",
        )
