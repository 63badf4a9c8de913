"""A recipe told in the other language: the list by rule, title and steps by the model, and doubts.

    teller = Translator(pairs, "id-en")  # twins of the training, for the list of ingredients
    recipe = read_pasted("Soto Ayam\\n- 1 ekor ayam\\n1. Rebus ayam.")
    answers = [model_says(chat) for chat in teller.requests(recipe)]  # piece by piece
    told = teller.finish(recipe, answers)
    teller.doubts(recipe, told)  # what a cook should look at: numbers that nobody wrote

No number is passed on without a word that the source does not have.
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
        """One line of a list: as a twin has it, else its form and its name, else as it stands."""
        if item in self.lines:
            return self.lines[item]
        name = item_name(item)
        twin = self.names.get(name.lower(), name)
        form = self.forms.get(blank(item, name))
        amounts = NUMBER.findall(item)
        if form is None or form.count("#") != len(amounts):
            return item.replace(name, twin) if name else item
        for amount in amounts:
            form = form.replace("#", amount, 1)
        return form.replace("{}", twin)

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
        """(kind, what): "steps" that were not told, a "number" that nobody wrote, or one "lost"."""
        found = []
        if missing := [str(n) for n, step in enumerate(told.steps, 1) if not step]:
            found.append(("steps", ", ".join(missing)))
        for place, (ours, theirs) in enumerate(zip(recipe.steps, told.steps), 1):
            was, now = Counter(numbers(ours)), Counter(numbers(theirs))
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


def short(number) -> str:
    """A fraction as a cook writes it: 3/2 is 1.5."""
    return f"{float(number):g}"


# What somebody pastes.


def looks_pasted(text: str) -> bool:
    """Whether a message is a recipe and no request: several lines, steps or a list among them."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    marked = [line for line in lines if re.match(r"\s*(\d{1,2}[.)]|[-*•])\s", line)]
    return len(lines) > 2 and (len(marked) > 1 or len(text.split()) > 40)


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
    for line in (" ".join(line.split()) for line in text.splitlines()):
        bare = re.sub(r"^(\d{1,2}[.)]|[-*•])\s*", "", line)
        heading = re.sub(r"[^a-z ]", "", line.lower()).strip()
        named = [key for key, words in WORDED["headings"].items() if heading in words]
        if named:
            part = named[0]
        elif not line:
            continue
        elif not title and not part and bare == line:
            title = line
        elif re.match(r"\d{1,2}[.)]\s", line) and part != "ingredients":
            parts["steps"].append(bare)
        elif re.match(r"[-*•]\s", line) and part != "steps":
            parts["ingredients"].append(bare)
        else:
            parts[part or "steps"].append(bare)
    if not parts["steps"] and title:  # a step alone
        title, parts["steps"] = "", [title]
    if not parts["steps"]:
        raise UsageError(sentence("no_steps"))
    spoken = language_of(" ".join(parts["steps"]))
    if spoken == task[-2:]:
        raise UsageError(sentence("already", language=WORDED["languages"][spoken]))
    if not spoken and len(" ".join(parts["steps"]).split()) > 12:
        raise UsageError(sentence("not_learnt", language=WORDED["languages"][task[:2]]))
    return Recipe(title, tuple(parts["ingredients"]), tuple(parts["steps"]))
