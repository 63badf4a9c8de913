# %% [markdown]
# # 10 · Melampaui satu mesin · Beyond one machine

# %% [markdown] lang="id"
# **Yang akan kita pelajari.** Membagi pekerjaan ke beberapa proses: data lewat **Dask**, banyak percobaan sekaligus, kemudian satu model yang dilatih beberapa proses: **DDP** membagi barisnya, **FSDP** juga modelnya. Untuk Dask, banyak percobaan, dan DDP kita tanyakan: apakah hasilnya tetap sama, dan apakah memang lebih cepat? Untuk data lewat Dask juga: bagaimana kalau satu *worker* mati? Pada FSDP hanya terlihat apa yang dipegang setiap proses. Semuanya berjalan di satu mesin; di klaster belum kami coba.
#
# **Yang kita perlukan.** Dua inti CPU, tanpa GPU. Untuk bagian 1 sampai 5 cukup pandas; 6 sampai 8 lebih mudah sesudah pelajaran 03. Membaca ± {reading} menit; waktu mesinnya tercetak di bawah sel pembuka.
#
# **Latihan.** Dua, di bagian 4 dan 7.

# %% [markdown] lang="en"
# **What we will learn.** How to divide work among several processes: data with **Dask**, many runs at once, then one model trained by several processes: **DDP** divides its rows, **FSDP** the model as well. For Dask, for many runs and for DDP we ask: is the result still the same, and is it really faster? For data with Dask also: what if a worker dies? Of FSDP we see only what each process holds. All of it runs on one machine; we have not tried a cluster.
#
# **What we need.** Two CPU cores, no GPU. Sections 1 to 5 need only pandas; 6 to 8 are easier after lesson 03. Reading takes about {reading} minutes; the machine's minutes are printed below the opening cell.
#
# **Exercises.** Two, in sections 4 and 7.

# %% tags=["parameters"]
PROFILE = "auto"  # see helpers/profiles.toml
LANGUAGE = "id"  # shown: "id" or "en"
TASK = "auto"  # as in the other lessons
RUN_SOLUTIONS = False  # True runs the solutions of the exercises
SEED = 42
WORKERS = 2  # processes of this machine; no more than it has cores
MEGABYTES = 0  # of the practice file; 0: as the profile needs

# %% tags=["setup"]
from helpers.course import start

cfg = start("10_scale_out", PROFILE, LANGUAGE, TASK, SEED, RUN_SOLUTIONS)

# %% [markdown]
# ## 1. Ukur dulu · Measure first

# %% [markdown] lang="id"
# Yang bisa tumbuh ada tiga: **baris data**, **ukuran model**, dan **banyaknya percobaan**. Setiap jalan keluar menambah kerumitan, jadi pertanyaan pertama selalu: sejauh mana **satu** proses sanggup?
#
# Berkas latihan kita berisi resep yang ada, diulang dengan judul lain. Satu dari sepuluh resep memuat pergantian baris (*newline*) **di dalam** selnya, seperti pada CSV sungguhan, dan sesekali langkahnya kosong.

# %% [markdown] lang="en"
# Three things can grow: the **rows of data**, the **size of the model**, and the **number of runs**. Each way out adds trouble, so the first question is always: how far does **one** process get?
#
# Our practice file repeats the recipes under other titles. Every tenth keeps line breaks **inside** its cells, as real CSVs do, and now and then the steps are missing.

# %%
import json
import os
import tempfile
import time
from pathlib import Path

import pandas as pd
from helpers import models
from helpers.recipes import load_recipes
from helpers.settings import ROOT
from helpers.show import show_figure

temporary = tempfile.TemporaryDirectory()  # goes with this notebook's kernel
scratch = Path(temporary.name)

# %%
megabytes = MEGABYTES
if not megabytes:
    megabytes = 8
    if cfg.profile == "sanity":
        megabytes = 1
recipes = load_recipes(cfg.recipes_dir)[0]
recipes = recipes.loc[:9999, ["title", "ingredients", "steps"]]
length = len(recipes.to_csv(index=False).encode())
copies = int(megabytes * 1e6 / length) + 1
practice = pd.concat([recipes] * copies, ignore_index=True)
practice["title"] += " " + practice.index.astype(str)
flat = practice.index % 10 != 9  # every tenth keeps its line breaks
practice[flat] = practice[flat].replace("\n", "--", regex=True)
practice.loc[practice.index % 97 == 50, "steps"] = ""
big = scratch / "big.csv"
practice.to_csv(big, index=False)
size = big.stat().st_size  # in bytes
shown = {"rows": len(practice), "MB": size / 1e6}
pd.DataFrame(shown, index=["big.csv"]).round(1)

# %% [markdown] lang="id"
# Kita membacanya dengan pemuat pelajaran 02: `load_recipes` mengembalikan tabel yang bersih dan laporan tentang baris yang dibuang (`drops`: nomor baris dan alasannya). Sekali mengukur tidak banyak artinya, sebab program lain ikut memakai mesin ini: `in_turns` menjalankan cara-caranya **bergiliran, beberapa putaran**, dan kita ambil mediannya. Kalau dua cara dibandingkan, *interval* 95 % dihitung dari perbandingan di setiap putaran (*interval* t dari logaritmanya). Baru kalau seluruh *interval* itu di atas 1,05, jadi unggul lebih dari 5 %, kita katakan lebih cepat; kalau seluruhnya di bawah 0,95, lebih lambat; selain itu bedanya tidak jelas. Titik tengah *interval* tidak harus sama dengan perbandingan mediannya. Sebagai patokan kita pakai RecipeNLG, kumpulan terbuka berisi 2,2 juta resep.

# %% [markdown] lang="en"
# We read it with the reader of lesson 02: `load_recipes` returns the clean table and a report of the rows dropped (`drops`: line and reason). A single timing does not mean much, since other programs use this machine, too: `in_turns` runs the ways **in turns, for several rounds**, and we take the median. Where two ways are compared, the 95 % interval comes from the ratios of the single rounds (a t interval of their logarithms). Only where all of it lies above 1.05, an advantage of more than 5 %, do we say faster; where all of it lies below 0.95, slower; otherwise the difference is not clear. The middle of the interval need not be the ratio of the medians. The yardstick is RecipeNLG, an open collection of 2.2 million recipes.

# %%
from functools import partial
from timeit import timeit

ROUNDS = 5
if cfg.profile == "sanity":
    ROUNDS = 3
FEW = ROUNDS - 2  # rounds of the slower comparisons


def in_turns(ways, rounds=ROUNDS):
    """Seconds of each way, a row for each round."""
    turns = []
    for _ in range(rounds):
        seconds = {}
        for name, way in ways.items():
            seconds[name] = timeit(way, number=1)
        turns.append(seconds)
    return pd.DataFrame(turns)


alone = in_turns({"reader": partial(load_recipes, big)})
rate = len(practice) / alone["reader"].median()
shown = {
    "rows a second": rate,
    "minutes for RecipeNLG": 2.2e6 / rate / 60,
}
pd.DataFrame(shown, index=["reader"]).round(1)

