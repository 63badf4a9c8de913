"""The chat service over a bot that is no model, on a real server and a real client; once over the tiny model; once in a browser."""

import contextlib
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

import pytest

pytest.importorskip("gradio")
httpx = pytest.importorskip("httpx")
import uvicorn

from helpers import chat
from helpers.cli import serve
from helpers.course import bilingual
from helpers.course.errors import CourseError, UsageError
from helpers.export import gate, page, queue, server
from helpers.training.prompts import SYSTEM

EVIL = '<img src=x onerror="document.title=\'PWNED\'"><b>tebal</b><script>document.title="PWNED"</script> ![x](http://example.com/x.png)'


class FakeBot:
    """`chat.Bot`'s interface: echoes the question's words, a piece every `pause` seconds, until `max_new_tokens`.

    A question that begins with "rusak" breaks after one word, one with "terus" never ends by itself.
    """

    def __init__(self, cfg, pause=0.0, ready=None):
        self.cfg, self.pause, self.ready = cfg, pause, ready
        self.at_once = self.most_at_once = 0
        self.asked = []

    def stream(self, messages, stop, *, model, max_new_tokens, **options):
        self.asked.append(messages[-1]["content"])
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

    def conversation(self, **options):
        if self.ready:
            self.ready()
        defaults = {
            "window": 60,
            "limit": 1500,
            "answer_tokens": 200,
            "language": self.cfg.data_language,
        }
        return chat.Conversation(
            self.stream,
            lambda messages: sum(3 + len(m["content"].split()) for m in messages),
            **(defaults | options),
        )


class Running:
    """A service on a free port, in a thread of this process."""

    def __init__(self, bot, cfg, **options):
        self.app = server.create_app(bot, cfg, **options)
        self.service, self.bot = self.app.state.service, bot
        self.listener = serve.listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.server = uvicorn.Server(
            uvicorn.Config(self.app, log_level="critical", timeout_graceful_shutdown=1)
        )
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    def health(self):
        return self.http.get("/health")

    def wait_for(self, condition, what, seconds=10):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s: {what}"
            time.sleep(0.01)

    def ready(self):
        self.wait_for(lambda: self.health().status_code == 200, "ready")
        return self

    def close(self):
        self.http.close()
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def start(cfg):
    """Start services over fake bots; all are closed at the end."""
    bilingual.set_language("id")
    with contextlib.ExitStack() as stack:

        def starter(pause=0.0, ready=None, **options):
            service = Running(FakeBot(cfg, pause, ready), cfg, **options)
            stack.callback(service.close)
            return service

        yield starter


@pytest.fixture(scope="module")
def quick(cfg):
    """One fast service for tests that leave nothing behind."""
    bilingual.set_language("id")
    service = Running(FakeBot(cfg), cfg).ready()
    yield service
    service.close()


