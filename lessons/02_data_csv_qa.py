# %% [markdown]
# # 02 · Data: CSV dan pemeriksaannya · Data: CSV and its checks

# %% [markdown] lang="id"
# **Yang akan kita pelajari.** Membaca satu folder CSV resep sepotong demi sepotong, memeriksanya (apa yang hilang, rusak, duplikat, terlalu panjang, tidak seimbang), membersihkannya tanpa membuang apa pun diam-diam, membaginya menjadi data latih, validasi, dan uji tanpa *kebocoran*, kemudian menjadikannya baris latih: model membaca resep berbahasa Indonesia dan menuliskannya dalam bahasa Inggris (bagian 4 dan 8).
#
# **Yang kita perlukan.** Tidak perlu GPU. Datanya resep milik kursus ini, atau folder CSV milikmu lewat variabel lingkungan `DATA_DIR`.
#
# **Waktu.** Membaca sekitar {reading} menit; waktu mesin tercetak di bawah sel pembuka.
#
# **Latihan.** Tiga, masing-masing langsung diperiksa.

# %% [markdown] lang="en"
# **What we will learn.** To read a folder of recipe CSVs piece by piece, check it (what is missing, broken, duplicate, too long, out of balance), clean it without dropping anything in silence, split it into training, validation and test data without *leakage*, and make training rows of it: the model reads an Indonesian recipe and writes it in English (sections 4 and 8).
#
# **What we need.** No GPU. The data are the course's own recipes, or your own folder of CSVs through the environment variable `DATA_DIR`.
#
# **Time.** Reading takes about {reading} minutes; the machine's time is printed below the opening cell.
#
# **Exercises.** Three, each checked on the spot.

# %% tags=["parameters"]
PROFILE = "auto"  # see helpers/profiles.toml
LANGUAGE = "id"  # shown: "id" or "en"
TASK = "auto"  # learnt: "id-en", "en-id" or "recipe"; "auto": by the data
RUN_SOLUTIONS = False  # True runs the solutions of the exercises
SEED = 42
TEST_SHARE = 0.2  # for your own data (validation 0.1); at 0.2 the course's follow splits.csv
MAX_RECIPES = 0  # use at most so many, evenly over the categories; 0: all

# %% tags=["setup"]
from helpers.course import start

cfg = start("02_data_csv_qa", PROFILE, LANGUAGE, TASK, SEED, RUN_SOLUTIONS)

# %% [markdown]
# ## 1. Lihat dulu berkasnya · Look at the files first

# %% [markdown] lang="id"
# Model tidak bisa lebih baik daripada datanya. Sebelum melatih dengan satu baris pun, kita lihat dulu isi foldernya: berkas berakhiran `.csv` belum tentu CSV, apalagi CSV resep. `look_at` membaca awal sebuah berkas dan menentukan cara membacanya serta kolom mana yang berisi judul, bahan, dan langkah.
#
# Berkas bawaan kursus ini dinamai menurut bahan utamanya: ayam, ikan, kambing, sapi, tahu, telur, tempe, udang. Nama itu juga menjadi kategori di semua tabel berikutnya.

# %% [markdown] lang="en"
# A model can only be as good as its data. Before we train on a single row, let us see what is in the folder: a file that ends in `.csv` need not be a CSV, let alone one of recipes. `look_at` reads the beginning of a file and finds out how it has to be read and which columns hold title, ingredients and steps.
#
# The course's own files are named in Indonesian after the main ingredient: *ayam* chicken, *ikan* fish, *kambing* goat, *sapi* beef, *tahu* tofu, *telur* egg, *tempe* tempeh, *udang* prawns. These names are also the categories in all tables to come.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from helpers.csv_reader import look_at, raw_chunks
from helpers.recipes import load_recipes
from helpers.show import COLOURS, show_figure

pd.set_option("display.max_colwidth", None)  # a cell is shown to its end
# a `$` in somebody's data is a dollar, not a formula
pd.set_option("display.html.use_mathjax", False)
pd.set_option("styler.html.mathjax", False)
plt.rcParams["text.parse_math"] = False

# %%
fields = ["title", "ingredients", "steps"]
table, report = load_recipes(cfg.recipes_dir)  # section 3 explains it
files = pd.DataFrame(report.files)
files[["file", "rows_read"]].head(12)

# %% [markdown] lang="id"
# Sekarang isi mentahnya. Perhatikan kedua kolom daftar: banyak hal dijejalkan ke dalam **satu** sel, disambung dengan `--`, seperti di CSV resep Indonesia yang beredar. Pemuat kursus selalu menamai kolomnya `title`, `ingredients`, `steps`.

# %% [markdown] lang="en"
# Now the raw contents. Look at the two list columns: many things are packed into **one** cell, joined by `--`, as in the Indonesian recipe CSVs found on the web. The course's reader always names the columns `title`, `ingredients`, `steps`.

# %%
largest = files.loc[files["rows_kept"].idxmax(), "file"]
path = cfg.recipes_dir / largest
chunks = raw_chunks(path, look_at(path), rows=5000)
raw, unreadable = next(chunks)  # the first piece, and its rows that cannot be read
raw[fields].head(1).T

# %% [markdown] lang="id"
# Menguraikan sel seperti itu tidak sulit: potong pada `--`, kemudian buang spasi dan butir kosong. Pandas memotong satu kolom penuh sekaligus dengan `.str.split`.

# %% [markdown] lang="en"
# Taking such a cell apart is not hard: cut at `--`, then drop spaces and empty items. Pandas cuts a whole column at once with `.str.split`.

# %%
def split_cell(cell):
    """Items of a cell such as "1 ekor ayam--2 sdt garam--"."""
    items = []
    for item in cell.split("--"):
        if item.strip():
            items.append(item.strip())
    return items


print(split_cell(raw["ingredients"].iloc[0]))
steps = raw["steps"].str.split("--").explode()
steps.str.strip().head(5).to_frame()

# %% [markdown]
# ## 2. Pemuat dengan tangan · A reader by hand

# %% [markdown] lang="id"
# Apa syarat sebuah CSV resep? **Berkasnya** perlu satu baris nama kolom, dengan kolom judul, bahan, dan langkah; **setiap baris** perlu judul, paling sedikit dua bahan, dan paling sedikit satu langkah. Yang tidak memenuhi syarat dibuang, tetapi dihitung.
#
# Inilah sebuah pemuat lengkap, ditulis dengan tangan dan dicoba pada berkas kecil yang barisnya sengaja tidak lengkap. `chunksize` memberikan berkas itu sepotong demi sepotong: di memori hanya ada satu potongan, ditambah baris yang kita simpan. `dtype=str` membiarkan `007` dan `1/2` apa adanya; `keep_default_na=False` membiarkan sel kosong tetap kosong, bukan `NaN`.

# %% [markdown] lang="en"
# What does a recipe CSV need? The **file** needs one row of column names, with columns for title, ingredients and steps; **each row** needs a title, at least two ingredients and at least one step. What does not have them is dropped, but counted.
#
# Here is a whole reader, written by hand and tried on a small file whose rows are incomplete on purpose. `chunksize` hands us the file piece by piece: memory holds one piece, and the rows that we keep. `dtype=str` keeps `007` and `1/2` as they stand; `keep_default_na=False` leaves an empty cell empty, not `NaN`.

# %%
from helpers.settings import ROOT

