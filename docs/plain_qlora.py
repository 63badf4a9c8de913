"""QLoRA of any chat model on any chat JSONL file, with the libraries alone: lesson 03 as a script.

    python docs/plain_qlora.py MODEL train.jsonl OUTPUT [--steps N]
    torchrun --standalone --nproc-per-node 2 docs/plain_qlora.py MODEL train.jsonl OUTPUT

MODEL: a folder or a name on the Hugging Face hub; each line of the file: an object with the key
"messages" (system, user, assistant), without errors by the validator of the course.
OUTPUT gets the adapter and trainer_state.json, which holds the losses. On GPUs or a CPU. Under
torchrun, Trainer does DDP: each process reads other rows, so an update has --batch rows times the
number of processes.
"""

import argparse
import os
from functools import partial

import bitsandbytes as bnb
import torch
import transformers as tf
from datasets import load_dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from torch.nn.functional import linear

parser = argparse.ArgumentParser()
for name in ("base", "file", "output"):
    parser.add_argument(name)
parser.add_argument("--steps", type=int, default=-1, help="instead of three epochs")
parser.add_argument("--batch", type=int, default=4, help="rows a step in each process")
# float16 on a T4; float32 on a processor without AVX512-BF16
parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
chosen = parser.parse_args()

cuda, dtype = torch.cuda.is_available(), getattr(torch, chosen.dtype)
tokenizer = tf.AutoTokenizer.from_pretrained(chosen.base)
tokenizer.pad_token, tokenizer.padding_side = tokenizer.pad_token or tokenizer.eos_token, "right"


def encode(row):
    """Ids and labels: -100 on the prompt; the last answer and its end token are learnt."""
    turns = []
    for message in row["messages"]:
        role = message["role"].replace("developer", "system")
        turns.append(message | {"role": role, "content": message.get("content") or ""})
    # An answer with weight 0, and a call of a tool, is read, not learnt: the row ends at the last
    # answer that is.
    while turns:
        last = turns[-1]
        if last["role"] == "assistant" and last["content"] and last.get("weight") != 0:
            break
        turns.pop()
    if not turns:
        return {"input_ids": [], "labels": []}  # nothing to learn: left out below
    *chat, answer = turns
    # some models would think aloud before the answer; most templates do not know the word
    how = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    text = tokenizer.apply_chat_template(chat, **how)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    reply = tokenizer(answer["content"], add_special_tokens=False)["input_ids"]
    reply.append(tokenizer.eos_token_id)
    return {"input_ids": ids + reply, "labels": [-100] * len(ids) + reply}


rows = load_dataset("json", data_files=chosen.file, split="train")
rows = rows.map(encode, remove_columns=rows.column_names)
rows = rows.filter(lambda row: 0 < len(row["input_ids"]) <= 512)  # a cut row would lose its end
four_bit = tf.BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
)
place = {"": int(os.environ.get("LOCAL_RANK", 0))} if cuda else None  # torchrun's number
model = tf.AutoModelForCausalLM.from_pretrained(
    chosen.base, quantization_config=four_bit, dtype=dtype, device_map=place
)
if not cuda:  # unpacked once, 2 bytes a weight: faster, and no evaluation can stop the learning
    for layer in filter(lambda m: isinstance(m, bnb.nn.Linear4bit), model.modules()):
        weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        layer.forward = partial(linear, weight=weight.to(dtype), bias=layer.bias)
    model.set_attn_implementation("eager")
if dtype == torch.float16:  # its range is small: norms and embeddings in 32 bits
    model = prepare_model_for_kbit_training(model)
torch.manual_seed(42)  # every process begins with the same adapter
lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
model = get_peft_model(model, lora)
args = tf.TrainingArguments(
    output_dir=chosen.output,
    per_device_train_batch_size=chosen.batch,
    num_train_epochs=3,
    max_steps=chosen.steps,
    learning_rate=5e-4,
    lr_scheduler_type="cosine",
    bf16=dtype == torch.bfloat16,
    fp16=dtype == torch.float16,
    use_cpu=not cuda,
    save_strategy="no",
    logging_steps=1 if chosen.steps > 0 else 25,
    remove_unused_columns=False,
    ddp_find_unused_parameters=False,
)
# Labels get -100. Few lengths: a processor's matrix library keeps a program for each shape.
collate = tf.DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=32)
trainer = tf.Trainer(model=model, args=args, train_dataset=rows, data_collator=collate)
trainer.train()
trainer.save_state()
if trainer.is_world_process_zero():
    model.save_pretrained(chosen.output)
    tokenizer.save_pretrained(chosen.output)
