"""Answers behind a queue: a bot's answers are written by worker threads and read, piece by piece, in an event loop.

    service = Service(chat.Bot(cfg), cfg)
    job = await service.submit(service.conversation(), "Buatkan resep Soto Ayam.")
    async for piece in job.pieces(): ...

The event loop never waits for the model, so that whatever else it serves is answered at all times.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor

from ..chat.conversation import Conversation, Turn
from ..course.bilingual import tr
from ..course.errors import CourseError
from ..course.settings import Settings
from ..training.prompts import request as recipe_request

MOST_TOKENS = 512  # new tokens of one answer; a recipe of the course takes about 200
WAIT_S, ANSWER_S = 600.0, 300.0  # the longest time in the queue, and for writing one answer
log = logging.getLogger("uvicorn.error")


class Unavailable(CourseError):
    """No answer now, perhaps later: the model is still loading, the queue is full, or the wait was too long."""


class Job:
    """One answer. It waits for a worker thread, is written there, and is read in the event loop, piece by piece."""

    def __init__(
        self,
        conversation: Conversation,
        message: str,
        wait_s: float = WAIT_S,
        answer_s: float = ANSWER_S,
    ):
        self.conversation, self.message, self.wait_s, self.answer_s = (
            conversation,
            message,
            wait_s,
            answer_s,
        )
        self.turn: Turn | None = None  # what came of it; None if it was given up before its turn
        self.problem: BaseException | None = None
        self.future: Future | None = None  # set by Service.submit
        self.waited_s = 0.0
        self._asked = time.monotonic()
        self._loop, self._began, self._arrived = (
            asyncio.get_running_loop(),
            asyncio.Event(),
            asyncio.Queue(),
        )
        self._given_up = threading.Event()

    def write(self) -> None:
        """Runs in a worker thread, from the first piece to the last."""
        self.waited_s = time.monotonic() - self._asked
        self.tell(self._began.set)
        try:
            for piece in self.conversation.reply(self.message):
                self._note_turn()
                self.tell(self._arrived.put_nowait, piece)
                if self._given_up.is_set():  # given up between two steps of `reply`
                    self.conversation.stop()
            self._note_turn()
            self.tell(self._arrived.put_nowait, None)
        except BaseException as problem:  # raised again where the answer is read
            self.problem = problem
            self.tell(self._arrived.put_nowait, problem)

    def _note_turn(self) -> None:
        self.turn = self.conversation.turns[-1] if self.conversation.turns else self.turn

    def tell(self, act, *values) -> None:
        with contextlib.suppress(RuntimeError):  # the server, and with it the event loop, has gone
            self._loop.call_soon_threadsafe(act, *values)

    @property
    def waiting(self) -> bool:
        return not (self.future.running() or self.future.done())

    def give_up(self) -> None:
        """End it, waiting or being written; what is written stays. For the event loop's thread; may be called again."""
        self._given_up.set()
        if self.future.cancel():
            self._began.set()
            self._arrived.put_nowait(None)
        elif not self.future.done():
            self.conversation.stop()

    async def turn_comes(self, every: float = 0.5) -> AsyncIterator[None]:
        """Wakes the caller every so often until the answer has begun. Raises Unavailable after `wait_s`."""
        while not self._began.is_set():
            try:
                await asyncio.wait_for(self._began.wait(), every)
            except TimeoutError:
                if time.monotonic() - self._asked > self.wait_s:
                    self.give_up()
                    raise Unavailable(
                        tr(
                            "Antreannya terlalu lama. Coba lagi sebentar lagi.",
                            "The queue took too long. Try again in a moment.",
                        )
                    ) from None
                yield

    async def pieces(self) -> AsyncIterator[str]:
        """Pieces of the answer as they come. A caller who leaves gives the answer up.

        Raises CourseError: what a visitor could mend in words, of anything else only that it happened.
        """
        try:
            async for _ in self.turn_comes():
                pass
            end = time.monotonic() + self.answer_s
            while True:
                try:
                    piece = await asyncio.wait_for(
                        self._arrived.get(), max(0.01, end - time.monotonic())
                    )
                except TimeoutError:
                    if self._given_up.is_set():
                        raise CourseError(
                            tr("Model tidak menjawab lagi.", "The model has stopped answering.")
                        ) from None
                    self.give_up()
                    end = time.monotonic() + 30  # a model that is alive ends within a token
                    continue
                if isinstance(piece, CourseError):
                    raise piece
                if isinstance(piece, BaseException):
                    log.error("an answer failed", exc_info=piece)
                    raise CourseError(
                        tr(
                            "Ada kesalahan pada layanan; rinciannya ada di terminal.",
                            "Something went wrong in the service; the terminal has the details.",
                        )
                    ) from piece
                if piece is None:
                    return
                yield piece
        finally:
            self.give_up()


