"""The program that `helm test` runs, against an API server and an operator of this test's own."""

from __future__ import annotations

import datetime
import importlib.util
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rendering import CHART

from support.ports import free_port

TOKEN = "a-token"
RESOURCES: dict[str, Any] = {"resources": [{"name": "arlowpretrains"}]}


class Server:
    """Answers GETs by path, over TLS where it has a certificate."""

    def __init__(
        self, answers: dict[str, Any], certificate: Path | None = None, port: int = 0
    ) -> None:
        self.tokens: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.tokens.append(self.headers.get("Authorization", ""))
                found = answers.get(self.path)
                self.send_response(404 if found is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(found).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def write_certificate(folder: Path) -> Path:
    """Writes a certificate for 127.0.0.1 that is its own authority; returns it with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "ca.crt").write_bytes(public)
    (folder / "server.pem").write_bytes(public + private)
    return folder / "server.pem"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program, with a service account's token and authority."""
    spec = importlib.util.spec_from_file_location("helm_test", CHART / "files" / "helm_test.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "token").write_text(TOKEN, "utf-8")
    monkeypatch.setattr(module, "ACCOUNT", str(tmp_path))
    # It must ask none.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    return module


@pytest.fixture
def operator() -> Iterator[Server]:
    server = Server({"/healthz": {"secondsSinceFullPass": 1.5}})
    yield server
    server.close()


def run(program: Any, api: Server, health: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    monkeypatch.setattr("sys.argv", ["helm_test", health])
    try:
        program.main()
    finally:
        api.close()


def test_a_good_installation_passes(
    program: Any,
    operator: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    api = Server({"/apis/arlow.dev/v1alpha1": RESOURCES}, write_certificate(tmp_path))
    run(program, api, f"http://127.0.0.1:{operator.port}/healthz", monkeypatch)
    assert "secondsSinceFullPass" in capsys.readouterr().out
    assert api.tokens == [f"Bearer {TOKEN}"]
    # The token is for the API alone.
    assert operator.tokens == [""]


def test_what_is_missing_is_told(
    program: Any, operator: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = write_certificate(tmp_path)
    health = f"http://127.0.0.1:{operator.port}/healthz"
    with pytest.raises(SystemExit, match=r"knows no ArlowPretrain.*crds\.enabled"):
        run(program, Server({}, certificate), health, monkeypatch)
    api = Server({"/apis/arlow.dev/v1alpha1": {"resources": []}}, certificate)
    with pytest.raises(SystemExit, match="knows no arlowpretrains"):
        run(program, api, health, monkeypatch)
    monkeypatch.setattr(program, "PATIENCE_S", 1.0)
    api = Server({"/apis/arlow.dev/v1alpha1": RESOURCES}, certificate)
    with pytest.raises(SystemExit, match="the operator does not answer"):
        run(program, api, "http://127.0.0.1:1/healthz", monkeypatch)


def test_a_service_that_nodes_do_not_know_yet_is_waited_for(
    program: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    api = Server({"/apis/arlow.dev/v1alpha1": RESOURCES}, write_certificate(tmp_path))
    port = free_port()
    late: list[Server] = []
    start = threading.Timer(1.0, lambda: late.append(Server({"/healthz": {}}, port=port)))
    start.start()
    run(program, api, f"http://127.0.0.1:{port}/healthz", monkeypatch)
    assert "the operator is well" in capsys.readouterr().out
    late[0].close()
