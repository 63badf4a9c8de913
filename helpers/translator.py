"""A recipe told in the other language: the list by rule, title and steps by the model, and doubts.

    teller = Translator(pairs, "id-en")  # twins of the training, for the list of ingredients
    recipe = read_pasted("Soto Ayam\\n- 1 ekor ayam\\n1. Rebus ayam.")
    answers = [model_says(chat) for chat in teller.requests(recipe)]  # piece by piece
    told = teller.finish(recipe, answers)
    teller.doubts(recipe, told)  # what a cook should look at: numbers that nobody wrote

No number, in figures or as a word, is passed on without a word that the source does not have.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from .cleaning import without_markup
from .files import UsageError, read_toml
from .pairs import NUMBER, Pair, glossary, joined, numbers, pieces
from .prompts import prompt_messages
from .recipes import Recipe, item_name
from .settings import language_of

WORDED = read_toml("translator.toml")
LONG_STEP = 30  # words; what is longer is told sentence by sentence, as steps were practised
CUT = " …"  # behind an answer that did not end
BLANK = "\0"  # a number, in the form of a line: no text holds this character
MARK = re.compile(r"^(\d{1,2}[.)](?!\d)|[-*•])\s*")  # before a step or an item: "1. ", "- "


class Translator:
    """What the twins of the training know of lists, and the messages for the model."""

    def __init__(self, pairs: Sequence[Pair], task: str):
        self.task = task
        self.written = task[-2:]
        self.names = glossary(pairs)
        # "3 siung bawang putih" -> "3 cloves garlic": whole lines, then lines with blanks.
        self.lines = glossary(pairs, str)
        self.forms = glossary(pairs, form_of)

    def line(self, item: str) -> str:
        """One line of a list: as a twin has it, else in a twin's form, else word by word."""
        if item in self.lines:
            return self.lines[item]
        name = item_name(item)
        amounts = NUMBER.findall(item.replace(name, "{}", 1))
        form = self.forms.get(form_of(item), "")
        if not form or form.count(BLANK) != len(amounts):
            # No twin has this form: measures by themselves, and the name untouched by it.
            form = form_of(item)
            for word, other in WORDED["units"][self.task].items():
                form = re.sub(rf"\b{word}\b", other, form)
        for amount in amounts:
            # "0,5" is "0.5" in English. Before thousands stands the other one: "1,000".
            comma = self.written != "en"
            if re.fullmatch(r"\d+([.,]\d{3})+", amount):
                comma = not comma
            told = re.sub("[.,]", "," if comma else ".", amount)
            form = form.replace(BLANK, told, 1)
        form = form.replace("{}", self.names.get(name, name))
        return " ".join(form.split())

    def requests(self, recipe: Recipe) -> list[list[dict]]:
        """The chats that ask the model: title and first step, then step by step."""
        return [prompt_messages(piece, self.task) for piece in pieces(recipe)]

    def finish(self, recipe: Recipe, answers: Sequence[str]) -> Recipe:
        """The recipe that the answers tell, its list by rule.

        A dish keeps its name, with what the model calls it in brackets: names are what a small
        model invents most, and "Opor Ayam" is what the cook asked for.
        """
        title, steps = joined(recipe.title, answers)
        if title != recipe.title:
            title = f"{recipe.title} ({title})"
        listed = tuple(map(self.line, recipe.ingredients))
        return replace(recipe, title=title, ingredients=listed, steps=tuple(steps))

    def doubts(self, recipe: Recipe, told: Recipe) -> list[str]:
        """What a cook should look at, as sentences in the language that is written.

        Steps that were not told, or break off; numbers that nobody wrote, or that got lost.
        """
        found = defaultdict(list)
        for place, (ours, theirs) in enumerate(zip(recipe.steps, told.steps), 1):
            if not theirs:
                found["steps"].append(str(place))
            if theirs.endswith(CUT):
                found["cut"].append(str(place))
            was = all_numbers(ours, self.task[:2])
            now = all_numbers(theirs, self.written)
            # A fraction as a cook writes it: 3/2 is 1.5.
            found["number"] += [f"{place}: {float(one):g}" for one in now - was]
            found["lost"] += [f"{place}: {float(one):g}" for one in was - now]
        sentences = []
        for kind, text in WORDED["doubts"][self.written].items():
            if found[kind]:
                sentences.append(text.format(what=", ".join(found[kind])))
        return sentences


def form_of(line: str) -> str:
    """A line with blanks: BLANK for each number, "{}" for the name."""
    return NUMBER.sub(BLANK, line.replace(item_name(line), "{}", 1))


def all_numbers(text: str, language: str) -> Counter:
    """How often each number stands in a text, as figures or as a word: "dua jam", "half"."""
    known = WORDED["numbers"][language]
    figures = re.sub(r"\w+", lambda word: known.get(word[0].lower(), word[0]), text)
    return Counter(numbers(figures))


# What somebody pastes.


def lines_of(text: str) -> list[str]:
    """The lines of a text that hold something, without markup and with single blanks."""
    lines = without_markup(text).splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]


def looks_pasted(text: str) -> bool:
    """Whether a message is a recipe and no request: several lines or sentences, and signs of one.

    Such are steps or items with a mark, headings, or more words than a request has.
    """
    lines = lines_of(text)
    signs = 0
    for line in lines:
        if MARK.match(line) or part_of(line):
            signs += 1
    if len(lines) > 2 and signs > 1:
        return True
    sentences = re.findall(r"\w[.!](?:\s|$)", text)
    return len(text.split()) > 40 and len(sentences) > 2


def part_of(line: str) -> str:
    """The part that a line heads, "ingredients" or "steps"; "" where it is no heading."""
    return WORDED["headings"].get(re.sub("[^a-z]", "", line.lower()), "")


def read_pasted(text: str, task: str = "id-en") -> Recipe:
    """A recipe as people write one down: title, list and steps, with or without headings.

    Raises UsageError where there is no step, or another language than the one that is read.
    """
    lines = lines_of(text)
    title = ""
    part = ""
    parts = defaultdict(list)
    for line in lines:
        heading = part_of(line)
        if heading:
            part = heading
        # A line alone is a step, or all steps.
        elif title or part or MARK.match(line) or len(lines) == 1:
            # Where no heading says what it is, a line with a dash is an item, any other a step.
            likely = "ingredients" if line[0] in "-*•" else "steps"
            parts[part or likely].append(MARK.sub("", line))
        else:
            title = line
    if not parts["steps"]:
        raise UsageError("no_steps")
    read = " ".join(parts["steps"])
    spoken = language_of(read)
    # Another language, or enough to know one by, and none is known.
    if spoken != task[:2] and (spoken or len(read) > 70):
        raise UsageError("not_learnt", language=WORDED["languages"][task[:2]])
    steps = []
    for step in parts["steps"]:
        if len(step.split()) > LONG_STEP:
            steps += re.split(r"(?<=[.!?;])\s+", step)
        else:
            steps.append(step)
    return Recipe(title, tuple(parts["ingredients"]), tuple(steps))
