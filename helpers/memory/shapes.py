"""The shape of a language model, from its config alone: what it is made of and how many parameters each piece has."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from ..course.errors import UsageError

SHAPES_FILE = Path(__file__).with_name("shapes.toml")
_LIMITS = {
    "hidden": 65536,
    "layers": 512,
    "heads": 1024,
    "kv_heads": 1024,
    "head_dim": 1024,
    "intermediate": 2**20,
    "vocab": 2**22,
}
CONFIG_NAMES = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "intermediate": "intermediate_size",
    "vocab": "vocab_size",
}


@dataclass(frozen=True)
class Family:
    """In what one `model_type` of transformers differs from Llama, as far as memory goes."""

    attention_bias: bool | str = (
        "attention_bias"  # on q, k, v: always, never, or the config's flag of this name
    )
    output_bias: bool = True  # whether that flag holds for o_proj as well
    mlp_bias: bool = False  # whether the config's `mlp_bias` counts
    norms: int = 2  # norms of the stream in one block
    norm_bias: bool = False  # LayerNorm: a weight and a bias
    capped: bool = False  # scores and logits go through a tanh, so attention keeps its whole matrix
    qk_norm: str = ""  # "head": a norm over each head of q and k; "width": over all of q, of k
    fused: bool = False  # one matrix for q, k and v, and one for gate and up
    tied: bool = False  # what an absent `tie_word_embeddings` means
    refused: tuple[str, ...] = ()  # settings that the formulas do not cover


FAMILIES = {
    "llama": Family(mlp_bias=True),
    "mistral": Family(attention_bias=False),
    "granite": Family(mlp_bias=True),
    "smollm3": Family(mlp_bias=True, tied=True),
    "qwen2": Family(attention_bias=True, output_bias=False),
    "qwen3": Family(qk_norm="head"),
    "gemma": Family(tied=True),
    "gemma2": Family(norms=4, capped=True, tied=True),
    "gemma3_text": Family(norms=4, qk_norm="head", tied=True),
    "olmo2": Family(qk_norm="width"),
    "phi3": Family(attention_bias=False, fused=True),
    "stablelm": Family(
        attention_bias="use_qkv_bias",
        output_bias=False,
        norm_bias=True,
        refused=("qk_layernorm", "use_parallel_residual"),
    ),
}


@dataclass(frozen=True)
class Shape:
    """A dense decoder: attention with grouped keys and values, a gated MLP, and what its family adds (FAMILIES)."""

    name: str
    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool  # one matrix serves as embedding and output head
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False

    def __post_init__(self):
        for field, limit in _LIMITS.items():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= limit:
                raise UsageError(
                    f"{self.name}: {CONFIG_NAMES[field]} is {value!r}; expected a whole number from 1 to {limit}."
                )
        if self.heads % self.kv_heads:
            raise UsageError(
                f"{self.name}: {self.heads} attention heads cannot share {self.kv_heads} key/value heads evenly."
            )

    @property
    def traits(self) -> Family:
        return FAMILIES[self.family]

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
        if self.traits.fused:
            return {
                "qkv_proj": (h, q + 2 * kv),
                "o_proj": (q, h),
                "gate_up_proj": (h, 2 * i),
                "down_proj": (i, h),
            }
        return {
            "q_proj": (h, q),
            "k_proj": (h, kv),
            "v_proj": (h, kv),
            "o_proj": (q, h),
            "gate_proj": (h, i),
            "up_proj": (h, i),
            "down_proj": (i, h),
        }

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
        biases = (
            (self.q_size + 2 * self.kv_size) * self.qkv_bias
            + self.hidden * self.o_bias
            + (2 * self.intermediate + self.hidden) * self.mlp_bias
        )
        norm = self.hidden * (1 + self.traits.norm_bias)
        query_key = {"": 0, "head": 2 * self.head_dim, "width": self.q_size + self.kv_size}[
            self.traits.qk_norm
        ]
        return self.layers * (biases + self.traits.norms * norm + query_key) + norm

    @property
    def parameters(self) -> int:
        return self.linear_parameters + self.embedding_parameters + self.small_parameters


def from_config(config, name: str = "") -> Shape:
    """Shape of a transformers config object or of a config.json read as a dict.

    Raises UsageError for an architecture whose memory the planner's formulas do not describe.
    """
    values = config if isinstance(config, dict) else config.to_dict()
    name = name or values.get("_name_or_path") or "config"
    family = FAMILIES.get(values.get("model_type"))
    if family is None:
        raise UsageError(
            f"{name}: the planner does not know the architecture {values.get('model_type')!r}; it knows {', '.join(FAMILIES)}. "
            "Measure this model with MemoryMonitor instead."
        )
    if odd := [n for n in family.refused if values.get(n)] + (
        ["quantization_config"] if values.get("quantization_config") else []
    ):
        raise UsageError(
            f"{name}: the planner does not know this kind of {values['model_type']} ({', '.join(odd)} is set). "
            "Measure this model with MemoryMonitor instead."
        )
    missing = [
        n
        for key, n in CONFIG_NAMES.items()
        if key not in ("kv_heads", "head_dim") and values.get(n) is None
    ]
    if missing:
        raise UsageError(f"{name}: the config lacks {', '.join(missing)}.")
    read = {key: values.get(n) for key, n in CONFIG_NAMES.items()}
    read["kv_heads"] = read["kv_heads"] or read["heads"]
    if not read["head_dim"] and all(
        isinstance(read[n], int) and read[n] > 0 for n in ("hidden", "heads")
    ):
        read["head_dim"] = read["hidden"] // read["heads"]
    return Shape(
        name=name,
        family=values["model_type"],
        tied=bool(values.get("tie_word_embeddings", family.tied)),
        **read,
        **_biases(family, values),
    )


def _biases(family: Family, values: dict) -> dict[str, bool]:
    attention = (
        family.attention_bias
        if isinstance(family.attention_bias, bool)
        else bool(values.get(family.attention_bias))
    )
    return {
        "qkv_bias": attention,
        "o_bias": attention and family.output_bias,
        "mlp_bias": family.mlp_bias and bool(values.get("mlp_bias")),
    }


def known() -> dict[str, dict]:
    """The shipped table: model name -> its row of shapes.toml."""
    return tomllib.loads(SHAPES_FILE.read_text(encoding="utf-8"))


def find(model: str, download: bool = False) -> Shape:
    """Shape of a base model by name or folder; reads a config.json at most, never weights.

    Looks in a local folder, then in shapes.toml, then in the hub cache, and with `download` on the hub, for the config alone.
    Raises UsageError when none of them knows it.
    """
    folder = Path(model)
    if folder.is_dir():
        return _from_file(folder / "config.json", model)
    if row := known().get(model):
        values = {k: v for k, v in row.items() if k in {f.name for f in fields(Shape)}}
        return Shape(name=model, **values, **_biases(FAMILIES[row["family"]], row))
    cache = (
        Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
        / "hub"
        / ("models--" + model.replace("/", "--"))
    )
    if configs := sorted(cache.glob("snapshots/*/config.json")):
        return _from_file(configs[-1], model)
    if download and model.count("/") == 1:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            return _from_file(Path(hf_hub_download(model, "config.json")), model)
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as problem:
            raise UsageError(
                f"the config of {model!r} cannot be had from the hub: {str(problem).splitlines()[0]}"
            ) from problem
    raise UsageError(
        f"the shape of {model!r} is not known here. Known: {', '.join(known())}. Or name a folder with the model's config.json."
    )


def _from_file(path: Path, name: str) -> Shape:
    if not path.is_file():
        raise UsageError(
            f"{name} has no config.json, from which the planner reads the model's shape."
        )
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
    kinds = {
        id(m.weight): "embedding" if isinstance(m, torch.nn.Embedding) or m is head else "linear"
        for m in model.modules()
        if isinstance(m, (torch.nn.Linear, torch.nn.Embedding))
    }
    for parameter in model.parameters():
        counts[kinds.get(id(parameter), "small")] += parameter.numel()
    return counts | {"total": sum(counts.values())}
