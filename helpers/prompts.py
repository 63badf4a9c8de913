"""Recipes as chat messages, and chats as token ids and labels.

Training, evaluation and the chatbot all call this module, so that the prompts agree.

Two ways of asking for a recipe, by ingredients and by dish, in many phrasings (requests.toml). Each
draw phrases the request anew, shuffles the ingredients and leaves some out. Where recipes are
learnt, a model is trained on such requests; in a translating chat `Kitchen.read` reads them.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .cleaning import MARKER
from .files import LabelMaskError, read_toml
from .recipes import Recipe, names

IGNORE = -100  # the label that PyTorch's cross entropy skips

# The texts of a row, by task or by language.
SYSTEM, REQUEST, HEADINGS, LAST_JOIN = read_toml("prompts.toml").values()
PHRASINGS = read_toml("requests.toml")  # by language, and by what a request names


# A recipe as the text that is learnt.


def answer(recipe: Recipe, language: str = "id") -> str:
    """The recipe in the course's format: title, dashed ingredients, numbered steps."""
    ingredients, steps = HEADINGS[language]
    items = [f"- {item}" for item in recipe.ingredients]
    # One item a line, and an empty line before each heading.
    return "\n".join([recipe.title, "", ingredients, *items, "", text_of(steps, recipe.steps)])


def text_of(title: str, steps: Sequence[str]) -> str:
    """A title, and below it the numbered steps, or other lines."""
    return "\n".join([title, *(f"{number}. {step}" for number, step in enumerate(steps, 1))])


# What people ask.


def draw(
    recipe: Recipe,
    language="id",
    *,
    form="ingredients",
    phrasing="train",
    seed=42,
) -> str:
    """What a person types for `recipe`; the same arguments always give the same request.

    `form`: "ingredients" or "dish"; a recipe without a usable ingredient is asked for by dish.
    `phrasing`: "train", or "test" for sentences that were kept apart.
    """
    # A generator of its own for each request: no draw depends on how many rows came before.
    rng = random.Random(f"{seed} {phrasing} {recipe.recipe_id} {recipe.title}")
    known = names(recipe.ingredients, language)
    if not known:
        form = "dish"
    # The main ingredient, first in line, is always named; of many one or two at the end may be left
    # out, as nobody tells everything that is in the kitchen.
    items = known[: max(3, len(known) - rng.randint(0, 2))]
    rng.shuffle(items)
    # The list reads "a, b, c" or "a, b dan c".
    join = rng.choice((", ", LAST_JOIN[language]))
    listed = join.join(", ".join(items).rsplit(", ", 1))
    # One of the sentences of this form, those of training and those of the test kept apart.
    return rng.choice(PHRASINGS[language][form][phrasing]).format(title=recipe.title, items=listed)


# Chats as messages, ids and labels.


def prompt_messages(user_text: str, task: str = "id") -> list[dict]:
    """Chat messages up to the model's turn, for one request. `task`: a key of SYSTEM."""
    return [
        {"role": "system", "content": SYSTEM[task]},
        {"role": "user", "content": user_text},
    ]


def system_key(cfg) -> str:
    """The key of SYSTEM that the settings ask for."""
    return cfg.data_language if cfg.task == "recipe" else cfg.task


def example(asked: str, reply: str, task: str) -> list[dict]:
    """A chat to learn from: what is asked, and the answer."""
    return [*prompt_messages(asked, task), {"role": "assistant", "content": reply}]


def messages(recipe: Recipe, language: str = "id", **options) -> list[dict]:
    """A request as people write it and the real recipe, as a chat. Options as for `draw`."""
    return example(draw(recipe, language, **options), answer(recipe, language), language)


@dataclass(frozen=True)
class Encoded:
    """Token ids of one row and their labels, equally long; label -100 means "not learnt"."""

    input_ids: list[int]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.input_ids)


def prompt_text(chat: list[dict], tokenizer) -> str:
    """A conversation in the model's template, up to the marker that opens the model's turn."""
    # Qwen3 would think aloud before it answers; most templates do not know the word.
    how = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    return tokenizer.apply_chat_template(chat, **how)


