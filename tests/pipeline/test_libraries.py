"""What the course hands to its libraries is what they take: an upgrade that breaks it is named.

That the calls also do what they should, other tests show; this one tells at once which argument of
which library has gone, and which lesson or module uses it. The house's own imports go one way.
"""

import ast
import inspect

import bitsandbytes as bnb
import datasets
import peft
import pytest
import transformers
import trl
from IPython.core.inputtransformer2 import TransformerManager

from helpers.settings import ROOT
from pipeline import publish

TAKERS = {
    "BitsAndBytesConfig": transformers.BitsAndBytesConfig,
    "GgufConfig": transformers.GgufConfig,
    "LoraConfig": peft.LoraConfig,
    "SFTConfig": trl.SFTConfig,
    "TrainingArguments": transformers.TrainingArguments,
    "load_dataset": datasets.load_dataset,
    "prepare_model_for_kbit_training": peft.prepare_model_for_kbit_training,
}


@pytest.fixture(scope="module")
def trees():
    """(where, syntax tree) of every module, script and code cell."""
    found = []
    for path in sorted(ROOT.glob("*/*.py")):
        found.append((f"{path.parent.name}/{path.name}", ast.parse(path.read_text("utf-8"))))
    for path in publish.notebook_files():
        for cell in publish.code_cells(publish.read_notebook(path)):
            code = TransformerManager().transform_cell(cell.source)
            found.append((f"{path.stem}, cell {cell.id}", ast.parse(code)))
    return found


@pytest.mark.parametrize("name", TAKERS)
def test_a_library_takes_the_arguments_that_are_handed_to_it(trees, name):
    known, handed = set(inspect.signature(TAKERS[name]).parameters), 0
    for where, tree in trees:
        for node in ast.walk(tree):
            called = getattr(node, "func", None)
            if getattr(called, "attr", getattr(called, "id", "")) == name:
                given = {keyword.arg for keyword in node.keywords} - {None}
                assert given <= known, f"{where}: {name} does not take {given - known}"
                handed += 1
    assert handed, "nothing calls it any more"


def test_helpers_and_lessons_import_nothing_of_the_pipeline(trees):
    for where, tree in trees:
        for node in ast.walk(tree):
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
            for name in [getattr(node, "module", None) or "", *names]:
                outside = where.startswith(("pipeline", "tests", "benchmarks"))
                assert outside or name.split(".")[0] != "pipeline", where


def test_the_4_bit_layer_still_has_its_switch_for_the_packed_layout():
    """Without it an evaluation on a processor with AVX512-BF16 would end the learning unseen."""
    layer = bnb.nn.Linear4bit(64, 32, bias=False, quant_type="nf4")
    assert hasattr(layer, "support_avx512bf16_for_cpu")
    layer.to("cpu")  # quantises
    assert layer.weight.data.dtype.itemsize * layer.weight.data.numel() == 64 * 32 // 2
