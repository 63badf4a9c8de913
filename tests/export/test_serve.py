"""The chat service over a bot that is no model, on a real server; once over the tiny model."""

import asyncio
import contextlib
import html
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pydantic
import pytest
import serve_load
import uvicorn

from helpers import chat, cli_serve, serve, server_api, show
from helpers.files import CourseError, UsageError
from helpers.prompts import SYSTEM

CHAT = "/v1/chat/completions"


def body(message, **options):
    return {"messages": [{"role": "user", "content": message}]} | options


def text(reply):
    return reply.json()["choices"][0]["message"]["content"]


def problem(reply):
    """The error of a reply, which always has OpenAI's shape."""
    found = reply.json()["error"]
    assert set(found) == {"message", "type", "param", "code"} and found["message"]
    return found


class FakeBot:
    """`chat.Bot`'s interface: echoes the question's words, a piece every `pause` seconds.

    A question that begins with "rusak" breaks after one word, one with "terus" never ends by
    itself.
    """

    models, engine = ("tuned", "base"), "transformers"

    def __init__(self, cfg, pause=0.0, ready=lambda: None):
        self.cfg, self.pause, self.ready = cfg, pause, ready
        self.at_once = self.most_at_once = 0
        self.asked, self.options, self.limits = [], [], []

    def stream(self, messages, stop, *, model, max_new_tokens, **options):
        self.asked.append(messages)
        self.options.append(options)
        self.limits.append(max_new_tokens)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            words = messages[-1]["content"].split()
            for n, word in enumerate(itertools.cycle(words) if words[0] == "terus" else words):
                if stop.is_set() or n == max_new_tokens:
                    return {"tokens": n, "ended": False}
                if n and words[0] == "rusak":
                    raise RuntimeError("secret detail")
                yield word + " "
                time.sleep(self.pause)
            return {"tokens": len(words) + 1, "ended": True}
        finally:
            self.at_once -= 1

    def count(self, messages):
        return sum(3 + len(m["content"].split()) for m in messages)

    def conversation(self, **options):
        self.ready()
        defaults = {"window": 600, "limit": 1500, "answer_tokens": 200, "language": "id"}
        return chat.Conversation(self.stream, self.count, **(defaults | options))


class Running:
    """A service on a free port, in a thread of this process."""

    def __init__(self, bot, cfg, **options):
        self.app = serve.create_app(bot, cfg, **options)
        self.bot, self.listener = bot, cli_serve.listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = serve.config(self.app, log_level="critical", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        self.http = httpx.Client(base_url=self.url, timeout=20)

    def health(self):
        return self.http.get("/health")

    def ask(self, message, **options):
        return httpx.post(self.url + CHAT, json=body(message, **options), timeout=60)

    def client(self):
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=20)

    def wait_for(self, condition, what, seconds=10):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s: {what}"
            time.sleep(0.01)

    def ready(self):
        self.wait_for(lambda: self.health().status_code == 200, "ready")
        return self

    def writing(self):
        return self.health().json()["writing"]

    def close(self):
        self.http.close()
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def start(cfg):
    """Start services over fake bots; all are closed at the end."""
    show.set_language("id")
    with contextlib.ExitStack() as stack:

        def starter(pause=0.0, ready=lambda: None, **options):
            service = Running(FakeBot(cfg, pause, ready), cfg, **options)
            stack.callback(service.close)
            return service

        yield starter


@pytest.fixture(scope="module")
def quick(cfg):
    """One fast service for tests that leave nothing behind."""
    show.set_language("id")
    service = Running(FakeBot(cfg), cfg).ready()
    yield service
    service.close()


def in_threads(work, many):
    """work(0), ..., work(many - 1) at the same time; their results in order."""
    with ThreadPoolExecutor(many) as pool:
        return list(pool.map(work, range(many)))


def test_health_is_loading_until_the_model_has_answered_a_token(start):
    loaded, threads = threading.Event(), []

    def load():
        threads.append(threading.current_thread())
        loaded.wait(10)

    running = start(ready=load)
    early = running.health()
    assert early.status_code == 503 and early.json()["status"] == "loading"
    refused = running.ask("halo")
    assert refused.status_code == 503 and "masih dimuat" in problem(refused)["message"]
    assert int(refused.headers["retry-after"]) > 0 and running.bot.asked == []
    loaded.set()
    facts = running.ready().health().json()
    assert running.bot.limits == [1]  # the warm-up, and nothing else, went to the model
    assert threads[0].daemon  # a process that ends meanwhile does not wait for it
    assert facts["status"] == "ok" and facts["engine"] == "transformers"
    assert facts["profile"] == facts["model"] == "sanity"
    assert facts["waiting"] == facts["writing"] == 0
    assert running.http.head("/health").status_code == 200


def test_health_answers_while_torch_is_half_imported(start, monkeypatch):
    loaded = threading.Event()
    running = start(ready=lambda: loaded.wait(10))
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    assert running.health().json()["status"] == "loading"
    monkeypatch.undo()
    loaded.set()
    running.ready()


def test_health_tells_why_loading_failed(start):
    def broken():
        raise CourseError("no adapter in here")

    running = start(ready=broken)
    running.wait_for(lambda: running.health().json()["status"] == "failed", "failure")
    assert running.health().status_code == 503
    assert running.health().json()["reason"] == "no adapter in here"
    assert "no adapter in here" in problem(running.ask("halo"))["message"]


def test_a_service_that_closes_while_it_loads_stays_closed(cfg):
    service = server_api.Service(FakeBot(cfg, ready=lambda: service.close()), cfg)
    service.load()
    assert service.state == "closing"


def test_a_model_that_writes_nothing_is_not_ready(cfg):
    bot = FakeBot(cfg)
    bot.stream = lambda *_, **__: iter(())
    service = server_api.Service(bot, cfg)
    service.load()
    assert service.state == "failed" and "nothing at all" in service.reason


def test_the_openai_client_lists_models_and_gets_an_answer(quick):
    client = quick.client()
    assert [model.id for model in client.models.list()] == ["tuned", "base"]
    assert client.models.retrieve("base").id == "base"
    asked = body("satu dua tiga")["messages"]
    whole = client.chat.completions.create(model="tuned", messages=asked)
    assert whole.choices[0].message.content.split() == ["satu", "dua", "tiga"]
    assert whole.choices[0].finish_reason == "stop" and whole.model == "tuned"
    assert [choice.index for choice in whole.choices] == [0]
    read = quick.bot.count(quick.bot.asked[-1])
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (read, 4)
    assert whole.usage.total_tokens == read + 4 and whole.created > 1.7e9
    for limit in ({"max_tokens": 2}, {"max_completion_tokens": 2}):
        cut = client.chat.completions.create(model="base", messages=asked, **limit)
        assert cut.choices[0].message.content.split() == ["satu", "dua"]
        assert cut.choices[0].finish_reason == "length" and cut.model == "base"
    assert text(quick.ask("a b c d", max_tokens=3, max_completion_tokens=1)).split() == ["a"]


