@echo off
rem Installs the course from this folder, without internet; INSTALL.txt tells more.
cd /d "%~dp0"
set "run=python"
where py >nul 2>nul && set "run=py -@python@"
%run% install.py
set "code=%errorlevel%"
pause
exit /b %code%
