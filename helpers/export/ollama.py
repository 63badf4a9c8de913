"""An Ollama Modelfile for the exported model, and the proof that its template says what the tokenizer's chat template says.

Ollama renders prompts with Go's text/template, the tokenizer with Jinja: two texts for one thing, and where they differ by a
line break the model is asked what it never saw. Modelfile: https://docs.ollama.com/modelfile
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..course.errors import CourseError
from ..course.settings import Settings
from ..training.prompts import SYSTEM

CONTEXT = 2048  # tokens; Ollama's own default differs from version to version
ROLES = ("system", "user", "assistant")


def go_template(tokenizer) -> str:
    """The tokenizer's chat template as a Go template over `.Messages`, found by rendering marked messages.

    Raises CourseError for a chat template in which a message looks different from place to place (a loop over roles cannot say that).
    """
    marks = {role: f"@@{role}@@" for role in ROLES}
    chat, text, shape = [], "", {}
    for role in ROLES:
        chat.append({"role": role, "content": marks[role]})
        longer = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=False)
        if not longer.startswith(text) or longer.count(marks[role]) != 1:
            raise CourseError(
                f"the chat template does not simply append the {role} message: it cannot be written as a Go template over messages."
            )
        shape[role], text = longer[len(text) :].split(marks[role]), longer
    opening = tokenizer.apply_chat_template(chat[:2], tokenize=False, add_generation_prompt=True)
    opening = opening.removeprefix(
        tokenizer.apply_chat_template(chat[:2], tokenize=False, add_generation_prompt=False)
    )
    if any("{{" in part or '"""' in part for part in [opening, *sum(shape.values(), [])]):
        raise CourseError(
            'the chat template holds "{{" or \'"""\' as text, which a Modelfile cannot carry.'
        )
    general = [
        tuple(part.replace(role, "{{ .Role }}") for part in parts) for role, parts in shape.items()
    ]
    if len(set(general)) == 1:  # ChatML and its like: only the name of the role differs
        before, after = general[0]
        return f"{{{{ range .Messages }}}}{before}{{{{ .Content }}}}{after}{{{{ end }}}}{opening}"
    cases = "{{ else ".join(
        f'if eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}'
        for role, (before, after) in shape.items()
    )
    return f"{{{{ range .Messages }}}}{{{{ {cases}{{{{ end }}}}{{{{ end }}}}{opening}"


def modelfile(cfg: Settings, tokenizer, gguf_name: str) -> str:
    """Text of a Modelfile that stands beside the GGUF: template, system text, stop, sampling as in the course's chat."""
    parameters = {
        "stop": f'"{tokenizer.eos_token}"',
        "temperature": 0,
        "top_p": 0.9,
        "repeat_penalty": cfg.repetition_penalty,
        "repeat_last_n": -1,
        "num_ctx": CONTEXT,
        "num_predict": cfg.max_new_tokens,
        "seed": cfg.seed,
    }
    return "\n".join(
        [
            f"# ollama create dapur-{cfg.data_language} -f Modelfile   (in this folder), then: ollama run dapur-{cfg.data_language}",
            f"FROM ./{gguf_name}",
            "",
            f'TEMPLATE """{go_template(tokenizer)}"""',
            "",
            f'SYSTEM """{SYSTEM[cfg.data_language]}"""',
            "",
            *(f"PARAMETER {name} {value}" for name, value in parameters.items()),
            "",
        ]
    )


def read(text: str) -> dict:
    """A Modelfile's instructions: {"from", "template", "system", "parameters": {name: [values]}}.

    Reads what Ollama's parser takes: one instruction a line, any case, values bare, in quotes or in triple quotes over several
    lines, # comments. Raises CourseError for an unknown instruction, a broken line or a file without FROM.
    """
    found: dict = {"from": None, "template": None, "system": None, "parameters": {}}
    rest, line = text, 1
    while rest:
        match = re.match(
            r"[ \t]*(?:#[^\n]*)?(?:\n|$)|[ \t]*(?P<name>[A-Za-z]+)[ \t]+(?P<argument>[a-z_]+[ \t]+(?=\S))?"
            r'(?:"""(?P<long>.*?)"""|"(?P<quoted>[^"\n]*)"|(?P<bare>[^\n"]+?))[ \t]*(?:\n|$)',
            rest,
            re.DOTALL,
        )
        if not match or not match[0]:
            raise CourseError(
                f"Modelfile, line {line}: expected an instruction like FROM, TEMPLATE, SYSTEM or PARAMETER with a value, "
                f"found {rest.splitlines()[0][:60]!r}. A text of several lines needs three quotes on both sides."
            )
        if match["name"]:
            name, argument = match["name"].lower(), (match["argument"] or "").strip()
            value = next(
                v for v in (match["long"], match["quoted"], match["bare"]) if v is not None
            )
            if name == "parameter" and argument:
                found["parameters"].setdefault(argument, []).append(value)
            elif name in ("from", "template", "system"):
                found[name] = f"{argument} {value}".strip() if argument else value
            else:
                raise CourseError(
                    f"Modelfile, line {line}: unknown or incomplete instruction {match['name']!r}."
                )
        line += match[0].count("\n")
        rest = rest[match.end() :]
    if not found["from"]:
        raise CourseError(
            "the Modelfile has no FROM line: Ollama would not know which model to load."
        )
    return found