def test_the_openai_client_streams_pieces(start):
    running = start(pause=0.05).ready()
    came, chunks = [], []
    options = {"stream": True, "stream_options": {"include_usage": True}}
    asked = body("satu dua tiga empat lima", model="tuned", **options)
    for chunk in running.client().chat.completions.create(**asked):
        came.append(time.monotonic())
        chunks.append(chunk)
    choices = [chunk.choices[0] for chunk in chunks[:-1]]
    assert "".join(c.delta.content or "" for c in choices) == "satu dua tiga empat lima "
    assert choices[0].delta.role == "assistant" and len({chunk.id for chunk in chunks}) == 1
    assert [c.finish_reason for c in choices] == [None] * 5 + ["stop"]
    assert {c.index for c in choices} == {0}
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 6
    assert came[-1] - came[0] > 0.1  # not all at the end
    for unasked in ({}, {"stream_options": {}}, {"stream_options": {"include_usage": False}}):
        assert "usage" not in running.ask("halo", stream=True, **unasked).text


def test_sampling_options_reach_the_model(quick):
    quick.ask("halo", temperature=0.7, top_p=0.5, top_k=7, seed=0)
    chosen = {"temperature": 0.7, "top_p": 0.5, "top_k": 7, "seed": 0}
    assert quick.bot.options[-1] == chosen
    for _ in range(2):
        quick.ask("halo", temperature=1e-40, top_p=None, seed=None, n=1)
    first, second = quick.bot.options[-2:]
    assert first == {"temperature": 0, "top_p": 0.9, "top_k": 0, "seed": first["seed"]}
    assert second["seed"] != first["seed"]  # or a second try would be the first once more
    assert second["seed"] == first["seed"] + 1


def test_history_goes_as_far_as_the_window_and_a_system_message_replaces_the_courses(quick):
    def turns(*texts):
        roles = itertools.cycle(("user", "assistant"))
        return [{"role": role, "content": content} for role, content in zip(roles, texts)]

    chat = turns("satu", "dua", "tiga")
    reply = quick.http.post(CHAT, json={"messages": chat}).json()
    assert quick.bot.asked[-1] == [{"role": "system", "content": SYSTEM["id"]}, *chat]
    assert reply["usage"]["remembered_turns"] == 1
    own = {"role": "developer", "content": [{"type": "text", "text": "Kamu kucing."}]}
    long = turns("kata " * 500, "ya", "tiga")  # the window is 600 tokens, 200 for the answer
    reply = quick.http.post(CHAT, json={"messages": [own, *long]}).json()
    assert quick.bot.asked[-1] == [{"role": "system", "content": "Kamu kucing."}, long[-1]]
    assert reply["usage"]["remembered_turns"] == 0
    half = '{"messages": [{"role": "%s", "content": "\\ud800"}, {"role": "user", "content": "a"}]}'
    for role in ("system", "user"):  # half a character is no text that a tokenizer takes
        sent = {"content": half % role, "headers": {"content-type": "application/json"}}
        assert quick.http.post(CHAT, **sent).status_code == 200
        str(quick.bot.asked[-1]).encode()


ASKED = {"messages": [{"role": "user", "content": "halo"}]}
NOT_NUMBERS = {name: (float("nan"), float("inf"), -1, "x") for name in ("temperature", "top_p")}


