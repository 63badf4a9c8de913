"""Where does the time of a training step go? The course's step, by kind of operation.

    python benchmarks/step_profile.py [--steps 3] [--profile cpu] [--rounds 2] [--json FILE]

training_speed.py says which share of the machine's matrix product the training reaches; this says
what the rest is. Every operation that torch.profiler records belongs to one kind:

weights     products with the frozen weights of the blocks
head        products with the output head, at label positions
adapters    products with the adapters' two matrices: one side is the rank, too thin to be fast
attention   products of queries, keys and values, softmax and mask
loss        softmax over the vocabulary and its gradient
optimiser   clipping and AdamW
moving      copies, casts, gathering and padding: memory is read and written, nothing computed
elementwise the rest: norms, activations, rotary positions, sums

Seconds are those of the operation itself, without what it calls. GFLOP/s: of the products alone.
"""

import tempfile
from collections import Counter
from functools import partial

import paired
import training_speed

MATRIX = {"aten::mm", "aten::addmm", "aten::_addmm_activation"}
BATCHED = {"aten::bmm", "aten::baddbmm", "aten::_softmax", "aten::_softmax_backward_data"}
LOSS = {"aten::_log_softmax", "aten::_log_softmax_backward_data", "aten::nll_loss_forward"}
LOSS |= {"aten::nll_loss_backward"}
MOVING = "copy_ clone _to_copy cat index index_put_ embedding gather masked_fill fill_ zero_"
MOVING = {f"aten::{name}" for name in f"{MOVING} constant_pad_nd nonzero slice_backward".split()}
KINDS = "weights head adapters attention loss optimiser moving elementwise".split()


def kind(name: str, shapes: list[list[int]], rank: int, vocabulary: int) -> str:
    """The kind of one operation, by its name and the shapes of its inputs."""
    if name in MATRIX:
        sides = {size for shape in shapes if len(shape) == 2 for size in shape}
        return "head" if vocabulary in sides else "adapters" if rank in sides else "weights"
    if name in BATCHED:
        return "attention"
    if name in LOSS:
        return "loss"
    if name.startswith(("Optimizer", "aten::_foreach", "aten::_fused_adam")):
        return "optimiser"
    return "moving" if name in MOVING else "elementwise"


def products(shapes: list[list[int]]) -> int:
    """FLOP of a matrix product: 2 m k n of its last two inputs, (m, k) and (k, n)."""
    matrices = [shape for shape in shapes if len(shape) == 2][-2:]
    return 2 * matrices[0][0] * matrices[0][1] * matrices[1][1] if len(matrices) == 2 else 0


def variant(name: str, profile: str, steps: int) -> dict:
    """Shares of the recorded time by kind, GFLOP/s of the products; the first step is left out."""
    from torch.profiler import ProfilerActivity, schedule
    from torch.profiler import profile as record
    from transformers import TrainerCallback

    from helpers import models, settings

    cfg = settings.load(profile)
    tokenizer = models.load_tokenizer(cfg)
    rows, _ = training_speed.some_rows(cfg, tokenizer, steps + 1)
    vocabulary = models.load_config(cfg).vocab_size

    class Steps(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            recorder.step()

    with tempfile.TemporaryDirectory() as folder:
        common = training_speed.arguments(cfg, folder)
        trainer = training_speed.make_trainer(name, cfg, rows, tokenizer, common)
        trainer.add_callback(Steps())
        planned = schedule(wait=0, warmup=1, active=steps, repeat=1)
        with record(
            activities=[ProfilerActivity.CPU], schedule=planned, record_shapes=True
        ) as recorder:
            trainer.train()
    seconds, flop = Counter(), Counter()
    of = partial(kind, rank=cfg.rank, vocabulary=vocabulary)
    for event in recorder.key_averages(group_by_input_shape=True):
        if event.key.startswith("ProfilerStep"):  # waiting and Python between the operations
            continue
        one = of(event.key, event.input_shapes)
        seconds[one] += event.self_cpu_time_total / 1e6
        if event.key in MATRIX:
            flop[one] += event.count * products(event.input_shapes)
    total = sum(seconds.values())
    found = {f"share_{one}": seconds[one] / total for one in KINDS}
    rates = {f"gflops_{one}": flop[one] / seconds[one] / 1e9 for one in flop}
    return found | rates | {"seconds": total / steps}


if __name__ == "__main__":
    found = paired.run(__file__, variant, ["course"], {}, profile="cpu", steps=3)
    for values in found["rounds"]["course"]:
        for one in KINDS:
            rate = values.get(f"gflops_{one}")
            told = f"{rate:5.0f} GFLOP/s" if rate else ""
            print(f"{one:12} {values[f'share_{one}']:6.1%}  {told}")
