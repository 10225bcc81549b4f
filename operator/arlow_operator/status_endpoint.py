"""Asks a trainer at its pod's address; what answers there is not trusted."""

from __future__ import annotations

import contextlib
import ipaddress
from datetime import UTC, datetime

from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout
from pydantic import ValidationError

from arlow_operator.observation import Reported, is_count
from arlow_trainer.config import RunStatus
from arlow_trainer.config.object_names import STATUS_PORT

TIMEOUT_S = 2.0
MAX_BYTES = 64 * 1024


def url_at(address: str, path: str, port: int = STATUS_PORT) -> str:
    """Returns the URL of a path at a pod's address, IPv4 or IPv6."""
    host = f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    return f"http://{host}:{port}{path}"


async def ask_stacks(session: ClientSession, address: str, port: int = STATUS_PORT) -> None:
    """Has a trainer write its stacks to its log; never raises for what it does."""
    with contextlib.suppress(ClientError, TimeoutError, OSError):
        timeout = ClientTimeout(total=TIMEOUT_S)
        url = url_at(address, "/stacks", port)
        async with session.get(url, allow_redirects=False, timeout=timeout):
            pass


def _believable(status: RunStatus) -> bool:
    """Whether the numbers that the object's status takes over fit into it."""
    last = status.last_checkpoint
    counted = (status.step, status.total_steps, status.eta_seconds, status.median_step_seconds)
    return all(map(is_count, (*counted, last.step if last else None)))


async def ask_status(session: ClientSession, address: str, port: int = STATUS_PORT) -> Reported:
    """Returns what a trainer says, or why it says nothing; never raises for what it does."""
    asked = datetime.now(UTC)
    try:
        timeout = ClientTimeout(total=TIMEOUT_S)
        url = url_at(address, "/status", port)
        async with session.get(url, allow_redirects=False, timeout=timeout) as response:
            if response.status != 200:
                return Reported(asked, problem=f"it answers {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_BYTES:
                    return Reported(asked, problem=f"it sends more than {MAX_BYTES:,} bytes")
        status = RunStatus.model_validate_json(bytes(body))
        if not _believable(status):
            return Reported(asked, problem="it sends numbers that are none or out of range")
        return Reported(asked, status)
    except ValidationError as error:
        return Reported(asked, problem=f"it sends no status ({error.error_count()} mistakes)")
    except TimeoutError:
        return Reported(asked, problem=f"no answer within {TIMEOUT_S:g} s")
    except ClientConnectorError as error:
        refused = isinstance(error.os_error, ConnectionRefusedError)
        problem = "nothing listens at its port" if refused else str(error)
        return Reported(asked, problem=problem, refused=refused)
    except (ClientError, OSError) as error:
        return Reported(asked, problem=str(error) or type(error).__name__)