@pytest.mark.parametrize(
    "sent, status, code, word",
    [
        (body("  "), 400, "invalid_message", "kosong"),
        (body("x" * 10_000), 400, "context_length_exceeded", "batasnya"),
        (body("🍜" * 10_000), 400, "context_length_exceeded", "batasnya"),
        (body("k " * 999, max_tokens=512), 400, "context_length_exceeded", "token"),
        ({}, 400, "invalid_value", "messages"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "user"}]}, 400, "invalid_value", "content"),
        ({"messages": [{"role": "cook", "content": "a"}]}, 400, "invalid_value", "role"),
        ({"messages": [{"role": "tool", "content": "a"}]}, 400, "invalid_value", "role"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, 400, "invalid_message", "user"),
        ({"messages": ASKED["messages"] * 201}, 400, "invalid_value", "messages"),
        (body([{"type": "image_url", "image_url": {"url": "x"}}]), 400, "invalid_value", "text"),
        (ASKED | {"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
        (ASKED | {"model": "tunned"}, 404, "model_not_found", "tuned, base"),
        (ASKED | {"n": 2}, 400, "invalid_value", "n: "),
        (ASKED | {"tools": [{}]}, 400, "unsupported_parameter", "tools"),
        (ASKED | {"stop": ["\n"]}, 400, "unsupported_parameter", "stop"),
        (ASKED | {"top_k": -1}, 400, "invalid_value", "top_k"),
        (ASKED | {"top_k": 1e99}, 400, "invalid_value", "top_k"),
        (ASKED | {"seed": 2**80}, 400, "invalid_value", "seed"),
        *(
            (ASKED | {name: value}, 400, "invalid_value", name)
            for name, values in NOT_NUMBERS.items()
            for value in values
        ),
        ([1], 400, "invalid_value", "body"),
        (b"{", 400, "invalid_value", ""),
        (b"[" * 9000, 400, None, ""),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_reason(quick, sent, status, code, word):
    for more in ({}, {"stream": True}):
        whole = sent | more if isinstance(sent, dict) else sent
        whole = whole if isinstance(whole, bytes) else json.dumps(whole)
        reply = quick.http.post(CHAT, content=whole, headers={"content-type": "application/json"})
        assert reply.status_code == status and re.search(word, problem(reply)["message"]), (
            reply.text
        )
        assert problem(reply)["type"] == "invalid_request_error"
        assert problem(reply)["code"] == code or code is None
    assert quick.health().json()["status"] == "ok"


def test_fields_that_change_nothing_are_ignored(quick):
    neutral = {"user": "x", "metadata": {"a": "b"}, "tools": [], "presence_penalty": 0}
    neutral |= {"stop": None, "logprobs": False, "response_format": {"type": "text"}}
    assert text(quick.ask("halo", **neutral)) == "halo "


def test_the_openai_client_raises_its_own_errors(start):
    running = start(pause=0.02, queue=0).ready()
    client = running.client()
    with pytest.raises(openai.NotFoundError, match="tuned, base"):
        client.chat.completions.create(**body("halo", model="gpt-5"))
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")
    with pytest.raises(openai.BadRequestError, match="kosong"):
        client.chat.completions.create(**body(" ", model="tuned", stream=True))
    with pytest.raises(openai.NotFoundError, match="tidak ada"):
        client.embeddings.create(model="tuned", input="halo", encoding_format="float")
    with client.chat.completions.create(**body("terus lagi", model="tuned", stream=True)) as busy:
        next(iter(busy))
        with pytest.raises(openai.RateLimitError, match="Antrean penuh"):
            client.chat.completions.create(**body("halo", model="tuned"))
    running.wait_for(lambda: running.writing() == 0, "the first one's end")
    with pytest.raises(openai.APIError, match="terminal"):
        list(client.chat.completions.create(**body("rusak sekali", model="tuned", stream=True)))


def test_health_sums_up_times_and_memory(start):
    running = start(pause=0.02).ready()
    before = running.health().json()
    assert before["latency"] == {"answers": 0, "of_last": 0}
    assert 0 <= before["load_s"] < before["cold_start_s"] < 10**6  # of this process
    assert before["memory_bytes"]["ram"] > 10**7
    for words in (2, 2, 10):
        running.ask("kata " * words)
    latency = running.health().json()["latency"]
    assert latency["answers"] == latency["of_last"] == 3
    first = latency["first_token_s"]
    assert 0 <= first["median"] <= first["p95"] < latency["answer_s"]["median"]
    assert 0.04 < latency["answer_s"]["median"] < 0.18 < latency["answer_s"]["p95"]
    assert latency["tokens_per_s"]["median"] > 5
    running.ask("rusak sekali")
    assert running.health().json()["latency"]["answers"] == 3  # errors are no answers


def test_health_sums_up_the_last_200_answers(cfg):
    service = server_api.Service(FakeBot(cfg), cfg)
    service.times.extend([(9.0, 9.0, 9)] * 50 + [(0.5, 1.0, 20)] * 200)
    latency = service.latency()
    assert latency["of_last"] == 200 and latency["answer_s"] == {"median": 1.0, "p95": 1.0}


def test_answers_stay_within_the_limits(start):
    running = start().ready()
    running.bot.models = ("tuned",)
    assert running.ask("a", model="base").status_code == 404
    assert running.health().json()["models"] == ["tuned"]
    service = running.app.state.service
    assert service.conversation(tokens=10**9).answer_tokens == server_api.MOST_TOKENS
    running.bot.conversation = lambda **o: FakeBot.conversation(running.bot, limit=300, **o)
    assert service.conversation(tokens=512).answer_tokens == 150  # half of what the model holds


def test_an_error_in_the_model_is_told_without_details_and_the_next_question_works(start):
    running = start().ready()
    broken = running.ask("rusak sekali")
    assert broken.status_code == 500 and "secret" not in broken.text and problem(broken)
    streamed = running.http.post(CHAT, json=body("rusak sekali", stream=True)).text
    assert '"error"' in streamed and "secret" not in streamed
    assert text(running.ask("halo")) == "halo "


def test_thirty_at_once_are_answered_one_after_the_other_and_health_stays_quick(start):
    running = start(pause=0.02).ready()
    slowest, busy, over = 0.0, 0, threading.Event()

    def watch():
        nonlocal slowest, busy
        with httpx.Client(base_url=running.url) as client:
            while not over.wait(0.01):
                began = time.monotonic()
                busy = max(busy, client.get("/health").json()["waiting"])
                slowest = max(slowest, time.monotonic() - began)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    replies = in_threads(lambda n: running.ask(f"kata{n} dan lagi"), 30)
    seconds = time.monotonic() - began
    over.set()
    watcher.join(5)
    assert [text(r) for r in replies] == [f"kata{n} dan lagi " for n in range(30)]
    assert running.bot.most_at_once == 1 and busy > 5
    # a busy machine slows both down: what must not happen is waiting for the answers
    assert slowest < max(1, seconds / 2), f"/health took {slowest:.2f} of {seconds:.2f} s"


def test_clients_who_ask_again_and_again_are_each_answered_or_turned_away(start):
    running = start(pause=0.002, queue=3).ready()
    running.http.timeout = 20
    found = serve_load.measure(running.http, requests=8, tokens=4, alone=1, lasting=1.0)
    assert found["clients"] == 8 and found["requests"] > 16 and not found["errors"]
    assert found["answered"] + found["refused"] == found["requests"]
    assert found["answered"] > 8 and found["refused"] > 0
    assert found["longest_queue"] <= 3 and found["health_calls"] > 2


def test_a_full_queue_turns_away_and_is_free_again_later(start):
    running = start(pause=0.02, queue=1).ready()
    replies = in_threads(lambda n: running.ask("kata " * 20), 6)
    statuses = [r.status_code for r in replies]
    assert statuses.count(200) == 2 and statuses.count(429) == 4
    assert all("Antrean penuh" in problem(r)["message"] for r in replies if r.status_code == 429)
    assert running.ask("halo").status_code == 200


def test_a_client_that_leaves_frees_the_model(start):
    running = start(pause=0.01).ready()
    asked = body("terus lagi", max_tokens=512)
    with running.http.stream("POST", CHAT, json=asked | {"stream": True}) as reply:
        next(reply.iter_lines())
    running.wait_for(lambda: running.writing() == 0, "stream given up", 3)
    with pytest.raises(httpx.ReadTimeout):
        running.http.post(CHAT, json=asked, timeout=0.3)
    running.wait_for(lambda: running.writing() == 0, "request given up", 3)


def test_a_client_that_leaves_before_the_first_word_stops_the_model(cfg):
    service, stopped = server_api.Service(FakeBot(cfg), cfg), []
    service.load()

    def silent(messages, stop, **_):
        stopped.append(stop.wait(2))
        yield ""

    async def leave():
        service.bot.stream = silent
        async with asyncio.timeout(0.1):
            await anext(service.answer(service.conversation(), "halo"))

    with pytest.raises(TimeoutError):
        asyncio.run(leave())
    assert stopped == [True]


def test_an_answer_of_which_nobody_knows_how_it_ended_is_not_said_to_be_cut():
    ends = [server_api.Turn("halo", "", ended=ended) for ended in (None, True, False)]
    replies = [server_api.Reply(types.SimpleNamespace(last=turn), "tuned") for turn in ends]
    assert [reply.finish for reply in replies] == ["stop", "stop", "length"]


def test_an_answer_that_is_cut_because_the_service_closes_is_an_error_and_no_answer(cfg):
    service = server_api.Service(FakeBot(cfg, pause=0.02), cfg)
    service.load()

    async def cut():
        async for _ in service.answer(service.conversation(), "terus lagi"):
            service.close()

    with pytest.raises(server_api.Unavailable, match="ditutup|closing"):
        asyncio.run(cut())
    assert service.health()["latency"]["answers"] == 0


def test_the_wait_has_a_limit(start, monkeypatch):
    monkeypatch.setattr(server_api, "WAIT_S", 0.3)
    running = start(pause=0.02).ready()
    replies = in_threads(lambda n: running.ask("terus lagi", max_tokens=80), 2)
    assert sorted(r.status_code for r in replies) == [200, 429]


def test_two_at_once_where_the_engine_can(start):
    running = start(pause=0.01, concurrency=2).ready()
    in_threads(lambda n: running.ask("kata " * 20), 4)
    assert running.bot.most_at_once == 2


def test_the_page_writes_two_answers_at_once_where_the_engine_can(start):
    running = start(pause=0.02, concurrency=2).ready()
    in_threads(lambda n: ask_page(running, "kata " * 20, f"tab {n}"), 2)
    assert running.bot.most_at_once == 2


CLOSED = r"""
/gradio_api/file=/etc/passwd /gradio_api/file/etc/passwd /file=/etc/passwd /../../../../etc/passwd
/static/../../../../../../etc/passwd /static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd
/assets/..%2f..%2f..%2fetc%2fpasswd /static//etc/passwd /assets/C:\Windows\win.ini
/svelte/../../__init__.py /gradio_api/proxy=http://127.0.0.1/ /monitoring/summary
/gradio_api/upload_progress /gradio_api/openapi.json /docs /gradio_api/vibe-code /gradio_api/runs
/gradio_api/deep_link /gradio_api/mcp/ /login /custom_component/1/client/component/index.js
/gradio_api/stream/a/b/c/playlist.m3u8 /.env
""".split()


@pytest.mark.parametrize("path", CLOSED)
def test_no_file_and_no_inner_route_is_served(quick, path):
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", quick.port), 5) as plain:  # no tidied path
        plain.sendall(request.encode())
        answer = b"".join(iter(lambda: plain.recv(65536), b""))
    assert int(answer.split()[1]) in (400, 403, 404, 405), answer[:200]
    assert b"tidak dikenal" not in answer and b"root:" not in answer and b"[fonts]" not in answer


@pytest.mark.parametrize(
    ("path", "reached"),
    [("/static/fonts.css", True), ("/static/../secret", False), ("/assets/a/..", False)],
)
def test_the_gate_itself_lets_no_way_up_through(path, reached):
    """Behind it Gradio has checks of its own, which hide a hole in this one."""
    seen, sent = [], []

    async def app(scope, receive, send):
        seen.append(scope["path"])

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "method": "GET", "headers": [(b"host", b"localhost")]}
    asyncio.run(serve.Gate(app)(scope, None, send))
    assert seen == [path] * reached
    assert reached or sent[0]["status"] == 404


def test_no_upload_and_no_way_around_the_queue(quick):
    for inner in ("upload", "run/respond", "call/respond", "component_server"):
        path = f"/gradio_api/{inner}"
        assert quick.http.post(path, files={"files": ("x.txt", b"x")}).status_code == 404
        assert quick.http.post(path, json={"data": []}).status_code == 404


@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 200),
        ({"host": "localhost:7860"}, 200),
        ({"host": "[::1]:7860"}, 200),
        ({"host": "192.168.1.7"}, 200),  # an address cannot be rebound
        ({"host": "evil.example"}, 403),
        ({"host": "localhost.evil.example"}, 403),
        ({"host": "kitchen.example"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "[::1]:7860", "origin": "http://evil.example"}, 403),
        ({"host": "localhost:7860", "origin": "http://localhost:7860"}, 200),
        ({"host": "localhost:7860", "origin": "http://localhost:8888"}, 403),  # of another program
    ],
)
def test_other_hosts_and_origins_are_refused(quick, headers, status):
    assert quick.http.get("/health", headers=headers).status_code == status


