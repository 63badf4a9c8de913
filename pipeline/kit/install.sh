#!/usr/bin/env bash
# Installs the course from this folder, without internet; INSTALL.txt tells more.
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
for found in ${PYTHON:+"$PYTHON"} python@python@ python3 python; do
  if "$found" -c 'import sys, venv, ensurepip; sys.exit("%d.%d" % sys.version_info[:2] != "@python@")' 2>/dev/null; then
    exec "$found" install.py
  fi
done
echo "Python @python@ dengan venv tidak ditemukan; pasang dulu. · No Python @python@ with venv found; install it first." >&2
exit 1
