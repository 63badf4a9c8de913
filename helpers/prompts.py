"""Recipes as chat messages, chats as token ids and labels, and a model's text back into a recipe.

Training, evaluation and the chatbot all call this module, so that the prompts agree.

Three ways of asking for a recipe: by dish, by ingredients, by both, in many phrasings.

Each draw phrases the request anew, shuffles the ingredients, leaves some out now and then, and
uses everyday words. Two ways of asking again, "without X" and "twice as much", have their right
answer by rule. The phrasings are in requests.toml; those under `test` are never trained on.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import subject
from .cleaning import MARKER
from .files import LabelMaskError
from .recipes import WORDS, Recipe, doubled, everyday, item_name, names, same, split_at_name, words

IGNORE = -100  # the label that PyTorch's cross entropy skips

SYSTEM = {"id": "Kamu koki Indonesia.", "en": "You are an Indonesian chef."}
HEADINGS = {"id": ("Bahan:", "Langkah:"), "en": ("Ingredients:", "Steps:")}
for _language, _texts in subject.texts().items():  # of a DATA_DIR that holds no recipes
    SYSTEM[_language], HEADINGS[_language] = _texts["system"], tuple(_texts["headings"])


def answer(recipe: Recipe, language: str = "id", asked: Sequence[str] = ()) -> str:
    """The recipe in the format to learn: title, dashed ingredients, numbered steps.

    Ingredients that the request names (`asked`) come first and in its order: the model then reads
    the next one off the request instead of looking for it. The name stands before the quantity
    (see `name_first`).
    """
    ingredients, steps = HEADINGS[language]
    place = {name: position for position, name in enumerate(asked)}
    items = sorted(recipe.ingredients, key=lambda item: place.get(item_name(item), len(place)))
    return "\n".join(
        [
            recipe.title,
            "",
            ingredients,
            *(f"- {name_first(item)}" for item in items),
            "",
            steps,
            *(f"{n}. {step}" for n, step in enumerate(recipe.steps, 1)),
        ]
    )


_AMOUNT = r"[^,(:]+?(?:,\d[^,(:]*?)*"  # of an ingredient; a comma before a digit is a decimal one
_PREPARED = r"(?:,(?!\d)| \().*"  # ", finely sliced" or " (optional)"


def name_first(item: str) -> str:
    """An ingredient as the model writes it: "3 buah cabai, iris" -> "cabai: 3 buah, iris".

    A model writes from left to right: with the name first, number and unit are chosen for that
    ingredient. An item without a quantity before its name stays as it is.
    """
    before, name, after = split_at_name(item)
    split = re.fullmatch(rf"{_AMOUNT}\s", before) and re.fullmatch(f"({_PREPARED})?", after)
    return f"{name}: {before[:-1]}{after}" if split and ":" not in name else item


def quantity_first(line: str) -> str:
    """An ingredient as recipes list it; undoes `name_first` and leaves other lines as they are."""
    found = re.fullmatch(rf"([^:]+): ({_AMOUNT})({_PREPARED})?", line)
    item = f"{found[2]} {found[1]}{found[3] or ''}" if found else line
    return item if name_first(item) == line else line


def messages(recipe: Recipe, language: str = "id", **options) -> list[dict]:
    """Chat messages for one training row: system, request, answer. Options as for requests.draw."""
    asked = draw(recipe, language, **options)
    return [
        *prompt_messages(asked.text, language),
        {"role": "assistant", "content": answer(recipe, language, asked.items)},
    ]


def follow_up(
    chat: list[dict],
    kind: str,
    main: str,
    language: str = "id",
    *,
    phrasing: str = "train",
    seed: int = 42,
) -> list[dict] | None:
    """`chat`, which ends in a recipe, with a request that refers to it and the answer by rule.

    `kind`: one of requests.FOLLOW_UPS; `main`: the main ingredient, never taken away. None where
    the rule has no answer. The same arguments always give the same row.
    """
    recipe = parse(chat[-1]["content"])
    rng = random.Random(f"{seed} {phrasing} {kind} {chat[-2]['content']}")
    if kind == "without":
        left = [
            (name, shorter)
            for name in removable(recipe, main, language)
            if (shorter := without(recipe, name, language))
        ]
        name, after = rng.choice(left) if left else ("", None)
    else:
        name, after = "", twice(recipe, language)
    if after is None:
        return None
    text = rng.choice(PHRASINGS[language][kind][phrasing]).format(items=name)
    asked = {"role": "user", "content": text[0].upper() + text[1:]}
    return [*chat, asked, {"role": "assistant", "content": answer(after, language)}]


def prompt_messages(user_text: str, language: str = "id") -> list[dict]:
    """Chat messages up to the model's turn, for one request."""
    return [{"role": "system", "content": SYSTEM[language]}, {"role": "user", "content": user_text}]


