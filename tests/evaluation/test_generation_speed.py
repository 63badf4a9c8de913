"""The generation benchmark: every way answers the same requests; the service's result is kept."""

import json
import sys

import generation_speed
import pytest
import serve_load

from helpers import llamacpp, settings

GIVEN = {"profile": "sanity", "language": "id", "prompts": 6, "alone": 3, "chats": 2, "tokens": 5}


@pytest.fixture
def way(monkeypatch, tuned_cfg):
    monkeypatch.setattr(settings, "load", lambda *given: tuned_cfg)
    return lambda name: generation_speed.variant(name, **GIVEN)


def test_batches_and_single_prompts_come_from_the_same_requests(way):
    batched, alone = way("batched"), way("one by one")
    assert (batched["answers"], alone["answers"]) == (6, 3)
    for found in (batched, alone):
        assert found["eval_tokens_per_s"] > 0 and found["peak_mb"] > 100


@pytest.mark.parametrize("name", ["as loaded", "each pass", "unpacked", "gguf"])
def test_each_way_of_chatting_answers(name, way):
    if name == "gguf" and not llamacpp.available():
        pytest.skip("xllamacpp is not installed")
    found = way(name)
    assert found["answers"] == 2 and 0 < found["tokens"] <= 5
    assert found["chat_tokens_per_s"] > 0 and found["first_s"] > 0


def test_without_an_adapter_one_sentence_names_the_lesson(
    tmp_path, script, warm_python, monkeypatch
):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tmp_path))
    monkeypatch.setattr(sys, "executable", warm_python)
    done = script(generation_speed.__file__, "--profile", "sanity")
    assert done.returncode == 1 and "03_qlora_training" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_load_of_the_service_is_kept_as_a_file(tmp_path, monkeypatch, capsys):
    found = {"requests": 30, "answered": 30, "errors": []}
    monkeypatch.setattr(serve_load, "measure", lambda *given: found)
    kept = tmp_path / "serve_load.json"
    monkeypatch.setattr(sys, "argv", ["serve_load.py", "--json", str(kept)])
    with pytest.raises(SystemExit) as left:
        serve_load.main()
    result = json.loads(kept.read_text(encoding="utf-8"))
    assert left.value.code == 0 and result | found == result and result["date"]
    assert json.loads(capsys.readouterr().out) == found
