"""Calls to a hosted service: passing faults are tried again, the others become one clear message. The key never appears in one."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import openai

from ..course.bilingual import tr
from ..course.errors import CourseError

LONGEST_WAIT = 60.0  # seconds; a service that asks for more than this is left alone
SAFE = "Nothing is sent twice: run the cell again and it goes on from where it stopped."
NO_API = "the address answered, but not in the form of the API. Check OPENAI_BASE_URL; it usually ends in /v1."
T = TypeVar("T")


@dataclass(frozen=True)
class Calls:
    """Makes calls to one service. See helpers/jsonl/hosted.py for the settings."""

    where: str
    key: str = field(repr=False)
    timeout: float
    retries: int
    first_wait: float
    tell: Callable[[str], None]

    def __call__(
        self, what: str, make: Callable[[], T], find: Callable[[], T | None] | None = None
    ) -> T:
        """`make()`, tried again after a passing fault; `find` is asked first, each time, whether it has been made already.

        So a reply that was lost after the service had done its work does not lead to a second file or job.
        """
        for attempt in range(self.retries + 1):
            sent = False
            try:
                found = find() if find else None
                sent = found is None
                return sound(make() if found is None else found)
            except openai.APIError as problem:
                wait = _wait(problem, attempt, self.first_wait)
                if wait is None or attempt == self.retries:
                    # `from None`: the original error may repeat parts of the key
                    raise CourseError(self.explain(what, problem, attempt + 1)) from None
                self.tell(
                    tr(
                        f"{_short(problem)}: coba lagi dalam {wait:.1f} detik ({attempt + 1} dari {self.retries})",
                        f"{_short(problem)}: trying again in {wait:.1f} s ({attempt + 1} of {self.retries})",
                    )
                )
                time.sleep(wait)
                if (
                    find
                    and sent
                    and isinstance(problem, openai.APITimeoutError)
                    and (late := self._late(find, wait)) is not None
                ):
                    return sound(late)
        raise AssertionError("the last attempt returns or raises")

    def _late(self, find: Callable[[], T | None], pause: float) -> T | None:
        """What a request that timed out made after all: the service may still be at it, so look for as long again before sending anew."""
        until = time.monotonic() + self.timeout
        while time.monotonic() < until:
            try:
                if (found := find()) is not None:
                    return found
            except openai.APIError:  # the next attempt meets the same fault and reports it
                return None
            time.sleep(min(pause, self.timeout / 4))
        return None

    def explain(self, what: str, problem: openai.APIError, tries: int) -> str:
        """One message: what could not be done, where, why, and what to do next."""
        head = f"could not {what} at {self.where}"
        said = problem.body.get("message") if isinstance(problem.body, dict) else None
        said = " ".join(str(said or problem.message).replace(self.key, "***").split())[:300].rstrip(
            "."
        )
        times = "once" if tries == 1 else f"{tries} times"
        if isinstance(problem, openai.APITimeoutError):
            return f"{head}: no reply within {self.timeout:g} seconds, tried {times}. Check the connection, or give a longer timeout. {SAFE}"
        if isinstance(problem, openai.APIConnectionError):
            return f"{head}: no connection, or it broke, tried {times}. Check the network and the address in OPENAI_BASE_URL. {SAFE}"
        if not isinstance(problem, openai.APIStatusError):
            return f"{head}: {said}. Check that OPENAI_BASE_URL is the address of an OpenAI-compatible API; it usually ends in /v1."
        trace = f" (request {problem.request_id})" if problem.request_id else ""
        if isinstance(problem, openai.AuthenticationError):
            return f"{head}: the key was refused (401){trace}. Check OPENAI_API_KEY, and that it belongs to this service."
        if isinstance(problem, openai.PermissionDeniedError):
            return f"{head}: not allowed for this account (403): {said}{trace}. Ask the service whether the account may fine-tune this model."
        if problem.code == "insufficient_quota":
            return f"{head}: the account has no credit (429){trace}. Top it up at the service, or run the lesson locally."
        if isinstance(problem, openai.RateLimitError):
            return f"{head}: too many requests (429), tried {times}: {said}{trace}. Wait {_asked_wait(problem) or 60:.0f} seconds or more. {SAFE}"
        if problem.status_code >= 500 or problem.status_code in (408, 409):
            return f"{head}: the service has a fault ({problem.status_code}), tried {times}: {said}{trace}. Try later. {SAFE}"
        return f"{head}: the service refused ({problem.status_code}): {said}{trace}. Change what it names and run again."


def sound(reply: T) -> T:
    """The reply, if it is one of the API: a web page, as from a wrong address, comes back as text or without an id."""
    if (
        isinstance(reply, str)
        or hasattr(reply, "object")
        and reply.object is None
        or hasattr(reply, "id")
        and not reply.id
    ):
        raise CourseError(NO_API)
    return reply


def pages(ask: Callable, **options) -> Iterator:
    """The pages of a list, asked for one by one: `ask` is a list method of the client."""
    try:
        first = ask(**options)
    except AttributeError:  # what the client itself meets when a list comes back as a web page
        raise CourseError(NO_API) from None
    yield from first.iter_pages()


def rows(ask: Callable, **options) -> Iterator:
    """All rows of a list."""
    for page in pages(ask, **options):
        yield from page.data


def without_login(url: str) -> str:
    """An address without user name and password, which some people put in it, and without a query."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return urlunsplit(
        (
            parts.scheme,
            f"{host}:{parts.port}" if parts.port else host,
            parts.path.rstrip("/"),
            "",
            "",
        )
    )


def _short(problem: openai.APIError) -> str:
    if isinstance(problem, openai.APIStatusError):
        return f"HTTP {problem.status_code}"
    return (
        tr("tidak ada balasan", "no reply")
        if isinstance(problem, openai.APITimeoutError)
        else tr("koneksi putus", "connection lost")
    )


def _asked_wait(problem: openai.APIError) -> float | None:
    """Seconds that the service asks us to wait (Retry-After, as seconds or as a date), or None."""
    headers = getattr(getattr(problem, "response", None), "headers", {})
    try:
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000
        return float(headers["retry-after"])
    except KeyError:
        return None
    except ValueError:
        when = email.utils.parsedate_tz(headers.get("retry-after", ""))
        return email.utils.mktime_tz(when) - time.time() if when else None


def _wait(problem: openai.APIError, attempt: int, first: float) -> float | None:
    """Seconds before the next try, doubling with each attempt, or None when another try is pointless."""
    if isinstance(problem, openai.APIStatusError):
        passing = problem.status_code in (408, 409, 429) or problem.status_code >= 500
        if (
            not passing
            or problem.code == "insufficient_quota"
            or problem.response.headers.get("x-should-retry") == "false"
        ):
            return None
    elif not isinstance(problem, openai.APIConnectionError):
        return None
    asked = _asked_wait(problem)
    if asked is not None and asked > LONGEST_WAIT:
        return None
    grown = min(first * 2**attempt, LONGEST_WAIT) * random.uniform(
        0.75, 1
    )  # not all of a class at the same moment
    return grown if asked is None or asked <= 0 else asked