def in_threads(work, many):
    """work(0), ..., work(many - 1) at the same time; their results in order."""
    results = [None] * many
    threads = [
        threading.Thread(target=lambda n=n: results.__setitem__(n, work(n))) for n in range(many)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


# --- health ---------------------------------------------------------------------------------------------------------


def test_health_is_loading_until_the_model_has_answered_a_token(start):
    gate = threading.Event()
    running = start(ready=lambda: gate.wait(10))
    running.wait_for(lambda: running.service.state == "loading", "start")
    early = running.health()
    assert early.status_code == 503 and early.json()["status"] == "loading"
    refused = running.http.post("/api/chat", json={"message": "halo"})
    assert (
        refused.status_code == 503
        and "masih dimuat" in refused.json()["error"]
        and int(refused.headers["retry-after"]) > 0
    )
    assert running.bot.asked == []
    gate.set()
    facts = running.ready().health().json()
    assert len(running.bot.asked) == 1  # the warm-up, and nothing else, went to the model
    assert (
        facts["status"] == "ok"
        and facts["profile"] == "sanity"
        and facts["model"] == "sanity"
        and facts["engine"] == "transformers"
    )
    assert facts["waiting"] == facts["writing"] == 0 and facts["uptime_s"] > 0


def test_health_tells_why_loading_failed(start):
    def broken():
        raise CourseError("no adapter in here")

    running = start(ready=broken)
    running.wait_for(lambda: running.service.state == "failed", "failure")
    answer = running.health()
    assert (
        answer.status_code == 503
        and answer.json()["status"] == "failed"
        and answer.json()["reason"] == "no adapter in here"
    )
    assert (
        "no adapter in here"
        in running.http.post("/api/chat", json={"message": "halo"}).json()["error"]
    )


def test_a_model_that_writes_nothing_is_not_ready(cfg):
    bot = FakeBot(cfg)
    bot.stream = lambda *_, **__: iter(())
    service = queue.Service(bot, cfg)
    service.load()
    assert service.state == "failed" and service.reason


# --- the API --------------------------------------------------------------------------------------------------------


def test_an_answer_and_its_facts(quick):
    reply = quick.http.post("/api/chat", json={"message": "satu dua tiga"}).json()
    assert (
        reply["answer"].split() == ["satu", "dua", "tiga"]
        and reply["tokens"] == 4
        and reply["ended"]
        and not reply["stopped"]
    )
    assert reply["model"] == "tuned" and reply["max_new_tokens"] == 200
    cut = quick.http.post(
        "/api/chat", json={"message": "satu dua tiga", "max_new_tokens": 2, "model": "base"}
    ).json()
    assert (
        cut["answer"].split() == ["satu", "dua"]
        and cut["ended"] is False
        and cut["model"] == "base"
        and cut["max_new_tokens"] == 2
    )


def test_answers_stay_within_half_of_what_the_model_holds(cfg):
    service = queue.Service(FakeBot(cfg), cfg)
    assert service.conversation(answer_tokens=512).answer_tokens == 512
    assert service.conversation(answer_tokens=512, limit=300).answer_tokens == 150
    talk = service.conversation()
    assert service.bounded(10**9, talk) == queue.MOST_TOKENS and service.bounded(-3, talk) == 1


def test_the_stream_comes_in_pieces(start):
    running = start(pause=0.05).ready()
    came, events = [], []
    with running.http.stream(
        "POST", "/api/chat/stream", json={"message": "satu dua tiga empat lima"}
    ) as reply:
        assert reply.status_code == 200 and reply.headers["content-type"].startswith(
            "text/event-stream"
        )
        for line in reply.iter_lines():
            if line.startswith("data: "):
                came.append(time.monotonic())
                events.append(json.loads(line[6:]))
    assert "".join(e["piece"] for e in events[:-1]).split() == "satu dua tiga empat lima".split()
    assert events[-1]["done"] and events[-1]["tokens"] == 6
    assert came[-1] - came[0] > 0.1  # not all at the end


@pytest.mark.parametrize(
    "body, status, word",
    [
        ({"message": "  "}, 400, "kosong"),
        ({"message": "x" * 10_000}, 400, "batasnya"),
        ({"message": "k " * 999, "max_new_tokens": 512}, 400, "token"),
        ({}, 422, "message"),
        ({"message": 3}, 422, "message"),
        ({"message": "a", "max_new_tokens": 513}, 422, "max_new_tokens"),
        ({"message": "a", "max_new_tokens": 0}, 422, "max_new_tokens"),
        ({"message": "a", "model": "tunned"}, 422, "model"),
        ({"message": "a", "max_tokens": 3}, 422, "max_tokens"),
        ([1], 422, "body"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_reason(quick, body, status, word):
    for path in ("/api/chat", "/api/chat/stream"):
        reply = quick.http.post(path, json=body)
        assert reply.status_code == status and re.search(word, reply.json()["error"]), reply.text
    assert quick.health().json()["waiting"] == 0


def test_no_json_no_answer(quick):
    assert (
        quick.http.post(
            "/api/chat", content=b"{", headers={"content-type": "application/json"}
        ).status_code
        == 422
    )
    assert (
        quick.http.post(
            "/api/chat", content=b'{"message": "a"}', headers={"content-type": "text/plain"}
        ).status_code
        == 422
    )
    assert quick.http.get("/api/chat").status_code in (404, 405)


def test_the_base_model_is_refused_where_there_is_none(start):
    running = start(engine="gguf", models=("tuned",)).ready()
    assert running.http.post("/api/chat", json={"message": "a", "model": "base"}).status_code == 400
    assert (
        running.health().json()["models"] == ["tuned"]
        and running.health().json()["engine"] == "gguf"
    )


def test_an_error_in_the_model_is_told_without_its_details_and_the_next_question_works(start):
    running = start().ready()
    broken = running.http.post("/api/chat", json={"message": "rusak sekali"})
    assert broken.status_code == 500 and "secret" not in broken.text and broken.json()["error"]
    streamed = running.http.post("/api/chat/stream", json={"message": "rusak sekali"}).text
    assert '"error"' in streamed and "secret" not in streamed
    assert running.http.post("/api/chat", json={"message": "halo"}).json()["answer"] == "halo "
    running.wait_for(lambda: running.health().json()["failed"] == 2, "two failures counted")


# --- the queue ------------------------------------------------------------------------------------------------------


def test_thirty_at_once_are_all_answered_one_after_the_other_and_health_stays_quick(start):
    running = start(pause=0.004).ready()
    slowest, busy, over = 0.0, 0, threading.Event()

    def watch():
        nonlocal slowest, busy
        with httpx.Client(base_url=str(running.http.base_url)) as client:
            while not over.is_set():
                began = time.monotonic()
                facts = client.get("/health").json()
                slowest, busy = max(slowest, time.monotonic() - began), max(busy, facts["waiting"])
                time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    replies = in_threads(
        lambda n: httpx.post(
            f"http://127.0.0.1:{running.port}/api/chat",
            json={"message": f"kata{n} dan lagi"},
            timeout=60,
        ),
        30,
    )
    over.set()
    watcher.join(5)
    assert [r.status_code for r in replies] == [200] * 30
    assert [r.json()["answer"] for r in replies] == [f"kata{n} dan lagi " for n in range(30)]
    assert running.bot.most_at_once == 1 and busy > 5
    assert slowest < 1, (
        f"/health took {slowest:.2f} s"
    )  # generous: the machine that runs the tests may be busy
    running.wait_for(lambda: running.health().json()["answered"] == 30, "all counted")


def test_a_full_queue_turns_away_and_is_free_again_later(start):
    running = start(pause=0.02, queue=1).ready()
    statuses = in_threads(
        lambda n: (
            httpx.post(
                f"http://127.0.0.1:{running.port}/api/chat",
                json={"message": "kata " * 20},
                timeout=30,
            ).status_code
        ),
        6,
    )
    assert statuses.count(200) >= 2 and statuses.count(503) >= 1 and set(statuses) == {200, 503}
    assert running.http.post("/api/chat", json={"message": "halo"}).status_code == 200


def test_a_client_that_leaves_frees_the_model(start):
    running = start(pause=0.01).ready()
    with running.http.stream(
        "POST", "/api/chat/stream", json={"message": "terus lagi", "max_new_tokens": 512}
    ) as reply:
        next(reply.iter_lines())
    running.wait_for(lambda: running.health().json()["writing"] == 0, "stream given up", 3)
    with pytest.raises(httpx.ReadTimeout):
        running.http.post(
            "/api/chat", json={"message": "terus lagi", "max_new_tokens": 512}, timeout=0.3
        )
    running.wait_for(lambda: running.health().json()["writing"] == 0, "request given up", 3)


def test_limits_of_time(start):
    running = start(pause=0.02, answer_s=0.3, wait_s=0.4).ready()
    reply = running.http.post(
        "/api/chat", json={"message": "terus lagi", "max_new_tokens": 512}
    ).json()
    assert reply["stopped"] and 3 < reply["tokens"] < 100
    running.service.answer_s = 5
    one, two = in_threads(
        lambda n: httpx.post(
            f"http://127.0.0.1:{running.port}/api/chat",
            json={"message": "terus lagi", "max_new_tokens": 80},
            timeout=30,
        ),
        2,
    )
    assert sorted([one.status_code, two.status_code]) == [
        200,
        503,
    ]  # the second one waited too long


def test_two_at_once_where_the_engine_can(start):
    running = start(pause=0.01, concurrency=2, engine="gguf").ready()
    in_threads(
        lambda n: httpx.post(
            f"http://127.0.0.1:{running.port}/api/chat", json={"message": "kata " * 20}, timeout=30
        ),
        4,
    )
    assert running.bot.most_at_once == 2


# --- nothing else is open ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/file=../../../../etc/passwd",
        "/../../../../etc/passwd",
        "/static/../../../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2f..%2fetc%2fpasswd",
        "/static//etc/passwd",
        "/assets/C:\\Windows\\win.ini",
        "/svelte/../../__init__.py",
        "/gradio_api/proxy=http://127.0.0.1/",
        "/monitoring",
        "/monitoring/summary",
        "/gradio_api/upload_progress",
        "/gradio_api/openapi.json",
        "/docs",
        "/openapi.json",
        "/gradio_api/vibe-code",
        "/gradio_api/runs",
        "/gradio_api/deep_link",
        "/gradio_api/mcp/",
        "/login",
        "/custom_component/1/client/component/index.js",
        "/gradio_api/stream/a/b/c/playlist.m3u8",
        "/health/",
        "/.env",
        "/helpers/export/server.py",
    ],
)
def test_no_file_and_no_inner_route_is_served(quick, path):
    with socket.create_connection(
        ("127.0.0.1", quick.port), 5
    ) as plain:  # a client library would tidy the path up
        plain.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: plain.recv(65536), b""))
    status = int(answer.split()[1])
    assert status in (400, 403, 404, 405), answer[:200]
    assert b"root:" not in answer and b"[fonts]" not in answer


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/upload",
        "/gradio_api/run/respond",
        "/gradio_api/call/respond",
        "/gradio_api/api/respond",
        "/gradio_api/component_server",
        "/gradio_api/process_recording",
        "/gradio_api/vibe-edit",
        "/login",
    ],
)
def test_no_upload_and_no_way_around_the_queue(quick, path):
    assert quick.http.post(path, files={"files": ("x.txt", b"x")}).status_code == 404
    assert quick.http.post(path, json={"data": []}).status_code == 404


