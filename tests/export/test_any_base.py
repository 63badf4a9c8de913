"""An exported model is the same one in three programs: transformers 5, transformers 4, llama.cpp.

Transformers 4 is asked with DAPUR_TRANSFORMERS_4=1: its packages are fetched into a folder then.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from programs import gap, post
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import export, llamacpp, models
from helpers.files import UsageError, read_json, write_json
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


def base_of(kind, cfg, folder):
    """Settings with a tiny random base of a family in a folder."""
    tokenizer = models.load_tokenizer(cfg)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=kind != "llama",
        **SIZES,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(4)  # far from level, so that rounding is small
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return replace(cfg, base_model=str(folder), artifacts_root=folder.with_name("artifacts"))


def ids_of(cfg):
    return models.load_tokenizer(cfg)(TEXT, add_special_tokens=False)["input_ids"]


def merged(cfg):
    return export.gguf_path(cfg).parent / "merged"


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3"])
def made(request, cfg, random_adapter, tmp_path_factory):
    """Settings of a family, whose base with a random adapter has been exported."""
    folder = tmp_path_factory.mktemp(request.param) / "base"
    made = random_adapter(base_of(request.param, cfg, folder))
    export.export(made)
    return made


def test_llama_cpp_writes_the_tokens_that_transformers_writes(made):
    pytest.importorskip("xllamacpp", reason="no wheel on this platform")
    ids = ids_of(made)
    server = llamacpp.start_engine(export.gguf_path(made, "f16"))
    cut = post(server, "/tokenize", content=TEXT, parse_special=True, add_special=False)
    assert cut["tokens"] == ids
    told = post(
        server,
        "/completion",
        prompt=ids,
        n_predict=16,
        temperature=0,
        ignore_eos=True,
        return_tokens=True,
    )
    assert gap(merged(made), ids, told["tokens"]) < 0.05


@pytest.mark.skipif(not os.environ.get("DAPUR_TRANSFORMERS_4"), reason="DAPUR_TRANSFORMERS_4=1")
def test_transformers_4_writes_the_same_tokens(made, tmp_path_factory):
    packages = tmp_path_factory.getbasetemp() / "transformers-4"
    if not packages.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", packages]
        subprocess.run([*pip, *OLD], check=True)
    ids = ids_of(made)
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(merged(made)), json.dumps(ids)],
        env=os.environ | {"PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=True,
    )
    version, tokens = json.loads(done.stdout.splitlines()[-1])
    assert version.startswith("4.")
    assert gap(merged(made), ids, tokens) < 1e-3


def test_smaller_types_are_smaller_and_llama_cpp_reads_them(made):
    pytest.importorskip("xllamacpp", reason="no wheel on this platform")
    f16, q8, q4 = [export.gguf_path(made, quant).stat().st_size for quant in QUANTS]
    assert f16 > 1.6 * q8
    assert q8 > 1.4 * q4
    server = llamacpp.start_engine(export.gguf_path(made, "q4_k_m"))
    assert "content" in post(server, "/completion", prompt=[5, 6, 7], n_predict=4)


def test_a_family_that_cannot_be_written_is_refused(cfg, tmp_path):
    made = base_of("gpt_neox", cfg, tmp_path / "base")
    with pytest.raises(UsageError, match="gpt_neox"):
        export.export(made)
    assert not export.gguf_path(made).parent.exists()


def test_a_tokenizer_that_llama_cpp_would_replace_by_another_is_refused(cfg, tmp_path):
    made = base_of("qwen3", cfg, tmp_path / "base")
    file = tmp_path / "base" / "tokenizer.json"
    tokenizer = read_json(file)
    tokenizer["pre_tokenizer"] = {"type": "Whitespace"}
    write_json(file, tokenizer)
    with pytest.raises(UsageError, match="Whitespace"):
        export.export(made)
