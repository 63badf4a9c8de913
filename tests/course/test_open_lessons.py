"""Open lessons: what a lesson is about is executed in its own cells, with the field's calls."""

import ast

import nbformat
import pytest

from helpers.settings import ROOT

# Calls that stand in a code cell of the lesson: the last name of a call, `pd.read_csv(...)` or
# `read_csv(...)` alike; "name(argument=)" asks for that keyword as well.
CALLS = {
    "00_start": [
        "AutoTokenizer.from_pretrained",
        "AutoModelForCausalLM.from_pretrained",
        "apply_chat_template",
        "generate",
        "decode",
    ],
    "01_gpu_memory": [
        "max_memory_allocated",
        "memory_reserved",
        "reset_peak_memory_stats",
        "_record_memory_history",
        "_dump_snapshot",
    ],
    "02_data_csv_qa": ["read_csv(chunksize=)", "split", "groupby", "load_dataset"],
    "03_qlora_training": [
        "BitsAndBytesConfig(load_in_4bit=)",
        "AutoModelForCausalLM.from_pretrained",
        "prepare_model_for_kbit_training",
        "LoraConfig(r=)",
        "LoraConfig(target_modules=)",
        "get_peft_model",
        "load_dataset",
        "TrainingArguments(learning_rate=)",
        "Trainer(callbacks=)",
        "GradientGuard",
        "train",
        "save_pretrained",
        "SFTTrainer",
    ],
    "04_evaluation": ["corpus_bleu", "generate", "batch_decode"],
    "05_chatbot": ["TextIteratorStreamer", "Thread(target=)", "generate", "VBox", "on_click"],
    "06_export_and_serve": [
        "PeftModel.from_pretrained",
        "merge_and_unload",
        "save_pretrained",
        "get",
        "post",
    ],
    "07_medical_qa": [
        "add_special_tokens",
        "resize_token_embeddings",
        "TfidfVectorizer",
        "LogisticRegression",
    ],
    "08_jsonl_finetuning": [
        "train_test_split(stratify=)",
        "LoraConfig(r=)",
        "TrainingArguments(learning_rate=)",
        "LabelTrainer",
        "train",
        "save_pretrained",
        "TfidfVectorizer",
        "load_dataset",
    ],
    "09_hosted_jobs": [
        "files.create",
        "jobs.create(validation_file=)",
        "jobs.list",
        "jobs.retrieve",
        "list_events",
        "completions.create",
        "OpenAI",
    ],
    "10_sensor_advice": [
        "finetune(fresh=)",
        "PeftModel.from_pretrained",
        "DecisionTreeClassifier",
        "apply_chat_template",
        "generate",
    ],
    "11_second_round": ["finetune(fresh=)", "PeftModel.from_pretrained", "binomtest"],
    "12_scale_out": [
        "read_csv(blocksize=)",
        "submit(pure=)",
        "result",
        "LocalCluster(n_workers=)",
        "Client",
        "gather",
        "papermill.execute_notebook",
    ],
}
# Commands that a lesson shows for any model, in text or code.
COMMANDS = {"06_export_and_serve": ["convert_hf_to_gguf.py", "llama-quantize", "ollama create"]}


def notebook(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)


def calls(name):
    """(dotted name, keywords) of every call or decorator in the code cells of a lesson."""
    for cell in notebook(name).cells:
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Call):
                    yield ast.unparse(node.func), {k.arg for k in node.keywords}


def stands(wanted, found):
    name, _, keyword = wanted.removesuffix("=)").partition("(")
    return any(
        (called == name or called.endswith("." + name)) and (not keyword or keyword in keywords)
        for called, keywords in found
    )


@pytest.mark.parametrize("name", CALLS)
def test_a_lesson_executes_the_calls_that_it_teaches(name):
    found = list(calls(name))
    missing = [wanted for wanted in CALLS[name] if not stands(wanted, found)]
    assert not missing, f"{name} executes none of: {missing}"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_lesson_shows_the_commands_for_any_model(name):
    text = "\n".join(cell.source for cell in notebook(name).cells)
    assert not [command for command in COMMANDS[name] if command not in text]


@pytest.mark.parametrize("name", CALLS)
def test_a_lesson_closes_with_its_calls_without_helpers(name):
    headings = [c.source for c in notebook(name).cells if c.source.startswith("## ")]
    assert any("Tanpa `helpers` · Without `helpers`" in heading for heading in headings[-2:])