# %% tags=["hide-input"]
import numpy as np
from helpers.course import check, record
from helpers.show import tell
from scipy.stats import ttest_1samp


def verdict_of(one, other):
    """How many times as fast the other way is: a 95 % interval over the rounds, and what it says.

    A t interval of the logarithms: with three rounds it is wide, as it should be. Less than a
    twentieth is not worth a second process, so it is called open.
    """
    low, high = np.exp(ttest_1samp(np.log(one / other), 0).confidence_interval())
    if low > 1.05:
        return low, high, "win"
    if high < 0.95:
        return low, high, "lose"
    return low, high, "open"


record("rows_per_second", rate, "rows/s")
whole_size = practice.memory_usage(deep=True).sum() / len(practice) * 2.2e6 / 1e9  # GB
tell(
    "rate",
    rate > 2.2e6 / 3600,  # within an hour
    size=whole_size,
    length=size / len(practice),
    minutes=2.2e6 / rate / 60,
)

# %% [markdown]
# ## 2. Potong di antara resep · Cut between records

# %% [markdown] lang="id"
# **Dask** (bagian 3) membagi tabel ke beberapa proses: `dask.dataframe.read_csv` memotong berkas kira-kira setiap `blocksize` *byte* dan menggeser titik potongnya ke akhir baris; setiap potongan disebut *partition*. Padahal di dalam sel berkutip pergantian baris hanyalah isi, bukan akhir resep. Kalau sebuah potongan dimulai di sana, teks di dalam tanda kutip dikira berada di luarnya, dan sebaliknya; [dokumentasi Dask](https://docs.dask.org/en/stable/generated/dask.dataframe.read_csv.html) memperingatkannya. Tabel Dask itu **malas** (*lazy*): ia hanya mencatat apa yang harus dikerjakan, dan baru `compute()` mengerjakannya (`scheduler="synchronous"`: di sini, dalam proses ini). Kita hitung akibatnya, dengan potongan yang sengaja kecil; biasanya puluhan MB, jadi titik potongnya jauh lebih sedikit.

# %% [markdown] lang="en"
# **Dask** (section 3) splits tables over processes: `dask.dataframe.read_csv` cuts a file about every `blocksize` bytes and moves each cut to the end of a line; each piece is a *partition*. But in a quoted cell a line break is just content, not the end of a recipe. A piece that begins there mistakes quoted text for unquoted and the other way round; [Dask's documentation](https://docs.dask.org/en/stable/generated/dask.dataframe.read_csv.html) warns of it. A Dask table is **lazy**: it only notes what is to be done, and `compute()` does it (`scheduler="synchronous"`: here, in this process). We count what goes wrong, with pieces kept small on purpose; tens of MB are usual, which means far fewer cuts.

# %%
import dask.dataframe as dd

TEXT = {"dtype": str, "keep_default_na": False}
cut = dd.read_csv(big, blocksize=32_000, **TEXT)
parts = []
for number in range(cut.npartitions):
    piece = cut.partitions[number]
    try:
        parts.append(piece.compute(scheduler="synchronous"))
    except ValueError:  # a row of too many cells, or a quote without end
        pass
whole = pd.read_csv(big, **TEXT)
# An outer merge keeps the rows of both tables; `indicator` says in which of them each one is.
found = whole.merge(pd.concat(parts), how="outer", indicator="found")["found"]
found = found.cat.rename_categories(["lost", "written by nobody", "right"])
naive = found.value_counts()
naive.to_frame("rows").rename_axis(None)

# %% tags=["hide-input"]
record("naive_rows_lost", naive["lost"], "rows", n=len(practice))
failed = cut.npartitions - len(parts)
in_failed = len(practice) * failed / cut.npartitions
tell(
    "naive",
    failed > 0,
    failed=failed,
    pieces=cut.npartitions,
    held=min(float(f"{in_failed:.2g}"), naive["lost"]),
    lost=naive["lost"],
    nobody=naive["written by nobody"],
)

# %% [markdown] lang="id"
# Jalan keluarnya: pemotongan dikerjakan **satu proses** dengan pembaca yang memahami tanda kutip (`pd.read_csv` dengan `chunksize`). Ia memotong di antara dua resep dan menulis setiap potongan sebagai CSV tersendiri. Sesudah itu setiap berkas bisa dibaca utuh oleh proses mana pun (`blocksize=None`). Isinya kita bandingkan dengan berkas asalnya, sel demi sel.

# %% [markdown] lang="en"
# The way out: let **one process** do the cutting, with a reader that understands quotes (`pd.read_csv` with `chunksize`). It cuts between two recipes and writes each piece as a CSV of its own. Then any process can read each file as a whole (`blocksize=None`). We compare their content with the file they come from, cell by cell.

# %%
import math

folder = Path(tempfile.mkdtemp(dir=scratch))
begin = time.perf_counter()
rows = math.ceil(len(practice) / 8)
for number, chunk in enumerate(pd.read_csv(big, chunksize=rows, **TEXT)):
    chunk.to_csv(folder / f"{number:04}.csv", index=False)
cut_seconds = time.perf_counter() - begin
files = sorted(folder.glob("*.csv"))
clean, report = load_recipes(folder)  # in one process
pieces = []
for file in files:
    pieces.append(pd.read_csv(file, **TEXT))
counted = {
    "files": len(files),
    "seconds": cut_seconds,
    "rows lost": len(practice) - report.rows_read,
    "same as big.csv": pd.concat(pieces, ignore_index=True).equals(whole),
}
pd.DataFrame(counted, index=["cut between recipes"]).round(2)

# %% tags=["hide-input"]
assert counted["same as big.csv"], "the pieces do not hold what the file holds"
record("reader_rows_lost", counted["rows lost"], "rows", n=len(practice));

# %% [markdown]
# ## 3. Berkas yang sama lewat Dask · The same files with Dask

# %% [markdown] lang="id"
# Di [Dask](https://docs.dask.org) satu *scheduler* menyimpan daftar tugas, beberapa *worker* mengerjakannya, dan *client* (notebook ini) mengirim tugas dan mengambil hasilnya. `LocalCluster` memulai semuanya di mesin ini; untuk klaster lain cukup alamatnya, `Client("tcp://ADDRESS:8786")`, asalkan semua *worker* bisa membaca berkasnya dan versi pustakanya sama.
#
# `submit` dan `map` langsung mengembalikan *future*, yaitu janji bahwa hasilnya akan menyusul; `gather` menunggu dan mengambil hasilnya sesuai urutan tugas. Tanpa `pure=False` Dask memakai lagi hasil lama untuk panggilan yang sama, selama *future*-nya masih dipegang. Fungsinya **sama** dengan tadi: ia tidak memakai variabel notebook ini, hanya berkas yang diberikan sebagai argumen. Jadi ia boleh berjalan di mana saja modul `helpers` bisa diimpor.

# %% [markdown] lang="en"
# In [Dask](https://docs.dask.org) a scheduler keeps the list of tasks, workers do them, and the client (this notebook) sends tasks and fetches results. `LocalCluster` starts them all on this machine; for another cluster its address is enough, `Client("tcp://ADDRESS:8786")`, provided that all workers can read the files and have the same versions of the packages.
#
# `submit` and `map` return at once with a future, the promise of a result; `gather` waits and fetches the results in the order of the tasks. Without `pure=False` Dask hands back the old result for the same call, as long as its future is still held. The function is the **same** as before: it uses no variable of this notebook, only the file that its argument names. So it may run wherever the module `helpers` can be imported.