@dataclass(frozen=True)
class Encoded:
    """Token ids of one row and their labels, equally long; label -100 means "not learnt"."""

    input_ids: list[int]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.input_ids)


def prompt_ids(chat: list[dict], tokenizer) -> list[int]:
    """Token ids of a conversation up to and including the marker that opens the model's turn."""
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def label_mask(prompt: list[int], reply: list[int]) -> list[int]:
    """Labels for prompt + reply: -100 on prompt tokens, the token itself on reply tokens."""
    return [IGNORE] * len(prompt) + list(reply)


def encode(chat: list[dict], tokenizer) -> Encoded:
    """Ids and labels of one row: only the last answer and its end token are learnt."""
    prompt = prompt_ids(chat[:-1], tokenizer)
    reply = tokenizer(chat[-1]["content"], add_special_tokens=False)["input_ids"]
    reply = [*reply, tokenizer.eos_token_id]
    return Encoded(prompt + reply, label_mask(prompt, reply))


def check(row: Encoded, chat: list[dict], tokenizer) -> None:
    """Raise LabelMaskError when a row made from `chat` would teach the wrong thing.

    The rules of `check_labels`, at most one beginning token, and no control token in a message.
    """
    known = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}  # a rare character
    for text in (message.get("content") or "" for message in chat):
        typed = known & set(tokenizer(text, add_special_tokens=False)["input_ids"])
        if typed or re.search(MARKER, text):
            raise LabelMaskError(
                f"a message holds a control token of a chat template: {text[:80]!r}. The tokenizer "
                "takes it for a real one, and it would be learnt. Take it out."
            )
    prompt, ids, bos = prompt_ids(chat[:-1], tokenizer), row.input_ids, tokenizer.bos_token_id
    check_labels(row, prompt, tokenizer)
    marks_turns = prompt.count(bos) > 1  # ChatML: the beginning token opens every turn
    if bos is not None and (ids[:2] == [bos, bos] or not marks_turns and ids.count(bos) > 1):
        raise LabelMaskError(
            "there is more than one beginning token: tokenise the rendered template with "
            "add_special_tokens=False."
        )


