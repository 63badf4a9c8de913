"""The shape of a language model, from its config alone: what it is made of and how many parameters each piece has."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from .errors import UsageError

SHAPES_FILE = Path(__file__).with_name("shapes.toml")
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_LIMITS = {"hidden": 65536, "layers": 512, "heads": 1024, "kv_heads": 1024, "head_dim": 1024, "intermediate": 2**20, "vocab": 2**22}
_CONFIG_NAMES = {"hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
                 "kv_heads": "num_key_value_heads", "head_dim": "head_dim", "intermediate": "intermediate_size", "vocab": "vocab_size"}


@dataclass(frozen=True)
class Shape:
    """A dense decoder of the Llama kind (attention with grouped keys and values, gated MLP, RMSNorm)."""

    name: str
    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool                   # one matrix serves as embedding and output head
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False

    def __post_init__(self):
        for field, limit in _LIMITS.items():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= limit:
                raise UsageError(f"{self.name}: {_CONFIG_NAMES[field]} is {value!r}; expected a whole number from 1 to {limit}.")
        if self.heads % self.kv_heads:
            raise UsageError(f"{self.name}: {self.heads} attention heads cannot share {self.kv_heads} key/value heads evenly.")

    @property
    def q_size(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.kv_heads * self.head_dim

    @cached_property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Linear layers of one block: name -> (inputs, outputs)."""
        h, q, kv, i = self.hidden, self.q_size, self.kv_size, self.intermediate
        return {"q_proj": (h, q), "k_proj": (h, kv), "v_proj": (h, kv), "o_proj": (q, h),
                "gate_proj": (h, i), "up_proj": (h, i), "down_proj": (i, h)}

    @property
    def linear_parameters(self) -> int:
        """Weights of all blocks' linear layers, without biases: what NF4 quantises."""
        return self.layers * sum(a * b for a, b in self.linears.values())

    @property
    def embedding_parameters(self) -> int:
        """Embedding and output head; a tied pair counts once."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def small_parameters(self) -> int:
        """Norms and biases."""
        biases = ((self.q_size + 2 * self.kv_size) * self.qkv_bias + self.hidden * self.o_bias
                  + (2 * self.intermediate + self.hidden) * self.mlp_bias)
        norms = 2 * self.hidden + 2 * self.head_dim * self.qk_norm
        return self.layers * (biases + norms) + self.hidden

    @property
    def parameters(self) -> int:
        return self.linear_parameters + self.embedding_parameters + self.small_parameters


def from_config(config, name: str = "") -> Shape:
    """Shape of a transformers config object or of a config.json read as a dict.

    Raises UsageError for an architecture whose memory the planner's formulas do not describe.
    """
    values = config if isinstance(config, dict) else config.to_dict()
    name = name or values.get("_name_or_path") or "config"
    family = values.get("model_type")
    if family not in FAMILIES:
        raise UsageError(f"{name}: the planner does not know the architecture {family!r}; it knows {', '.join(FAMILIES)}. "
                         "Measure this model with MemoryMonitor instead.")
    missing = [n for key, n in _CONFIG_NAMES.items() if key not in ("kv_heads", "head_dim") and values.get(n) is None]
    if missing:
        raise UsageError(f"{name}: the config lacks {', '.join(missing)}.")
    read = {key: values.get(n) for key, n in _CONFIG_NAMES.items()}
    read["kv_heads"] = read["kv_heads"] or read["heads"]
    if not read["head_dim"] and isinstance(read["heads"], int) and read["heads"] > 0:
        read["head_dim"] = read["hidden"] // read["heads"]
    return Shape(name=name, family=family, tied=bool(values.get("tie_word_embeddings", False)), **read,
                 **_family_extras(family, bool(values.get("attention_bias")), bool(values.get("mlp_bias"))))


def _family_extras(family: str, attention_bias: bool = False, mlp_bias: bool = False) -> dict[str, bool]:
    if family == "qwen2":
        return {"qkv_bias": True}
    if family == "mistral":
        return {}
    return {"qkv_bias": attention_bias, "o_bias": attention_bias, "mlp_bias": mlp_bias and family == "llama", "qk_norm": family == "qwen3"}


def known() -> dict[str, dict]:
    """The shipped table: model name -> its row of shapes.toml."""
    return tomllib.loads(SHAPES_FILE.read_text(encoding="utf-8"))


def find(model: str) -> Shape:
    """Shape of a base model by name or folder; reads a config.json at most, never weights, and never the network.

    Looks in a local folder, then in shapes.toml, then in the hub cache. Raises UsageError when none of them knows it.
    """
    folder = Path(model)
    if folder.is_dir():
        return _from_file(folder / "config.json", model)
    if row := known().get(model):
        values = {k: v for k, v in row.items() if k in {f.name for f in fields(Shape)}}
        return Shape(name=model, **values, **_family_extras(row["family"]))
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")) / "hub" / ("models--" + model.replace("/", "--"))
    if configs := sorted(cache.glob("snapshots/*/config.json")):
        return _from_file(configs[-1], model)
    raise UsageError(f"the shape of {model!r} is not known here. Known: {', '.join(known())}. Or name a folder with the model's config.json.")


def _from_file(path: Path, name: str) -> Shape:
    if not path.is_file():
        raise UsageError(f"{name} has no config.json, from which the planner reads the model's shape.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise UsageError(f"{path} is not readable as JSON: {problem}") from problem
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no JSON object, so it is no model config.")
    return from_config(values, name)


def counted(config) -> dict[str, int]:
    """Parameters of the real transformers model, built from `config` on the meta device: no weights, no memory.

    Keys linear, embedding, small, total; a tied matrix counts once. Imports torch and transformers.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    head, counts = model.get_output_embeddings(), {"linear": 0, "embedding": 0, "small": 0}
    kinds = {id(m.weight): "embedding" if isinstance(m, torch.nn.Embedding) or m is head else "linear"
             for m in model.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Embedding))}
    for parameter in model.parameters():
        counts[kinds.get(id(parameter), "small")] += parameter.numel()
    return counts | {"total": sum(counts.values())}
