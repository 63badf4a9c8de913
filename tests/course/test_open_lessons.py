"""Open lessons: what a lesson is about is executed in its own cells, with the field's calls."""

import re

import nbformat
import pytest

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
    "08_jsonl_finetuning": "train_test_split LoraConfig TrainingArguments load_dataset",
    "09_hosted_jobs": "files.create jobs.create jobs.retrieve completions.create OpenAI",
    "10_sensor_advice": "finetune DecisionTreeClassifier GradientBoostingClassifier"
    " RandomForestClassifier fit predict generate",
    "11_second_round": "finetune binomtest",
    "12_scale_out": "LocalCluster Client",
}


@pytest.mark.parametrize("name", CALLS)
def test_a_lesson_executes_the_calls_that_it_teaches_and_closes_without_helpers(name):
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    missing = [c for c in CALLS[name].split() if not re.search(rf"\b{re.escape(c)}\(", code)]
    assert not missing
    headings = [cell.source for cell in cells if cell.source.startswith("## ")]
    assert any("Tanpa `helpers` · Without `helpers`" in heading for heading in headings[-2:])
