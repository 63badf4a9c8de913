"""An exported model is the same one in three programs: transformers 5, transformers 4, llama.cpp.

Transformers 4 is asked with DAPUR_TRANSFORMERS_4=1: its packages are fetched into a folder then.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace

import httpx
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import export, llamacpp, models
from helpers.files import UsageError
from helpers.gguf_file import QUANTS

SIZES = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "rope_theta": 100000.0,
}
TEXT = "Tumis 1½ sdm bawang, it's 2026 🍜\n\n lalu masukkan ayam. <|im_end|>"
OLD = ["transformers==4.57.6", "huggingface_hub<1.0", "tokenizers<0.23"]
ASK = """
import json, sys, torch, transformers
folder, ids = sys.argv[1], json.loads(sys.argv[2])
transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModelForCausalLM.from_pretrained(folder)
out = model.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False, eos_token_id=None)
print(json.dumps([transformers.__version__, out[0, len(ids):].tolist()]))
"""


def base_of(kind, cfg, folder, **changes):
    """Settings with a tiny random base of a family in a folder, and a random adapter."""
    tokenizer = models.load_tokenizer(cfg)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    sizes = SIZES | special | {"vocab_size": len(tokenizer)} | changes
    config = AutoConfig.for_model(kind, tie_word_embeddings=kind != "llama", **sizes)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4 if weight.ndim == 2 else 1)  # far from level, so that rounding is small
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return replace(cfg, base_model=str(folder), artifacts_root=folder.with_name("artifacts"))


def gap(folder, ids, written):
    """By how much a token that was written stood below the best one, in spreads of the scores.

    0 where transformers would have written the same; next to 0 where two were level.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        scores = model(torch.tensor([ids + written])).logits[0, len(ids) - 1 : -1]
    chosen = scores.gather(1, torch.tensor(written)[:, None])[:, 0]
    return ((scores.max(dim=1).values - chosen) / scores.std(dim=1)).max().item()


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3"])
def made(request, cfg, random_adapter, tmp_path_factory):
    """(settings, export's folder) of a family."""
    folder = tmp_path_factory.mktemp(request.param) / "base"
    made = random_adapter(base_of(request.param, cfg, folder))
    return made, export.gguf_path(made).parent, export.export(made)


def test_llama_cpp_writes_the_tokens_that_transformers_writes(made):
    pytest.importorskip("xllamacpp", reason="no wheel on this platform")
    cfg, folder, _ = made
    ids = models.load_tokenizer(cfg)(TEXT, add_special_tokens=False)["input_ids"]
    server = llamacpp.start_engine(export.gguf_path(cfg, "f16"))
    cut = {"content": TEXT, "parse_special": True, "add_special": False}
    assert httpx.post(f"{server.listening_address}/tokenize", json=cut).json()["tokens"] == ids
    asked = {"prompt": ids, "n_predict": 16, "temperature": 0, "return_tokens": True}
    asked["ignore_eos"] = True
    told = httpx.post(f"{server.listening_address}/completion", json=asked, timeout=60).json()
    assert gap(folder / "merged", ids, told["tokens"]) < 0.05


@pytest.mark.skipif(not os.environ.get("DAPUR_TRANSFORMERS_4"), reason="DAPUR_TRANSFORMERS_4=1")
def test_transformers_4_writes_the_same_tokens(made, tmp_path_factory):
    cfg, folder, _ = made
    packages = tmp_path_factory.getbasetemp() / "transformers-4"
    if not packages.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", packages]
        subprocess.run([*pip, *OLD], check=True)
    ids = models.load_tokenizer(cfg)(TEXT, add_special_tokens=False)["input_ids"]
    command = [sys.executable, "-c", ASK, str(folder / "merged"), json.dumps(ids)]
    own = os.environ | {"PYTHONPATH": str(packages)}
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=True)
    version, tokens = json.loads(done.stdout.splitlines()[-1])
    assert version.startswith("4.")
    assert gap(folder / "merged", ids, tokens) < 1e-3


def test_smaller_types_are_smaller_and_llama_cpp_reads_them(made):
    pytest.importorskip("xllamacpp", reason="no wheel on this platform")
    cfg, _, report = made
    sizes = [report["bytes"][export.gguf_path(cfg, quant).name] for quant in QUANTS]
    assert sizes[0] > 1.6 * sizes[1] > 1.6 * 1.4 * sizes[2]
    server = llamacpp.start_engine(export.gguf_path(cfg, "q4_k_m"))
    asked = {"prompt": [5, 6, 7], "n_predict": 4}
    assert httpx.post(f"{server.listening_address}/completion", json=asked, timeout=60).is_success


def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    cfg, random_adapter, tmp_path, monkeypatch
):
    made = random_adapter(base_of("gpt_neox", cfg, tmp_path / "base"))
    folder = export.gguf_path(made).parent
    with pytest.raises(UsageError, match="gpt_neox"):
        export.export(made)
    assert not folder.exists()
    made = random_adapter(base_of("qwen3", cfg, tmp_path / "other"))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="berisi hal lain"):
        export.export(made, out=mine)
    assert [file.name for file in mine.iterdir()] == ["thesis.txt"]
    tokenizer = json.loads((tmp_path / "other" / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"] = {"type": "Whitespace"}
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UsageError, match="Whitespace"):
        export.export(made)
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Disk", (), {"free": 10}))
    with pytest.raises(UsageError, match="disk"):
        export.export(made, ())
