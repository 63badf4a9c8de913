"""The comparison of follow-ups: what is measured, the floors, and a whole run on a tiny model."""

import json
import math

import follow_ups as script
import pytest

from helpers import prompts, recipes, splits
from helpers.files import MissingStep, write_text


def rows_of(corpus, phrasing):
    for recipe in corpus:
        asked = prompts.draw(recipe, "id", form="ingredients", phrasing=phrasing)
        yield {
            "recipe_id": recipe.recipe_id,
            "title": recipe.title,
            "main": recipes.names(recipe.ingredients, "id")[0],
            "form": "ingredients",
            "phrasing": phrasing,
            "asked": list(asked.items),
            "messages": prompts.messages(recipe, "id", form="ingredients", phrasing=phrasing),
        }


@pytest.fixture(scope="module")
def chats(corpus):
    """Follow-ups on recipes of the corpus, by kind."""
    rows = list(rows_of(corpus, "test"))
    made = {
        kind: [prompts.follow_up(row["messages"], kind, row["main"]) for row in rows]
        for kind in prompts.FOLLOW_UPS
    }
    return {kind: [chat for chat in some if chat] for kind, some in made.items()}


@pytest.mark.parametrize("kind", prompts.FOLLOW_UPS)
def test_the_rule_s_answer_has_full_marks_and_the_first_answer_is_not_obedient(chats, kind):
    for chat in chats[kind]:
        best = script.score(kind, chat, chat[-1]["content"], "id")
        assert set(best.values()) == {1.0}, (chat, best)
        repeated = script.score(kind, chat, chat[2]["content"], "id")
        assert repeated["obeyed"] == 0 and repeated["kept"] == 1
        nothing = script.score(kind, chat, "Maaf.", "id")
        assert nothing.keys() == best.keys() and set(nothing.values()) == {0.0}


def test_a_request_is_one_of_the_written_sentences_with_a_capital_letter(chats):
    for kind, some in chats.items():
        sentences = prompts.PHRASINGS["id"][kind]["train"]
        for chat in some:
            items = prompts.parse(chat[2]["content"]).ingredients
            names = recipes.names(items, "id") if kind == "without" else [""]
            written = {one.format(items=name) for one in sentences for name in names}
            assert chat[3]["content"] in {text[0].upper() + text[1:] for text in written}


def test_code_obeys_and_leaves_the_steps_as_they_are(chats):
    for kind, some in chats.items():
        for chat in some:
            text = script.by_code(kind, chat, "id")
            found = script.score(kind, chat, text, "id")
            assert found["obeyed"] == found["kept"] == 1
            assert prompts.parse(text).steps == prompts.parse(chat[2]["content"]).steps
    clean = [
        script.score("without", chat, script.by_code("without", chat, "id"), "id")["clean"]
        for chat in chats["without"]
    ]
    assert sum(clean) < len(clean) / 2  # most steps still name what was dropped


def test_one_amount_that_is_not_doubled_is_not_obeyed(chats):
    chat = chats["twice"][0]
    right, first = (prompts.parse(chat[turn]["content"]) for turn in (-1, 2))
    mixed = chat[-1]["content"].replace(
        *(prompts.answer(r, "id").splitlines()[4] for r in (right, first))
    )
    found = script.score("twice", chat, mixed, "id")
    assert found["obeyed"] == 0 and 0 < found["doubled"] < 1 and found["kept"] == 1


def test_a_whole_run_writes_tables_of_all_opponents(tuned_cfg, corpus, monkeypatch):
    half = len(corpus) // 2
    for split, some in (("train", corpus[:half]), ("test", corpus[half:])):
        lines = [json.dumps(row) + "\n" for row in rows_of(some, split)]
        write_text(splits.split_file(tuned_cfg, split), "".join(lines))
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tuned_cfg.artifacts_root))
    saved = (tuned_cfg.artifacts / "adapter" / "adapter_model.safetensors").read_bytes()
    found = script.measure("sanity", "id", each=6, recipes=4)
    assert (tuned_cfg.artifacts / "adapter" / "adapter_model.safetensors").read_bytes() == saved
    assert found["n"] == 4 and found["machine"] and found["versions"]["torch"] and found["date"]
    answered = found["answered_by_rule"]
    assert answered["all"] == len(corpus) - half > answered["without"] >= found["n"]
    assert found["training"]["rows"] == {"without": 6, "twice": 6, "single": 3}
    assert all(map(math.isfinite, found["training"]["losses"])) and found["training"]["losses"]
    for kind in prompts.FOLLOW_UPS:
        assert list(found[kind]) == ["before", "after", "repeat", "code"]
        assert found[kind]["code"]["obeyed"][0] == 1 and found[kind]["repeat"]["obeyed"][0] == 0
        assert len(found["examples"][kind]["chat"]) == 4
    assert set(found["single"]) == {"before", "after", "change"}


def test_without_an_adapter_the_lesson_to_run_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tmp_path))
    with pytest.raises(MissingStep, match="03_qlora_training"):
        script.measure("sanity", "id", each=6, recipes=4)
