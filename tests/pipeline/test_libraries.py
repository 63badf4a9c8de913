"""What the course hands to its libraries is what they take: an upgrade that breaks it is named.

That the calls also do what they should, the tests of the rooms show; this one tells at once which
argument of which library has gone, and which lesson or module uses it.
"""

import ast
import inspect
from collections import defaultdict

import bitsandbytes as bnb
import datasets
import gradio as gr
import nbclient
import papermill
import peft
import pytest
import transformers
import trl
import uvicorn
from transformers.trainer_pt_utils import safe_globals
from uvicorn.protocols.http.h11_impl import H11Protocol

from helpers.settings import ROOT
from pipeline import lint, notebooks
from tests import installs

TAKERS = {
    "BitsAndBytesConfig": transformers.BitsAndBytesConfig,
    "Chatbot": gr.Chatbot,
    "Config": uvicorn.Config,
    "GgufConfig": transformers.GgufConfig,
    "LoraConfig": peft.LoraConfig,
    "SFTConfig": trl.SFTConfig,
    "SFTTrainer": trl.SFTTrainer,
    "Slider": gr.Slider,
    "Textbox": gr.Textbox,
    "Trainer": transformers.Trainer,
    "TrainingArguments": transformers.TrainingArguments,
    "execute_notebook": papermill.execute_notebook,
    "get_peft_model": peft.get_peft_model,
    "load_dataset": datasets.load_dataset,
    "mount_gradio_app": gr.mount_gradio_app,
    "prepare_model_for_kbit_training": peft.prepare_model_for_kbit_training,
}


def sources():
    """(where, syntax tree) of every module, script and code cell."""
    for part in ("helpers", "benchmarks", "docs"):
        for path in sorted((ROOT / part).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))
    for path in notebooks.notebook_files():
        for number, cell in lint.numbered_code(notebooks.read(path)):
            yield f"{path.stem}, cell {number}", lint.tree(cell)


@pytest.fixture(scope="module")
def handed():
    """Name of a callable -> argument -> where it is handed over by name."""
    found = defaultdict(dict)
    for where, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                for keyword in node.keywords:
                    if name in TAKERS and keyword.arg:
                        found[name].setdefault(keyword.arg, where)
    return found


@pytest.mark.parametrize("name", TAKERS)
def test_a_library_takes_the_arguments_that_are_handed_to_it(handed, name):
    assert handed[name] or name in ("Trainer", "get_peft_model"), "nothing calls it any more"
    known = set(inspect.signature(TAKERS[name]).parameters)
    known |= set(nbclient.NotebookClient.class_traits()) if name == "execute_notebook" else set()
    gone = {argument: where for argument, where in handed[name].items() if argument not in known}
    assert not gone, f"{TAKERS[name].__module__}.{name} does not take {gone}"


def test_what_the_course_overrides_is_called_as_it_was():
    parameters = list(inspect.signature(transformers.Trainer.compute_loss).parameters)
    assert parameters == ["self", "model", "inputs", "return_outputs", "num_items_in_batch"]
    assert "loss_is_scaled_for_ga" in inspect.getsource(inspect.getmodule(transformers.Trainer))
    for hook in ("on_train_begin", "on_evaluate", "on_pre_optimizer_step", "on_log", "on_save"):
        assert callable(getattr(transformers.TrainerCallback, hook)), hook
    assert "_clear_and_save_textbox" in vars(gr.ChatInterface)
    made = inspect.signature(H11Protocol.connection_made).parameters
    assert list(made) == ["self", "transport"] and "response_complete" in inspect.getsource(
        inspect.getmodule(H11Protocol)
    )


def test_the_4_bit_layer_still_has_its_switch_for_the_packed_layout():
    """Without it an evaluation on a processor with AVX512-BF16 would end the learning unseen."""
    layer = bnb.nn.Linear4bit(64, 32, bias=False, quant_type="nf4")
    assert hasattr(layer, "support_avx512bf16_for_cpu")
    assert "support_avx512bf16_for_cpu" in inspect.getsource(bnb.nn.Linear4bit.forward)
    layer.to("cpu")  # quantises
    assert layer.weight.data.dtype.itemsize * layer.weight.data.numel() == 64 * 32 // 2
    assert bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).shape == (
        32,
        64,
    )


def test_reading_a_checkpoint_and_a_failed_cell_have_the_names_that_are_used():
    with safe_globals():
        pass
    problem = papermill.PapermillExecutionError(3, 2, "raise", "ValueError", "cold", [])
    assert (problem.cell_index, problem.ename, problem.evalue) == (3, "ValueError", "cold")


def test_a_freeze_is_compared_by_name_and_public_version():
    found = installs.versions("Torch==2.13.0+cpu\ntyping_extensions==4.9 ; os_name == 'x'\n-e x\n")
    assert found == {"torch": "2.13.0", "typing-extensions": "4.9"}


def test_a_failed_install_is_told_with_notebook_cell_and_gate():
    failure = {"cell": 7, "code_cell": 3, "heading": "Load", "source": "load()", "error": "Oops"}
    notebooks = [{"name": "00_start", "failure": None}, {"name": "02_data", "failure": failure}]
    gate = {"notebook": "00_start", "metric": "rows", "bound": "value", "min": 5, "max": None}
    gate |= {"status": "failed", "value": 3.0, "reason": "rows are lost"}
    lines = installs.told({"notebooks": notebooks, "gates": [gate]})
    assert lines[0] == "02_data, code cell 3 (cell 7) under “Load”, `load()`: Oops"
    assert lines[1] == "GATE 00_start / rows = 3, must be ≥ 5: rows are lost"
    assert lines[2:] == ["Gates: 1 failed"]
