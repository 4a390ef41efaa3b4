"""One question over HTTP, asked again where that may help."""

from __future__ import annotations

import json
import math
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from ..._version import __version__
from ...errors import ModelError
from .address import Address

FIRST_WAIT = 0.5  # seconds before the second try; each further wait is twice as long
LONGEST_WAIT = 60.0
PATIENCE = 600.0  # seconds that a server may ask to wait
LARGEST = 1 << 26  # bytes of an answer
CONNECT = 10.0  # seconds at most to connect
REDIRECTS = 5
AGAIN = {408, 425, 429}  # beside 5xx: refusals that may pass
MOVED = {301, 302, 307, 308}
_CHUNK = 1 << 14


class Caller:
    """Asks an endpoint; for many threads.

    address:  where, with which headers.
    timeout:  seconds without a byte of the answer before a try counts as failed.
    tries:    of one request, in all.
    reserve:  called with the number of images before each try: counts them, and returns the seconds to wait.
    pause:    called with the seconds that a server asks to be left alone.
    """

    def __init__(
        self,
        address: Address,
        timeout: float,
        tries: int,
        reserve: Callable[[int], float],
        pause: Callable[[float], None],
    ) -> None:
        self.address, self.timeout, self.tries = address, timeout, tries
        self.reserve, self.pause = reserve, pause
        self.url = address.url
        self._sessions: dict[int, queue.LifoQueue[requests.Session]] = {}  # by process: none may cross a fork
        self._chance = random.Random()  # own, so that waiting moves nobody's random numbers

    def ask(self, body: bytes, kind: str, images: int, stop: threading.Event) -> Any:
        """The JSON document that a request is answered by.

        Time-outs, broken connections, 408, 425, 429, 5xx and answers that are not JSON are asked again; Retry-After is
        honoured. Raises `ModelError`: all tries failed, or the server refuses.
        """
        reason = ""
        for at in range(self.tries):
            if stop.is_set() or stop.wait(self.reserve(images)):
                raise ModelError("Another question has failed.")
            try:
                return self._once(body, kind)
            except _Passing as failure:
                reason, wait = str(failure), failure.wait
            if at + 1 < self.tries:
                if wait is None:
                    wait = min(LONGEST_WAIT, FIRST_WAIT * 2**at) * self._chance.uniform(0.5, 1)
                else:
                    self.pause(wait)
                    wait = 0.0
                stop.wait(wait)
        raise ModelError(
            f"{self.address.shown} failed {self.tries} times on one request; the last time {reason}. The answers so far are "
            "kept: the same call goes on from there."
        )

    def _once(self, body: bytes, kind: str) -> Any:
        with self._session() as session:
            try:
                status, headers, content = self._posted(session, body, kind)
            except requests.exceptions.SSLError as error:
                raise ModelError(
                    f"The certificate of {self.address.shown} is not accepted: {self._line(error)}"
                ) from None
            except requests.exceptions.Timeout:
                raise _Passing(f"it was silent for {self.timeout:g} s") from None
            except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
                raise _Passing(self._broken(repr(error))) from None
            except requests.exceptions.ContentDecodingError:
                raise _Passing("its answer was damaged") from None
            except (requests.exceptions.RequestException, ValueError) as error:
                raise ModelError(f"{self.address.shown} cannot be asked: {self._line(error)}") from None
        if status in AGAIN or status >= 500:
            raise _Passing(f"it answered {status}", self._asked_to_wait(headers.get("Retry-After")))
        if not 200 <= status < 300:
            said = self._line(content.decode("utf-8", "replace"))
            raise ModelError(f"{self.address.shown} refuses: it answered {status}{f', {said}' if said else ''}.")
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            said = self._line(content[:200].decode("utf-8", "replace"))
            raise _Passing(f"its answer was no JSON: {said!r}") from None

    def _posted(self, session: requests.Session, body: bytes, kind: str) -> tuple[int, Any, bytes]:
        """Status, headers and content; redirects are followed within the host."""
        url = self.url
        headers = {"Accept": "application/json", "User-Agent": f"unfooled/{__version__}"}
        headers |= self.address.headers | {"Content-Type": kind}
        for _ in range(REDIRECTS + 1):
            with session.post(
                url, data=body, headers=headers, timeout=(min(CONNECT, self.timeout), self.timeout),
                allow_redirects=False, stream=True,
            ) as response:  # fmt: skip
                content = self._content(response)
                if response.status_code not in MOVED or "Location" not in response.headers:
                    return response.status_code, response.headers, content
                url = self._moved(url, response.headers["Location"])
                if response.status_code in (301, 308):
                    self.url = url
        raise ModelError(f"{self.address.shown} redirects more than {REDIRECTS} times.")

    def _content(self, response: requests.Response) -> bytes:
        content = bytearray()
        for part in response.iter_content(_CHUNK):
            content += part
            if len(content) > LARGEST:
                raise ModelError(
                    f"{self.address.shown} answers more than {LARGEST >> 20} MiB. Is this the right address?"
                )
        return bytes(content)

    def _moved(self, url: str, location: str) -> str:
        """Where a redirect leads; another host is not given what was meant for this one."""
        there = urljoin(url, location)
        old, new = urlsplit(url), urlsplit(there)
        safer = (old.scheme, old.port or 80, new.scheme, new.port or 443) == ("http", 80, "https", 443)
        same = (old.scheme, old.port) == (new.scheme, new.port) or safer
        if old.hostname != new.hostname or not same:
            host = new.netloc.rpartition("@")[2]
            raise ModelError(
                f"{self.address.shown} redirects to another host, {new.scheme}://{host}: nothing was sent there. Give that "
                "address if it is the right one."
            )
        return there

    def _asked_to_wait(self, text: str | None) -> float | None:
        """The seconds in a Retry-After, a number or a date (RFC 9110 10.2.3); None: none that can be read."""
        if text is None:
            return None
        try:
            seconds = float(text)
        except ValueError:
            try:
                seconds = parsedate_to_datetime(text).timestamp() - time.time()
            except (ValueError, TypeError, OverflowError):
                return None
        if not math.isfinite(seconds):
            return None
        if seconds > PATIENCE:
            raise ModelError(
                f"{self.address.shown} asks to be left alone for {seconds:.0f} s. The answers so far are kept: the same call "
                "goes on from there."
            )
        return max(0.0, seconds)

    @contextmanager
    def _session(self) -> Iterator[requests.Session]:
        """A session that no other thread uses meanwhile; its connection stays open for the next."""
        free = self._sessions.setdefault(os.getpid(), queue.LifoQueue())
        try:
            session = free.get_nowait()
        except queue.Empty:
            session = requests.Session()
            session.auth = _as_it_is  # else an entry in a .netrc would replace the header that was named
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # no answer may hang on those before it
        try:
            yield session
        finally:
            free.put(session)

    def _broken(self, error: str) -> str:
        """What a connection's error, as requests words it, comes down to."""
        if "timed out" in error:
            return f"it was silent for {self.timeout:g} s"
        refused = "NewConnectionError" in error or "NameResolutionError" in error
        return "it could not be reached" if refused else "the connection broke off"

    def _line(self, text: object) -> str:
        """The first line of what was said, short and without secrets."""
        lines = self.address.hide(str(text)).strip().splitlines()
        return lines[0][:200].rstrip(".") if lines else ""


class _Passing(Exception):
    """A failure that may pass; `wait`: the seconds that the server has asked for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
