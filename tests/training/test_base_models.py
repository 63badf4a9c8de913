"""Base models that people have: each is trained, answers, and is merged as the adapter had it."""

from dataclasses import replace

import pytest
import torch
from test_prompts import TABLES, llama_2_like
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import export, generation, models, prompts, training
from helpers.files import CourseError, write_json


def base_model(cfg, kind, chats, folder):
    """Settings whose base model is a folder with a tiny model of a kind and its tokenizer."""
    tokenizer = models.load_tokenizer(cfg)
    if "SentencePiece" in kind:
        tokenizer = llama_2_like(sum(chats, []))
    if kind in ("gpt2", "gpt_neox"):  # no template, and no token but the end token
        tokenizer.chat_template = None
        tokenizer.pad_token = None
        tokenizer.eos_token = "<|endoftext|>"
    if kind == "gemma2":
        tokenizer.chat_template = TABLES["templates"]["no_system"]
    sizes = TABLES["sizes"] | TABLES["shapes"][kind]
    family = kind.partition(",")[0]
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **sizes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return replace(cfg, base_model=str(folder), max_length=2000)


@pytest.fixture(scope="module")
def chats(corpus):
    return [prompts.messages(recipe, "id") for recipe in corpus[:4]]


@pytest.fixture(scope="module", params=TABLES["shapes"])
def made(request, cfg, chats, tmp_path_factory):
    """Settings whose base model is of a kind, with an adapter that was trained for two steps."""
    folder = tmp_path_factory.mktemp("made")
    made = base_model(cfg, request.param, chats, folder / "base")
    made = replace(made, artifacts_root=folder, max_steps=2, warmup_steps=1)
    tokenizer = models.load_tokenizer(made)
    rows = training.ChatDataset(chats, tokenizer, made.max_length)
    model = training.attach_adapter(models.load_base(made, for_training=True), made)
    args = training.arguments(made, len(rows), folder / "checkpoints")
    trainer = training.make_trainer(model, made, rows, rows, tokenizer, args)
    training.save(made.artifacts / "adapter", trainer, tokenizer, made, training.run(trainer, "x"))
    return made


def test_the_loss_of_the_labels_is_the_model_s_own(made, chats):
    tokenizer = models.load_tokenizer(made)
    rows = [vars(prompts.encode(chat, tokenizer)) for chat in chats]
    batch = training.collate(rows, tokenizer.pad_token_id)
    base = models.load_base(made, for_training=True)
    with torch.no_grad():
        usual = base(**batch).loss
        ours = training.label_loss(base, batch, torch.float32)
    assert torch.isclose(usual, ours, rtol=1e-3)


def test_a_tuned_model_answers(made, chats):
    asked = [chat[:-1] for chat in chats[:2]]
    tokenizer = models.load_tokenizer(made)
    for answer in generation.answers(models.load_tuned(made), tokenizer, asked, made):
        assert 0 < answer["tokens"] <= made.max_new_tokens


def test_the_merged_model_is_the_tuned_one(made, chats):
    # GPT-2 keeps its matrices turned: only its full weights can be merged.
    turned = AutoConfig.from_pretrained(made.base_model).model_type == "gpt2"
    if turned:
        with pytest.raises(CourseError, match="full"):
            export.export(made, ())
    report = export.export(made, (), base="full" if turned else "trained")
    merged = AutoModelForCausalLM.from_pretrained(f"{report['folder']}/merged").eval()
    tuned = models.load_tuned(made, "none" if turned else None)
    row = prompts.encode(chats[0], models.load_tokenizer(made))
    ids = torch.tensor([row.input_ids[:40]])
    with torch.no_grad():
        expected = tuned(ids).logits
        assert torch.allclose(merged(ids).logits, expected, atol=1e-4)
        with tuned.disable_adapter():
            assert not torch.allclose(tuned(ids).logits, expected, atol=1e-3)


def test_ollama_sends_what_was_trained_but_for_the_first_token_which_llama_cpp_writes(made, chats):
    system, question, _ = chats[0]
    text = export.modelfile(made, "merged").split('"""')[1].partition("{{ .Response }}")[0]
    fields = {
        ".System": system["content"],
        ".Prompt": question["content"],
        "if .System": "",
        "end": "",
    }
    for field, value in fields.items():
        text = text.replace(f"{{{{ {field} }}}}", value)
    tokenizer = models.load_tokenizer(made)
    asked = prompts.prompt_text(chats[0][:-1], tokenizer)
    if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id:
        asked = asked.removeprefix(tokenizer.bos_token)
    assert text == asked


@pytest.mark.parametrize(
    ("family", "architecture"), [("bert", "BertModel"), ("mbart", "MBartForConditionalGeneration")]
)
def test_a_folder_whose_model_writes_no_text_is_refused_in_a_sentence(
    cfg, tmp_path, family, architecture
):
    about = {"model_type": family, "architectures": [architecture]}
    write_json(tmp_path / "config.json", about)
    with pytest.raises(CourseError, match=architecture):
        models.load_tokenizer(replace(cfg, base_model=str(tmp_path)))


def test_a_model_that_sees_and_writes_is_taken_as_transformers_takes_it(cfg, tmp_path):
    kind = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}
    write_json(tmp_path / "config.json", kind)
    assert models.base_folder(replace(cfg, base_model=str(tmp_path))) == str(tmp_path)


def test_half_a_download_is_told_in_a_sentence(cfg, tmp_path):
    made = base_model(cfg, "llama", [], tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CourseError, match="tidak bisa dimuat; unduh lagi"):
        models.load_base(made)