# %%
from dask.distributed import Client, LocalCluster

begin = time.perf_counter()
cluster = LocalCluster(
    n_workers=WORKERS,
    threads_per_worker=1,
    dashboard_address=None,  # where there is one, it shows what workers do
    silence_logs=50,
)
client = Client(cluster)
client.gather(client.map(load_recipes, files[:WORKERS], pure=False))  # each imports the libraries
start_seconds = time.perf_counter() - begin
future = client.submit(load_recipes, files[0])
print(future.status, len(future.result()[0]))

# %%
import itertools


def over_dask(paths):
    futures = client.map(load_recipes, paths, pure=False)
    return client.gather(futures)


def differing(results):
    """How many rows differ from those of one process; whether the drops do."""
    tables = []
    drops = []
    for table, one in results:
        tables.append(table)
        drops += one.drops
    rows = pd.concat(tables, ignore_index=True).itertuples()
    wrong = 0
    for ours, theirs in itertools.zip_longest(clean.itertuples(), rows):
        if ours != theirs:
            wrong += 1
    return wrong, drops != report.drops


wrong, other = differing(over_dask(files))
shown = {
    "clean rows": len(clean),
    "rows that differ": wrong,
    "drops differ": other,
}
pd.DataFrame(shown, index=["Dask"])

# %% tags=["hide-input"]
record("rows_that_differ", wrong, "rows", n=len(clean))
record("reports_that_differ", int(other), "reports")
same = wrong == 0 and not other
tell("same", same, rows=len(clean), wrong=wrong, dropped=report.rows_dropped)

# %% [markdown]
# ## 4. Mana yang lebih cepat, pada ukuran berapa · What is faster, at which size

# %% [markdown] lang="id"
# Sama persis, tetapi apakah lebih cepat? Pustaka baku punya pesaingnya: `ProcessPoolExecutor` juga membagi kerja ke beberapa proses di satu mesin, tanpa *scheduler*. Memulai *worker* dan mengirim hasil ada ongkosnya, dan kalau bagian s dari waktunya tetap di satu proses (serial), **hukum Amdahl** membatasi percepatan n *worker* pada 1 / (s + (1 - s) / n).
#
# Pembersihan yang bisa ditulis **per kolom** punya jalan lain: [polars](https://docs.pola.rs) membaca CSV dengan semua inti dalam satu proses, dan berkas **Parquet** menyimpan tabel per kolom, tanpa teks yang harus diurai. Untuk baris latih, `datasets` membagi kerjanya sendiri: `map` dan `filter` dengan `num_proc`, dan `streaming=True` untuk berkas yang tidak muat di memori.
#
# Di tabel nanti ada **dua pekerjaan**: ketiga baris **pemuat** (`reader`) mengerjakan seluruh pembersihan pelajaran 02, yang lain hanya dua langkah (`tidy`: membuang langkah kosong, mengganti pergantian baris). Jadi `steps`-nya lain, seperti terlihat di tabel pertama (apakah sama dengan hasil pandas): bandingkan di dalam kelompoknya saja. Kolom pertama tabel waktu hanya satu berkas, jadi hanya satu *worker* yang bekerja di sana. Waktu memotong berkas (bagian 2; perlu untuk Dask dan untuk *process pool*, yang mendapat berkas utuh) dan menulis Parquet tidak ada di tabel; kalau datanya hanya dibaca sekali, waktu itu harus ikut dihitung.

# %% [markdown] lang="en"
# Exactly the same, but is it faster? The standard library has an opponent: `ProcessPoolExecutor` also divides work among processes of one machine, without a scheduler. Starting workers and sending results costs something, and if a part s of the time stays with one process (serial), **Amdahl's law** limits the speed-up of n workers to 1 / (s + (1 - s) / n).
#
# Cleaning that can be written **by columns** has another way: [polars](https://docs.pola.rs) reads CSV with all cores in one process, and a **Parquet** file keeps a table by columns, with no text to be parsed. For training rows `datasets` divides the work by itself: `map` and `filter` with `num_proc`, and `streaming=True` for files that do not fit in memory.
#
# The table below holds **two jobs**: the three rows with **`reader`** do the whole cleaning of lesson 02, the others only two steps (`tidy`: drop empty steps, replace line breaks). So their `steps` differ, as the first table shows (whether they equal those of pandas): compare within each group only. The first column of the times is a single file, so only one worker has work there. The time for cutting the file (section 2; needed for Dask and the process pool, which get whole files) and for writing Parquet is not in the table; if the data are read only once, add it.

# %%
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

pool = ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"))


def as_one(results):
    """The tables of (table, report) pairs as one."""
    return pd.concat([table for table, one in results])


def reader_alone(paths):
    return as_one(map(load_recipes, paths))


def reader_processes(paths):
    return as_one(pool.map(load_recipes, paths))


def reader_dask(paths):
    return as_one(over_dask(paths))

# %%
def tidy(table):
    """The two steps, of a table of pandas or of Dask."""
    table = table[table["steps"] != ""]
    return table.assign(steps=table["steps"].str.replace("\n", "--"))


def pandas_csv(paths):
    tables = [pd.read_csv(path, **TEXT) for path in paths]
    return tidy(pd.concat(tables))


def dask_csv(paths):
    return tidy(dd.read_csv(paths, blocksize=None, **TEXT)).compute()

# %%
import polars as pl


def polars_tidy(table):
    steps = pl.col("steps")
    kept = table.filter(steps != "")
    return kept.with_columns(steps.str.replace_all("\n", "--")).collect()


def polars_csv(paths):
    return polars_tidy(pl.scan_csv(paths, infer_schema=False))


def polars_parquet(paths):
    paths = [path.with_suffix(".parquet") for path in paths]
    return polars_tidy(pl.scan_parquet(paths))


for file in files:
    pd.read_csv(file, **TEXT).to_parquet(file.with_suffix(".parquet"))

# %%
ways = {
    "reader, one process": reader_alone,
    "reader, processes": reader_processes,
    "reader, Dask": reader_dask,
    "pandas, CSV": pandas_csv,
    "Dask, CSV": dask_csv,
    "polars, CSV": polars_csv,
    "polars, Parquet": polars_parquet,
}
steps = {}
for name, way in ways.items():
    steps[name] = list(way(files)["steps"])  # this first call imports libraries, too
as_pandas = {}
for name in ways:
    as_pandas[name] = steps[name] == steps["pandas, CSV"]
pd.DataFrame({"as pandas": as_pandas})

# %%
seconds = {}  # rows -> seconds of each way, round by round
medians = pd.DataFrame()
for n in (1, 4, 8):  # files
    some = {}
    for name, way in ways.items():
        some[name] = partial(way, files[:n])
    rows = len(practice) * n // 8
    seconds[rows] = in_turns(some)
    medians[rows] = 1000 * seconds[rows].median()