def join(running, kind, data, session):
    """What the page's script sends when `kind` ("submit", "stop") happens in a tab."""
    config = running.http.get("/config").json()
    event = next(d["id"] for d in config["dependencies"] if d["targets"][0][1] == kind)
    return httpx.post(
        f"http://127.0.0.1:{running.port}/gradio_api/queue/join",
        json={"data": data, "fn_index": event, "session_hash": session},
        timeout=20,
    )


def page_event(running, data, session="tab"):
    """A question typed in a tab: the answer to `join`, and then all messages until the event is over."""
    joined, messages = join(running, "submit", data, session), []
    if joined.status_code == 200:
        with httpx.stream(
            "GET",
            f"http://127.0.0.1:{running.port}/gradio_api/queue/data",
            params={"session_hash": session},
            timeout=30,
        ) as reply:
            for line in reply.iter_lines():
                message = json.loads(line[6:]) if line.startswith("data: ") else {}
                if (
                    message.get("event_id") == joined.json()["event_id"]
                ):  # those of other events, such as Stop, come here too
                    messages.append(message)
                    if message["msg"] == "process_completed":
                        break
    return joined, messages


@pytest.mark.parametrize("named", ["/etc/passwd", __file__, "http://127.0.0.1:9/"])
def test_a_file_named_in_a_page_event_is_neither_copied_nor_fetched(
    quick, named, monkeypatch, tmp_path
):
    """Gradio copies a file, or fetches an address, named like this into its cache before the page's function is called."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    file = {"path": named, "meta": {"_type": "gradio.FileData"}}
    for data in ([file, "tuned", 20], [[file], "tuned", 20], file):
        joined, messages = page_event(quick, data)
        assert joined.status_code == 400 and not messages
    assert not list(tmp_path.rglob("*.*")) and not list(tmp_path.rglob("passwd"))


def test_the_page_answers_and_keeps_tabs_apart(start):
    running = start().ready()
    for tab, words in (("one", "satu dua"), ("two", "tiga empat"), ("one", "lima")):
        joined, messages = page_event(running, [words, "tuned", 20], tab)
        assert joined.status_code == 200 and messages[-1]["success"]
        log = [m["content"][0]["text"] for m in messages[-1]["output"]["data"][0]]
    assert log == ["satu dua", "satu dua", "lima", "lima"]  # the first tab's, without the second's
    refused = page_event(running, ["x" * 10_000, "tuned", 20], "one")[1][-1]["output"]["data"]
    assert (
        "10,000" in refused[2] and refused[0]["__type__"] == refused[1]["__type__"] == "update"
    )  # log and text field stay as they are


def test_stop_in_the_queue_gives_the_question_back_and_stop_while_writing_keeps_the_text(start):
    running, results = start(pause=0.02).ready(), {}
    tabs = {
        tab: threading.Thread(
            target=lambda tab=tab: results.__setitem__(
                tab, page_event(running, ["terus " + tab, "tuned", 512], tab)[1]
            )
        )
        for tab in ("one", "two")
    }
    tabs["one"].start()
    running.wait_for(lambda: running.health().json()["writing"] == 1, "one writes")
    tabs["two"].start()
    running.wait_for(lambda: running.health().json()["waiting"] == 1, "two waits")
    join(running, "stop", [], "two")
    tabs["two"].join(10)
    log, text, told = results["two"][-1]["output"]["data"]
    assert (
        text["value"] == "terus two"
        and text["submit_btn"] == "Kirim"
        and "Dibatalkan" in told
        and log == []
    )
    assert running.health().json()["writing"] == 1
    join(running, "stop", [], "one")
    tabs["one"].join(10)
    log, text, told = results["one"][-1]["output"]["data"]
    assert (
        "dihentikan" in told
        and log[1]["content"][0]["text"].startswith("terus one")
        and "value" not in text
    )


def test_large_bodies_are_refused_with_and_without_a_length(quick):
    big = b'{"message": "' + b"x" * gate.MOST_BYTES + b'"}'
    json_type = {"content-type": "application/json"}
    assert quick.http.post("/api/chat", content=big, headers=json_type).status_code == 413
    assert (
        quick.http.post("/gradio_api/queue/join", content=big, headers=json_type).status_code == 413
    )
    assert (
        quick.http.post(
            "/api/chat",
            content=(big[i : i + 9999] for i in range(0, len(big), 9999)),
            headers=json_type,
        ).status_code
        == 413
    )
    escaped = json.dumps(
        {"message": "🍜" * 10_000}
    )  # as large as 10,000 characters can get: still a polite answer
    assert quick.http.post("/api/chat", content=escaped, headers=json_type).status_code == 400


def test_a_body_that_never_comes_is_given_up(quick, monkeypatch):
    monkeypatch.setattr(gate, "BODY_S", 0.2)
    with socket.create_connection(("127.0.0.1", quick.port), 5) as slow:
        slow.sendall(
            b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        assert b" 408 " in slow.recv(4096)


def test_the_page_names_no_other_host_and_forbids_it(quick):
    page = quick.http.get("/")
    assert (
        page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    )
    assert re.findall(r"""(?:src|href)=["'](?:https?:)?//[^"']+""", page.text) == []
    assert (
        re.findall(
            r"@import|@font-face|url\([\"']?(?!data:)[^)]*",
            quick.http.get("/theme.css").text.replace('url("data:', "url(data:"),
        )
        == []
    )
    config = quick.http.get("/config").json()
    assert (
        config["analytics_enabled"] is False
        and not config.get("share")
        and config["footer_links"] == []
    )
    assert SYSTEM["id"] in page.text and config["theme"] == "soft"


def test_labels_follow_the_language(start):
    for language, word, other in (("en", "Clear", "Hapus"), ("id", "Hapus", "Clear")):
        bilingual.set_language(language)
        labels = [c["props"].get("value") for c in start().http.get("/config").json()["components"]]
        assert word in labels and other not in labels


def test_what_was_written_goes_to_the_page_escaped(cfg):
    talk = FakeBot(cfg).conversation(model="base")
    talk.say(EVIL)
    shown = json.dumps(page.messages(talk.turns, EVIL))
    assert "<" not in shown and "&lt;script" in shown
    assert "<b>" not in page.status("<b>")


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_named_before_anything_is_loaded():
    with serve.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} is already in use"):
            serve.listen("127.0.0.1", port)
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "helpers", "serve", "--profile", "sanity"],
            capture_output=True,
            text=True,
            env=os.environ | {"PORT": str(port)},
            timeout=60,
        )
        assert (
            done.returncode == 2
            and done.stdout == ""
            and done.stderr.count("\n") == 1
            and "PORT" in done.stderr
        )
        assert time.monotonic() - began < 20
    serve.listen("127.0.0.1", port).close()  # free again