def check_labels(row: Encoded, prompt: list[int], tokenizer) -> None:
    """Raise LabelMaskError unless all of these hold.

    The pad token is not the end token; the row begins with `prompt`, the ids that are sent in use;
    the prompt is masked; every answer token and the end token is learnt; labels are not shifted.
    """
    ids, labels = row.input_ids, row.labels
    end = tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id)
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        raise LabelMaskError(
            f"the pad token is the end token {end}: a collator that masks padding would mask the "
            "end as well. Give the tokenizer another pad token."
        )
    if ids[: len(prompt)] != prompt:
        raise LabelMaskError(
            "the tokenised training prompt is not what the chat sends: it would be asked something "
            "it never saw. Build both with the same prompt_ids."
        )
    learnt = [i for i, label in enumerate(labels) if label != IGNORE]
    if not learnt:
        raise LabelMaskError("every label is masked: nothing would be learnt.")
    if learnt[0] < len(prompt):
        raise LabelMaskError(
            f"position {learnt[0]} of the prompt has a label: the model would learn to write "
            f"requests. The first {len(prompt)} labels must be {IGNORE}."
        )
    if any(label not in (IGNORE, token) for label, token in zip(labels, ids)):
        raise LabelMaskError(
            "a label differs from its token: the labels are shifted. The model shifts them itself."
        )
    if ids[-1] != tokenizer.eos_token_id or labels[-1] != tokenizer.eos_token_id:
        raise LabelMaskError(
            f"the end token {end} at position {len(ids) - 1} is masked or missing: the tuned model "
            "would never stop. Cause: pad token equals end token, or a collator that masks it."
        )
    if len(learnt) != len(ids) - len(prompt) or len(learnt) < 2:
        raise LabelMaskError("the answer is empty, or an answer token is masked and not learnt.")


_STEP = re.compile(r"\s*(\d{1,2})\s*[.)]\s+(.*\S)")
_ITEM = re.compile(r"\s*[-*•]\s+(.*\S)")


def parse(text: str) -> Recipe | None:
    """Read an answer back into a recipe, in either language; None outside the course's format.

    The format: the title, a line "Bahan:" or "Ingredients:", at least two "- " items, a line
    "Langkah:" or "Steps:" of the same language, at least one step, numbered 1, 2, 3, ... without a
    gap, and nothing else. `parse(answer(recipe))` gives back every recipe that the reader keeps.
    """
    title, *lines = [line.strip() for line in text.strip().splitlines() if line.strip()] or [""]
    for first, second in HEADINGS.values():
        if lines[:1] != [first] or second not in lines:
            continue
        middle = lines.index(second)
        items = [_ITEM.fullmatch(line) for line in lines[1:middle]]
        steps = [_STEP.fullmatch(line) for line in lines[middle + 1 :]]
        if len(items) < 2 or not steps or not all(items) or not all(steps):
            return None
        if [int(step[1]) for step in steps] != list(range(1, len(steps) + 1)):
            return None
        items = tuple(quantity_first(item[1]) for item in items)
        return Recipe(title, items, tuple(step[2] for step in steps))
    return None


FORMS = ("ingredients", "both", "dish")
FOLLOW_UPS = ("without", "twice")  # of a recipe that has been answered
SHARES = {  # of the training rows, by form; Indonesian answers by dish were the weaker ones
    "id": (0.5, 0.2, 0.3),
    "en": (0.6, 0.2, 0.2),
}
PHRASINGS = tomllib.loads(Path(__file__).with_name("requests.toml").read_text(encoding="utf-8"))
for _language, _texts in subject.texts().items():  # of a DATA_DIR that holds no recipes
    PHRASINGS[_language] = PHRASINGS[_language] | {"around": {}} | _texts
COLLOQUIAL = 0.3  # chance of the everyday word, where a name has one
CHATTY = 0.3  # chance of words before a training request, and of words after it
INCOMPLETE = 0.25  # chance that a request by ingredients leaves out one or two of them
LAST_JOIN = {"id": " dan ", "en": " and "}
MEASURES = {  # an amount inside a step: "200 ml air", not "5 menit" or "2 cm"
    "id": r"[\d½¼¾] (?:g|kg|ml|liter|sdm|sdt|siung|butir|buah|lembar|batang)\b",
    "en": r"[\d½¼¾] (?:g|kg|ml|litres?|tbsp|tsp|cups?|cloves?|pieces?|sheets?|stalks?)\b",
}


@dataclass(frozen=True)
class Request:
    """What a person types. `items`: the ingredients it names, as the recipe calls them."""

    text: str
    form: str  # one of FORMS
    phrasing: str  # "train" or "test"
    items: tuple[str, ...] = ()