chunks = pd.read_csv(
    ROOT / "data" / "messy" / "empty_cells.csv",
    dtype=str,
    keep_default_na=False,
    chunksize=1000,
)
rows_read = 0
kept = []
for chunk in chunks:
    rows_read += len(chunk)
    chunk["Ingredients"] = chunk["Ingredients"].map(split_cell)
    chunk["Steps"] = chunk["Steps"].map(split_cell)
    has_title = chunk["Title"] != ""
    has_ingredients = chunk["Ingredients"].str.len() >= 2
    has_steps = chunk["Steps"].str.len() >= 1
    kept.append(chunk[has_title & has_ingredients & has_steps])
by_hand = pd.concat(kept)
dropped = rows_read - len(by_hand)
counts = {"read": rows_read, "kept": len(by_hand), "dropped": dropped}
display(pd.DataFrame({"rows": counts}))
by_hand

# %% [markdown]
# ## 3. Baca, bersihkan, laporkan · Read, clean, report

# %% [markdown] lang="id"
# Untuk berkas yang rapi, baris-baris itu cukup. Pemuat kursus ini, `load_recipes`, melakukan hal yang sama untuk berkas yang tidak rapi. Aturannya satu: **baris terbaca = baris dipakai + baris dibuang**, dan setiap baris yang dibuang punya berkas, nomor baris, dan alasan. Pemuat yang diam-diam melewatkan baris rusak sering menjadi sebab "kok datanya tinggal segini?".
#
# Resep kursus ini terlalu bersih untuk menunjukkannya: di kolom pertama tabel berikut tidak ada satu baris pun yang dibuang. Kolom kedua adalah `data/messy`: setiap berkasnya punya satu jenis cacat yang memang ada di lapangan. Yang nanti dipakai untuk melatih hanya resep di kolom pertama.

# %% [markdown] lang="en"
# For tidy files those lines are enough. The course's reader, `load_recipes`, does the same for untidy ones. It has one rule: **rows read = rows kept + rows dropped**, and each dropped row has a file, a line and a reason. A loader that skips broken rows in silence is a common cause of "where did all my data go?".
#
# The course's recipes are too clean to show it: in the first column of the next table not one row is dropped. The second column is `data/messy`, files with one kind of defect each, as met in practice. Only the recipes of the first column will be trained on.

# %%
messy, messy_report = load_recipes(ROOT / "data" / "messy")
columns = {}
for name, found in {"data": report, "messy": messy_report}.items():
    columns[name] = {
        "read": found.rows_read,
        "kept": found.rows_kept,
        "dropped": found.rows_dropped,
        "files skipped": len(found.skipped),
        **found.reasons,
    }
pd.DataFrame(columns).fillna(0).astype(int)

# %%
drops = pd.DataFrame(messy_report.drops)
drops[["file", "line", "reason", "title"]].head(8)

# %% tags=["hide-input"]
import json

from helpers.course import check, record
from helpers.recipes import worded
from helpers.show import tell

record("rows_read", report.rows_read, "rows")
record("rows_kept", report.rows_kept, "rows")
record("rows_dropped", report.rows_dropped, "rows")
# of our own files: what was skipped or dropped, each with its reason
for one in [*report.skipped, *report.drops[:5]]:
    print(f"{one['file']} {one.get('line', '')}: {worded(one['reason'])}")
# what a reader must report on each messy file stands in the manifest
manifest_file = ROOT / "data" / "messy" / "manifest.json"
manifest = json.loads(manifest_file.read_text(encoding="utf-8"))["files"]
wanted_counts = {}
wanted_drops = []
wanted_skips = {}
for name, file in manifest.items():
    if "skipped" in file:
        wanted_skips[name] = file["skipped"]
    else:
        wanted_counts[name] = (file["rows_read"], file["rows_kept"])
        for row in file["dropped"]:
            wanted_drops.append((name, row["line"], row["reason"]))
found_counts = {}
for file in messy_report.files:
    found_counts[file["file"]] = (file["rows_read"], file["rows_kept"])
found_drops = []
for row in messy_report.drops:
    found_drops.append((row["file"], row["line"], row["reason"]))
found_skips = {}
for file in messy_report.skipped:
    found_skips[file["file"]] = file["reason"]
assert found_counts == wanted_counts
assert sorted(found_drops) == sorted(wanted_drops)
assert found_skips == wanted_skips
for found in (report, messy_report):
    assert found.rows_read == found.rows_kept + found.rows_dropped
tell("messy", files=len(manifest), skipped=len(found_skips))

# %% [markdown] lang="id"
# Berkas yang paling berbahaya bukan yang tidak terbaca, melainkan yang terbaca **salah tanpa pesan apa pun**. Di baris ketiga berkas berikut ada tanda kutip yang tidak pernah ditutup. Bandingkan judul yang ditemukan `pd.read_csv` dengan yang ditemukan `load_recipes`: resep mana yang hilang pada pandas?

# %% [markdown] lang="en"
# The most dangerous file is not the one that cannot be read but the one that is read **wrongly and without a word**. In the third line of the next file a quote is never closed. Compare the titles that `pd.read_csv` finds with those that `load_recipes` finds: which recipe does pandas lose?

# %%
open_quote = ROOT / "data" / "messy" / "open_quote.csv"
print(open_quote.read_text(encoding="utf-8"))
by_pandas = pd.read_csv(open_quote)
by_course = messy[messy["source"] == open_quote.name]
titles = {
    "read_csv": list(by_pandas["Title"]),
    "load_recipes": list(by_course["title"]),
}
pd.DataFrame(titles)

# %% [markdown] lang="id"
# Pandas menelan satu resep utuh ke dalam sel resep di atasnya. `load_recipes` membuang baris yang rusak, dengan alasannya, dan menyelamatkan resep di bawahnya.
#
# Di tabel yang bersih, sebuah sel berisi satu butir per baris, tanpa `--` dan tanpa butir kosong. Dua fungsi berikut kita perlukan nanti. `plain_text` memberi teks untuk membandingkan resep: bahan dan langkah, huruf kecil tanpa tanda baca. `evenly` mengambil sekian baris, merata per kategori dan selalu sama untuk *seed* yang sama. Kalau foldermu besar, `MAX_RECIPES` di sel parameter mengambil sekian resep saja **sebelum** langkah yang mahal: menghitung token dan mencari duplikat.

# %% [markdown] lang="en"
# Pandas swallows a whole recipe into a cell of the one above it. `load_recipes` drops the broken row, with its reason, and rescues the recipe below.
#
# In the clean table a cell holds one item a line, without `--` and without empty items. We need two functions later. `plain_text` gives the text by which recipes are compared: ingredients and steps in lower case without punctuation. `evenly` takes a given number of rows, spread evenly over the categories, and always the same ones for the same seed. If your folder is large, `MAX_RECIPES` in the parameters cell takes only that many recipes **before** the costly steps: counting tokens and looking for duplicates.

# %%
import hashlib
import re


def plain_text(rows):
    """What two rows are compared by: ingredients and steps, letters and digits in lower case."""
    texts = []
    for text in rows["ingredients"] + " " + rows["steps"]:
        words = re.findall(r"[^\W_]+", text.lower())
        texts.append(" ".join(words))
    return texts