def test_wrong_host_engine_and_concurrency():
    with pytest.raises(UsageError, match="--host"):
        serve.listen("no-such-host.invalid", 0)
    for options, word in (
        (["--engine", "ggfu"], "Did you mean 'gguf'"),
        (["--concurrency", "2"], "--engine gguf"),
        (["--port", "99999"], "65535"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "helpers", "serve", *options],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2 and word in done.stderr, done.stderr


def test_without_an_adapter_the_command_names_the_lesson(tmp_path):
    for engine, word in (("transformers", "03_qlora_training"), ("gguf", "06_export_and_serve")):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "helpers",
                "serve",
                "--profile",
                "sanity",
                "--port",
                "0",
                "--engine",
                engine,
            ],
            capture_output=True,
            text=True,
            env=os.environ | {"DAPUR_ARTIFACTS": str(tmp_path)},
            timeout=60,
        )
        assert done.returncode == 1 and word in done.stderr and done.stderr.count("\n") == 1, (
            done.stderr
        )


def test_help_and_helpers_import_neither_gradio_nor_torch():
    code = "import sys, helpers, helpers.cli.main, helpers.cli.serve; print([m for m in ('gradio', 'fastapi', 'torch', 'transformers') if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_without_gradio_the_command_says_what_to_install(tuned_cfg):
    code = "import sys; sys.modules['gradio'] = None; from helpers.cli.main import main; main(['serve', '--profile', 'sanity', '--port', '0'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"DAPUR_ARTIFACTS": str(tuned_cfg.artifacts_root)},
    )
    assert (
        done.returncode == 2
        and "pip install gradio" in done.stderr
        and done.stderr.count("\n") == 1
    ), done.stderr


