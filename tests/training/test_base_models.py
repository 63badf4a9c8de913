"""Base models that people have: each is trained, answers, and is merged as the adapter had it."""

import dataclasses
import tomllib
from pathlib import Path

import pytest
import torch
import transformers
from test_prompts import sentencepiece_like

from helpers import export, generation, models, prompts, training
from helpers.files import CourseError, write_json

TABLES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))

SMALL = {"vocab_size": 2048, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
KEYS = SMALL | {"num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 8}
GPT2 = {"vocab_size": 2048, "n_embd": 32, "n_layer": 2, "n_head": 4}
SHAPES = {
    "llama": KEYS,
    "llama, SentencePiece": KEYS,
    "qwen2": {k: v for k, v in KEYS.items() if k != "head_dim"},
    "qwen3": KEYS,
    "gemma2": KEYS | {"query_pre_attn_scalar": 8, "final_logit_softcapping": 0.5},
    "mistral": KEYS,
    "gpt2": GPT2,
    "gpt_neox": SMALL | {"intermediate_size": 64},
    "cohere": {k: v for k, v in KEYS.items() if k != "head_dim"} | {"logit_scale": 0.25},
}
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{{ '<turn>' + m['role'] + '\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)


def base_model(cfg, kind, chats, folder):
    """Settings whose base model is a folder with a tiny model of a kind and its tokenizer."""
    tokenizer = models.load_tokenizer(cfg)
    if "SentencePiece" in kind:
        tokenizer = sentencepiece_like([m for chat in chats for m in chat])
    if kind in ("gpt2", "gpt_neox"):  # no template, and no token but the end token
        tokenizer.chat_template, tokenizer.pad_token = None, None
        tokenizer.eos_token = "<|endoftext|>"
    if kind == "gemma2":
        tokenizer.chat_template = NO_SYSTEM
    numbers = SHAPES[kind] | {"vocab_size": len(tokenizer), "initializer_range": 0.3}
    numbers |= {"eos_token_id": 0, "pad_token_id": 1}
    config = transformers.AutoConfig.for_model(kind.partition(",")[0], **numbers)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return dataclasses.replace(cfg, base_model=str(folder), max_length=2000)


@pytest.mark.filterwarnings("ignore:.*knows no system role")
@pytest.mark.parametrize("kind", SHAPES)
def test_a_base_model_is_trained_answers_and_is_merged(kind, cfg, corpus, tmp_path):
    chats = [prompts.messages(recipe, "id") for recipe in corpus[:4]]
    made = base_model(cfg, kind, chats, tmp_path / "base")
    made = dataclasses.replace(made, artifacts_root=tmp_path, max_steps=2, warmup_steps=1)
    tokenizer = models.load_tokenizer(made)
    rows = training.ChatDataset(chats, tokenizer, made.max_length)
    base = models.load_base(made, for_training=True)
    batch = training.collate([rows[i] for i in range(4)], tokenizer.pad_token_id)
    with torch.no_grad():
        usual, ours = base(**batch).loss, training.label_loss(base, batch, torch.float32)
    assert torch.isclose(usual, ours, rtol=1e-3), "the model's own loss is another one"
    model = training.attach_adapter(base, made)
    args = training.arguments(made, len(rows), tmp_path / "checkpoints")
    trainer = training.make_trainer(model, made, rows, rows, tokenizer, args)
    training.save(made.artifacts / "adapter", trainer, tokenizer, made, training.run(trainer, "x"))
    tuned = models.load_tuned(made)
    answers = generation.answers(tuned, tokenizer, [chat[:-1] for chat in chats[:2]], made)
    assert all(0 < answer["tokens"] <= made.max_new_tokens for answer in answers)
    report = export.export(made, ())
    merged = transformers.AutoModelForCausalLM.from_pretrained(report["folder"] + "/merged").eval()
    ids = batch["input_ids"][:1, :40]
    with torch.no_grad():
        one, other = (m(ids).logits for m in (tuned, merged))
        with tuned.disable_adapter():
            untuned = tuned(ids).logits
    assert torch.allclose(one, other, atol=1e-4) and not torch.allclose(one, untuned, atol=1e-3)
    # Ollama is told the same, but for the beginning token, which llama.cpp writes itself.
    text = (tmp_path / report["folder"] / "Modelfile").read_text().split('"""')[1]
    for new in ("{{ if .System }}", "{{ end }}"):
        text = text.replace(new, "")
    text = text.replace("{{ .System }}", "a").replace("{{ .Prompt }}", "b")
    chat = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    asked = prompts.prompt_text(chat, tokenizer)
    doubled = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    assert text.startswith(asked.removeprefix(tokenizer.bos_token) if doubled else asked)


@pytest.mark.parametrize(
    "files, said", TABLES["a_folder_that_is_no_model_is_refused_in_a_sentence"]
)
def test_a_folder_that_is_no_model_is_refused_in_a_sentence(cfg, tmp_path, files, said):
    for name, values in files.items():
        write_json(tmp_path / name, values)
    with pytest.raises(CourseError, match=said) as told:
        models.load_tokenizer(dataclasses.replace(cfg, base_model=str(tmp_path)))
    assert "\n" not in str(told.value)
