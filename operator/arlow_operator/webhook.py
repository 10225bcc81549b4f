"""Tells a webhook of notifications, beside the passes: a pass never waits for it.

Its URL is a secret: neither it nor what an error says of it is logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientSSLError, ClientTimeout, InvalidURL

from arlow_operator.notifications import Notification

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
WAITS_S = (1.0, 5.0, 25.0)
# More wait only where the webhook is away and hundreds of runs end.
LONGEST_QUEUE = 200
LONGEST_URL = 4096
# It refuses fields that it does not know.
GOOGLE_CHAT = "chat.googleapis.com"
NO_URL = "its Secret holds no http or https URL"
# Answers of a server that may be well the next time; redirects and refusals are not.
AGAIN = (408, 425, 429)


class Undelivered(Exception):
    """A notification was not taken; the message says why, without the URL.

    Attributes:
        again: whether the next try may succeed.
    """

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.again = again


class Webhook:
    """The notifications that wait to be sent, in order."""

    def __init__(
        self,
        http: ClientSession,
        url_file: Path | None,
        count: Callable[[str], None],
        record: Callable[[Notification], Awaitable[None]],
        waits: Sequence[float] = WAITS_S,
    ) -> None:
        """`url_file` holds the URL, and is read for each notification, since a Secret may be
        renewed; with None nobody is told. `count` is told `delivered` or `failed` of each, and
        `record` what was delivered; `waits` are the seconds between tries.
        """
        self._http = http
        self._url_file = url_file
        self._count = count
        self._record = record
        self._waits = waits
        self._queue: asyncio.Queue[Notification] = asyncio.Queue(LONGEST_QUEUE)

    @property
    def is_set(self) -> bool:
        """Whether anybody is told."""
        return self._url_file is not None

    def tell(self, notification: Notification) -> None:
        """Has a notification sent soon; it is dropped where too many wait."""
        if self._url_file is None:
            return
        try:
            self._queue.put_nowait(notification)
        except asyncio.QueueFull:
            self._failed(notification, f"{LONGEST_QUEUE} others wait for it")

    async def send_all(self) -> None:
        """Sends what is told, until it is cancelled."""
        while True:
            notification = await self._queue.get()
            try:
                await self._send(notification)
            except Exception as error:
                # A bug here must not end the looking after of runs; its traceback has the URL.
                self._failed(notification, f"a defect of the operator ({type(error).__name__})")
            finally:
                self._queue.task_done()

    async def sent(self, within_s: float) -> None:
        """Waits until all that was told is sent, or has failed, for so long at most."""
        try:
            async with asyncio.timeout(within_s):
                await self._queue.join()
        except TimeoutError:
            log.warning("notifications not sent before the end: %d", self._queue.qsize() + 1)

    async def _send(self, notification: Notification) -> None:
        for wait in (*self._waits, None):
            try:
                await self._post(notification)
            except Undelivered as error:
                if wait is None or not error.again:
                    self._failed(notification, str(error))
                    return
                await asyncio.sleep(wait)
            else:
                self._count("delivered")
                await self._record(notification)
                return

    async def _post(self, notification: Notification) -> None:
        url = _url(self._url_file)
        payload = notification.payload()
        if urlsplit(url).hostname == GOOGLE_CHAT:
            payload = {"text": payload["text"]}
        timeout = ClientTimeout(total=TIMEOUT_S)
        try:
            async with self._http.post(
                url, json=payload, allow_redirects=False, timeout=timeout
            ) as answer:
                code = answer.status
        except TimeoutError:
            raise Undelivered(f"no answer within {TIMEOUT_S:g} s", again=True) from None
        except InvalidURL:
            raise Undelivered(NO_URL, again=False) from None
        except ClientSSLError as error:
            raise Undelivered(f"TLS failed ({type(error).__name__})", again=True) from None
        except (ClientError, OSError) as error:
            # Its own words hold the host.
            raise Undelivered(f"no connection ({type(error).__name__})", again=True) from None
        if 300 <= code < 400:
            words = f"it answers {code}, and redirects are not followed: name the URL that it means"
            raise Undelivered(words, again=False)
        if not 200 <= code < 300:
            raise Undelivered(f"it answers {code}", again=code in AGAIN or code >= 500)

    def _failed(self, notification: Notification, why: str) -> None:
        self._count("failed")
        run = f"{notification.namespace}/{notification.run}"
        log.warning("the webhook was not told of %s of %s: %s", notification.event, run, why)


def _url(file: Path | None) -> str:
    try:
        url = file.read_text("utf-8").strip() if file else ""
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except OSError:
        words = f"{file} cannot be read: does its Secret exist, with that key?"
        raise Undelivered(words, again=True) from None
    except ValueError:
        url, usable = "", False
    if not usable or " " in url or not url.isprintable() or len(url) > LONGEST_URL:
        raise Undelivered(NO_URL, again=False)
    return url