# --- a real model, a real process -------------------------------------------------------------------------------------


def served(cfg, *options):
    """`python -m helpers serve` as a process of its own, once it listens: (process, address)."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "helpers",
            "serve",
            "--profile",
            "sanity",
            "--language",
            "en",
            "--data-language",
            "id",
            "--port",
            "0",
            *options,
        ],
        env=os.environ | {"DAPUR_ARTIFACTS": str(cfg.artifacts_root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    first = process.stdout.readline()
    if "http://" not in first:
        process.kill()
        raise AssertionError(first + process.communicate()[1])
    return process, re.search(r"http://\S+", first).group()


@pytest.mark.skipif(os.name == "nt", reason="a console's Ctrl-C cannot be sent to one process only")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_the_real_model_and_ends_cleanly_in_the_middle_of_an_answer(
    tuned_cfg, number
):
    process, address = served(tuned_cfg)
    try:
        end = time.monotonic() + 60
        while (health := httpx.get(f"{address}/health")).status_code != 200:
            assert health.json()["status"] == "loading" and time.monotonic() < end, health.text
            time.sleep(0.1)
        reply = httpx.post(
            f"{address}/api/chat",
            json={"message": "Buatkan resep Soto Ayam.", "max_new_tokens": 8},
            timeout=30,
        ).json()
        assert 1 <= reply["tokens"] <= 8 and reply["model"] == "tuned"
        with httpx.stream(
            "POST",
            f"{address}/api/chat/stream",
            json={"message": "Buatkan resep Rendang.", "max_new_tokens": 512},
            timeout=30,
        ) as stream:
            next(stream.iter_lines())
            process.send_signal(number)
            assert process.wait(20) in (0, 130)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{address}/health")
        serve.listen("127.0.0.1", int(address.rpartition(":")[2])).close()  # the port is free again
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()
        process.stderr.close()


@pytest.mark.skipif(os.name == "nt", reason="a console's Ctrl-C cannot be sent to one process only")
def test_ctrl_c_while_the_model_loads(tuned_cfg):
    process, _ = served(tuned_cfg)
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(30) in (0, 130) and "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


# --- a real browser, where there is one -------------------------------------------------------------------------------


@pytest.fixture
def browser():
    """Chromium through selenium; neither is among the course's requirements."""
    webdriver = pytest.importorskip("selenium.webdriver")
    import shutil

    program, driver = (
        shutil.which("chromium") or shutil.which("google-chrome"),
        shutil.which("chromedriver"),
    )
    if not program or not driver:
        pytest.skip("no chromium with its driver on this machine")
    options = webdriver.ChromeOptions()
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1200,900",
    ):
        options.add_argument(flag)
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(service=webdriver.chrome.service.Service(driver), options=options)
    yield window
    window.quit()