def render(template: str, messages: list[dict]) -> str:
    """What Ollama's engine makes of a template that uses `range .Messages`, `if eq .Role "..."`, else, end and fields.

    Semantics of Go's text/template for these actions, trim markers `{{-` and `-}}` included. Raises CourseError for any other
    action rather than guess.
    """
    pieces = re.split(r"(\{\{.*?\}\})", template, flags=re.DOTALL)
    for i in range(1, len(pieces), 2):
        if pieces[i].startswith("{{- "):
            pieces[i - 1] = pieces[i - 1].rstrip(" \t\r\n")
        if pieces[i].endswith(" -}}"):
            pieces[i + 1] = pieces[i + 1].lstrip(" \t\r\n")
    left = [
        (i % 2 == 1, re.sub(r"^\{\{(- )?|( -)?\}\}$", "", piece).strip() if i % 2 else piece)
        for i, piece in enumerate(pieces)
    ]

    def block(inside: bool) -> tuple[Callable[[dict], str], str]:
        """Everything up to the action that closes this block: (what it writes for a message, that action)."""
        parts: list[Callable[[dict], str]] = []
        while left:
            is_action, text = left.pop(0)
            if not is_action:
                parts.append(lambda message, text=text: text)
            elif text == "end" or text.startswith("else"):
                return lambda message: "".join(part(message) for part in parts), text
            elif text == "range .Messages" and not inside:
                body = closed(*block(True))
                parts.append(lambda message, body=body: "".join(body(one) for one in messages))
            elif (match := re.fullmatch(r'if eq \.Role "([^"]*)"', text)) and inside:
                parts.append(case(match[1]))
            elif (match := re.fullmatch(r"\.(Role|Content)", text)) and inside:
                parts.append(lambda message, name=match[1].lower(): message[name])
            else:
                raise CourseError(
                    f"the template uses {{{{ {text} }}}}, which this check does not know: it cannot tell what Ollama would send."
                )
        return lambda message: "".join(part(message) for part in parts), ""

    def closed(body: Callable[[dict], str], by: str) -> Callable[[dict], str]:
        if by != "end":
            raise CourseError(
                f"the template has a block that is closed by {by or 'nothing'!r} instead of 'end'."
            )
        return body

    def case(role: str) -> Callable[[dict], str]:
        then, by = block(True)
        if by.startswith("else if"):
            match = re.fullmatch(r'else if eq \.Role "([^"]*)"', by)
            if not match:
                raise CourseError(
                    f"the template uses {{{{ {by} }}}}, which this check does not know."
                )
            otherwise = case(match[1])
        else:
            otherwise = closed(*block(True)) if by == "else" else closed(lambda message: "", by)
        return lambda message: then(message) if message["role"] == role else otherwise(message)

    whole, by = block(False)
    if by:
        raise CourseError(f"the template has {by!r} without a block that it could close.")
    return whole({})


def three_turns(language: str) -> list[dict]:
    """A fixed conversation of three questions and two answers, with line breaks, quotes, braces and an emoji in it."""
    chat = [{"role": "system", "content": SYSTEM[language]}]
    for question, answer in (
        ("Buatkan resep Soto Ayam.", "Bahan:\n- 1 ekor ayam\n\nLangkah:\n1. Rebus ayam."),
        ('Lebih "pedas" 🌶️?', "Tambah {{ cabai }}."),
        ("Write a recipe for Tempeh.\n  Indented.", ""),
    ):
        chat += [
            {"role": "user", "content": question},
            *([{"role": "assistant", "content": answer}] if answer else []),
        ]
    return chat


def compare(text: str, tokenizer, language: str) -> tuple[str, str]:
    """The fixed conversation as Ollama renders it with this Modelfile, and as the tokenizer does. Equal texts: the template is right.

    The system text comes from the Modelfile, as it does in Ollama where the caller sends none.
    """
    found, chat = read(text), three_turns(language)
    system = [{"role": "system", "content": found["system"]}] if found["system"] else []
    return (
        render(found["template"] or "{{ .Prompt }}", [*system, *chat[1:]]),
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True),
    )