def prompt_ids(chat: list[dict], tokenizer) -> list[int]:
    """Token ids of `prompt_text`."""
    # The template writes the control tokens as text, so the tokenizer must not add them again.
    return tokenizer(prompt_text(chat, tokenizer), add_special_tokens=False)["input_ids"]


def label_mask(prompt: list[int], reply: list[int]) -> list[int]:
    """Labels for prompt + reply: -100 on prompt tokens, the token itself on reply tokens."""
    return [IGNORE] * len(prompt) + list(reply)


def encode(chat: list[dict], tokenizer) -> Encoded:
    """Ids and labels of one row: only the last answer and its end token are learnt."""
    prompt = prompt_ids(chat[:-1], tokenizer)
    # In one text with the prompt: alone, SentencePiece would put a blank before the answer.
    text = prompt_text(chat[:-1], tokenizer) + chat[-1]["content"]
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    reply = whole[len(prompt) :]
    # Where a token, or an unknown word, reaches from the prompt into it, by itself all the same.
    if whole[: len(prompt)] != prompt or prompt[-1] == tokenizer.unk_token_id:
        reply = tokenizer(chat[-1]["content"], add_special_tokens=False)["input_ids"]
    # Without its end token in the labels, the model would never learn to stop.
    reply = [*reply, tokenizer.eos_token_id]
    return Encoded(prompt + reply, label_mask(prompt, reply))


def check_labels(row: Encoded, chat: list[dict], tokenizer) -> None:
    """Raise LabelMaskError when a row made from `chat` would teach the wrong thing.

    All of these hold for a sound row: no message holds a control token; calls of tools are in the
    prompt; the answer's weight is not 0; the pad token is not the end token; the row begins with
    the ids that are sent in use; the prompt is masked; every answer token and the end token is
    learnt; labels are not shifted; at most one beginning token.
    """
    # A control token that somebody typed is taken for a real one, and would be learnt. A marker of
    # another family of models, which this tokenizer reads as letters, is text.
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}  # unknown: rare characters
    for message in chat:
        text = f"{message.get('content') or ''}{message.get('tool_calls') or ''}"
        typed = control & set(tokenizer(text, add_special_tokens=False)["input_ids"])
        if typed or any(m in tokenizer.get_added_vocab() for m in re.findall(MARKER, text)):
            raise LabelMaskError("control_token", text=text[:80])

    # The prompt is rendered anew, as a chat would send it: the row has to begin with it.
    asked = chat[:-1]
    prompt = prompt_ids(asked, tokenizer)
    ids = row.input_ids
    labels = row.labels
    # A template that knows no tools makes the same of a conversation without their calls.
    bare = [{k: m[k] for k in m if k != "tool_calls" or not m[k]} for m in asked]
    bos = tokenizer.bos_token_id
    eos = tokenizer.eos_token_id
    learnt = [position for position, label in enumerate(labels) if label != IGNORE]
    turns = prompt.count(bos) > 1  # ChatML: the beginning token opens every turn
    # The first rule that is broken is told. A rule may count on those above it.
    why = ""
    if tokenizer.pad_token_id in (None, eos):
        why = "pad_is_end"
    elif ids[: len(prompt)] != prompt:
        why = "other_prompt"
    elif bare != asked and prompt_ids(bare, tokenizer) == prompt:
        why = "calls_left_out"
    elif not learnt or chat[-1].get("weight") == 0:
        why = "nothing_learnt"
    elif learnt[0] < len(prompt):
        why = "prompt_learnt"
    elif any(label not in (IGNORE, token) for label, token in zip(labels, ids)):
        why = "shifted"
    elif (ids[-1], labels[-1]) != (eos, eos):
        why = "end_masked"
    elif len(learnt) != len(ids) - len(prompt) or len(learnt) < 2:
        why = "answer_masked"
    elif bos is not None and (ids[:2] == [bos, bos] or not turns and ids.count(bos) > 1):
        why = "begins_twice"
    if why:
        raise LabelMaskError(why, learnt=learnt, last=len(ids) - 1)
