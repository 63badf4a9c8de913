"""A recipe told in the other language: the list by rule, title and steps by the model, and doubts.

    teller = Translator(pairs, "id-en")  # twins of the training, for the list of ingredients
    recipe = read_pasted("Soto Ayam\\n- 1 ekor ayam\\n1. Rebus ayam.")
    answers = [model_says(chat) for chat in teller.requests(recipe)]  # piece by piece
    told = teller.finish(recipe, answers)
    teller.doubts(recipe, told)  # what a cook should look at: numbers that nobody wrote

No number, in figures or as a word, is passed on without a word that the source does not have.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from .cleaning import without_markup
from .files import UsageError, read_toml, sentence
from .pairs import NUMBER, Pair, glossary, joined, names_in, numbers, pieces, request
from .recipes import Recipe, item_name
from .settings import language_of

WORDED = read_toml("translator.toml")
MOST_WORDS = 600  # of a pasted text: more is no recipe
LONG_STEP = 30  # words; what is longer is told sentence by sentence, as steps were practised
CUT = " …"  # behind an answer that did not end
MARK = re.compile(r"(\d{1,2}[.)](?!\d)|[-*•])\s*")  # before a step or an item: "1. ", "- "


class Translator:
    """What the twins of the training know of lists, and the messages for the model."""

    def __init__(self, pairs: Sequence[Pair], task: str):
        self.task, self.names = task, glossary(pairs)
        # What is read is asked for in the other language, too: names and titles back again.
        self.back = {twin.lower(): name for name, twin in reversed(self.names.items())}
        self.back |= {pair.target.title.lower(): pair.source.title for pair in pairs}
        # "3 siung bawang putih" -> "3 cloves garlic": whole lines, then lines with blanks.
        lines, forms = defaultdict(Counter), defaultdict(Counter)
        for pair in pairs:
            for ours, theirs in zip(pair.source.ingredients, pair.target.ingredients):
                lines[ours][theirs] += 1
                forms[blank(ours, item_name(ours))][blank(theirs, item_name(theirs))] += 1
        self.lines = {line: found.most_common(1)[0][0] for line, found in lines.items()}
        self.forms = {form: found.most_common(1)[0][0] for form, found in forms.items()}

    def line(self, item: str) -> str:
        """One line of a list: as a twin has it, else in a twin's form, else word by word."""
        if item in self.lines:
            return self.lines[item]
        name = item_name(item)
        twin = self.names.get(name.lower(), name)
        form = self.forms.get(blank(item, name))
        amounts = NUMBER.findall(item)
        if form is not None and form.count("#") == len(amounts):
            for amount in amounts:
                form = form.replace("#", amount_in(amount, self.task[-2:]), 1)
            return form.replace("{}", twin)
        # No twin has this form: measures and amounts each by itself, and the name untouched by it.
        form = item.replace(name, "{}") if name else item
        for word, other in WORDED["units"].get(self.task, {}).items():
            form = re.sub(rf"\b{word}\b", other, form)
        form = NUMBER.sub(lambda found: amount_in(found[0], self.task[-2:]), form)
        return " ".join(form.replace("{}", twin).split())

    def heard(self, text: str) -> str:
        """What a text names in the language that is written, in the one that is read."""
        return ", ".join(self.back[name] for name in names_in(text, self.back))

    def requests(self, recipe: Recipe) -> list[list[dict]]:
        """The chats that ask the model: title and first step, then step by step."""
        return [request(piece, self.task) for piece in pieces(recipe.title, recipe.steps)]

    def finish(self, recipe: Recipe, answers: Sequence[str]) -> Recipe:
        """The recipe that the answers tell, its list by rule.

        A dish keeps its name, with what the model calls it in brackets: names are what a small
        model invents most, and "Opor Ayam" is what the cook asked for.
        """
        title, steps = joined(recipe.title, answers)
        if title != recipe.title:
            title = f"{recipe.title} ({title})"
        items = tuple(self.line(item) for item in recipe.ingredients)
        return replace(recipe, title=title, ingredients=items, steps=tuple(steps))

    def doubts(self, recipe: Recipe, told: Recipe) -> list[tuple[str, str]]:
        """(kind, what): "steps" not told or "cut", a "number" that nobody wrote, or one "lost"."""
        found, (read, written) = [], (self.task[:2], self.task[-2:])
        if missing := [str(n) for n, step in enumerate(told.steps, 1) if not step]:
            found.append(("steps", ", ".join(missing)))
        for place, (ours, theirs) in enumerate(zip(recipe.steps, told.steps), 1):
            if theirs.endswith(CUT):
                found.append(("cut", str(place)))
            was, now = all_numbers(ours, read), all_numbers(theirs, written)
            found += [("number", f"{place}: {short(one)}") for one in now - was]
            found += [("lost", f"{place}: {short(one)}") for one in was - now]
        return found

    def told_doubts(self, doubts: Sequence[tuple[str, str]]) -> list[str]:
        """Doubts as sentences in the language that is written, one for each kind."""
        kinds = defaultdict(list)
        for kind, what in doubts:
            kinds[kind].append(what)
        said = WORDED["doubts"][self.task[-2:]]
        return [said[kind].format(what=", ".join(these)) for kind, these in kinds.items()]