def test_the_page_in_a_browser(start, browser):
    def all_of(selector):
        return browser.find_elements("css selector", selector)

    def script(code, *values):
        return browser.execute_script(code, *values)

    def status():
        return script("return document.querySelector('#status [role=status]')?.innerText || ''")

    def typed(text):
        running.wait_for(lambda: all_of("#message .submit-button"), "idle")
        time.sleep(0.5)  # the script looks once more before it takes the next Enter
        all_of("#message textarea")[0].send_keys(text + "\n")

    def field():
        return script("return document.querySelector('#message textarea').value")

    def log():
        return script(
            "return [...document.querySelectorAll('#log .message-content')].map(e => e.innerText.trim())"
        )

    running = start(pause=0.05).ready()
    browser.get(f"http://127.0.0.1:{running.port}/")
    running.wait_for(lambda: status() == "Siap.", "page ready", 30)
    assert script("return document.documentElement.lang") == "id" and SYSTEM["id"] in script(
        "return document.body.innerText"
    )

    typed("satu dua tiga empat lima enam tujuh delapan sembilan sepuluh")
    running.wait_for(lambda: len(log()) == 2 and 1 <= len(log()[1].split()) < 9, "answer grows")
    running.wait_for(lambda: "selesai sendiri" in status(), "answer ends")
    assert log()[1].split()[-1] == "sepuluh" and field() == ""

    typed(EVIL)  # the bot says it again
    running.wait_for(lambda: len(log()) == 4 and log()[3] == EVIL, "HTML as text")
    assert browser.title == "Dapur LLM" and not all_of("#log img, #log b, #log script")

    script(
        "const t = document.querySelector('#message textarea'); t.value = 'x'.repeat(10000); t.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    typed("")
    running.wait_for(lambda: "batasnya" in status(), "refusal")
    assert len(field()) == 10_000 and len(log()) == 4
    script(
        "const t = document.querySelector('#message textarea'); t.value = ''; t.dispatchEvent(new Event('input', {bubbles: true}))"
    )

    typed("terus lagi dan lagi")
    running.wait_for(lambda: all_of("#message .stop-button"), "Stop is there")
    running.wait_for(lambda: len(log()) == 6 and len(log()[5].split()) > 3, "answer grows")
    script("document.querySelector('#message .stop-button').click()")
    running.wait_for(lambda: status().startswith("dihentikan"), "stopped", 5)
    written = log()[5]
    assert running.health().json()["writing"] == 0 and len(written.split()) < 150

    script(
        "[...document.querySelectorAll('button')].find(b => b.innerText.trim() === 'Hapus').click()"
    )
    running.wait_for(lambda: log() == [], "cleared")

    browser.switch_to.new_window("tab")  # a second tab has a conversation of its own
    browser.get(f"http://127.0.0.1:{running.port}/")
    running.wait_for(lambda: status() == "Siap.", "second page ready", 30)
    typed("terus sampai ditutup")
    running.wait_for(lambda: running.health().json()["writing"] == 1, "second tab's answer")
    events = browser.get_log("performance")
    browser.close()
    running.wait_for(
        lambda: running.health().json()["writing"] == 0, "a closed tab frees the model", 8
    )
    browser.switch_to.window(browser.window_handles[0])
    assert log() == []
    asked = [
        message["params"]["request"]["url"]
        for event in events + browser.get_log("performance")
        if (message := json.loads(event["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    ]
    assert asked and not [
        url
        for url in asked
        if not url.startswith((f"http://127.0.0.1:{running.port}/", "data:", "blob:"))
    ]
    assert [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