medians.round().astype(int).rename_axis(index="milliseconds", columns="rows")

# %% tags=["hide-input"]
pool.shutdown()
many = max(seconds)
turns = seconds[many]
one = turns["reader, one process"]
dask = turns["reader, Dask"]
low, high, verdict = verdict_of(one, dask)
ratio = one.median() / dask.median()
record("speed_up", ratio, "times", low=low, high=high, n=WORKERS)


def pays(saved):
    """From how many rows on the start pays: a straight line through the seconds saved here."""
    return float(f"{start_seconds / max(saved, 1e-9) * many:.2g}")


saved = one.median() - dask.median()
saves = one - dask  # in each round
tell(
    "reader",
    verdict,
    workers=WORKERS,
    many=many,
    ratio=ratio,
    low=low,
    high=high,
    start=start_seconds,
    pays=pays(saved),
    best=pays(saves.max()),
    worst=pays(saves.min()),
)
if verdict == "win":
    saved = saved - cut_seconds  # all of these are of all rows
    saves = saves - cut_seconds
    when = "never"
    if saves.min() > 0:
        when = "always"
    elif saved > 0:
        when = "median"
    tell(
        "cutting",
        when,
        rows=many,
        seconds=cut_seconds,
        pays=pays(saved),
        best=pays(saves.max()),
        worst=pays(saves.min()),
    )
by_columns = list(ways)[3:]
for name in by_columns:
    assert as_pandas[name], name
assert steps["reader, one process"] == steps["reader, Dask"] == steps["reader, processes"]
low, high, verdict = verdict_of(turns["reader, processes"], dask)
ratio = turns["reader, processes"].median() / dask.median()
tell("pool", verdict, ratio=ratio, low=low, high=high)
low, high, verdict = verdict_of(turns["pandas, CSV"], turns["Dask, CSV"])
gain = turns["pandas, CSV"].median() / turns["Dask, CSV"].median()
fastest = medians.loc[by_columns, many].idxmin()
tell("columns", verdict, many=many, fastest=fastest, gain=gain, low=low, high=high)

# %% [markdown] lang="id"
# **Latihan 10.1.** Dengan n *worker* sebuah pekerjaan menjadi k kali secepat satu proses. Tulis fungsi `serial_share(k, n)`: bagian s yang tetap serial, menurut hukum Amdahl. Dengan *worker* sebanyak apa pun, percepatannya tidak melebihi 1 / s. Hitung batas itu untuk `reader, Dask` (baris *pemuat, Dask*) di kolom terakhir tabel, juga untuk percepatan terkecil dan terbesar per putaran (`last = seconds[max(seconds)]`, dan darinya `last["reader, one process"] / last["reader, Dask"]`). Seberapa jauh batas itu bergeser? Nilai k di bawah 1 atau di atas n tidak mungkin menurut rumus itu: yang pertama akibat ongkos mengirim, yang kedua kebetulan.

# %% [markdown] lang="en"
# **Exercise 10.1.** With n workers a job is k times as fast as in one process. Write a function `serial_share(k, n)`: the part s that stays serial, by Amdahl's law. However many workers there are, the speed-up never exceeds 1 / s. Work that limit out for `reader, Dask` in the last column of the table, and for the smallest and the largest speed-up of a single round (`last = seconds[max(seconds)]`, and from it `last["reader, one process"] / last["reader, Dask"]`). How far does the limit move? A k below 1 or above n is impossible by that formula: the former comes from the cost of sending, the latter from chance.

# %% tags=["exercise"]
serial_share = ...  # a function of k and n

# %% tags=["solution"]
if RUN_SOLUTIONS:

    def serial_share(k, n):
        return (n / k - 1) / (n - 1)  # from 1 / k = s + (1 - s) / n

    last = seconds[max(seconds)]
    k = (last["reader, one process"] / last["reader, Dask"]).agg(["min", "median", "max"])
    k["median"] = last["reader, one process"].median() / last["reader, Dask"].median()
    limits = {}
    for name, one in k.items():
        s = serial_share(one, WORKERS)
        limits[name] = {"k": one, "s": s}
        if 0 < s <= 1:  # else outside the formula
            limits[name]["1 / s"] = 1 / s
    display(pd.DataFrame(limits).T.round(2))

# %% tags=["check"]
check("10.1", serial_share);

# %% [markdown]
# ## 5. Satu worker mati · A worker dies

# %% [markdown] lang="id"
# Makin banyak proses, makin sering ada yang mati. *Scheduler* masih memegang daftar tugas, jadi *worker* lain mengerjakan lagi tugas yang belum selesai, juga tugas yang hasilnya hilang bersama prosesnya; berapa yang diulang tidak kami hitung. Mari kita coba: sesudah hasil pertama datang, satu *worker* kita bunuh, seperti yang dilakukan sistem operasi saat memori habis. Tugas yang **terus** membunuh *worker* akhirnya ditolak (`KilledWorker`); kalau *scheduler*-nya yang mati, hilang semua yang belum ditulis ke disk.

# %% [markdown] lang="en"
# The more processes, the more often one dies. The scheduler still holds the list of tasks, so another worker does what is left, including tasks whose results were lost with the process; how many are done again we did not count. Let us try it: once the first result is there we kill one worker, as the operating system does when memory runs out. A task that **keeps** killing workers is refused in the end (`KilledWorker`); if the scheduler dies, everything not yet on disk is lost.

# %%
import psutil
from dask.distributed import as_completed

before = client.run(os.getpid)  # address of each worker -> its process
futures = client.map(load_recipes, files, pure=False)
next(as_completed(futures))
victim = list(before.values())[0]
psutil.Process(victim).kill()
wrong, other = differing(client.gather(futures))
died = set(before) - set(client.run(os.getpid))
shown = {
    "workers that died": len(died),
    "rows that differ": wrong,
    "drops differ": other,
}
pd.DataFrame(shown, index=["Dask"])

# %% tags=["hide-input"]
assert died, "no worker died: this proves nothing"
record("rows_lost_with_a_worker", wrong + int(other), "rows", n=len(clean))


def hush():
    """In each worker: what libraries say while they are imported is not this section's."""
    import logging
    import warnings

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)


client.register_worker_callbacks(hush)  # in workers that start later, too
hush()
client.wait_for_workers(WORKERS, timeout=60)
now = len(client.run(os.getpid))
same = wrong == 0 and not other
tell("killed", same, died=len(died), lost=wrong, rows=len(clean), now=now)

# %% [markdown]
# ## 6. Banyak percobaan sekaligus · Many runs at once

# %% [markdown] lang="id"
# Percobaan yang tidak saling menunggu paling mudah dibagi: `run_one` melatih satu *adapter* dengan satu *learning rate*. Modelnya kecil dan bobotnya acak: cara kerjanya sama dengan model besar, pilihan terbaiknya **tidak**. Fungsi ini ada di notebook, jadi Dask mengirim kodenya juga; `import`-nya ditulis di dalam supaya hanya *worker* yang menjalankannya yang memuat torch. Untuk merencanakan pencarian seperti ini ada Optuna.

