"""Imports go one way, and bitsandbytes keeps what lesson 03 switches off."""

import ast

import bitsandbytes as bnb
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from helpers.settings import ROOT
from pipeline import publish


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


def test_helpers_and_lessons_import_nothing_of_the_pipeline(trees):
    for where, tree in trees:
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in [getattr(node, "module", None) or "", *names]:
                outside = where.startswith(("pipeline", "tests", "benchmarks"))
                assert outside or name.split(".")[0] != "pipeline", where


def test_the_4_bit_layer_still_has_its_switch_for_the_packed_layout():
    """Without it an evaluation on a processor with AVX512-BF16 would end the learning unseen."""
    layer = bnb.nn.Linear4bit(64, 32, bias=False, quant_type="nf4")
    assert hasattr(layer, "support_avx512bf16_for_cpu")
    layer.to("cpu")  # quantises
    assert layer.weight.data.dtype.itemsize * layer.weight.data.numel() == 64 * 32 // 2