def evenly(rows, most):
    """At most `most` rows (0: all), in turn from each category; the same for the same seed."""
    marks = []
    for text in rows["text"]:
        marked = f"{cfg.seed}{text}"
        marks.append(hashlib.sha256(marked.encode()).hexdigest())
    rows = rows.iloc[np.argsort(marks)]  # shuffled, but always in the same way
    turns = rows.groupby("category").cumcount()  # in each category 0, 1, 2, ...
    rows = rows.iloc[np.argsort(turns, kind="stable")]
    if most:
        rows = rows.head(most)
    return rows

# %%
table["text"] = plain_text(table)
if MAX_RECIPES and MAX_RECIPES < len(table):
    table = evenly(table, MAX_RECIPES).reset_index(drop=True)
print(len(table))
print(table["text"].iloc[0])

# %% [markdown]
# ## 4. Resep dan kembarannya · A recipe and its twin

# %% [markdown] lang="id"
# Apa yang akan dipelajari model? Pekerjaan yang **bahasanya** sulit dituangkan ke dalam aturan, tetapi jawabannya bisa dibaca siapa saja: menceritakan resep Indonesia dalam bahasa Inggris. Model dasarnya sudah bisa menulis bahasa Inggris; yang belum bisa ia lakukan adalah membaca bahasa Indonesia.
#
# Contohnya sudah ada. Setiap resep kursus ditulis dua kali dengan `recipe_id` yang sama: di `data/recipes/id` dan di `data/recipes/en`. `pairs.twins` memasangkannya, dengan aturan yang sama seperti pemuat CSV di bagian 3: **terbaca = dipakai + dibuang**. Sebuah pasangan dibuang, dengan alasannya, kalau banyaknya langkah atau bahan berbeda, kalau angka di satu baris berbeda, atau kalau satu langkah menyebut bahan lain sama sekali: dari pasangan seperti itu model belajar mengarang.
#
# Untuk data dalam satu bahasa, misalnya `DATA_DIR` milikmu, tugasnya lain: `TASK = "recipe"`, permintaan masuk, resep utuh keluar. Di sel berikut tidak ada yang dipasangkan untuk data itu.

# %% [markdown] lang="en"
# What will the model learn? A job whose **language** is hard to put into rules, but whose answers anybody can read: telling an Indonesian recipe in English. The base model can write English already; what it cannot do yet is read Indonesian.
#
# The examples are there. Each of the course's recipes was written twice under one `recipe_id`: in `data/recipes/id` and in `data/recipes/en`. `pairs.twins` puts them together, by the same rule as the CSV reader of section 3: **read = kept + dropped**. A pair is dropped, with its reason, where the two differ in the number of steps or ingredients, where a line holds other numbers, or where a step names other ingredients altogether: from such pairs a model learns to make things up.
#
# For data in one language, such as a `DATA_DIR` of your own, the task is another: `TASK = "recipe"`, a request in, a whole recipe out. The next cell has nothing to pair in such data.

# %%
from helpers import pairs
from helpers.recipes import recipes_of
from helpers.show import show_side_by_side

sources = recipes_of(table)
others = []
if cfg.task != "recipe":
    other_table, _ = load_recipes(cfg.data_dir / cfg.task[-2:])
    others = recipes_of(other_table)
twins, unpaired = pairs.twins(sources, others, cfg.task)
counts = {"read": len(sources), "pairs": len(twins), "dropped": len(unpaired)}
pd.DataFrame({"recipes": counts})

# %%
if twins:
    pair = twins[0]
    ours = pairs.text_of(pair.source.title, pair.source.steps)
    theirs = pairs.text_of(pair.target.title, pair.target.steps)
    show_side_by_side(["is read", "is written"], [ours, theirs])

# %% [markdown] lang="id"
# Kalau tidak ada yang dibuang, mungkin datanya memang rapi, mungkin pula pemeriksanya buta. Langkah yang hilang dan angka yang lain mudah diperiksa; yang paling sulit dilihat adalah dua langkah yang bertukar tempat. Maka kita sengaja merusak 200 pasangan dengan cara itu, dan menghitung berapa yang ketahuan:

# %% [markdown] lang="en"
# Nothing dropped means that the data are tidy, or that the check is blind. A lost step or another number is easy to check; hardest to see are two steps that change places. So we spoil 200 pairs in that way on purpose, and count how many are caught:

# %%
from dataclasses import replace

sound = []
spoilt = []
for pair in twins[:200]:
    first, second, *rest = pair.target.steps
    swapped = (second, first, *rest)
    sound.append(pair.source)
    spoilt.append(replace(pair.target, steps=swapped))
_, caught = pairs.twins(sound, spoilt, cfg.task)
counts = {"pairs": len(spoilt), "dropped": len(caught)}
pd.DataFrame({"two steps swapped": counts})

# %% tags=["hide-input"]
if cfg.task != "recipe":
    for one in unpaired[:9]:
        print(f"{one['title']}: {one['reason']}")
    record("pairs_kept", len(twins), "pairs")
    record("pairs_dropped", len(unpaired), "pairs")
    assert len(twins) + len(unpaired) == len(sources), "a recipe was lost on the way"
    share = len(caught) / max(1, len(spoilt))
    record("swapped_steps_found", share, "share")
    tell("blind", missed=1 - share)

# %% [markdown] lang="id"
# **Latihan 2.1.** Orang menulis angka dengan banyak cara: `1/2`, `½`, `0,5` (Indonesia), `0.5` (Inggris), `1½`. Tulis fungsi `numbers(text)` yang mengembalikan daftar semua angka dalam sebuah teks, dari yang terkecil, sebagai `fractions.Fraction`, supaya dua kalimat bisa dibandingkan. Titik atau koma di depan **tiga** angka menandai ribuan: `1.000` dan `1,000` berarti seribu.

# %% [markdown] lang="en"
# **Exercise 2.1.** People write numbers in many ways: `1/2`, `½`, `0,5` (Indonesian), `0.5` (English), `1½`. Write a function `numbers(text)` that gives the list of all numbers in a text, the smallest first, as `fractions.Fraction`, so that two sentences can be compared. A point or a comma before **three** digits marks thousands: `1.000` and `1,000` are a thousand.

# %% tags=["exercise"]
numbers = ...  # a function of a text

# %% tags=["solution"]
if RUN_SOLUTIONS:
    from fractions import Fraction

    def numbers(text):
        text = re.sub(r"(?<=\d)½", " 1/2", text).replace("½", "1/2")
        found = []
        for said in re.findall(r"\d+ \d+/\d+|\d+/\d+|\d+(?:[.,]\d+)*", text):
            said = re.sub(r"[.,](?=\d{3}(?!\d))", "", said).replace(",", ".")
            parts = map(Fraction, said.split())  # "1 1/2" is the sum of its two parts
            found.append(sum(parts))
        return sorted(found)

# %% tags=["check"]
said = ["2 sdm, 1/2 sdt, ½ kg", "1½ cups and 0.5 l", "0,5 liter, 3 menit", "1.000 ml", "1,000 ml"]
check("2.1", numbers, said=said, right_ones=list(map(pairs.numbers, said)));

# %% [markdown]
# ### Panjang dalam token · Length in tokens