def test_the_bound_host_is_known():
    known = serve.Gate(None, ("Kitchen.example",)).known_host  # Windows: in capitals
    assert known({b"host": b"KITCHEN.example:7860"})
    assert known({b"host": b"kitchen.example:7860"}) and not known({b"host": b"x.example"})


def test_large_bodies_are_refused_with_and_without_a_length(quick):
    big = b'{"message": "' + b"x" * serve.MOST_BYTES + b'"}'
    chunks = (big[i : i + 9999] for i in range(0, len(big), 9999))
    for path, sent in ((CHAT, big), ("/gradio_api/queue/join", big), (CHAT, chunks)):
        refused = quick.http.post(path, content=sent)
        assert (
            refused.status_code == 413 and "lebih dari 262.144 byte" in problem(refused)["message"]
        )
    deep = b'{"data": [' + b"[" * 9000 + b"]" * 9000 + b"]}"
    assert quick.http.post("/gradio_api/queue/join", content=deep).status_code == 400


@pytest.mark.parametrize("length", [{}, {b"content-length": str(serve.MOST_BYTES).encode()}])
def test_a_body_of_exactly_the_limit_is_taken_and_one_more_byte_is_not(length):
    scope = {"path": CHAT, "headers": list(length.items())}

    async def read(size):
        async def receive():  # without more_body nothing follows
            return {"type": "http.request", "body": b"x" * size}

        return await (await serve.Gate(None).whole_body(scope, receive))()

    assert len(asyncio.run(read(serve.MOST_BYTES))["body"]) == serve.MOST_BYTES
    with pytest.raises(OverflowError):
        asyncio.run(read(serve.MOST_BYTES + 1))
    more = scope | {"headers": [(b"content-length", str(serve.MOST_BYTES + 1).encode())]}
    with pytest.raises(OverflowError):
        asyncio.run(serve.Gate(None).whole_body(more, None))  # before anything of it is read