# %% [markdown] lang="en"
# Runs that do not wait for each other are the easiest to divide: `run_one` trains one adapter with one learning rate. The model is a tiny one with random weights: the procedure is that of a large model, the best choice is **not**. The function stands in this notebook, so Dask sends its code along; its `import` lines are inside, so that only a worker that runs it loads torch. Optuna plans such searches.

# %%
def run_one(rate, base, texts, threads=1):
    """The loss of the last eight texts before and after 16 steps on the first 32."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(42)
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=96)
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    plain = AutoModelForCausalLM.from_pretrained(base, trust_remote_code=False)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
    model = get_peft_model(plain, lora)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)

    def loss(start):  # of eight texts
        some = {name: rows[start : start + 8] for name, rows in batch.items()}
        return model(**some).loss

    before = loss(32).item()
    for step in range(16):
        loss(step % 4 * 8).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"learning rate": rate, "base model": before, "tuned model": loss(32).item()}

# %% [markdown] lang="id"
# Sebagai pembanding, satu proses (notebook ini) melatih semuanya **satu per satu**, bergiliran dengan Dask: dengan satu *thread* seperti setiap *worker*, dan dengan *thread* sebanyak *worker*-nya. Pembanding yang adil adalah yang lebih cepat. Putaran pertama, saat pustakanya diimpor, hanya memberi *loss*-nya dan tidak diukur. Tabelnya memuat detik (terkecil, median, dan terbesar di antara putarannya); Gambar 10.1 memuat *loss* menurut *learning rate*.

# %% [markdown] lang="en"
# For comparison one process (this notebook) trains them all **one after the other**, in turns with Dask: with one thread, as each worker has, and with as many threads as there are workers. The fair opponent is the faster one. The first round, in which the libraries are imported, gives only the losses and is not timed. The table holds seconds (the smallest, median and largest of the rounds); Figure 10.1 shows the losses by learning rate.

# %%
from dataclasses import replace

rates = [1e-3, 1e-2, 3e-2, 1e-1]
if cfg.profile == "sanity":
    rates = [1e-2, 3e-2]
base = models.base_folder(replace(cfg, base_model="sanity"))
texts = recipes.agg("\n".join, axis=1).tolist() * 40  # of few recipes, each comes again
every = max(1, len(recipes) // 40)
texts = texts[::every][:40]


def one_by_one(threads):
    return [run_one(rate, base, texts, threads) for rate in rates]


def at_once():
    futures = client.map(run_one, rates, pure=False, base=base, texts=texts)
    return client.gather(futures)


sweeps = {
    "one process, one thread": partial(one_by_one, threads=1),
    "one process, more threads": partial(one_by_one, threads=WORKERS),
    "with Dask": at_once,
}

# %%
found = {}
for name, sweep in sweeps.items():
    found[name] = pd.DataFrame(sweep()).set_index("learning rate")
sweep_seconds = in_turns(sweeps, FEW)
sweep_seconds.agg(["min", "median", "max"]).round(2)

# %%
table = found["with Dask"]
axis = table.plot(
    logx=True,
    style=["k--", "o-"],
    figsize=(7, 2.8),
    title="Figure 10.1",
)
axis.set_ylabel("validation loss, nats/token")
show_figure(axis.figure)
client.shutdown()  # ends the workers

# %% tags=["hide-input"]
floor = table["base model"].iloc[0]
best = table["tuned model"].idxmin()
lowest = table["tuned model"].min()
record("sweep_runs", len(table), "runs")
record("sweep_gain", floor - lowest, "nats/token")
tell("best", bool(lowest < floor), runs=len(table), rate=best, loss=lowest, floor=floor)
apart = 0
for one in found.values():
    apart = max(apart, ((one - table).abs() / table).max(axis=None))
assert apart < 1e-3, "the ways train different adapters"
tell("sweep_same", apart == 0, apart=apart)
lone, more, dask = sweep_seconds.median()
quickest = "one process, one thread"
threads = 1
if more < lone:
    quickest = "one process, more threads"
    threads = WORKERS
low, high, verdict = verdict_of(sweep_seconds[quickest], sweep_seconds["with Dask"])
ratio = min(lone, more) / dask
record("sweep_speed_up", ratio, "times", low=low, high=high)
each = math.ceil(len(table) / WORKERS)  # runs of each worker
tell(
    "sweep",
    verdict,
    ratio=ratio,
    low=low,
    high=high,
    runs=len(table),
    workers=WORKERS,
    threads=threads,
    run=lone / len(table),
    ideal=lone / len(table) * each,
    dask=dask,
    gain=lone / more,
)

# %% [markdown]
# ## 7. Melatih di dua proses · Training in two processes

# %% [markdown] lang="id"
# Pada **DDP** (*distributed data parallel*) setiap proses memegang salinan model yang sama dan membaca baris yang berbeda; sebelum setiap langkah semua proses **merata-ratakan gradiennya** (*all-reduce*). `torchrun` memulai proses-proses itu dan memberi masing-masing sebuah nomor (*rank*; bukan *rank* LoRA). Di CPU proses-proses itu berkomunikasi lewat `gloo`, di GPU lewat `nccl`, satu GPU untuk setiap proses. Kedua sel berikut menulis skripnya: yang pertama membagi baris dan membungkus modelnya, yang kedua menambahkan *loop*-nya; kalau kamu mengubah salah satunya, jalankan keduanya. `no_sync` dan `all_reduce` hanya agar gradien satu proses dan rata-ratanya terlihat (di tabel: gradien *bias*, satu angka). Kalau satu proses mati, `torchrun` mengakhiri yang lain; yang tersisa hanyalah *checkpoint* terakhir, kalau skripnya menyimpannya (pelajaran 03; kedua skrip di sini tidak).

# %% [markdown] lang="en"
# With **DDP** (distributed data parallel) each process holds the same copy of the model and reads rows of its own; before every step all processes **average their gradients** (all-reduce). `torchrun` starts the processes and gives each a number, its rank (not the LoRA rank). On a CPU they talk through `gloo`, on GPUs through `nccl`, one GPU for each process. The next two cells write the script: the first shares out the rows and wraps the model, the second adds the loop; if you change one of them, run both. `no_sync` and `all_reduce` are there only to show the gradient of one process and the average (in the table: that of the bias, one number). If one process dies, `torchrun` ends the others; what is left is the last checkpoint, if the script saves any (lesson 03; the two scripts here do not).

# %%
# %%writefile {scratch}/loop.py
import json

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

dist.init_process_group("gloo")
torch.manual_seed(42)  # every process begins with the same rows and weights
x = torch.randn(8, 4)
y = torch.randn(8, 1)
rows = TensorDataset(torch.arange(8), x, y)
sampler = DistributedSampler(rows, shuffle=False)  # which rows this process reads
reader = DataLoader(rows, batch_size=2, sampler=sampler)
model = DistributedDataParallel(torch.nn.Linear(4, 1))
bias = model.module.bias
loss = torch.nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

# %%
# %%writefile -a {scratch}/loop.py
for step, (numbers, x, y) in enumerate(reader, 1):
    with model.no_sync():  # the gradient of this process alone
        loss(model(x), y).backward()
    alone = bias.grad.item()
    mean = bias.grad.clone()
    dist.all_reduce(mean)  # in every process: the sum over all
    mean /= dist.get_world_size()
    optimizer.zero_grad()
    loss(model(x), y).backward()  # here DDP does the same by itself
    row = [
        step,
        dist.get_rank(),
        numbers.tolist(),
        alone,
        mean.item(),
        bias.grad.item(),
    ]
    print(json.dumps(row) + "\n", end="")  # in one piece: two processes write here
    optimizer.step()
    optimizer.zero_grad()
dist.destroy_process_group()

# %%
import subprocess
import sys


def torchrun(processes, script, *options):
    """Run a script in so many processes, on the CPU only; the rows of JSON that they print."""
    command = [sys.executable]
    if processes > 1:  # one process needs no torchrun
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", processes]
    command += [script, *options]
    values = dict(os.environ)
    values["OMP_NUM_THREADS"] = str(max(1, WORKERS // processes))  # all together: WORKERS
    values["CUDA_VISIBLE_DEVICES"] = "-1"
    values["HF_HOME"] = str(scratch)
    command = [str(part) for part in command]
    done = subprocess.run(command, env=values, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = []
    for line in done.stdout.splitlines():
        if line[1:2].isdigit():  # no message such as "[Gloo] Rank 0"
            rows.append(json.loads(line))
    return rows

# %%
heads = ["step", "process", "rows read", "its gradient", "averaged by hand", "averaged by DDP"]
loop = pd.DataFrame(torchrun(2, scratch / "loop.py"), columns=heads)
loop = loop.sort_values(["step", "process"])
loop.style.hide(axis="index").format(precision=4)

# %% tags=["hide-input"]
assert ((loop["averaged by hand"] - loop["averaged by DDP"]).abs() < 1e-5).all()
for _, two in loop.groupby("step"):
    assert two["averaged by DDP"].nunique() == 1
    assert abs(two["its gradient"].mean() - two["averaged by DDP"].max()) < 1e-5

# %% [markdown] lang="id"
# DDP di awal menyalin bobot proses 0 ke semua proses, dan gradien rata-ratanya sama di kedua proses (di tabel untuk *bias*; begitu pula bobot lain): salinan modelnya sama sejak awal dan tetap sama.
#
# **Latihan 10.2.** Tebak dulu, baru jalankan sel sesudahnya. **Tiga** proses membaca 8 baris (nomor 0 sampai 7) dengan cara yang sama. Baris mana yang dibaca proses terakhir (*rank* 2), menurut urutannya? Ingat: kalau satu proses melangkah lebih sedikit, yang lain tertahan di *all-reduce* sampai batas waktunya habis (bawaannya 30 menit, dengan `nccl` 10) atau sambungannya putus, dan pelatihannya gagal.

# %% [markdown] lang="en"
# At the start DDP copies the weights of process 0 to all processes, and the average gradient is the same in both (in the table for the bias; so it is for the other weights): their copies of the model are equal from the start and stay so.
#
# **Exercise 10.2.** Guess first, and only then run the cell below. **Three** processes read 8 rows (numbers 0 to 7) in the same manner. Which rows does the last process (rank 2) read, in their order? Remember: if one process takes fewer steps, the others are held in the all-reduce until the timeout (30 minutes by default, 10 with `nccl`) or until the connection breaks, and the training fails.

# %% tags=["exercise"]
expected = ...  # a list of row numbers

# %% tags=["solution"]
if RUN_SOLUTIONS:
    expected = [2, 5, 0]

# %%
from torch.utils.data import DistributedSampler

read = list(DistributedSampler(range(8), num_replicas=3, rank=2, shuffle=False))
read

# %% tags=["check"]
check("10.2", expected, read=read);

# %% [markdown] lang="id"
# Delapan baris tidak habis dibagi tiga, jadi sampler mengulang dari depan (baris 0) supaya setiap proses mendapat tiga. Baris yang dibaca dua kali tidak apa-apa dalam pelatihan, tetapi keliru dalam evaluasi; `Trainer` membuangnya lagi di sana. Dalam *loop* sendiri, `sampler.set_epoch(epoch)` mengacak ulang setiap *epoch*, asalkan `shuffle=True` (bawaannya; di sini `False`).
#
# Sekarang sungguhan, pelajaran 03 sebagai skrip: [plain_qlora.py](../../docs/plain_qlora.py). *Loop* tadi ada di dalam `Trainer`; yang khusus untuk DDP di skrip itu hanya tiga hal: di GPU mana model ditaruh (`place`, menurut `LOCAL_RANK`, nomor dari `torchrun`), proses mana yang menyimpannya (`trainer.is_world_process_zero()`), dan `ddp_find_unused_parameters=False` (setiap bobot yang dilatih terpakai di setiap langkah, jadi DDP tidak perlu mencarinya).
#
# Di terminal. Untuk dua mesin, ganti `--standalone` dengan opsi di baris komentar, di kedua mesin, dengan nama salah satunya sebagai HOST; bentuk itu belum kami coba:
#
# ```bash
# torchrun --standalone --nproc-per-node 2 docs/plain_qlora.py MODEL train.jsonl OUTPUT
# # --nnodes 2 --rdzv-backend c10d --rdzv-id dapur --rdzv-endpoint HOST:29400
# ```
#
# `accelerate launch` melakukan hal yang sama menurut sebuah berkas pengaturan. Dua proses dengan setengah *batch* (*batch* efektifnya, proses × *batch* × akumulasi, tetap sama) harus memberi *loss* yang sama dengan satu proses, asalkan baris di setiap langkah sama, tanpa *dropout*, dan yang dirata-ratakan *loss* per **token berlabel**, bukan per proses (`average_tokens_across_devices` di `TrainingArguments`; bawaannya `True`; `False` belum kami coba). Kita periksa pada model acak tadi, dalam fp32. Waktunya diukur bergiliran, `FEW` putaran, dan satu proses mendapat *thread* sebanyak kedua proses bersama:

# %% [markdown] lang="en"
# Eight is not divisible by three, so the sampler starts again from the front (row 0), and each process gets three. A row read twice does no harm in training, but is wrong in an evaluation; there `Trainer` drops it again. In a loop of your own, `sampler.set_epoch(epoch)` shuffles anew for each epoch, provided `shuffle=True` (the default; `False` here).
#
# Now for real, lesson 03 as a script: [plain_qlora.py](../../docs/plain_qlora.py). The loop above is inside `Trainer`; only three things in that script are about DDP: on which GPU the model is put (`place`, by `LOCAL_RANK`, the number from `torchrun`), which process saves it (`trainer.is_world_process_zero()`), and `ddp_find_unused_parameters=False` (every trained weight is used in every step, so DDP need not search).
#
# In a terminal. For two machines, put the options of the comment line in place of `--standalone`, on both machines, with the name of one of them as HOST; we have not tried that form:
#
# ```bash
# torchrun --standalone --nproc-per-node 2 docs/plain_qlora.py MODEL train.jsonl OUTPUT
# # --nnodes 2 --rdzv-backend c10d --rdzv-id dapur --rdzv-endpoint HOST:29400
# ```
#
# `accelerate launch` does the same from a file of settings. Two processes with half the batch each (the effective batch, processes × batch × accumulation, stays the same) must give the same loss as one process, as long as both see the same rows in each step, there is no dropout, and what is averaged is the loss per **labelled token**, not per process (`average_tokens_across_devices` of `TrainingArguments`; `True` by default; `False` we did not try). We check it on the random model from before, in fp32. It is timed in turns, `FEW` rounds, and one process gets as many threads as two have together:

# %%
STEPS = 20
data = scratch / "train.jsonl"
lines = []
some = pd.concat([recipes] * 64).head(64)  # of few recipes, each comes again
for row in some.itertuples():
    asked = {"role": "user", "content": row.title}
    answer = {"role": "assistant", "content": row.steps}
    lines.append(json.dumps({"messages": [asked, answer]}) + "\n")
data.write_text("".join(lines), encoding="utf-8")


def train(processes, batch):
    """Loss and gradient norm of each step; seconds, without the start of the processes."""
    out = scratch / f"by_{processes}"
    options = ["--dtype", "float32", "--steps", STEPS, "--batch", batch]
    torchrun(processes, ROOT / "docs" / "plain_qlora.py", base, data, out, *options)
    state = json.loads((out / "trainer_state.json").read_text(encoding="utf-8"))
    log = state["log_history"]
    steps = pd.DataFrame(log[:STEPS]).set_index("step")
    return steps[["loss", "grad_norm"]], log[-1]["train_runtime"]

# %%
rounds = []
for _ in range(FEW):
    one, one_seconds = train(1, batch=4)
    two, two_seconds = train(2, batch=2)
    rounds.append({"one process": one_seconds, "two processes": two_seconds})
apart = (one - two).abs() / one
compared = {"one process": one, "two processes": two, "relative difference": apart}
compared = pd.concat(compared, axis=1)
compared = compared.iloc[[0, 4, 9, 14, 19]]
compared.style.format("{:.5f}").format("{:.0e}", subset="relative difference")

# %%
ddp_seconds = pd.DataFrame(rounds)
ddp_seconds.agg(["min", "median", "max"]).round(2)

# %% tags=["hide-input"]
losses = one["loss"]
moved = abs(losses.iloc[-1] - losses.iloc[0]) / losses.iloc[0]
record("ddp_loss_difference", apart["loss"].max(), "relative", n=STEPS)
record("ddp_gradient_difference", apart["grad_norm"].max(), "relative", n=STEPS)
record("ddp_loss_moved", moved, "relative", n=STEPS)
tell("ddp", apart=apart["loss"].max(), norms=apart["grad_norm"].max(), moved=moved)
low, high, verdict = verdict_of(ddp_seconds["one process"], ddp_seconds["two processes"])
middle = ddp_seconds.median()
tell(
    "ddp_speed",
    verdict,
    steps=STEPS,
    rounds=FEW,
    seconds=middle["one process"],
    ratio=middle["one process"] / middle["two processes"],
    low=low,
    high=high,
    threads=max(1, WORKERS),
)

# %% [markdown]
# ## 8. Model yang tidak muat · A model that does not fit

# %% [markdown] lang="id"
# Dengan DDP setiap GPU memegang semuanya: bobot, gradien, dan *state* *optimizer*. Bagaimana kalau semuanya tidak muat sekaligus? **FSDP** (*fully sharded data parallel*) menyebar ketiganya: `fully_shard` menyisakan di setiap proses sepotong dari setiap tensor, mengumpulkan satu lapisan tepat sebelum gilirannya, kemudian melepaskannya lagi. Gradien dirata-ratakan dan langsung dibagi (*reduce-scatter*). *State* *optimizer* mengikuti bobotnya; di sini tidak diukur. Di dua proses CPU, dalam *byte*:

# %% [markdown] lang="en"
# With DDP each GPU holds everything: weights, gradients and optimizer states. And if they do not fit together? **FSDP** (fully sharded data parallel) spreads all three: `fully_shard` leaves in each process a part of every tensor, collects one layer right before its turn, and lets it go again. Gradients are averaged and divided at once (reduce-scatter). The optimizer states follow their weights; they are not measured here. In two CPU processes, in bytes:

# %%
# %%writefile {scratch}/shards.py
import json
import sys

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM

dist.init_process_group("gloo")
mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
whole = sum(weight.nbytes for weight in model.parameters())
for layer in model.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)  # what is left: embedding, last norm, head
ids = torch.arange(8)[None] + 8 * dist.get_rank()  # each process reads its own
model(input_ids=ids, labels=ids).loss.backward()
weights = 0
gradients = 0
for weight in model.parameters():
    weights += weight.to_local().nbytes
    gradients += weight.grad.to_local().nbytes
row = [dist.get_rank(), whole, weights, gradients]
print(json.dumps(row) + "\n", end="")
dist.destroy_process_group()

# %%
heads = ["process", "all weights", "weights held", "gradients held"]
shards = pd.DataFrame(torchrun(2, scratch / "shards.py", base), columns=heads)
shards.sort_values("process").style.hide(axis="index")

# %% tags=["hide-input"]
assert shards["weights held"].sum() == shards["all weights"].max(), "a weight is held twice"
share = shards["weights held"] / shards["all weights"]
record("fsdp_weights_share", share.max(), "share", n=len(shards));

# %% [markdown] lang="id"
# Setiap proses memegang kira-kira separuh. Yang **tidak** tersebar: aktivasi, *logits*, dan lapisan yang sedang dikumpulkan. Kalau itu yang memakan paling banyak memori, seperti pada model kecil dengan baris panjang, puncak memorinya hampir tidak turun. Di sini setiap proses memuat seluruh model lebih dulu; model yang sungguh tidak muat dibuat tanpa memori (`torch.device("meta")`), disebar, baru diisi. `device_map="auto"` menaruh lapisan di beberapa GPU: muat, tetapi tidak lebih cepat.
#
# Bobot 4-bit bitsandbytes biasanya disimpan sebagai uint8, yang tidak bisa disebar `fully_shard` (`accelerate` melewatinya dengan peringatan); untuk menyebarnya perlu `bnb_4bit_quant_storage=torch.bfloat16`. `fully_shard` adalah bentuk kedua, FSDP2; yang pertama kelas `FullyShardedDataParallel`. QLoRA dengan FSDP di beberapa GPU **belum pernah dijalankan** kursus ini; mulailah dari [panduan PEFT](https://huggingface.co/docs/peft/accelerate/fsdp).
#
# Sebelum menyewa n GPU, ukur dua. *Efisiensi* adalah percepatan dibagi banyaknya GPU, dan ia turun kalau n naik: misalkan dua GPU 1,6 kali secepat satu (efisiensi 80 %; s = 0,25 menurut Amdahl); delapan menjadi paling banyak 2,9 kali secepat satu (36 %). Itu *strong scaling*: *batch* efektifnya tetap. Kalau *batch* ikut tumbuh (*weak scaling*), percepatannya bisa lebih besar, tetapi pelatihannya lain.

# %% [markdown] lang="en"
# Each process holds about half. What is **not** spread: activations, logits and the layer currently collected. Where these take most of the memory, as with a small model and long rows, its peak hardly falls. Here each process first loads the whole model; one that really does not fit is created without memory (`torch.device("meta")`), sharded, and only then filled. `device_map="auto"` puts layers on several GPUs: it fits, but is no faster.
#
# The 4-bit weights of bitsandbytes are usually stored as uint8, which `fully_shard` cannot spread (`accelerate` leaves them out with a warning); to spread them takes `bnb_4bit_quant_storage=torch.bfloat16`. `fully_shard` is the second form, FSDP2; the first is the class `FullyShardedDataParallel`. QLoRA with FSDP on several GPUs was **never run** by this course; begin with [PEFT's guide](https://huggingface.co/docs/peft/accelerate/fsdp).
#
# Before you rent n GPUs, measure two. *Efficiency* is the speed-up divided by the number of GPUs, and it falls as n grows: say two GPUs are 1.6 times as fast as one (efficiency 80 %; s = 0.25 by Amdahl); eight are then at most 2.9 times as fast (36 %). That is *strong scaling*: the effective batch stays. Where the batch grows with the GPUs (*weak scaling*) more is possible, but it is another training.

# %% [markdown]
# ## 9. Tanpa `helpers` · Without `helpers`

# %% [markdown] lang="id"
# Untuk dibawa pulang: satu folder CSV dibersihkan lewat Dask, dan hasilnya dibandingkan dengan satu proses. Untuk datamu sendiri, pakai baris `files = ...` di komentar dan tulis fungsi `clean`-mu sendiri. Sel ini tidak menulis apa pun ke foldermu: berkas latihannya ada di folder sementara. Setiap berkas harus utuh (dipotong seperti di bagian 2). `if __name__ == "__main__":` diperlukan kalau sel ini menjadi skrip, sebab setiap *worker* membaca skripnya sekali lagi. Untuk pelatihan, **salin** kedua sel yang menulis `loop.py` di bagian 7 (berkasnya sendiri hilang bersama kernel) dan sisakan di dalam `for` hanya `loss(model(x), y).backward()`, `optimizer.step()`, dan `optimizer.zero_grad()`. Buang baris pertamanya (`%%writefile`), dan untuk pelatihan sungguhan pakai `shuffle=True` dengan `set_epoch`. Di GPU: `nccl`, dengan model dan datanya di GPU bernomor `LOCAL_RANK`.

# %% [markdown] lang="en"
# To take home: a folder of CSVs cleaned with Dask, and the result compared with one process. For your own data use the commented line `files = ...` and write a `clean` of your own. This cell writes nothing into your folder: its practice files are in a temporary one. Each file must be whole (cut as in section 2). `if __name__ == "__main__":` is needed if this cell becomes a script, since each worker reads the script once more. For training, **copy** the two cells of section 7 that write `loop.py` (the file itself disappears when the kernel ends) and leave in the `for` only `loss(model(x), y).backward()`, `optimizer.step()` and `optimizer.zero_grad()`. Drop their first lines (`%%writefile`), and for real training use `shuffle=True` with `set_epoch`. On GPUs: `nccl`, with the model and its data on the GPU numbered `LOCAL_RANK`.

# %%
import tempfile
from pathlib import Path

import pandas as pd
from dask.distributed import Client, LocalCluster


def clean(path):
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table[table["steps"] != ""]


if __name__ == "__main__":
    table = pd.DataFrame({"title": ["Soto", "Opor"], "steps": ["Rebus ayam.\nSajikan.", ""]})
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    # elsewhere: Client("tcp://ADDRESS:8786"), and a folder that all its workers can read
    with tempfile.TemporaryDirectory() as practice, cluster, Client(cluster) as client:
        for number in range(10):
            pd.concat([table] * 50).to_csv(f"{practice}/{number:04}.csv", index=False)
        files = sorted(Path(practice).glob("*.csv"))
        # yours, which are only read: files = sorted(Path("YOUR FOLDER").glob("*.csv"))
        cleaned = pd.concat(client.gather(client.map(clean, files)))
        alone = pd.concat(map(clean, files))  # in one process
    assert cleaned.equals(alone), "Dask lost or changed a row"
    print({"rows with steps": len(cleaned), "rows in one process": len(alone)})

# %% [markdown]
# ## Rangkuman · Wrap-up

# %% [markdown] lang="id"
# - Ukur satu proses dulu, bergiliran, beberapa putaran. Sering kali itu sudah cukup.
# - Potong di batas resep; bandingkan hasilnya dengan satu proses, juga sesudah satu *worker* mati.
# - Lebih cepat atau tidak, hanya pengukuranmu sendiri yang menjawab, pada pekerjaan yang cukup panjang.
# - Di antara banyak percobaan, kemenangan sebagian kebetulan: ulangi dengan *seed* dan teks lain.
# - DDP dengan *batch* efektif yang sama memberi *loss* yang sama sampai pembulatan (diperiksa tanpa *dropout*, dalam fp32, pada model kecil); FSDP untuk pelatihan yang tidak muat di satu GPU, juga kalau bobotnya saja muat.
#
# **Cobalah.** Ubah `MEGABYTES` dan lihat mana yang lebih cepat. Atau jalankan, di folder tempat `helpers` berada, `dask scheduler` dan `dask worker tcp://127.0.0.1:8786 --nworkers 2 --nthreads 1` di dua terminal, dan di bagian 3 tulis `client = Client("tcp://127.0.0.1:8786")`; sel Gambar 10.1 mengakhiri keduanya. Untuk beberapa mesin dan GPU: [skala](../../docs/id/profiles.md).
#
# **Selesai.** Ganti resepnya dengan datamu sendiri: pelajaran 02 sampai 06 menjadikannya chatbot, dan pelajaran ini memberi tahu kapan satu mesin tidak cukup. `python -m pipeline run` menjalankan semua pelajaran sekali lagi dan menulis laporan: `report.html` di folder `runs`.

# %% [markdown] lang="en"
# - Measure one process first, in turns, for several rounds. Often it is enough.
# - Cut between recipes, and compare the result with one process, even after a worker has died.
# - Whether it is faster, only your own timings tell, on work that is long enough.
# - The winner of many runs is partly lucky: repeat it with another seed and other texts.
# - DDP with the same effective batch gives the same loss up to rounding (checked without dropout, in fp32, on a small model); FSDP is for training that does not fit one GPU, even where the weights alone would fit.
#
# **Try.** Change `MEGABYTES` and see what is faster. Or run, in the folder that holds `helpers`, `dask scheduler` and `dask worker tcp://127.0.0.1:8786 --nworkers 2 --nthreads 1` in two terminals, and in section 3 write `client = Client("tcp://127.0.0.1:8786")`; the cell of Figure 10.1 ends them. For several machines and GPUs: [scale](../../docs/en/profiles.md).
#
# **The end.** Put your own data in place of the recipes: lessons 02 to 06 turn them into a chatbot, and this one tells you when one machine is not enough. `python -m pipeline run` runs all lessons once more and writes a report: `report.html` in the folder `runs`.
