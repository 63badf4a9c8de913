"""The Modelfile: its template says what the chat template says, and the reader and renderer refuse what they do not know."""

import pytest
from transformers import PreTrainedTokenizerFast

from helpers.course.errors import CourseError
from helpers.export import ollama
from helpers.training import models

ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m['role'] + '<|end|>\n\n' + m['content'] + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
INSTRUCT = (
    "{% for m in messages %}{% if m['role'] == 'system' %}SYS {{ m['content'] }}\n{% elif m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}</s>{% endif %}{% endfor %}"
)


@pytest.fixture
def with_template(tokenizer):
    """The sanity tokenizer with another chat template."""

    def make(template):
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer.backend_tokenizer,
            bos_token=tokenizer.bos_token,
            eos_token=tokenizer.eos_token,
            pad_token=tokenizer.pad_token,
            chat_template=template,
        )

    return make


@pytest.mark.parametrize("language", ["id", "en"])
@pytest.mark.parametrize("template", [models.CHATML, ZEPHYR, LLAMA3, INSTRUCT])
def test_rendered_template_equals_the_chat_template(template, language, with_template, cfg):
    from dataclasses import replace

    tokenizer = with_template(template)
    text = ollama.modelfile(replace(cfg, data_language=language), tokenizer, "x.gguf")
    ours, theirs = ollama.compare(text, tokenizer, language)
    assert (
        ours == theirs
        and ollama.SYSTEM[language] in ours
        and ours.count("Soto Ayam") == 1
        and "{{ cabai }}" in ours
    )


def test_the_packaged_models_own_template(with_template, cfg):
    """SmolLM2 puts in a system message of its own where there is none; the Modelfile always has one."""
    import gguf

    template = (
        gguf.GGUFReader(models.packaged_gguf()).get_field("tokenizer.chat_template").contents()
    )
    ours, theirs = ollama.compare(
        ollama.modelfile(cfg, with_template(template), "x.gguf"), with_template(template), "id"
    )
    assert "SmolLM" in template and ours == theirs and "SmolLM" not in ours


@pytest.mark.parametrize(
    "change",
    [
        ("<|im_end|>\n", "<|im_end|>"),
        ("\n{{ .Content }}", " {{ .Content }}"),
        ("<|im_start|>assistant\n", "<|im_start|>assistant"),
        ("{{ range .Messages }}", "{{ range .Messages -}}\n "),
        ("Kamu koki Indonesia.", "Kamu koki."),
    ],
)
def test_a_slip_in_the_modelfile_is_seen(change, cfg, tokenizer):
    text = ollama.modelfile(cfg, tokenizer, "x.gguf")
    slipped = text.replace(*change)
    ours, theirs = ollama.compare(slipped, tokenizer, "id")
    assert slipped != text and (ours == theirs) == (change[1] == "{{ range .Messages -}}\n "), (
        "Go's trim marker takes white space away, nothing else does"
    )


def test_a_template_that_depends_on_the_place_is_refused(with_template):
    last_only = (
        "{% for m in messages %}{% if loop.last %}LAST {% endif %}{{ m['content'] }}|{% endfor %}"
    )
    with pytest.raises(CourseError, match="does not simply append"):
        ollama.go_template(with_template(last_only))


def test_render_follows_go():
    messages = [
        {"role": "user", "content": " a "},
        {"role": "assistant", "content": "b"},
        {"role": "tool", "content": "c"},
    ]
    assert (
        ollama.render(
            "x {{- range .Messages }} [{{ .Role }}:{{ .Content }}] {{- end -}} \n y", messages
        )
        == "x [user: a ] [assistant:b] [tool:c]y"
    )
    cases = '{{ range .Messages }}{{ if eq .Role "user" }}U{{ else if eq .Role "assistant" }}A{{ else }}?{{ end }}{{ end }}!'
    assert ollama.render(cases, messages) == "UA?!"
    assert (
        ollama.render('{{ range .Messages }}{{ if eq .Role "user" }}U{{ end }}{{ end }}', messages)
        == "U"
    )
    assert ollama.render("{{-x", []) == "{{-x"


@pytest.mark.parametrize(
    "template",
    [
        "{{ .Prompt }}",
        "{{ range .Messages }}{{ .Role | upper }}{{ end }}",
        "{{ end }}",
        "{{ .Role }}",
        "{{ range .Messages }}",
        "{{ range .Messages }}{{ else }}{{ end }}",
        '{{ range .Messages }}{{ if eq .Role "user" }}{{ else if .System }}{{ end }}{{ end }}',
    ],
)
def test_render_refuses_what_it_does_not_know(template):
    with pytest.raises(CourseError):
        ollama.render(template, [])


def test_modelfile_is_read_back(cfg, tokenizer):
    found = ollama.read(ollama.modelfile(cfg, tokenizer, "dapur.gguf"))
    assert found["from"] == "./dapur.gguf" and found["system"] == ollama.SYSTEM["id"]
    assert found["parameters"]["stop"] == [tokenizer.eos_token] and found["parameters"][
        "num_predict"
    ] == [str(cfg.max_new_tokens)]
    assert set(found["parameters"]) >= {"stop", "temperature", "top_p", "num_ctx", "repeat_penalty"}
    other = ollama.read(
        'from x\n\n# note\nSystem you are a cook\nPARAMETER stop "a b"\nparameter stop c\nTEMPLATE """{{ .Prompt }}\n"""\n'
    )
    assert other == {
        "from": "x",
        "system": "you are a cook",
        "template": "{{ .Prompt }}\n",
        "parameters": {"stop": ["a b", "c"]},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no FROM"),
        ("SYSTEM x\n", "no FROM"),
        ("FROM x\nBANANA y\n", "line 2.*BANANA"),
        ("FROM x\nPARAMETER stop\n", "line 2"),
        ('FROM x\n\nTEMPLATE """a\nb\n', "line 3"),
        ("FROM\n", "line 1"),
    ],
)
def test_a_broken_modelfile_names_the_line(text, words):
    with pytest.raises(CourseError, match=words):
        ollama.read(text)