def test_of_what_a_refused_client_sends_only_so_much_is_read():
    read = []

    async def sends(*parts):
        left = list(parts)

        async def receive():
            if not left:
                await asyncio.sleep(20)
            read.append(left[0])
            return left.pop(0)

        read.clear()
        began = time.monotonic()
        await serve.read_away(receive, most=10, seconds=0.2)
        assert time.monotonic() - began < 10
        return len(read)

    part = {"body": b"12345", "more_body": True}
    assert asyncio.run(sends(*[part] * 9)) == 2
    assert asyncio.run(sends(part)) == 1  # it sends no more and does not end
    assert asyncio.run(sends({"body": b"12345"}, part)) == 1  # its end


def test_a_body_of_several_times_the_limit_is_read_so_that_its_sender_sees_the_answer():
    read = 0

    async def receive():
        nonlocal read
        read += 65536
        return {"body": bytes(65536), "more_body": True}

    asyncio.run(serve.read_away(receive))
    assert 4 * serve.MOST_BYTES <= read <= 64 * serve.MOST_BYTES


def test_what_has_come_whole_is_refused_without_waiting_for_more():
    left, sent = [{"type": "http.request", "body": b"[]"}], []

    async def receive():
        return left.pop()  # an IndexError for whoever wants more

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/gradio_api/queue/join", "method": "POST"}
    scope["headers"] = [(b"host", b"localhost")]
    asyncio.run(serve.Gate(None)(scope, receive, send))
    assert sent[0]["status"] == 400


@pytest.mark.parametrize(
    "sent", [[], "x", {"data": [], "fn_index": []}, {"data": [], "fn_index": 99}, {"fn_index": "0"}]
)
def test_what_is_no_event_of_the_page_is_refused(quick, sent):
    for path in ("/gradio_api/queue/join", "/gradio_api/run/predict"):
        refused = quick.http.post(path, json=sent)
        assert refused.status_code == 400 and problem(refused)["code"] == "invalid_json"


@pytest.mark.parametrize("odd", ["NaN", "-Infinity", "1e999", '"\\ud800"'])
@pytest.mark.parametrize("route", ["queue/join", "run/predict"])
def test_a_value_that_json_cannot_say_back_is_no_error_of_the_service(quick, route, odd):
    """The page's framework repeats a wrong event in its refusal."""
    kind = {"content-type": "application/json"}
    sent = f'{{"data": null, "fn_index": null, "session_hash": [{odd}], "other": {odd}}}'
    reply = quick.http.post(f"/gradio_api/{route}", content=sent, headers=kind)
    assert 400 <= reply.status_code < 500, reply.text


def test_another_method_is_refused_in_openais_shape(quick):
    refused = quick.http.get(CHAT)
    assert refused.status_code == 405 and "does not take" in problem(refused)["message"]


@pytest.mark.parametrize(("path", "host"), [("/v1/embeddings", "localhost"), (CHAT, "x.example")])
def test_a_refused_client_sees_its_answer_though_its_body_was_under_way(quick, path, host):
    body = b"x" * 200_000
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", quick.port), 5) as client:
        client.sendall(head.encode())
        time.sleep(0.2)  # an answer and an end of the connection would come now
        for start in range(0, len(body), 20_000):
            client.sendall(body[start : start + 20_000])
            time.sleep(0.01)
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 40") and b"error" in answer


def test_a_body_that_never_comes_is_given_up(quick, monkeypatch):
    monkeypatch.setattr(serve, "BODY_S", 0.2)
    with socket.create_connection(("127.0.0.1", quick.port), 5) as slow:
        slow.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
        )
        answer = b"".join(iter(lambda: slow.recv(4096), b""))  # head and body come apart
        assert b" 408 " in answer and b"tidak sampai dalam 0.2 s" in answer


def test_a_connection_that_asks_for_nothing_is_ended_and_an_answer_is_not(start, monkeypatch):
    monkeypatch.setattr(serve, "HEAD_S", 0.3)
    running = start(pause=0.05).ready()
    half = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: "
    with contextlib.ExitStack() as stack:
        silent, slow, again = (
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port), 10))
            for _ in range(3)
        )
        slow.sendall(half)
        again.sendall(half + b"y\r\n\r\n")
        assert b" 200 " in again.recv(1024)
        again.sendall(half)  # after a request, too
        long = running.ask("kata " * 40, stream=True)  # 2 s
        for waiting in (silent, slow, again):
            while waiting.recv(4096):
                pass  # the rest of the first answer; b"": closed by the service
    assert long.text.count("kata") == 40 and long.text.rstrip().endswith("[DONE]")


def test_idle_connections_neither_shut_others_out_nor_cut_an_answer(start, monkeypatch):
    monkeypatch.setattr(serve, "MOST_CONNECTIONS", 8)
    monkeypatch.setattr(serve, "HEAD_S", 600)  # no clock ends them
    running = start(pause=0.02).ready()
    asked = body("kata " * 40, stream=True)
    with contextlib.ExitStack() as stack:
        answer = stack.enter_context(httpx.stream("POST", running.url + CHAT, json=asked))
        lines = answer.iter_lines()
        written = [next(lines)]
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port), 10))
            for _ in range(40)
        ]
        idle[-1].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in idle[-1].recv(1024)
        assert len(running.server.server_state.connections) == 8  # and not one fewer
        assert httpx.get(f"{running.url}/health").status_code == 200
        assert idle[0].recv(1) == b""
        written += lines
        assert str(written).count("kata") == 40 and "data: [DONE]" in written


