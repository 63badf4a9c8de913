"""Base models that people have: each is trained, answers, and is merged as the adapter had it."""

import dataclasses
import tomllib
from pathlib import Path

import gguf
import httpx
import pytest
import torch
import transformers
from safetensors.torch import load_file
from test_prompts import llama_2_like

from helpers import export, generation, llamacpp, models, prompts, training
from helpers.files import CourseError, write_json

TABLES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))


def base_model(cfg, kind, chats, folder):
    """Settings whose base model is a folder with a tiny model of a kind and its tokenizer."""
    tokenizer = models.load_tokenizer(cfg)
    if "SentencePiece" in kind:
        tokenizer = llama_2_like([m for chat in chats for m in chat])
    if kind in ("gpt2", "gpt_neox"):  # no template, and no token but the end token
        tokenizer.chat_template, tokenizer.pad_token = None, None
        tokenizer.eos_token = "<|endoftext|>"
    if kind == "gemma2":
        tokenizer.chat_template = TABLES["templates"]["no_system"]
    numbers = TABLES["sizes"] | TABLES["shapes"][kind] | {"vocab_size": len(tokenizer)}
    config = transformers.AutoConfig.for_model(kind.partition(",")[0], **numbers)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return dataclasses.replace(cfg, base_model=str(folder), max_length=2000)


@pytest.mark.parametrize("kind", TABLES["shapes"])
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
    if kind == "gpt2":  # whose matrices lie turned: see there
        with pytest.raises(CourseError, match="full"):
            export.export(made, ())
        tuned = models.load_tuned(made, "none")
    report = export.export(made, (), base="full" if kind == "gpt2" else "trained")
    merged = transformers.AutoModelForCausalLM.from_pretrained(report["folder"] + "/merged").eval()
    ids = batch["input_ids"][:1, :40]
    with torch.no_grad():
        one, other = (m(ids).logits for m in (tuned, merged))
        with tuned.disable_adapter():
            untuned = tuned(ids).logits
    assert torch.allclose(one, other, atol=1e-4) and not torch.allclose(one, untuned, atol=1e-3)
    # Ollama is told the same, but for the beginning token, which llama.cpp writes itself.
    asked, bos = prompts.prompt_text(chats[0][:-1], tokenizer), tokenizer.bos_token
    begins = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    assert ollama_sends(made, chats[0]) == (asked.removeprefix(bos) if begins else asked)


def ollama_sends(cfg, chat):
    """What the Modelfile makes of a chat's system message and question."""
    text = export.modelfile(cfg, "merged").split('"""')[1].partition("{{ .Response }}")[0]
    told = {".System": chat[0]["content"], ".Prompt": chat[1]["content"]}
    for field, value in (told | {"if .System": "", "end": ""}).items():
        text = text.replace(f"{{{{ {field} }}}}", value)
    return text


def test_llama_cpp_begins_a_question_with_one_beginning_token_as_the_training_did(
    cfg, corpus, tmp_path
):
    pytest.importorskip("xllamacpp", reason="no wheel on this platform")
    chat = prompts.messages(corpus[0], "id")
    made = base_model(cfg, "llama, SentencePiece", [chat], tmp_path)
    tokenizer = models.load_tokenizer(made)
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "llama")
    for name, value in TABLES["gguf"].items():
        getattr(writer, f"add_{name}")(value)
    words = sorted(tokenizer.get_vocab().items(), key=lambda word: word[1])
    writer.add_token_list([word for word, _ in words])
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([2, 3, 3] + [1] * (len(words) - 3))  # unknown, control, normal
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, weight in load_file(tmp_path / "model.safetensors").items():
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    server = llamacpp.start_engine(tmp_path / "tiny.gguf")
    sent = {"content": ollama_sends(made, chat), "add_special": True, "parse_special": True}
    found = httpx.post(f"{server.listening_address}/tokenize", json=sent).json()["tokens"]
    assert found == prompts.prompt_ids(chat[:-1], tokenizer)


@pytest.mark.parametrize(
    "files, said", TABLES["a_folder_that_is_no_model_is_refused_in_a_sentence"]
)
def test_a_folder_that_is_no_model_is_refused_in_a_sentence(cfg, tmp_path, files, said):
    for name, values in files.items():
        write_json(tmp_path / name, values)
    with pytest.raises(CourseError, match=said) as told:
        models.load_tokenizer(dataclasses.replace(cfg, base_model=str(tmp_path)))
    assert "\n" not in str(told.value)


def test_a_model_that_sees_and_writes_is_taken_as_transformers_takes_it(cfg, tmp_path):
    kind = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}
    write_json(tmp_path / "config.json", kind)
    assert models.base_folder(dataclasses.replace(cfg, base_model=str(tmp_path))) == str(tmp_path)


def test_half_a_download_is_told_in_a_sentence(cfg, tmp_path):
    made = base_model(cfg, "llama", [], tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CourseError, match="cannot be loaded; fetch it again"):
        models.load_base(made)
