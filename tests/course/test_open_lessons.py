"""Open lessons: what a lesson is about is executed in its own cells, with the field's calls."""

import re

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from helpers.settings import ROOT

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
    "08_jsonl_finetuning": "train_test_split LogisticRegression LoraConfig TrainingArguments "
    "Trainer load_dataset files.create jobs.create jobs.retrieve jobs.cancel files.delete "
    "completions.create OpenAI",
    "09_sensor_and_style": "fit predict search loads LoraConfig TrainingArguments train binomtest "
    "get_peft_model_state_dict set_peft_model_state_dict generate",
    "10_scale_out": "LocalCluster Client",
}


@pytest.mark.parametrize("name", CALLS)
def test_a_lesson_executes_the_calls_that_it_teaches_and_closes_without_helpers(name):
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    missing = [c for c in CALLS[name].split() if not re.search(rf"\b{re.escape(c)}\(", code)]
    assert not missing
    headings = [cell.source for cell in cells if cell.source.startswith("## ")]
    assert any("Tanpa `helpers` · Without `helpers`" in heading for heading in headings[-2:])


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_what_a_learner_takes_home_runs_alone_in_an_empty_folder(name, tmp_path, monkeypatch):
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
    last = [cell.source for cell in cells if cell.cell_type == "code"][-1]
    assert not re.search(r"(?m)^\s*(import|from) (helpers|pipeline)\b", last)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    where = {"metadata": {"path": str(tmp_path)}}
    alone = new_notebook(cells=[new_code_cell(last)])
    NotebookClient(alone, timeout=300, resources=where, kernel_name="python3").execute()
    assert alone.cells[0].outputs
