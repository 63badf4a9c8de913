"""Sizes of a language model from its config: linear layers, embeddings, parameters. No weights.

The models of profiles.toml stand in shapes.csv, so that they are planned offline and without torch.
For any other model transformers reads the config and builds the model on the meta device.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

from ..course.errors import UsageError
from ..course.files import read_csv

TABLE = Path(__file__).with_name("shapes.csv")
MODEL_TYPES = {  # what a block keeps for the backward pass beyond Llama's
    "llama": (),
    "mistral": (),
    "granite": (),
    "smollm3": (),
    "qwen2": (),
    "gemma": (),
    "stablelm": (),
    "phi3": ("fused",),  # one matrix for q, k and v, and one for gate and up
    "qwen3": ("qk_norm",),  # a norm over q and k
    "olmo2": ("qk_norm",),
    "gemma3_text": ("qk_norm", "four_norms"),  # of the stream, in each block
    "gemma2": ("four_norms", "capped"),  # scores and logits go through a tanh
}
NOT_COVERED = ("quantization_config", "qk_layernorm", "use_parallel_residual")


@dataclass(frozen=True)
class Shape:
    """A dense decoder: grouped attention and a gated MLP. Fields are named as in transformers."""

    name: str
    model_type: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool  # one matrix serves as embedding and output head
    parameters: int = field(compare=False)  # of the whole model

    def has(self, feature: str) -> bool:
        return feature in MODEL_TYPES[self.model_type]

    @property
    def numbers(self) -> dict:
        """The config's numbers: AutoConfig.for_model(shape.model_type, **shape.numbers)."""
        names = [f.name for f in fields(self) if f.name not in ("name", "model_type", "parameters")]
        return {name: getattr(self, name) for name in names}

    @property
    def q_size(self) -> int:
        return self.num_attention_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_key_value_heads * self.head_dim

    @cached_property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Linear layers of one block: name -> (inputs, outputs)."""
        h, q, kv, wide = self.hidden_size, self.q_size, self.kv_size, self.intermediate_size
        if self.has("fused"):
            first, gates = {"qkv_proj": (h, q + 2 * kv)}, {"gate_up_proj": (h, 2 * wide)}
        else:
            first = {"q_proj": (h, q), "k_proj": (h, kv), "v_proj": (h, kv)}
            gates = {"gate_proj": (h, wide), "up_proj": (h, wide)}
        return {**first, "o_proj": (q, h), **gates, "down_proj": (wide, h)}

    @property
    def linear_parameters(self) -> int:
        """Weights of all blocks' linear layers, without biases: what NF4 quantises."""
        return self.num_hidden_layers * sum(a * b for a, b in self.linears.values())

    @property
    def rest_parameters(self) -> int:
        """What is not quantised: embedding and head (a tied pair once), norms, biases."""
        return self.parameters - self.linear_parameters


def known() -> dict[str, Shape]:
    """The shipped table: model name -> Shape."""
    table = {}
    for row in read_csv(TABLE):
        name, model_type = row.pop("model"), row.pop("model_type")
        numbers = {key: int(value) for key, value in row.items()}
        numbers["tie_word_embeddings"] = bool(numbers["tie_word_embeddings"])
        table[name] = Shape(name, model_type, **numbers)
    return table


def find(model: str, download: bool = False) -> Shape:
    """Shape of a base model: from the table, a local folder or the hub cache; never its weights.

    `download` fetches the config, and nothing else, from the hub. Raises UsageError where the
    config cannot be had or the planner's formulas do not cover the model.
    """
    table = known()
    if model in table:
        return table[model]
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise UsageError(f"{model} has no config.json, from which the planner reads the sizes.")
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            model, local_files_only=not download, trust_remote_code=False
        )
    except (OSError, ValueError, TypeError, StrictDataclassError) as problem:
        raise UsageError(
            f"the config of {model!r} cannot be read: {' '.join(str(problem).split())[:200]} "
            f"Known without a config: {', '.join(table)}."
        ) from problem
    return from_config(config, model)


def from_config(config, name: str = "") -> Shape:
    """Shape of a transformers config, its parameters counted on the meta device.

    Raises UsageError for a model whose memory the planner's formulas do not describe.
    """
    name = name or config.name_or_path or config.model_type
    advice = "Measure this model with MemoryMonitor instead."
    if config.model_type not in MODEL_TYPES:
        raise UsageError(
            f"{name}: the planner does not know the architecture {config.model_type!r}; "
            f"it knows {', '.join(MODEL_TYPES)}. {advice}"
        )
    if odd := [n for n in NOT_COVERED if getattr(config, n, None)]:
        raise UsageError(f"{name}: the planner does not cover {', '.join(odd)}. {advice}")
    names = [f.name for f in fields(Shape) if f.name not in ("name", "parameters")]
    numbers = {name: getattr(config, name, None) for name in names}
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    kv_heads = numbers["num_key_value_heads"] = numbers["num_key_value_heads"] or heads
    if not 1 <= layers <= 512 or heads < 1 or heads % kv_heads:
        raise UsageError(
            f"{name}: {layers} layers, {heads} heads and {kv_heads} key/value heads make no model."
        )
    numbers["head_dim"] = numbers["head_dim"] or config.hidden_size // heads
    linear, parameters = count_parameters(config)
    shape = Shape(name, parameters=parameters, **numbers)
    if shape.linear_parameters != linear:
        raise UsageError(f"{name}: its linear layers are not those of a dense decoder. {advice}")
    return shape


def count_parameters(config) -> tuple[int, int]:
    """Parameters of the real model, without memory: (weights of the blocks' linear layers, all)."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model.tie_weights()
    head, linear = model.get_output_embeddings(), torch.nn.Linear
    layers = [m for m in model.modules() if isinstance(m, linear) and m is not head]
    return sum(layer.weight.numel() for layer in layers), model.num_parameters()