def draw(
    recipe: Recipe,
    language: str = "id",
    *,
    form: str | None = None,
    phrasing: str = "train",
    epoch: int = 0,
    seed: int = 42,
) -> Request:
    """One request for `recipe`; the same arguments always give the same one.

    `form` None: drawn by SHARES. A recipe without a usable ingredient is asked for by dish.
    """
    rng = random.Random(f"{seed} {epoch} {phrasing} {recipe.recipe_id} {recipe.title}")
    drawn = rng.choices(FORMS, SHARES[language])[0]
    known = names(recipe.ingredients, language)
    form = (form or drawn) if known else "dish"
    items = _choose(known, form, rng)
    said = [everyday(i, language) if rng.random() < COLLOQUIAL else i for i in items]
    join = ", " if rng.random() < 0.5 else LAST_JOIN[language]
    listed = ", ".join(said[:-1]) + join * (len(said) > 1) + "".join(said[-1:])
    sentence = rng.choice(PHRASINGS[language][form][phrasing])
    text = sentence.format(title=recipe.title, items=listed)
    if phrasing == "train":
        text = _chatter(text, PHRASINGS[language].get("around", {}), rng)
    return Request(text, form, phrasing, tuple(items))


def _chatter(text: str, around: dict[str, list[str]], rng: random.Random) -> str:
    """`text` with what people say around a request, now and then."""
    before, after = (
        rng.choice(around[side]) if side in around and rng.random() < CHATTY else ""
        for side in ("before", "after")
    )
    return f"{before} {text} {after}".strip()


def _choose(known: list[str], form: str, rng: random.Random) -> list[str]:
    """Which ingredients a request names, in random order; the main one, first in line, is kept."""
    if form == "dish":
        return []
    others = known[1:]
    rng.shuffle(others)
    if form == "both":
        others = others[: rng.randint(1, 3)]
    elif rng.random() < INCOMPLETE and len(others) > 2:
        others = others[: -rng.randint(1, 2)]
    items = [*known[:1], *others]
    rng.shuffle(items)
    return items


def removable(recipe: Recipe, main: str, language: str) -> list[str]:
    """Names that "without X" may ban: neither the main ingredient nor the pantry, listed once."""
    found = names(recipe.ingredients, language)
    alike = {name: sum(same(name, other, language) for other in found) for name in found}
    return [name for name in found if alike[name] == 1 and not same(name, main, language)]


def without(recipe: Recipe, name: str, language: str) -> Recipe | None:
    """The recipe without an ingredient: neither in its list nor in its steps.

    A step loses it where it stands inside an enumeration, "a, X, dan b" -> "a dan b". None where
    the title or a step would still name it.
    """
    join = LAST_JOIN[language].strip()
    inside = re.compile(rf", (?:the )?{re.escape(name)}(?=,| {join} )", re.IGNORECASE)

    def cut(step: str) -> str:
        shorter, times = inside.subn("", step)
        one_comma = rf"^([^,]*), {join} "  # of "a, b, dan c" two are left
        return re.sub(one_comma, rf"\1 {join} ", shorter) if times and language == "id" else shorter

    steps = tuple(map(cut, recipe.steps))
    kept = tuple(item for item in recipe.ingredients if name not in names([item], language))
    said, own = words(" ".join((recipe.title, *steps)), language), words(name, language)
    named = (set(own) - set(WORDS[language]["classes"])) & set(said)
    if named or f" {' '.join(own)} " in f" {' '.join(said)} ":
        return None
    return replace(recipe, ingredients=kept, steps=steps)


def twice(recipe: Recipe, language: str) -> Recipe | None:
    """The recipe with every amount doubled; None where a step measures something as well."""
    if re.search(MEASURES[language], " ".join(recipe.steps).lower()):
        return None
    return replace(recipe, ingredients=tuple(map(doubled, recipe.ingredients)))
