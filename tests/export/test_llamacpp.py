"""GGUF files and llama.cpp: transformers' tokens, the chat's interface, closed to others."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import httpx
import openai
import pytest
from programs import gap, post

from helpers import chat, export, llamacpp, models, prompts
from helpers.files import CourseError, MissingStep, write_json
from helpers.settings import ROOT, Device

pytest.importorskip("xllamacpp", reason="no wheel on this platform")
QUESTION = "Buatkan resep Soto Ayam."


@pytest.fixture(scope="module")
def file(packaged_cfg):
    """The exported GGUF file in 16 bits."""
    return export.gguf_path(packaged_cfg, "f16")


@pytest.fixture(scope="module")
def server(file):
    """llama.cpp with that file, open to anybody on this machine."""
    return llamacpp.start_engine(file)


@pytest.fixture(scope="module")
def bot(packaged_cfg):
    return llamacpp.GgufBot(chat.Bot(packaged_cfg))


def test_it_cuts_text_into_the_tokens_that_were_trained(server, packaged_cfg, corpus):
    tokenizer = models.load_tokenizer(packaged_cfg)
    messages = prompts.messages(corpus[0], "id")
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    text += " 1,5 kg é 🍜\t\n\n  1000 ml\n 20"
    found = post(server, "/tokenize", content=text, add_special=False, parse_special=True)
    assert found["tokens"] == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_it_answers_as_transformers_and_its_api_in_openais_form_too(server, packaged_cfg, file):
    """Greedily, token by token; only where two tokens are level may the two differ."""
    messages = prompts.prompt_messages(QUESTION, "id")
    asked = prompts.prompt_ids(messages, models.load_tokenizer(packaged_cfg))
    options = {"n_predict": 16, "temperature": 0, "return_tokens": True}
    told = post(server, "/completion", prompt=asked, **options)
    assert gap(file.with_name("merged"), asked, told["tokens"]) < 0.05
    with openai.OpenAI(base_url=f"{server.listening_address}/v1", api_key="-") as client:
        reply = client.chat.completions.create(
            model="any", messages=messages, max_tokens=16, temperature=0
        )
    assert reply.choices[0].message.content == told["content"]
    assert reply.model == file.stem  # and no path of this machine


def test_the_chat_reads_the_file_that_export_writes_in_8_bits(bot, packaged_cfg):
    bot.load()
    (ours,) = (packaged_cfg.artifacts / "chat").glob("*/*.gguf")
    assert ours.read_bytes() == export.gguf_path(packaged_cfg, "q8_0").read_bytes()


def test_an_answer_is_cut_at_its_limit(bot):
    talk = bot.conversation(plain=True, answer_tokens=12)
    assert talk.say(QUESTION)
    assert talk.turns[-1].tokens == 12
    assert not talk.turns[-1].ended


def test_a_drawn_answer_follows_its_seed(bot):
    drawn = []
    for seed in (1, 1, 2):
        talk = bot.conversation(plain=True, temperature=1.5, seed=seed, answer_tokens=12)
        drawn.append(talk.say(QUESTION))
    assert drawn[0] == drawn[1] != drawn[2]


def test_stop_ends_an_answer_and_frees_the_engine(bot):
    talk = bot.conversation(plain=True, answer_tokens=900)
    for _ in talk.reply(QUESTION):
        talk.stop()
    assert talk.turns[-1].stopped
    assert talk.turns[-1].tokens < 100
    assert bot.conversation(plain=True, answer_tokens=5).say(QUESTION)


def test_the_base_model_answers_through_transformers(bot, monkeypatch):
    def stream(chat, stop, model, **drawing):
        yield model
        return {"tokens": 1, "ended": True}

    monkeypatch.setattr(bot.plain, "stream", stream)
    assert bot.conversation(plain=True, model="base").say("Halo") == "base"


def test_it_is_asked_through_no_proxy(bot, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):  # a machine may leave its own address out
        monkeypatch.delenv(name, raising=False)
    assert bot.conversation(plain=True, answer_tokens=2).say(QUESTION)


def test_its_server_is_for_nobody_else(bot):
    address = bot.load().listening_address
    assert address.startswith("http://127.0.0.1:")
    stranger = {"Origin": "http://x.example"}
    for path in ("/v1/models", "/props", "/slots"):
        assert httpx.get(address + path, headers=stranger).status_code == 401
    told = httpx.get(address + "/health", headers=stranger)
    assert told.headers["access-control-allow-origin"] not in ("*", "http://x.example")


def test_a_retrained_adapter_gets_its_own_file(cfg, monkeypatch, tmp_path):
    """By the content of its weights: the same weights find their file again."""
    monkeypatch.setattr(models, "require_adapter", lambda cfg: tmp_path)
    monkeypatch.setattr(export, "save_merged", lambda cfg, folder: folder.mkdir())
    monkeypatch.setattr(llamacpp, "write_gguf", lambda folder, path: path.touch())
    monkeypatch.setattr(llamacpp, "start_engine", lambda path, **address: path)
    made = replace(cfg, artifacts_root=tmp_path)
    files = []
    for weights in ("first", "first", "second"):
        (tmp_path / "adapter_model.safetensors").write_text(weights)
        files.append(llamacpp.GgufBot(chat.Bot(made)).load())
    assert files[0] == files[1] != files[2]


def test_what_it_cannot_load_is_named(tmp_path, file):
    whole = file.read_bytes()
    (tmp_path / "x.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CourseError, match="tidak bisa menyajikan x.gguf"):
        llamacpp.start_engine(tmp_path / "x.gguf")


def test_a_file_larger_than_the_free_memory_is_not_opened(tmp_path, monkeypatch):
    (tmp_path / "x.gguf").write_bytes(b"GGUF" * 1000)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=3000))
    with pytest.raises(CourseError, match="x.gguf memerlukan .* bebas .*: tutup program lain"):
        llamacpp.start_engine(tmp_path / "x.gguf")


def test_it_answers_on_a_processor_and_transformers_on_a_card(packaged_cfg):
    card = replace(packaged_cfg, device=Device("cuda", "GPU", 8.0))
    assert llamacpp.open_bot(packaged_cfg).engine == "gguf"
    assert llamacpp.open_bot(card).engine == "transformers"


def test_transformers_answers_for_a_family_that_nobody_here_writes(cfg, tmp_path, monkeypatch):
    write_json(tmp_path / "config.json", {"model_type": "gemma"})
    monkeypatch.setattr(models, "require_adapter", lambda cfg: None)
    assert llamacpp.open_bot(replace(cfg, base_model=str(tmp_path))).engine == "transformers"


def test_without_a_tuned_model_the_lesson_is_named_at_once(cfg, tmp_path):
    with pytest.raises(MissingStep, match="03_qlora_training"):
        llamacpp.open_bot(replace(cfg, artifacts_root=tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_the_command_serves_page_and_api_and_ends_while_it_writes(packaged_cfg, few_layers):
    own = {
        "BASE_MODEL": "packaged",
        "DAPUR_ARTIFACTS": str(packaged_cfg.artifacts_root),
        "PYTHONPATH": str(few_layers),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "helpers", "serve", "--profile", "sanity", "--port", "0"],
        cwd=ROOT,
        env=os.environ | own,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as service:
        try:
            page = re.search(r"http://127.0.0.1:\d+", service.stdout.readline())[0]
            api = re.search(r"http://127.0.0.1:\d+/v1", service.stdout.readline())[0]
            while httpx.get(f"{page}/health", timeout=60).status_code != 200:
                assert service.poll() is None
                time.sleep(0.2)
            messages = [{"role": "user", "content": QUESTION}]
            asked = {"messages": messages, "max_tokens": 1500, "stream": True}
            route = f"{api}/chat/completions"
            with httpx.stream("POST", route, json=asked, timeout=60) as reply:
                lines = reply.iter_lines()
                assert "choices" in next(lines)
                service.send_signal(signal.SIGTERM)
                service.wait(20)
        finally:
            service.kill()