def blank(line: str, name: str) -> str:
    """A line with blanks: "#" for each number, "{}" for the name."""
    return NUMBER.sub("#", line.replace(name, "{}", 1) if name else line)


def amount_in(said: str, language: str) -> str:
    """A number as a language writes it: "1.000" is "1,000" in English, and "0,5" is "0.5"."""
    thousand, point = (",", ".") if language == "en" else (".", ",")
    whole = re.fullmatch(r"\d+([.,]\d{3})+", said)
    return re.sub("[.,]", thousand if whole else point, said)


def all_numbers(text: str, language: str) -> Counter:
    """How often each number stands in a text, as figures or as a word: "dua jam", "half"."""
    said = " ".join(
        WORDED["numbers"][language].get(w, "") for w in re.findall(r"\w+", text.lower())
    )
    return Counter(numbers(text) + numbers(said))


def short(number) -> str:
    """A fraction as a cook writes it: 3/2 is 1.5."""
    return f"{float(number):g}"


# What somebody pastes.


def looks_pasted(text: str) -> bool:
    """Whether a message is a recipe and no request: several lines or sentences, and signs of one.

    Such are steps or items with a mark, headings, or more words than a request has.
    """
    lines = [line.strip() for line in without_markup(text).splitlines() if line.strip()]
    signs = [line for line in lines if MARK.match(line) or part_of(line)]
    sentences = re.findall(r"\w[.!](?:\s|$)", text)
    return len(lines) > 2 and len(signs) > 1 or len(text.split()) > 40 and len(sentences) > 2


def part_of(line: str) -> str:
    """The part that a line heads, "ingredients" or "steps"; "" where it is no heading."""
    bare = re.sub(r"[^a-z ]", "", line.lower()).strip()
    return next((part for part, known in WORDED["headings"].items() if bare in known), "")


def read_pasted(text: str, task: str = "id-en") -> Recipe:
    """A recipe as people write one down: title, list and steps, with or without headings.

    Raises UsageError where there is no step, more than MOST_WORDS words, or another language than
    the one that was learnt.
    """
    text = without_markup(text)
    count = len(text.split())
    if count > MOST_WORDS:
        raise UsageError(sentence("long_recipe", n=count, most=MOST_WORDS))
    title, part, parts = "", "", {"ingredients": [], "steps": []}
    for line in filter(None, (" ".join(line.split()) for line in text.splitlines())):
        mark, headed = MARK.match(line), part_of(line)
        bare = line[mark.end() :] if mark else line
        if headed:
            part = headed
        elif not title and not part and not mark:
            title = line
        elif mark and mark[1][0].isdigit() and part != "ingredients":
            parts["steps"].append(bare)
        elif mark and part != "steps":
            parts["ingredients"].append(bare)
        else:
            parts[part or "steps"].append(bare)
    if title and not part and not any(parts.values()):  # a step alone
        title, parts["steps"] = "", [title]
    if not parts["steps"]:
        raise UsageError(sentence("no_steps"))
    read, letters = " ".join(parts["steps"]), re.findall(r"[^\W\d_]", text)
    spoken, latin = language_of(read), re.findall("[A-Za-z]", text)
    if spoken == task[-2:]:
        raise UsageError(sentence("already", language=WORDED["languages"][spoken]))
    # Another script, or enough words to know a language by, and none is known.
    if len(latin) < len(letters) / 2 or not spoken and len(read.split()) > 12:
        raise UsageError(sentence("not_learnt", language=WORDED["languages"][task[:2]]))
    steps = []
    for step in parts["steps"]:
        long = len(step.split()) > LONG_STEP
        steps += re.split(r"(?<=[.!?;])\s+", step) if long else [step]
    return Recipe(title, tuple(parts["ingredients"]), tuple(steps))
