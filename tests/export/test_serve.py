"""The service: page, /health and the API's address; nothing of the machine is served."""

import asyncio
import re
import threading
import time

import httpx
import pytest
import uvicorn
from gradio_client import Client

from helpers import chat, serve
from helpers.files import CourseError, UsageError
from helpers.settings import ROOT


class Slow(chat.Bot):
    """The tiny model, loaded when it is told to, which writes one piece at a time."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.may_load, self.stopped = threading.Event(), threading.Event()

    def load(self):
        assert self.may_load.wait(60)
        return super().load()

    def conversation(self, **options):
        return super().conversation(**{"plain": True} | options)

    def stream(self, chat, stop, **options):
        try:
            if "lama" in chat[-1]["content"]:
                for n in range(200):
                    yield f"{n} "
                    time.sleep(0.05)
            if "rusak" in chat[-1]["content"]:
                raise CourseError("kompornya rusak")
            yield " / ".join(message["content"] for message in chat[1:])
            return {"tokens": 1, "ended": True}
        finally:
            self.stopped.set()


@pytest.fixture(scope="module")
def bot(tuned_cfg):
    return Slow(tuned_cfg)


@pytest.fixture(scope="module")
def started(bot):
    """start(**options): address of the app on a free port; all end with the module."""
    servers = []

    def start(**options):
        app = serve.create_app(bot, **options)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        server.config.timeout_graceful_shutdown = 1
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            time.sleep(0.05)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def address(bot, started):
    """A service whose model answers, after it was asked while it did not."""
    address = started()
    told = httpx.get(f"{address}/health")
    assert told.status_code == 503 and told.json()["ready"] is False
    bot.may_load.set()
    while httpx.get(f"{address}/health").status_code != 200:
        time.sleep(0.05)
    return address


def test_health_tells_who_answers_where_and_in_how_much_memory(address, bot):
    told = httpx.get(f"{address}/health").json()
    assert told["ready"] and told["model"] == "tuned" and told["engine"] == "transformers"
    assert told["base_model"] == "sanity" and told["device"] == bot.cfg.device.name
    assert told["ram_bytes"] > 1e8


def test_a_model_that_cannot_be_loaded_says_why(tuned_cfg, started, monkeypatch, capsys):
    broken = Slow(tuned_cfg)
    monkeypatch.setattr(Slow, "load", lambda self: 1 / 0)
    app = serve.create_app(broken)
    health = next(route.endpoint for route in app.routes if route.path == "/health")
    time.sleep(0.5)
    assert asyncio.run(health()).body.count(b"division by zero") == 1
    assert "division by zero" in capsys.readouterr().out


def test_the_page_answers_and_remembers_what_was_said(address):
    client = Client(address, verbose=False)
    assert client.predict("Soto?", api_name="/respond") == "Soto?"
    assert client.predict("Lalu?", api_name="/respond") == "Soto? / Soto? / Lalu?"
    with pytest.raises(Exception, match="kosong"):
        client.predict("  ", api_name="/respond")
    with pytest.raises(Exception, match="kompornya rusak"):
        client.predict("yang rusak", api_name="/respond")


def test_a_model_that_answers_freely_has_sliders_and_a_system_message(tuned_cfg):
    free = chat.Bot(tuned_cfg, tuned=False)
    free.system = "You are a pirate cook."
    page = serve.page(free)
    assert [slider.value for slider in page.additional_inputs] == [0.7, 0.9, 0, 256]
    assert not serve.page(chat.Bot(tuned_cfg)).additional_inputs
    talk = free.conversation(temperature=0.7, top_k=5)
    assert talk.messages("Halo")[0]["content"] == free.system


def test_an_answer_grows_and_who_stops_it_frees_the_model(address, bot):
    client = Client(address, verbose=False)
    bot.stopped.clear()
    job = client.submit("yang lama", api_name="/respond")
    while len(job.outputs()) < 3:
        time.sleep(0.05)
    assert job.outputs()[2].startswith(job.outputs()[1])
    job.cancel()
    assert bot.stopped.wait(5)
    assert client.predict("Soto?", api_name="/respond").endswith("Soto?")


FILES = ["/etc/passwd", str(ROOT / "README.md"), "../../../../../../etc/passwd"]


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("route", ["/file=", "/gradio_api/file=", "/gradio_api/file/", "/static/"])
def test_no_file_of_this_machine_is_served(address, route, path):
    with httpx.Client(base_url=address) as client:
        reply = client.send(httpx.Request("GET", f"{address}{route}{path}"))
    assert reply.status_code in (403, 404)
    assert "root:" not in reply.text and "Dapur" not in reply.text


@pytest.mark.parametrize("key", ["path", "url"])
def test_no_file_named_in_a_question_or_its_history_comes_back(address, key, tmp_path):
    """Gradio copies what a dictionary with these keys names, wherever it stands in an event."""
    secret = ROOT / "LICENSE"
    named = {
        key: str(secret) if key == "path" else f"{address}/health",
        "meta": {"_type": "gradio.FileData"},
    }
    history = [{"role": "user", "content": [{"type": "file", "file": named}]}]
    for data in ([named, None], ["Soto?", history]):
        event = {"data": data, "fn_index": 0, "session_hash": "x", "event_data": None}
        joined = httpx.post(f"{address}/gradio_api/queue/join", json=event)
        told = ""
        if joined.status_code == 200:
            with httpx.stream(
                "GET", f"{address}/gradio_api/queue/data?session_hash=x", timeout=20
            ) as events:
                for line in events.iter_lines():
                    told += line
                    if "process_completed" in line or "close_stream" in line:
                        break
        for copied in re.findall(r"/gradio_api/file=([^\"\\]+)", told):
            assert httpx.get(f"{address}/gradio_api/file={copied}").status_code != 200
        assert secret.read_text()[:40] not in told


def test_a_password_guards_the_page_but_not_health(bot, started):
    bot.may_load.set()
    address = started(auth=("siti", "rahasia:123"))
    assert httpx.get(f"{address}/config").status_code == 401
    event = {"data": ["Soto?"], "fn_index": 0, "session_hash": "y"}
    assert httpx.post(f"{address}/gradio_api/queue/join", json=event).status_code == 401
    assert httpx.get(f"{address}/health").status_code in (200, 503)
    client = Client(address, auth=("siti", "rahasia:123"), verbose=False)
    assert client.predict("Soto?", api_name="/respond") == "Soto?"


def test_the_page_asks_no_other_host(address):
    page = httpx.get(f"{address}/").text
    assert "fonts.googleapis" not in page
    loaded = re.findall(r'(?:src|href)="(https?://[^"]+)"', page)
    assert all(link.startswith((address, "https://gradio.app")) for link in loaded), loaded


def test_what_it_cannot_listen_on_is_named_before_anything_is_loaded(bot, address):
    port = int(address.rpartition(":")[2])
    with pytest.raises(OSError, match=str(port)):
        serve.run_service(bot, port=port)
    for auth in ("siti", "siti:"):
        with pytest.raises(UsageError, match="USER:PASSWORD"):
            serve.run_service(bot, port=0, auth=auth)


def test_the_last_port_has_its_api_below_it(bot, monkeypatch):
    """Nothing is announced that nobody can have: 65536 is no port."""
    monkeypatch.setattr(serve, "create_app", lambda *given: 1 / 0)
    monkeypatch.setattr(bot, "engine", "gguf")
    with pytest.raises(ZeroDivisionError):
        serve.run_service(bot, port=65535)
    assert bot.address["port"] == 65534
