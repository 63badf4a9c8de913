"""The service: page, /health and the API's address; nothing of the machine is served."""

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
        self.may_load = threading.Event()
        self.stopped = threading.Event()

    def load(self):
        assert self.may_load.wait(60)
        return super().load()

    def conversation(self, plain=True, **options):
        return super().conversation(plain, **options)

    def stream(self, chat, stop, **options):
        """What was said so far; or 200 pieces, or an error, where the question wants it."""
        question = chat[-1]["content"]
        try:
            if "lama" in question:
                for number in range(200):
                    yield f"{number} "
                    time.sleep(0.05)
            if "rusak" in question:
                raise CourseError("no_steps")
            yield " / ".join(message["content"] for message in chat[1:])
            return {"tokens": 1, "ended": True}
        finally:
            self.stopped.set()


@pytest.fixture(scope="module")
def started():
    """started(bot, **options): address of the app on a free port; all end with the module."""
    servers = []

    def start(bot, **options):
        app = serve.create_app(bot, **options)
        config = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def bot(tuned_cfg):
    return Slow(tuned_cfg)


@pytest.fixture(scope="module")
def address(bot, started):
    """A service whose model answers, after it was asked while it did not."""
    address = started(bot)
    told = httpx.get(f"{address}/health")
    assert told.status_code == 503
    assert told.json()["ready"] is False
    bot.may_load.set()
    while httpx.get(f"{address}/health").status_code != 200:
        time.sleep(0.05)
    return address


def ask(address, message, **options):
    """What the page answers."""
    client = Client(address, verbose=False, **options)
    return client.predict(message, api_name="/respond")


def test_health_tells_who_answers_where_and_in_how_much_memory(address, bot):
    told = httpx.get(f"{address}/health").json()
    assert told.pop("ram_bytes") > 1e8
    assert told == {
        "ready": True,
        "problem": "",
        "model": "tuned",
        "base_model": "sanity",
        "engine": "transformers",
        "device": bot.cfg.device.name,
    }


def test_a_model_that_cannot_be_loaded_says_why(tuned_cfg, started, monkeypatch):
    broken = Slow(tuned_cfg)
    monkeypatch.setattr(broken, "load", lambda: 1 / 0)
    address = started(broken)
    problem = ""
    while not problem:
        problem = httpx.get(f"{address}/health").json()["problem"]
        time.sleep(0.05)
    assert problem == "ZeroDivisionError: division by zero"


def test_the_page_answers_and_remembers_what_was_said(address):
    client = Client(address, verbose=False)
    assert client.predict("Soto?", api_name="/respond") == "Soto?"
    assert client.predict("Lalu?", api_name="/respond") == "Soto? / Soto? / Lalu?"


@pytest.mark.parametrize(("message", "told"), [("  ", "kosong"), ("rusak", "Tidak ada langkah")])
def test_the_page_says_why_there_is_no_answer(address, message, told):
    with pytest.raises(Exception, match=told):
        ask(address, message)


def test_a_model_that_answers_freely_has_sliders_and_one_that_cooks_has_none(tuned_cfg):
    assert serve.page(chat.Bot(tuned_cfg, tuned=False)).additional_inputs
    assert not serve.page(chat.Bot(tuned_cfg)).additional_inputs


def test_an_answer_grows_and_who_stops_it_frees_the_model(address, bot):
    client = Client(address, verbose=False)
    bot.stopped.clear()
    job = client.submit("yang lama", api_name="/respond")
    while len(job.outputs()) < 3:
        time.sleep(0.05)
    assert job.outputs()[2].startswith(job.outputs()[1])
    job.cancel()
    assert bot.stopped.wait(5)
    assert ask(address, "Soto?") == "Soto?"


# Elsewhere, in the folder that the service runs in, and above it.
@pytest.mark.parametrize(
    "path", ["/etc/passwd", str(ROOT / "README.md"), "../../../../../../etc/passwd"]
)
def test_no_file_of_this_machine_is_served(address, path):
    assert httpx.get(f"{address}/gradio_api/file={path}").status_code in (403, 404)


def told_of(address, data):
    """All that comes back for a question that is put into the page's queue as it stands."""
    event = {"data": data, "fn_index": 0, "session_hash": "x", "event_data": None}
    joined = httpx.post(f"{address}/gradio_api/queue/join", json=event)
    if joined.status_code != 200:
        return ""
    # The stream ends with the last answer.
    return httpx.get(f"{address}/gradio_api/queue/data?session_hash=x", timeout=20).text


def test_no_file_named_in_a_question_or_its_history_comes_back(address):
    """Gradio copies what such a dictionary names, wherever it stands in an event."""
    named = {"path": str(ROOT / "LICENSE"), "meta": {"_type": "gradio.FileData"}}
    history = [{"role": "user", "content": [{"type": "file", "file": named}]}]
    for data in ([named, None], ["Soto?", history]):
        told = told_of(address, data)
        assert "Permission is hereby granted" not in told
        for copied in re.findall(r"/gradio_api/file=([^\"\\]+)", told):
            assert httpx.get(f"{address}/gradio_api/file={copied}").status_code != 200


@pytest.mark.usefixtures("address")  # after which the model is loaded, in whatever order tests run
def test_a_password_guards_the_page_but_not_health(bot, started):
    address = started(bot, auth=("siti", "rahasia:123"))
    event = {"data": ["Soto?"], "fn_index": 0, "session_hash": "y"}
    assert httpx.get(f"{address}/config").status_code == 401
    assert httpx.post(f"{address}/gradio_api/queue/join", json=event).status_code == 401
    assert httpx.get(f"{address}/health").status_code in (200, 503)
    assert ask(address, "Soto?", auth=("siti", "rahasia:123")) == "Soto?"


def test_the_page_asks_no_other_host(address):
    page = httpx.get(f"{address}/").text
    assert "fonts.googleapis" not in page
    for link in re.findall(r'(?:src|href)="(https?://[^"]+)"', page):
        assert link.startswith((address, "https://gradio.app"))


def test_a_port_that_is_taken_is_named_before_anything_is_loaded(bot, address):
    port = int(address.rpartition(":")[2])
    with pytest.raises(OSError, match=str(port)):
        serve.run_service(bot, port=port)


@pytest.mark.parametrize("auth", ["siti", "siti:"])
def test_a_user_without_a_password_is_refused(bot, auth):
    with pytest.raises(UsageError, match="NAMA:SANDI"):
        serve.run_service(bot, port=0, auth=auth)