class Service:
    """A bot behind a queue: `concurrency` answers are written at once, `queue` more may wait, the rest is turned away."""

    def __init__(
        self,
        bot,
        cfg: Settings,
        *,
        engine: str = "transformers",
        models: tuple[str, ...] = ("tuned", "base"),
        queue: int = 32,
        concurrency: int = 1,
        wait_s: float = WAIT_S,
        answer_s: float = ANSWER_S,
        prepare: Callable[[], None] = lambda: None,
    ):
        self.prepare = prepare  # called before the model is loaded, in the thread that loads it
        self.bot, self.cfg, self.engine, self.models = bot, cfg, engine, models
        self.queue, self.concurrency, self.wait_s, self.answer_s = (
            queue,
            concurrency,
            wait_s,
            answer_s,
        )
        self.state, self.reason = (
            "loading",
            "",
        )  # then "ok", or "failed" with a reason; at the end "closing"
        self.answered = self.failed = 0
        self.jobs: list[Job] = []
        self._began = time.monotonic()
        self.loading = threading.Thread(target=self.load, name="load", daemon=True)
        self._workers = ThreadPoolExecutor(concurrency, "answer")

    def load(self) -> None:
        """Load the model and let it answer one token; only then the state is "ok"."""
        try:
            self.prepare()
            language = self.cfg.data_language
            conversation = self.bot.conversation(answer_tokens=1)
            conversation.say(
                recipe_request(
                    "Soto Ayam" if language == "id" else "Chicken Soto", language=language
                )
            )
            if conversation.last.tokens < 1:
                raise CourseError("the model answered its first question with nothing at all.")
            outcome, reason = "ok", ""
        except Exception as problem:  # told by /health, by the page, and in the terminal
            outcome, reason = (
                "failed",
                str(problem)
                if isinstance(problem, CourseError)
                else f"{type(problem).__name__}: {problem}",
            )
            log.error(
                "the model could not be loaded: %s",
                reason,
                exc_info=not isinstance(problem, CourseError),
            )
        if self.state == "loading":
            self.state, self.reason = outcome, reason

    @property
    def waiting(self) -> int:
        return sum(job.waiting for job in self.jobs)

    def waiting_before(self, job: Job) -> int:
        """How many answers come before this one, those being written included."""
        return (
            sum(not other.future.done() for other in self.jobs[: self.jobs.index(job)])
            if job in self.jobs
            else 0
        )

    def check_ready(self) -> None:
        """Raises Unavailable unless the model answers."""
        if self.state == "failed":
            raise CourseError(
                tr(
                    f"Modelnya gagal dimuat: {self.reason}",
                    f"The model could not be loaded: {self.reason}",
                )
            )
        if self.state == "loading":
            raise Unavailable(
                tr(
                    "Modelnya masih dimuat. Tunggu sebentar, lalu kirim lagi.",
                    "The model is still loading. Wait a moment and send it again.",
                )
            )
        if self.state != "ok":
            raise Unavailable(tr("Layanan sedang ditutup.", "The service is closing."))

    def conversation(self, **options) -> Conversation:
        """A new conversation whose answers stay within MOST_TOKENS and within half of what the model holds."""
        conversation = self.bot.conversation(**options)
        conversation.answer_tokens = self.bounded(conversation.answer_tokens, conversation)
        return conversation

    @staticmethod
    def bounded(tokens: int, conversation: Conversation) -> int:
        """New tokens that an answer may take: at least 1, at most MOST_TOKENS and half of what the model holds."""
        return max(1, min(int(tokens), MOST_TOKENS, conversation.limit // 2))

    async def submit(self, conversation: Conversation, message: str) -> Job:
        """Put a question in the queue. Raises Refused or Unavailable; then nothing has changed."""
        self.check_ready()
        await asyncio.to_thread(conversation.check, message)
        self.check_ready()
        self.jobs = [job for job in self.jobs if not job.future.done()]
        if len(self.jobs) >= self.concurrency + self.queue:
            raise Unavailable(
                tr(
                    f"Antrean penuh: {self.waiting} permintaan menunggu. Coba lagi sebentar lagi.",
                    f"The queue is full: {self.waiting} requests are waiting. Try again in a moment.",
                )
            )
        job = Job(conversation, message, self.wait_s, self.answer_s)
        job.future = self._workers.submit(job.write)
        job.future.add_done_callback(lambda _: job.tell(self._count, job))
        self.jobs.append(job)
        return job

    def _count(self, job: Job) -> None:
        if job.problem:
            self.failed += 1
        elif job.turn:
            self.answered += 1

    def health(self) -> dict:
        """The facts of /health. Looks at nothing that could wait."""
        return {
            "status": self.state,
            **({"reason": self.reason} if self.reason else {}),
            "model": self.cfg.as_dict()["base_model"],
            "models": list(self.models),
            "profile": self.cfg.profile,
            "engine": self.engine,
            "language": self.cfg.data_language,
            "writing": sum(job.future.running() for job in self.jobs),
            "waiting": self.waiting,
            "queue": self.queue,
            "concurrency": self.concurrency,
            "answered": self.answered,
            "failed": self.failed,
            "uptime_s": round(time.monotonic() - self._began, 1),
        }

    def close(self) -> None:
        """Take no more questions and end the answers being written; from the event loop's thread."""
        self.state = "closing"
        for job in self.jobs:
            job.give_up()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def wait_closed(self, seconds: float) -> bool:
        """Whether, within this time, no thread works for the model any more: not for an answer, not for loading it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (
            quiet := all(job.future.done() for job in self.jobs) and not self.loading.is_alive()
        ):
            time.sleep(0.05)
        return quiet