# %% [markdown] lang="id"
# Model membaca *token*, bukan kata, dan profil ini hanya menampung `max_length` token untuk masukan dan jawaban bersama-sama. Sebuah resep dipelajari **sepotong demi sepotong** (`pairs.messages`): judul bersama langkah pertama, kemudian setiap langkah lain; yang keluar adalah potongan kembarannya. Model sekecil ini jauh lebih cepat belajar dari potongan pendek daripada dari resep utuh: dengan masing-masing 40.000 token latihan, BLEU (kemiripan dengan kembarannya; pelajaran 04) untuk resep validasi 23 dengan potongan dan 9 dengan resep utuh. Tabelnya ada di pelajaran 03, bagian 2. Daftar bahan tidak ikut dipelajari: sebuah aturan menerjemahkannya (pelajaran 05).
#
# Banyak alat begitu saja **memotong** baris yang terlalu panjang (`truncation=True` pada *tokenizer*, `max_length` pada `SFTConfig` di pustaka `trl`). Kalau tidak diatur lain, yang terpotong adalah ujungnya, beserta token penutupnya (EOS), sehingga model belajar bahwa jawaban tidak pernah selesai. Di sini resep yang salah satu potongannya terlalu panjang dibuang seluruhnya, dan bagian 8 menghitungnya.

# %% [markdown] lang="en"
# A model reads *tokens*, not words, and this profile holds only `max_length` tokens for input and answer together. A recipe is learnt **piece by piece** (`pairs.messages`): the title with the first step, then each other step; out come the pieces of its twin. A model this small learns far faster from short pieces than from whole recipes: after 40,000 tokens of training each, BLEU (likeness to the twin; lesson 04) on the validation recipes was 23 with pieces and 9 with whole recipes. The table is in lesson 03, section 2. The list of ingredients is not learnt: a rule translates it (lesson 05).
#
# Many tools simply **cut** rows that are too long (`truncation=True` of a tokenizer, `max_length` of `SFTConfig` in the library `trl`). Unless set otherwise, what gets cut is the end of the row, with its end token (EOS), so the model learns that an answer never ends. Here a recipe with a piece that is too long is dropped as a whole, and section 8 counts it.

# %%
from helpers import models, prompts

tokenizer = models.load_tokenizer(cfg)
chats = {}  # the rows of each recipe, by its recipe_id
if cfg.task == "recipe":  # a request in, a whole recipe out
    for recipe in sources:
        chats[recipe.recipe_id] = [prompts.messages(recipe, cfg.data_language)]
else:  # a piece of a recipe in, the same piece of its twin out
    for pair in twins:
        chats[pair.source.recipe_id] = pairs.messages(pair, cfg.task)
# recipes that found no twin leave the table
table = table[table["recipe_id"].isin(chats)].reset_index(drop=True)
for chat in chats[table["recipe_id"][0]][:2]:
    print(tokenizer.apply_chat_template(chat, tokenize=False))

# %% [markdown] lang="id"
# Berapa token untuk satu kata? Untuk bahasa Indonesia biasanya lebih banyak, sebab *tokenizer* umumnya dibangun dari teks Inggris. Gambar 2.1 menunjukkan seberapa jauh resep-resep dari batas profil.

# %% [markdown] lang="en"
# How many tokens does a word take? Usually more in Indonesian, since most tokenizers are built mainly on English. Figure 2.1 shows how far the recipes stay from the profile's limit.

# %%
texts = {"is read": [], "is written": []}
longest = {}
for key, rows in chats.items():
    lengths = []
    for chat in rows:
        lengths.append(len(prompts.encode(chat, tokenizer)))  # as in lesson 03
        texts["is read"].append(chat[1]["content"])  # chat[0] is the system message
        texts["is written"].append(chat[2]["content"])
    longest[key] = max(lengths)
table["tokens"] = table["recipe_id"].map(longest)

tokens_per_word = {}
for name, some in texts.items():
    ids = tokenizer(some, add_special_tokens=False)["input_ids"]
    words = " ".join(some).split()
    tokens_per_word[name] = sum(map(len, ids)) / len(words)
pd.DataFrame({"tokens a word": tokens_per_word}).round(2)

# %%
figure, axis = plt.subplots(figsize=(8, 3.2))
axis.hist(table["tokens"], bins=50, color=COLOURS[0])
axis.axvline(cfg.max_length, color=COLOURS[5], label="the profile's limit")
axis.set_xlabel("longest row of a recipe (tokens)")
axis.set_ylabel("number of recipes")
axis.set_title("Figure 2.1")
axis.legend()
show_figure(figure)

# %% tags=["hide-input"]
too_long = table["tokens"] > cfg.max_length
record("tokens_per_word", tokens_per_word["is read"], "tokens")
record("tokens_per_word_written", tokens_per_word["is written"], "tokens")
record("too_long_share", too_long.mean(), "share", n=len(table))

# %% [markdown]
# ## 5. Seimbangkah? · Is it balanced?

# %% [markdown] lang="id"
# Pemuat yang mengambil "seribu baris pertama" dari sebuah folder hanya melihat berkas-berkas pertama. Karena itu kita selalu menghitung per kategori, dan kalau kolomnya ada, juga per daerah dan cara memasak. Yang jarang di data bisa menjadi bagian yang lemah dalam jawaban model. Kategori resep kursus sengaja dibuat seimbang; daerah dan cara memasaknya tidak (Gambar 2.2, masing-masing paling banyak 18 batang).

# %% [markdown] lang="en"
# A loader that takes "the first thousand rows" of a folder sees only the first files. So we always count by category and, where the columns exist, by region and cooking method too. What is rare in the data may turn out to be the weak part of the model's answers. The categories of the course's recipes are balanced on purpose; their regions and methods are not (Figure 2.2, at most 18 bars each).

# %%
columns = {"category": table["category"], "region": table["region"]}
if cfg.own_data:  # the course's files have one more column
    methods = []
    for file in report.files:
        whole = pd.read_csv(cfg.recipes_dir / file["file"])
        methods.append(whole["Method"])
    columns["cooking method"] = pd.concat(methods)
counted = {}
for name, values in columns.items():
    named = values[values != ""]
    if len(named):
        counted[name] = named.value_counts().head(18)

width = 3 + 3 * len(counted)
figure, axes = plt.subplots(1, len(counted), figsize=(width, 4), squeeze=False)
for axis, name, colour in zip(axes[0], counted, COLOURS):
    bars = counted[name][::-1]  # the longest on top
    bars.plot.barh(ax=axis, color=colour)
    axis.set_xlabel("number of recipes")
    axis.set_ylabel(name)
figure.suptitle("Figure 2.2")
figure.tight_layout()
show_figure(figure)

# %% [markdown]
# ## 6. Duplikat dan kebocoran · Duplicates and leakage

# %% [markdown] lang="id"
# Data kita bagi tiga. Dari data **latih** model belajar: hanya data ini yang mengubah bobotnya. Dengan data **validasi** kita memilih di tengah jalan: pengaturan mana, kapan berhenti. Data **uji** baru dibuka di akhir, untuk menilai; kalau ikut dipakai memilih, nilainya menjadi terlalu bagus.
#
# Resep disalin dari situs ke situs. Kalau salinannya jatuh di data latih dan aslinya di data uji, model tinggal menghafal dan nilainya tampak hebat, seperti murid yang sudah melihat soal ujiannya: itulah *kebocoran*. Salinan jarang persis sama, jadi kita bandingkan rangkaian tiga kata (*trigram*): kemiripan dua resep adalah banyaknya trigram yang sama dibagi banyaknya trigram seluruhnya: $|A \cap B| / |A \cup B|$ (kemiripan Jaccard). Judul tidak ikut. Sel berikut membandingkan sebuah resep dengan salinannya yang diberi satu kalimat lagi, kemudian dengan resep lain.