def test_bodies_that_never_come_shut_nobody_out(start, monkeypatch):
    monkeypatch.setattr(serve, "MOST_CONNECTIONS", 8)
    running = start(pause=0.02).ready()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{{".encode()
    with contextlib.ExitStack() as stack:
        asked = body("kata " * 40, stream=True)
        answer = stack.enter_context(httpx.stream("POST", running.url + CHAT, json=asked))
        lines = answer.iter_lines()
        written = [next(lines)]
        for _ in range(20):
            slow = socket.create_connection(("127.0.0.1", running.port), 10)
            stack.enter_context(slow).sendall(head)
        time.sleep(0.1)  # all heads are read
        assert httpx.get(f"{running.url}/health").status_code == 200
        written += lines
    assert str(written).count("kata") == 40, "an answer being written is not cut off for it"


def send_event(running, event, data, session="tab", **more):
    """What the page's script sends for one event of a tab."""
    body = {"data": data, "fn_index": event, "session_hash": session} | more
    return httpx.post(f"{running.url}/gradio_api/queue/join", json=body, timeout=20)


def event_number(running, name):
    config = running.http.get("/config").json()
    return next(d["id"] for d in config["dependencies"] if d["api_name"] == name)


def ask_page(running, words, session="tab", on_progress=lambda message: None):
    """A question sent in a tab, and all messages of its last step until it is over."""
    data = {"session_hash": session}
    send_event(running, event_number(running, "_clear_and_save_textbox"), [words], session)
    submit, messages = event_number(running, "_submit_fn"), []
    joined = send_event(running, submit, [None, None, "tuned", 300, 0.5, 0.8, 5, None], session)
    url = f"{running.url}/gradio_api/queue/data"
    with httpx.stream("GET", url, params=data, timeout=30) as reply:
        for line in reply.iter_lines():
            message = json.loads(line[6:]) if line.startswith("data: ") else {}
            if message.get("event_id") == joined.json()["event_id"]:
                messages.append(message)
                on_progress(message)
                if message["msg"] == "process_completed":
                    break
    return messages


def test_the_page_answers(quick):
    done = ask_page(quick, 'satu <b>dua</b> "tiga"')[-1]
    assert done["success"]
    log = done["output"]["data"][1]
    texts = {turn["content"][0]["text"].strip() for turn in log}
    assert len(log) == 2 and texts == {'satu &lt;b&gt;dua&lt;/b&gt; "tiga"'}  # quotes may be copied
    options = quick.bot.options[-1]
    assert (options["temperature"], options["top_p"], options["top_k"]) == (0.5, 0.8, 5)
    assert quick.bot.limits[-1] == 300
    again = ask_page(quick, "<i>lagi</i>")[-1]  # Gradio has made the field anew in the meantime
    assert again["output"]["data"][1][-2]["content"][0]["text"] == "&lt;i&gt;lagi&lt;/i&gt;"
    refused = ask_page(quick, "x" * 10_000, "other")[-1]
    assert not refused["success"] and "10.000" in refused["output"]["error"]


def test_the_examples_ask_by_ingredients_and_one_is_the_warm_up(quick, cfg):
    config = quick.http.get("/config").json()
    props = [part["props"] for part in config["components"] if part["type"] == "chatbot"]
    shown = [example["text"] for example in props[0]["examples"]]
    assert shown[0] == "Saya punya tempe, kecap manis, cabai. Masak apa?" and len(shown) == 3
    assert all("{" not in request for request in server_api.example_requests("en"))
    bot = FakeBot(cfg)
    server_api.Service(bot, cfg).load()
    assert bot.asked[0][-1]["content"] == shown[0]


def test_the_log_takes_no_tags_markdown_formulas_or_files_from_an_answer(quick):
    config = quick.http.get("/config").json()
    (shown,) = [part["props"] for part in config["components"] if part["type"] == "chatbot"]
    assert shown["sanitize_html"] is True
    off = "allow_tags render_markdown latex_delimiters allow_file_downloads"
    assert not any(shown[name] for name in off.split())


def test_a_refused_question_of_the_page_prints_no_traceback_in_the_terminal(quick, capfd):
    refused = ask_page(quick, "x" * 10_000, "third")[-1]
    printed = capfd.readouterr()
    assert not refused["success"] and "Traceback" not in printed.out + printed.err


def test_an_error_behind_the_page_is_told_without_details(quick, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(quick.app.state.service, "conversation", broken)
    failed = ask_page(quick, "halo", "fourth")[-1]
    assert not failed["success"] and "secret" not in str(failed)


def test_the_page_is_not_written_anew_for_each_piece(cfg, monkeypatch):
    monkeypatch.setattr(serve, "EVERY_S", 20)
    service = server_api.Service(FakeBot(cfg), cfg)
    service.load()
    respond = serve.page(service).fn

    options = "tuned", 300, 0, 0.9, 0

    async def shown():
        return [text async for text in respond("kata " * 100, [], *options, {})]

    texts = asyncio.run(shown())
    assert len(texts) <= 3 and texts[-1] == "kata " * 100


def test_the_page_needs_no_second_server(quick):
    """With rendering on the server Gradio starts one of Node's, where it finds that."""
    assert quick.app.routes[-1].app.get_blocks().ssr_mode is False


def test_the_pages_own_queue_is_the_longer_so_that_the_service_says_that_it_is_full(quick):
    service = quick.app.state.service
    assert serve.page(service)._queue.max_size > service.queue + service.concurrency


def test_the_mark_of_a_stopped_answer_does_not_wait_in_the_queue(quick):
    last = quick.http.get("/config").json()["dependencies"][-1]
    assert last["targets"][0][1] == "then" and last["queue"] is False


def test_the_mark_of_a_stopped_answer_is_shown_and_what_was_written_is_remembered(quick):
    event = quick.http.get("/config").json()["dependencies"][-1]["id"]
    turns = [("user", "gula & <b>"), ("assistant", "sebagian > separuh")]
    nothing = [("user", "kosong"), ("assistant", serve.NOTHING)]
    texts = [html.escape(text) for _, text in nothing + turns]
    parts = [[{"type": "text", "text": text}] for text in texts]
    log = [{"role": role, "content": part} for (role, _), part in zip(nothing + turns, parts)]
    sent = {"data": [log, None], "fn_index": event, "session_hash": "marked"}
    reply = quick.http.post("/gradio_api/run/predict", json=sent)
    shown = [message["content"][0]["text"] for message in reply.json()["data"][0]]
    assert shown == [*texts[:-1], texts[-1] + serve.stop_mark()]
    ask_page(quick, "lagi", "marked")
    asked = [(message["role"], message["content"]) for message in quick.bot.asked[-1]]
    assert asked[1:] == [*turns, ("user", "lagi")]  # as they were typed and written


def test_of_several_answers_the_last_is_marked_as_stopped():
    roles = ("user", "assistant", "user", "assistant")
    log = [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for role, text in zip(roles, ("satu", "dua", "tiga", "empat"), strict=True)
    ]
    texts = [message["content"][0]["text"] for message in serve.marked(log)]
    assert texts == ["satu", "dua", "tiga", "empat" + serve.stop_mark()]


def test_the_page_cannot_be_installed_as_an_application(quick):
    """The installed one would ask for routes that are closed."""
    assert quick.http.get("/config").json()["pwa"] is False


def test_the_page_offers_the_settings_that_the_api_takes_and_begins_with_its_defaults(quick, cfg):
    config = quick.http.get("/config").json()
    props = [part["props"] for part in config["components"] if part["type"] == "slider"]
    offered = [(part["minimum"], part["maximum"], part["value"]) for part in props]
    tokens = (8, server_api.MOST_TOKENS, cfg.max_new_tokens)
    assert offered == [tokens, (0, 2, 0), (0, 1, 0.9), (0, 100, 0)]
    assert [part["step"] for part in props] == [1, 0.05, 0.05, 1]
    names = ("temperature", "top_p", "top_k")
    fields = server_api.Question.model_fields
    assert [fields[name].default for name in names] == [value for *_, value in offered[1:]]
    for name, (least, most, _) in zip(names, offered[1:]):
        for value in (least, most):
            server_api.Question(messages=[{"role": "user", "content": "a"}], **{name: value})


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [
        ("n", [1], [2, 0]),
        ("seed", [0, 2**31 - 1], [-1, 2**31]),
        ("top_k", [0, 100_000], [-1, 100_001]),
        ("top_p", [0, 1], [-0.01, 1.01]),
        ("temperature", [0, 2], [-0.01, 2.01, float("nan")]),
        ("max_tokens", [1], [0]),
        ("max_completion_tokens", [1], [0]),
    ],
)
def test_each_option_of_a_question_has_its_limits(name, taken, refused):
    messages = [{"role": "user", "content": "a"}]
    for value in taken:
        assert getattr(server_api.Question(messages=messages, **{name: value}), name) == value
    for value in refused:
        with pytest.raises(pydantic.ValidationError):
            server_api.Question(messages=messages, **{name: value})


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (429, "rate_limit_error"),
        (499, "invalid_request_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_an_error_says_whose_it_is(status, kind):
    told = server_api.problem_body("m", status, "c", "p")["error"]
    assert told == {"message": "m", "type": kind, "param": "p", "code": "c"}


def test_sending_empties_and_closes_the_field_and_keeps_its_hint(quick):
    chat_page = serve.page(quick.app.state.service)
    field, message = chat_page._clear_and_save_textbox('<b>"satu"</b>')
    sent = field.constructor_args
    assert sent["value"] == "" and sent["interactive"] is False and "placeholder" not in sent
    assert message == '&lt;b&gt;"satu"&lt;/b&gt;'


def test_letters_on_coloured_ground_have_a_contrast_of_at_least_4_5():
    soft = serve.theme()

    def luminance(name):
        value = getattr(soft, name)
        while value.startswith("*"):
            value = getattr(soft, value[1:])
        value = {"white": "#ffffff"}.get(value, value)
        parts = [int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for part in ("block_label", "block_title", "button_primary"):
        for mode in ("", "_dark"):
            shades = (f"{part}_text_color{mode}", f"{part}_background_fill{mode}")
            dark, light = sorted(map(luminance, shades))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, shades


def test_events_that_need_no_queue_are_let_through_and_no_others(quick):
    """The browser sends them to another route: without it the page's button does nothing."""
    events = {d["id"]: d["queue"] for d in quick.http.get("/config").json()["dependencies"]}
    direct = [event for event, queued in events.items() if queued is False]
    assert direct, "Gradio's page no longer has such events: close the route"
    for event, queued in events.items():
        body = {"data": [], "fn_index": event, "session_hash": "tab"}
        status = quick.http.post("/gradio_api/run/predict", json=body).status_code
        assert (status == 400) == (queued is not False), (event, queued, status)


def test_leaving_or_stopping_a_tab_frees_the_model(start):
    running = start(pause=0.02).ready()

    class Leave(Exception):
        pass

    def leave(message):
        if message["msg"] == "process_generating":
            raise Leave

    with pytest.raises(Leave):
        ask_page(running, "terus lagi", on_progress=leave)
    running.wait_for(lambda: running.writing() == 0, "closed tab", 3)

    def stop(message):
        if message["msg"] == "process_generating":
            sent = {"session_hash": "two", "fn_index": 3, "event_id": message["event_id"]}
            running.http.post("/gradio_api/cancel", json=sent)

    ask_page(running, "terus lagi", "two", on_progress=stop)
    running.wait_for(lambda: running.writing() == 0, "stopped", 3)


def test_stop_before_an_answer_has_begun_ends_that_one_and_no_later_one(start):
    running = start(pause=0.01).ready()
    event = running.http.get("/config").json()["dependencies"][-1]["id"]
    log = [{"role": "user", "content": [{"type": "text", "text": "terus lagi"}]}]
    sent = {"data": [log, None], "fn_index": event, "session_hash": "early"}
    assert running.http.post("/gradio_api/run/predict", json=sent).status_code == 200

    def said(question):
        log = ask_page(running, question, "early")[-1]["output"]["data"][1]
        return log[-1]["content"][0]["text"].split()

    assert len(said("terus lagi")) <= 2, "stopped; without it the answer goes on to its limit"
    assert running.writing() == 0
    assert said("satu dua tiga") == ["satu", "dua", "tiga"]


FILE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize(
    "value",
    [
        FILE,
        {"path": "http://127.0.0.1:9/", "meta": {"_type": "gradio.FileData"}},
        [FILE],
        [{"role": "user", "content": FILE}],
        [{"role": "user", "content": [{"type": "file", "file": {"path": "/etc/passwd"}}]}],
        [{"role": "user", "content": ["/etc/passwd"]}],
        [{"role": "user", "content": [{"type": "component", "component": "image"}]}],
        {"value": {"text": "a", "files": ["/etc/passwd"]}},
    ],
)
def test_a_file_named_in_a_page_event_is_neither_copied_nor_fetched(
    quick, value, monkeypatch, tmp_path
):
    """Gradio copies such a file, or fetches the address, before the page's function is called."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    assert send_event(quick, 2, [None, value]).status_code == 400
    assert send_event(quick, 0, [], event_data=value).status_code == 400
    assert not list(tmp_path.rglob("*.*")) and not list(tmp_path.rglob("passwd"))


def test_a_history_of_text_is_let_through():
    parts = [{"type": "text", "text": "halo"}]
    message = {"role": "user", "content": parts, "metadata": None, "options": None}
    serve.check_plain([message, {"role": "assistant", "content": "halo", "metadata": {}}])
    for other in ({"type": "file"}, {"path": "text"}):
        with pytest.raises(ValueError):
            serve.check_plain(other)
    stopped = {"role": "assistant", "content": parts}
    log = serve.marked([message, stopped])
    assert "dihentikan" in log[-1]["content"][0]["text"]
    assert serve.marked(log) == log  # a second click adds nothing
    turns = server_api.earlier_turns(serve.texts_of([*log, message]))
    assert [(t.question, t.answer) for t in turns] == [("halo", "halo")]
    assert serve.marked([message]) == [message] and serve.marked([]) == []


@pytest.mark.parametrize("path, status", [("/", 200), ("/health", 200), ("/gradio_api/file", 404)])
def test_no_answer_is_stored_or_guessed_at_and_no_form_leads_elsewhere(quick, path, status):
    shown = quick.http.get(path)
    told = [shown.headers[name] for name in ("cache-control", "referrer-policy")]
    assert shown.status_code == status and "no-store" in told[0] and told[1] == "no-referrer"
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert "form-action 'self'" in shown.headers["content-security-policy"]


def test_the_page_names_no_other_host_and_forbids_it(quick):
    shown = quick.http.get("/")
    assert shown.status_code == 200
    rules = shown.headers["content-security-policy"].split(";")
    policy = {name: sources for name, *sources in map(str.split, rules)}
    assert {"default-src", "script-src"} <= policy.keys()
    inside = {"'self'", "'none'", "'unsafe-inline'", "'unsafe-eval'", "data:", "blob:"}
    assert set(itertools.chain(*policy.values())) <= inside
    assert re.findall(r"""(?:src|href)=["'](?:https?:)?//[^"']+""", shown.text) == []
    style = quick.http.get("/theme.css").text.replace('url("data:', "url(data:")
    assert re.findall(r"@import|@font-face|url\([\"']?(?!data:)[^)]*", style) == []
    config = quick.http.get("/config").json()
    assert config["analytics_enabled"] is False and not config.get("share")
    assert SYSTEM["id"] in shown.text and config["theme"] == "soft"


def test_a_port_that_is_taken_is_named_before_anything_is_loaded(command, monkeypatch):
    with cli_serve.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} is already in use"):
            cli_serve.listen("127.0.0.1", port)
        monkeypatch.setenv("PORT", str(port))
        done = command("serve", "--profile", "sanity")
        assert done.returncode == 2 and done.stdout == "" and "PORT" in done.stderr
        assert done.stderr.count("\n") == 1
    cli_serve.listen("127.0.0.1", port).close()  # free again


@pytest.mark.parametrize(
    ("host", "address", "open_to_all"),
    [
        ("127.0.0.1", "http://127.0.0.1:8", False),
        ("::1", "http://[::1]:8", False),
        ("0.0.0.0", "http://0.0.0.0:8", True),
        ("192.168.1.5", "http://192.168.1.5:8", True),
    ],
)
def test_the_terminal_tells_the_address_and_whether_the_whole_network_may_ask(
    cfg, monkeypatch, capsys, host, address, open_to_all
):
    class Server:
        def __init__(self, config):
            pass

        async def startup(self, sockets):
            pass

        def run(self, sockets):
            asyncio.run(self.startup(sockets))

    ends = []
    monkeypatch.setattr(uvicorn, "Server", Server)
    monkeypatch.setattr(os, "_exit", ends.append)
    monkeypatch.setattr(show, "_language", "en")
    cli_serve.run(FakeBot(cfg), cfg, types.SimpleNamespace(getsockname=lambda: (host, 8, 0, 0)))
    told = capsys.readouterr().out
    assert f"{address} engine transformers" in told and ends == [0]
    assert ("open to everyone in the network, without a password" in told) is open_to_all


@pytest.mark.parametrize(
    "options, code, word",
    [
        (["--engine", "ggfu"], 2, "Did you mean 'gguf'"),
        (["--concurrency", "2", "--engine", "transformers"], 2, "--engine gguf"),
        (["--port", "99999"], 2, "65535"),
        (["--port", "0", "--model", "./nowhere"], 2, "./nowhere"),
        (["--port", "0", "--model", "packaged", "--engine", "gguf"], 2, "--engine gguf"),
        (["--host", "no-such-host.invalid"], 2, "--host"),
        (["--port", "0"], 1, "03_qlora_training"),
        (["--port", "0", "--engine", "gguf"], 1, "03_qlora_training"),
    ],
)
def test_wrong_options_and_missing_files_are_named(
    options, code, word, tmp_path, command, monkeypatch
):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tmp_path))
    done = command("serve", "--profile", "sanity", *options)
    assert done.returncode == code and word in done.stderr and "Traceback" not in done.stderr


def test_help_and_helpers_import_neither_gradio_nor_torch():
    code = (
        "import sys, helpers.cli_main, helpers.cli_serve; "
        "print([m for m in ('gradio', 'fastapi', 'torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_untuned_folder_is_served_under_its_own_name(cfg):
    show.set_language("id")
    running = Running(chat.UntunedBot(cfg), cfg).ready()
    try:
        client = running.client()
        (name,) = [model.id for model in client.models.list()]
        assert name == cfg.base_model == running.health().json()["model"]
        asked = {"model": name, **body("Buatkan resep Soto Ayam.", max_tokens=4)}
        reply = client.chat.completions.create(**asked, extra_body={"top_k": 2}, temperature=1.0)
        assert reply.model == name and 1 <= reply.usage.completion_tokens <= 4
        with pytest.raises(openai.NotFoundError, match=name):
            client.chat.completions.create(**asked | {"model": "tuned"})
        assert "tuning sendiri" not in running.http.get("/").text
    finally:
        running.close()


@pytest.mark.skipif(os.name == "nt", reason="a console's Ctrl-C cannot be sent to one process only")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_the_real_model_and_ends_cleanly_while_it_writes(
    tuned_cfg, warm_python, number
):
    python = warm_python if number == signal.SIGINT else sys.executable
    words = [python, "-m", "helpers", "serve", "--profile", "sanity", "--port", "0"]
    env = os.environ | {"DAPUR_ARTIFACTS": str(tuned_cfg.artifacts_root)}
    pipe = subprocess.PIPE
    with subprocess.Popen(words, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            url = re.search(r"http://\S+", process.stdout.readline()).group()
            end = time.monotonic() + 60
            while (health := httpx.get(f"{url}/health")).status_code != 200:
                assert health.json()["status"] == "loading" and time.monotonic() < end
                time.sleep(0.1)
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=30)
            asked = body("Buatkan resep Soto Ayam.", model="tuned")
            reply = client.chat.completions.create(**asked, max_tokens=8)
            assert 1 <= reply.usage.completion_tokens <= 8 and reply.model == "tuned"
            asked |= {"stream": True, "max_tokens": 512}
            with client.chat.completions.create(**asked) as stream:
                next(iter(stream))
                process.send_signal(number)
                assert process.wait(20) in (0, 130)
            cli_serve.listen("127.0.0.1", int(url.rpartition(":")[2])).close()  # free again
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
