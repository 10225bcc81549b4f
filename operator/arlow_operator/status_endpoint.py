"""Asks a trainer for its /status, by its pod's address. What answers there is not trusted."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime

from aiohttp import ClientError, ClientSession, ClientTimeout
from pydantic import ValidationError

from arlow_operator.observation import Reported
from arlow_operator.settings import STATUS_PORT
from arlow_trainer.config import RunStatus

TIMEOUT_S = 2.0
MAX_BYTES = 64 * 1024


def status_url(address: str, port: int = STATUS_PORT) -> str:
    """Returns the URL of /status at a pod's address, IPv4 or IPv6."""
    host = f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    return f"http://{host}:{port}/status"


async def ask_status(session: ClientSession, url: str) -> Reported:
    """Returns what a trainer says, or why it says nothing; never raises for what it does."""
    asked = datetime.now(UTC)
    try:
        timeout = ClientTimeout(total=TIMEOUT_S)
        async with session.get(url, allow_redirects=False, timeout=timeout) as response:
            if response.status != 200:
                return Reported(asked, problem=f"it answers {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_BYTES:
                    return Reported(asked, problem=f"it sends more than {MAX_BYTES:,} bytes")
        return Reported(asked, RunStatus.model_validate_json(bytes(body)))
    except ValidationError as error:
        return Reported(asked, problem=f"it sends no status ({error.error_count()} mistakes)")
    except TimeoutError:
        return Reported(asked, problem=f"no answer within {TIMEOUT_S:g} s")
    except (ClientError, OSError) as error:
        return Reported(asked, problem=str(error) or type(error).__name__)