# %% [markdown] lang="en"
# We divide the data into three. From the **training** data the model learns: they alone change its weights. With the **validation** data we make choices along the way: which setting, when to stop. The **test** data are opened only at the end, to judge; had they helped to choose, the score would be too good.
#
# Recipes are copied from site to site. If the copy lands in the training data and the original in the test data, the model need only remember and its scores look splendid, like a pupil's who has seen the examination paper: that is *leakage*. Copies are seldom exact, so we compare runs of three words (*trigrams*): the similarity of two recipes is the number of trigrams they share, divided by the number of all their trigrams: $|A \cap B| / |A \cup B|$ (Jaccard similarity). The title is left out. The next cell compares a recipe with a copy that has one more sentence, then with another recipe.

# %%
def trigrams(text):
    words = text.split()
    return {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def similarity(one, other):
    a = trigrams(one)
    b = trigrams(other)
    return len(a & b) / len(a | b)


first = table["text"].iloc[0]
last = table["text"].iloc[-1]
compared = {
    "one more sentence": similarity(first, first + " selamat mencoba"),
    "another recipe": similarity(first, last),
}
pd.DataFrame({"similarity": compared}).round(2)

# %% [markdown] lang="id"
# Dua resep yang kemiripannya paling sedikit `SIMILAR` (0,6) kita sebut **hampir sama**. Tidak ada dua resep kursus semirip itu; salinan mendekati 1. Cara ini menemukan salinan, bukan variasi: resep untuk masakan yang mirip boleh terpisah di data latih dan uji. Resep yang terhubung oleh pasangan hampir sama, langsung atau lewat resep lain, menjadi satu **kelompok**; `splits.group` memberinya nomor. Untuk ribuan resep, membandingkan semua pasangan terlalu lama; maka calonnya dipilih dulu dengan *MinHash* (sidik jari pendek dari trigramnya) dari pustaka `datasketch`.

# %% [markdown] lang="en"
# Two recipes whose similarity is `SIMILAR` (0.6) or more are **near-duplicates**. No two of the course's recipes are that similar; copies come near 1. This finds copies, not variants: recipes for nearly the same dish may be split between training and test. Recipes that are connected by near-duplicates, directly or through others, form one **group**; `splits.group` gives it a number. For thousands of recipes, comparing all pairs takes too long; so candidates are picked first by *MinHash* (short fingerprints of their trigrams) from the library `datasketch`.

# %%
from helpers import splits

SIMILAR = 0.6  # share of common trigrams from which two recipes are near-duplicates
table["group"] = splits.group(table, SIMILAR)
counts = {"recipes": len(table), "groups": table["group"].nunique()}
pd.DataFrame({"data": counts})

# %% [markdown] lang="id"
# Cara yang ceroboh: kocok barisnya, kemudian potong. Kita ukur kebocorannya pada data ini apa adanya, dan pada data yang sama sesudah "diterbitkan ulang": seperlima resepnya disalin dengan judul lain dan satu kalimat lagi. Satu undian saja bisa kebetulan, jadi kita mengulangnya dengan seratus *seed*.

# %% [markdown] lang="en"
# The careless way: shuffle the rows and cut. We measure its leakage on these data as they are, and on the same data "re-published": a fifth of the recipes copied under another title and with one more sentence. A single draw may be luck, so we repeat it with a hundred seeds.

# %%
SEEDS = range(100)
endings = {"id": "\nSelamat mencoba.", "en": "\nEnjoy."}
some = evenly(table, 2000)  # enough to measure on; the split itself takes all
# a seed that is none of SEEDS: copies and test data are drawn independently of each other
copies = some.sample(frac=0.2, random_state=cfg.seed + len(SEEDS))
copies = copies.assign(
    title=copies["title"] + " 2",
    steps=copies["steps"] + endings[cfg.data_language],
)
both = pd.concat([some, copies], ignore_index=True)
both["text"] = plain_text(both)
both["group"] = splits.group(both, SIMILAR)


def random_split(rows, seed):
    """The careless way: shuffle the rows and cut."""
    test = rows.sample(frac=TEST_SHARE, random_state=seed)
    return rows.drop(test.index), test


def leaked(train, test):
    """Share of the test rows whose group stands in the training data as well."""
    return float(test["group"].isin(train["group"]).mean())

# %% [markdown] lang="id"
# **Latihan 2.2.** Tebak dulu, baru jalankan sel berikutnya. Seperlima resep disalin, semua baris dikocok, dan `TEST_SHARE` dari semua baris menjadi data uji. Berapa proporsi baris uji (angka 0 sampai 1) yang duplikatnya ada di data latih, rata-rata? Kertas dan pensil cukup.

# %% [markdown] lang="en"
# **Exercise 2.2.** Guess first, then run the next cell. A fifth of the recipes are copied, all rows are shuffled, and `TEST_SHARE` of all rows becomes the test data. What share of the test rows (a number from 0 to 1) has its duplicate in the training data, on average? Paper and pencil will do.

# %% tags=["exercise"]
expected_leak = ...  # between 0 and 1

# %% tags=["solution"]
if RUN_SOLUTIONS:
    # of 12 rows 4 have a duplicate; it is in the training data as often as any row is
    expected_leak = 4 / 12 * (1 - TEST_SHARE)

# %%
leaks = {}
for name, rows in {"as they are": some, "re-published": both}.items():
    leaks[name] = []
    for seed in SEEDS:
        train, test = random_split(rows, seed)
        leaks[name].append(leaked(train, test))
leaks = pd.DataFrame(leaks)
leaks.agg(["mean", "min", "max"]).round(3)

# %% tags=["hide-input"]
record("leakage_random", leaks["as they are"].mean(), "share", n=len(SEEDS))
record("leakage_republished", leaks["re-published"].mean(), "share", n=len(SEEDS))

# %% tags=["check"]
counted = 4 / 12 * (1 - TEST_SHARE)
measured = leaks["re-published"].mean()
check("2.2", expected_leak, counted=counted, measured=measured);

# %% [markdown]
# ## 7. Bagi per kelompok · Split by groups

# %% [markdown] lang="id"
# Obatnya: bagi **kelompok**, bukan baris, sehingga salinan dan aslinya selalu di sisi yang sama.
#
# Bagaimana kita tahu obatnya manjur? Menurut kelompok itu sendiri kebocorannya **pasti** nol: detektornya memeriksa dirinya sendiri. Kita perlu detektor kedua yang tidak tahu apa-apa tentang trigram dan kelompok: TF-IDF (*term frequency × inverse document frequency*), yaitu kata-kata sebuah resep, dengan bobot besar untuk kata yang jarang. Untuk setiap resep uji kita cari resep latih terdekat menurut kosinus kedua vektornya (1 kalau katanya sama dengan perbandingan yang sama), dan mulai 0,9 kita hitung sebagai bocor.

# %% [markdown] lang="en"
# The cure: split **groups**, not rows, so that a copy and its original always stand on the same side.
#
# How do we know that the cure works? By the groups themselves the leakage **must** be zero: the detector checks itself. We need a second detector that knows nothing of trigrams and groups: TF-IDF (*term frequency × inverse document frequency*), the words of a recipe, with more weight for rare ones. For each test recipe we look for the nearest training recipe by the cosine of the two vectors (1 where the words are the same in the same proportions), and from 0.9 on we count it as leaked.

# %%
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors

ALIKE = 0.9  # cosine of the TF-IDF vectors from which two recipes are one
tf_idf = TfidfVectorizer(token_pattern=r"\S+")  # the words of a row become a vector


def group_split(rows, seed):
    """Shuffle the groups; a share of them, with all their rows, is the test data."""
    groups = rows["group"].drop_duplicates().sample(frac=1, random_state=seed)
    number = max(1, round(TEST_SHARE * len(groups)))
    in_test = rows["group"].isin(groups.head(number))
    return rows[~in_test], rows[in_test]


def leakage(train, test, vectors):
    """Shares of the test rows that leak, by groups and by a detector that knows nothing of them."""
    if train.empty or test.empty:
        return {"near_duplicate": 0.0, "tf_idf": 0.0}
    index = NearestNeighbors(n_neighbors=1, metric="cosine")
    index.fit(vectors[train.index])
    distances, _ = index.kneighbors(vectors[test.index])
    alike = 1 - distances >= ALIKE
    return {"near_duplicate": leaked(train, test), "tf_idf": float(alike.mean())}

# %%
vectors = tf_idf.fit_transform(both["text"])
by_seed = {}
for name, split in {"rows shuffled": random_split, "groups split": group_split}.items():
    shares = []
    for seed in SEEDS:
        train, test = split(both, seed)
        shares.append(leakage(train, test, vectors))
    by_seed[name] = pd.DataFrame(shares).mean()
pd.DataFrame(by_seed).round(3)

# %% tags=["hide-input"]
shuffled = by_seed["rows shuffled"]["tf_idf"]
grouped = by_seed["groups split"]["tf_idf"]
record("leakage_independent_random", shuffled, "share", n=len(SEEDS))
record("leakage_independent_groups", grouped, "share", n=len(SEEDS))

# %% [markdown] lang="id"
# Trigram dan TF-IDF sependapat. Namun angka nol dari sebuah detektor hanya berlaku untuk salinan yang **bisa dilihatnya**: salinan yang diceritakan kembali dengan kalimat lain kemungkinan lolos dari keduanya. Kalau detektor kedua menemukan sesuatu di datamu, gabungkan pasangannya ke dalam kelompok (bagian 9 membuat kelompok dari pasangan TF-IDF), kemudian bagi lagi.
#
# **Latihan 2.3.** `group_split` memberi dua tabel. Tulis `three_way(rows, seed)` yang memberi tiga, berurutan: latih, validasi, uji, masing-masing 70, 10, dan 20 persen dari kelompok-kelompok di kolom `group`. Tidak ada kelompok di dua sisi, tidak ada baris yang hilang, *seed* lain memberi pembagian lain. `GroupShuffleSplit` dari scikit-learn boleh dipakai, dua kali.

# %% [markdown] lang="en"
# Trigrams and TF-IDF agree. Yet a detector's zero holds only for copies that it **can see**: one retold in other sentences probably escapes both. If the second detector finds something in your data, join its pairs into the groups (section 9 makes groups of TF-IDF pairs), and split again.
#
# **Exercise 2.3.** `group_split` gives two tables. Write `three_way(rows, seed)` that gives three, in this order: training, validation, test, with 70, 10 and 20 per cent of the groups in the column `group`. No group on two sides, no row lost, another seed gives another split. scikit-learn's `GroupShuffleSplit` may be used, twice.

# %% tags=["exercise"]
three_way = ...  # a function of (rows, seed)

# %% tags=["solution"]
if RUN_SOLUTIONS:

    def three_way(rows, seed):
        groups = np.random.default_rng(seed).permutation(rows["group"].unique())
        ends = [round(0.7 * len(groups)), round(0.8 * len(groups))]
        parts = []
        for some_groups in np.split(groups, ends):
            parts.append(rows[rows["group"].isin(some_groups)])
        return parts

# %% tags=["check"]
check("2.3", three_way, trial=pd.DataFrame({"group": np.repeat(range(500), 2)}));

# %% [markdown] lang="id"
# Pembagian dengan tangan itu punya satu kekurangan: setiap resep baru mengocok semuanya lagi, dan baris yang kemarin dilatihkan hari ini masuk data uji. `splits.assign` membuat pembagian yang **tetap**.
#
# **Resep kursus** mengikuti daftar `splits.csv`: 1.456 latih, 48 validasi, 96 uji (91, 3, dan 6 %), merata per kategori, kedua bahasa sebuah resep di sisi yang sama.
#
# **Data sendiri** (juga resep kursus, kalau `TEST_SHARE` bukan 0,2) dibagi menurut *hash*, bilangan yang dihitung dari teks resep itu sendiri (untuk resep kursus: dari `recipe_id`), sekelompok demi sekelompok: baris baru tidak pernah memindahkan baris latih ke data uji. Salinan persis dibuang. Sesudahnya kita ukur lagi, dengan kedua detektor.

# %% [markdown] lang="en"
# The split by hand has one flaw: each new recipe shuffles everything again, and a row that yesterday's model was trained on is in today's test. `splits.assign` makes a split that **lasts**.
#
# **The course's recipes** follow the list `splits.csv`: 1,456 for training, 48 for validation, 96 for the test (91, 3 and 6 %), evenly within each category, both languages of a recipe on the same side.
#
# **Your own data** (the course's, too, where `TEST_SHARE` is not 0.2) are split by a hash, a number computed from the recipe's own text (for the course's: from `recipe_id`), group by group: new rows never move a training row to test. Exact copies are dropped. Then we measure again, by both detectors.

# %%
fractions = (round(0.9 - TEST_SHARE, 2), 0.1, TEST_SHARE)
divided = splits.assign(table, cfg, fractions)
parts = {}
for name in ("train", "validation", "test"):
    parts[name] = divided[divided["split"] == name]

train = parts["train"]
vectors = tf_idf.fit_transform(divided["text"])
leak_after = {}
for name in ("validation", "test"):
    part = parts[name].head(2000)
    leak_after[name] = leakage(train, part, vectors)
pd.DataFrame(leak_after).round(3)

# %% tags=["hide-input"]
for name in ("validation", "test"):
    part = parts[name]
    if len(part):  # one that is empty is named in section 8
        share = leaked(parts["train"], part)
        assert share == 0, f"{name}: rows have their duplicates in the training data"
test = parts["test"]
if len(test):
    record("leakage_after", leaked(parts["train"], test), "share", n=len(test))
    record("leakage_after_independent", leak_after["test"]["tf_idf"], "share")
got = {}
for name, part in parts.items():
    got[name] = len(part) / len(divided)
if cfg.own_data and TEST_SHARE == 0.2:
    tell("split", "list", **got)
else:
    in_test = (divided["split"] == "test").groupby(divided["category"]).mean()
    furthest = (in_test - TEST_SHARE).abs().max()
    tell("split", "hash", asked=TEST_SHARE, furthest=100 * furthest, **got)
    if cfg.own_data:
        tell("split", "retrain")

# %% [markdown] lang="id"
# Berapa besar data uji yang kita perlukan? Yang menentukan bukan proporsinya, melainkan **banyaknya**. Kalau model benar pada proporsi *p* dari *n* resep uji, interval kepercayaan 95 % (rentang nilai yang masih cocok dengan data uji kita) kira-kira ±1,96 × √(*p*(1 − *p*)/*n*). Di dekat 0 dan 1 rumus ini terlalu yakin; pelajaran 04 memakai interval Wilson.

# %% [markdown] lang="en"
# How large must a test set be? What counts is not its share but the **number** of its recipes. If a model is right on a share *p* of *n* test recipes, the 95 % confidence interval (the range of values that still fit our test data) is about ±1.96 × √(*p*(1 − *p*)/*n*). Near 0 and 1 this formula is too sure of itself; lesson 04 takes the Wilson interval.

# %%
n = np.array([25, 50, 100, 200, 400, 800])
p = 0.9
half = 1.96 * np.sqrt(p * (1 - p) / n)  # normal approximation
pd.DataFrame({"test recipes": n, "half the interval": half.round(3)})

# %% [markdown] lang="id"
# Perbaikan yang lebih kecil dari interval itu sulit dibedakan dari kebetulan; untuk selisih dua model yang diukur terpisah, intervalnya bahkan kira-kira 1,4 kali selebar itu. Karena itu pelajaran 04 membandingkan dua model pada resep yang sama, satu demi satu. Ke-96 resep uji kursus ini memberi kira-kira ±0,06 pada *p* = 0,9: cukup untuk melihat perbedaan yang besar, bukan yang kecil.

# %% [markdown] lang="en"
# An improvement smaller than that interval is hard to tell from chance; for the difference of two models measured apart, the interval is even about 1.4 times as wide. So lesson 04 compares two models on the same recipes, one by one. The course's 96 test recipes give about ±0.06 at *p* = 0.9: enough to see large differences, not small ones.

# %% [markdown]
# ## 8. Menjadi percakapan · Into conversations

# %% [markdown] lang="id"
# Sebelum disimpan, **resepnya** disaring dan dibatasi: yang salah satu potongannya melebihi `max_length` dibuang, bukan dipotong. Batas dari profil (dalam resep) diisi **merata per kategori**, dan selalu sama untuk *seed* yang sama, apa pun urutan berkasnya.

# %% [markdown] lang="en"
# Before they are saved, the **recipes** are filtered and capped: one with a piece longer than `max_length` is dropped, not cut. The profile's caps (in recipes) are filled **evenly over the categories**, and always alike for the same seed, whatever the order of the files.

# %%
caps = {
    "train": cfg.max_train_rows,
    "validation": cfg.max_validation_rows,
    "test": cfg.max_test_rows,
}
saved = {}
counts = {}
for name, part in parts.items():
    fitting = part[part["tokens"] <= cfg.max_length]
    saved[name] = evenly(fitting, caps[name])
    counts[name] = {
        "rows": len(part),
        "too long": len(part) - len(fitting),
        "cap (0: none)": caps[name],
        "saved": len(saved[name]),
    }
pd.DataFrame(counts)

# %% tags=["hide-input"]
from helpers.files import CourseError

for name, part in saved.items():
    record(f"{name}_rows", len(part), "rows")
    if part.empty:
        fit = (~too_long).sum()
        raise CourseError("empty_split", name=name, fit=fit, limit=cfg.max_length)
    if cfg.own_data and not MAX_RECIPES:
        assert set(part["category"]) == set(table["category"])
of_train = counts["train"]
spare = of_train["rows"] - of_train["too long"] - of_train["saved"]
if spare:
    tell("capped", saved=of_train["saved"], rows=of_train["rows"], spare=spare)

# %% [markdown] lang="id"
# Bentuk berkasnya *chat JSONL*: satu objek JSON per baris dengan daftar `messages`. Layanan *fine-tuning* daring dan pustaka `trl` memakai bentuk itu juga. Baris berkas latih adalah potongan resep dan kembarannya; setiap resep kelima, kalau cukup pendek, masuk sekali lagi **utuh**, diminta dengan satu kalimat biasa ("Translate this recipe into English:"), supaya model juga mengerti permintaan seperti itu (pelajaran 06). Berkas uji dibuat serupa, dari resep yang tidak pernah dilatihkan.
#
# Pada `TASK = "recipe"` setiap resep uji diminta empat kali, dengan menyebut hidangannya dan dengan menyebut bahannya, masing-masing dengan kalimat biasa dan dengan kalimat yang **hanya ada di ujian**; `requests` di sel terlipat menulisnya. Model dengan semiliar parameter atau lebih mempelajari kedua tugas sekaligus (`both_tasks` pada profilnya).

# %% [markdown] lang="en"
# The files are *chat JSONL*: one JSON object a line, with a list `messages`. Online fine-tuning services and the library `trl` use the same form. The rows of the training file are pieces of recipes and of their twins; every fifth recipe, if it is short enough, comes once more **as a whole**, asked for in one plain sentence ("Translate this recipe into English:"), so that the model understands such a request, too (lesson 06). The test file is made alike, of recipes that are never trained on.
#
# With `TASK = "recipe"` each test recipe is asked for four times, by the dish and by its ingredients, each in a usual sentence and in one that is **kept for the test**; `requests` in the folded cell writes them. Models of a billion parameters or more learn both tasks at once (`both_tasks` of their profile).

# %%
pair_of = {}
for pair in twins:
    pair_of[pair.source.recipe_id] = pair


def whole_recipe(pair):
    """A recipe and its twin as one row, asked for in one plain sentence."""
    ours = pairs.text_of(pair.source.title, pair.source.steps)
    theirs = pairs.text_of(pair.target.title, pair.target.steps)
    asked = f"{prompts.REQUEST[cfg.task]}\n\n{ours}"
    return prompts.example(asked, theirs, cfg.task)


def translations(recipe, whole):
    """The pieces of a recipe, and the recipe as a whole where it is asked for and fits."""
    found = []
    for chat in chats[recipe.recipe_id]:
        found.append((cfg.task, chat))
    if whole:
        chat = whole_recipe(pair_of[recipe.recipe_id])
        if len(prompts.encode(chat, tokenizer)) <= cfg.max_length:
            found.append(("whole", chat))
    return found

# %% tags=["hide-input"]
KINDS = [  # what a request names, and whether its sentences are those of training or of the test
    ("ingredients", "train"),
    ("ingredients", "test"),
    ("dish", "train"),
    ("dish", "test"),
]


def requests(recipe, kinds):
    """The recipe as the answer to requests that people might write."""
    found = []
    for form, phrasing in kinds:
        chat = prompts.messages(
            recipe,
            cfg.data_language,
            form=form,
            phrasing=phrasing,
            seed=cfg.seed,
        )
        found.append((f"{form}, {phrasing}", chat))
    return found

# %%
def rows_of(part, kinds):
    """Rows of a split: translations, requests, or both; each says where it comes from."""
    rows = []
    for number, recipe in enumerate(recipes_of(part)):
        found = []
        if cfg.task != "recipe":
            found += translations(recipe, whole=number % 5 == 0)
        if cfg.task == "recipe" or cfg.both_tasks:
            found += requests(recipe, kinds)
        for form, chat in found:
            row = {
                "recipe_id": recipe.recipe_id,
                "title": recipe.title,
                "category": recipe.category,
                "form": form,
                "messages": chat,
            }
            rows.append(row)
    return rows

# %%
import json
from dataclasses import asdict

shown = parts["train"]  # what the chatbot may look up
ids = set(shown["recipe_id"])
known = [pair for pair in twins if pair.source.recipe_id in ids]
file_rows = {
    "train": rows_of(saved["train"], KINDS[:1]),
    "validation": rows_of(saved["validation"], KINDS[:1]),
    "test": rows_of(saved["test"], KINDS),
    "library": list(map(asdict, recipes_of(shown))),
    "twins": list(map(asdict, known)),
}
folder = cfg.artifacts / "data"
folder.mkdir(parents=True, exist_ok=True)
counts = {}
for name, rows in file_rows.items():
    counts[name] = len(rows)
    with open(folder / f"{name}.jsonl", "w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
pd.DataFrame({"rows": counts})

# %% [markdown] lang="id"
# `library.jsonl` menyimpan resep yang boleh dicari asisten di pelajaran 05, `twins.jsonl` kembarannya: hanya resep latih. Kita baca kembali berkasnya dengan `datasets.load_dataset`, persis seperti pelatihan di pelajaran 03, dan lihat satu baris data uji. Baru di pelajaran 04 model menjawabnya; di sini data uji hanya dihitung dan dilihat, dan tidak ada yang dipilih menurut data itu.

# %% [markdown] lang="en"
# `library.jsonl` keeps the recipes that the assistant of lesson 05 may look up, `twins.jsonl` their twins: training recipes alone. We read the files back with `datasets.load_dataset`, just as the training in lesson 03 does, and look at one row of the test data. The model answers them only in lesson 04; here the test data are counted and looked at, and nothing is chosen by them.

# %%
import glob
import tempfile

import datasets

data_files = {}
for name in saved:
    path = folder / f"{name}.jsonl"
    data_files[name] = glob.escape(str(path))  # a path, not a pattern
scratch = tempfile.TemporaryDirectory()
rows = datasets.load_dataset("json", data_files=data_files, cache_dir=scratch.name)
print(rows)
rows["test"][0]

# %% tags=["hide-input"]
for name, part in rows.items():
    assert len(part) == len(file_rows[name]), name
assert rows["train"][0]["messages"] == file_rows["train"][0]["messages"]

# %% [markdown]
# ## 9. Tanpa `helpers` · Without `helpers`

# %% [markdown] lang="id"
# Inilah panggilan pustaka dari pelajaran ini dalam satu sel yang juga berjalan di notebook kosong: `read_csv` sepotong demi sepotong (yang dibuang dihitung), kelompok dari pasangan TF-IDF, `GroupShuffleSplit`, `to_json`. `DBSCAN` dengan `min_samples=1` mengumpulkan semua yang terhubung oleh pasangan dekat, langsung atau lewat resep lain. Untuk berkas sendiri, isi `path` dengan namanya; kolomnya `title` dan `steps`, dan berkas itu hanya dibaca. Hasilnya masuk ke `folder`. Jawabannya di sini langkah resep itu sendiri, bukan terjemahan seperti di bagian 8; untuk validasi, bagi lagi data latihnya.

# %% [markdown] lang="en"
# These are the library calls of this lesson in one cell that also runs in an empty notebook: `read_csv` piece by piece (what is dropped is counted), groups of TF-IDF pairs, `GroupShuffleSplit`, `to_json`. `DBSCAN` with `min_samples=1` gathers all that is connected by near pairs, directly or through other recipes. For a file of your own, put its name into `path`; its columns are `title` and `steps`, and it is only read. The results go to `folder`. The answer here is the recipe's steps themselves, not translations as in section 8; for validation, split the training data once more.

# %%
import tempfile

import pandas as pd
from sklearn.cluster import DBSCAN
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GroupShuffleSplit

folder = tempfile.mkdtemp()  # the example and what is made go here
titles = ["Soto Ayam", "Soto Kami", "Tempe Bacem", ""]
steps = ["Rebus ayam.--Beri garam.", "Rebus ayam--Beri garam!--", "Goreng tempe.", "Cuci."]
pd.DataFrame({"title": titles, "steps": steps}).to_csv(f"{folder}/example.csv", index=False)
path = f"{folder}/example.csv"  # or a file of your own: it is only read
read = pd.concat(pd.read_csv(path, dtype=str, chunksize=1000))
frame = read.dropna().reset_index(drop=True)
# read = kept + dropped
print(f"{len(read)} = {len(frame)} + {len(read) - len(frame)}", folder)
vectors = TfidfVectorizer().fit_transform(frame["steps"])
# near: a cosine of 0.9 or more
frame["group"] = DBSCAN(eps=0.1, min_samples=1, metric="cosine").fit_predict(vectors)
chats = []
for title, cell in zip(frame["title"], frame["steps"]):
    answer = cell.strip("- ").replace("--", "\n")
    chats.append([{"role": "user", "content": title}, {"role": "assistant", "content": answer}])
frame["messages"] = chats
splitter = GroupShuffleSplit(test_size=0.2, random_state=42)
train, test = next(splitter.split(frame, groups=frame["group"]))
for name, rows in {"train": train, "test": test}.items():
    frame.loc[rows, ["messages"]].to_json(f"{folder}/{name}.jsonl", orient="records", lines=True)
frame.drop(columns="steps")

# %% [markdown]
# ## Rangkuman · Wrap-up

# %% [markdown] lang="id"
# - Lihat dulu berkasnya; baca sepotong demi sepotong; terbaca = dipakai + dibuang, selalu dengan alasan.
# - Ukur panjang dalam token; lebih baik membuang seluruh baris yang terlalu panjang daripada memotong token penutupnya.
# - Cari duplikat **sebelum** membagi, dan bagi kelompoknya; ukur kebocoran sesudahnya, dengan detektor yang **bukan** alat pembaginya dan dengan lebih dari satu *seed*.
# - Pasangan terjemahan diperiksa, bukan dipercaya begitu saja: langkah, angka, dan nama di kedua sisi harus cocok, dan pemeriksanya sendiri diuji dengan pasangan yang dirusak.
# - Data uji yang terlalu kecil memberi nilai yang tidak bisa dipercaya.
#
# **Cobalah.** Arahkan `DATA_DIR` ke folder CSV milikmu dan jalankan ulang, juga dengan `TEST_SHARE` lain. Laporan pemuat saja, tanpa notebook: `python -m helpers data check data/messy`.
#
# **Berikutnya:** [03 · Pelatihan QLoRA](03_qlora_training.ipynb), melatih model dengan data ini.

# %% [markdown] lang="en"
# - Look at the files first; read piece by piece; read = kept + dropped, always with a reason.
# - Measure lengths in tokens, and drop what is too long as a whole rather than cut off its end token.
# - Look for duplicates **before** splitting, and split the groups; measure leakage afterwards, with a detector that is **not** the one that split, and with more than one seed.
# - Translation pairs are checked, not trusted: steps, numbers and names have to agree, and the check itself is tried on pairs that were spoilt.
# - A test set that is too small gives scores one cannot trust.
#
# **Try.** Point `DATA_DIR` to a folder of your own CSVs and run again, with another `TEST_SHARE` as well. The reader's report alone, without a notebook: `python -m helpers data check data/messy`.
#
# **Next:** [03 · QLoRA training](03_qlora_training.ipynb), where we train a model on these data.
