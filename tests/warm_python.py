"""A Python for tests that has the large libraries already: what it runs is forked, not started.

`python warm_python.py serve SOCKET PROGRAM` imports the libraries once and forks a process for each
call. PROGRAM, a script, runs `python warm_python.py call SOCKET words ...` and stands in for
sys.executable: of `-m MODULE ...` or `FILE.py ...` it passes files, folder, environment and signals
on to a fork and ends with it, so that whoever started it sees an ordinary process. Everything else,
and everything where COLD_PYTHON is set, is run by the real interpreter. Both ends notice when the
other is killed. Importing torch, transformers, peft and bitsandbytes is most of the time of a
lesson, or of one process of a training, on the tiny model.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import sys

LIBRARIES = "pandas pyarrow matplotlib.pyplot sacrebleu sklearn.linear_model ipywidgets datasets"
LIBRARIES += " sklearn.feature_extraction.text papermill torch transformers.trainer peft"
LIBRARIES += " ipykernel.ipkernel"  # what every kernel imports
PASSED_ON = (signal.SIGINT, signal.SIGTERM)


def become(job: dict, files: list[int]) -> None:
    """In the forked child: the caller's files, folder, environment, paths and arguments."""
    import random

    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for number, name in enumerate(("stdin", "stdout", "stderr")):  # the server's may be of a file
        stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stdout.reconfigure(write_through=job["unbuffered"])
    sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")
    os.chdir(job["folder"])
    os.environ.clear()
    # ipykernel ends with its parent, which is the server here
    os.environ |= job["environment"] | {"JPY_PARENT_PID": str(os.getppid())}
    own = os.path.dirname(os.path.abspath(__file__))
    paths = filter(None, job["environment"].get("PYTHONPATH", "").split(os.pathsep))
    first = os.path.dirname(os.path.abspath(job["words"][0])) if job["script"] else os.getcwd()
    sys.path[:] = [first, *paths, *(path for path in sys.path if path != own)]
    sys.argv = job["words"]
    sys.executable = job["program"]
    random.seed()
    gc.enable()


def run(job: dict) -> None:
    """Run the module or file and end the process as Python would.

    But for the libraries, which are not taken apart: that would be half a second each time.
    """
    import atexit
    import runpy
    import threading
    import traceback

    code = None
    try:
        if job["script"]:
            runpy.run_path(job["words"][0], run_name="__main__")
        else:
            runpy.run_module(job["words"][0], run_name="__main__", alter_sys=True)
    except SystemExit as left:
        code = left.code
    except BaseException as problem:
        traceback.print_exc()
        code = 130 if isinstance(problem, KeyboardInterrupt) else 1
    threading._shutdown()
    atexit._run_exitfuncs()
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def serve(address: str, program: str) -> None:
    """Fork a process for each connection, until standard input is closed."""
    gc.disable()
    sys.modules["rfc3987_syntax"] = None  # as in pipeline/__init__.py
    for name in LIBRARIES.split():
        __import__(name)
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    chooser, forks = selectors.DefaultSelector(), {}  # process -> connection
    for source in (sys.stdin, listener):
        chooser.register(source, selectors.EVENT_READ)
    while True:
        for key, _ in chooser.select(0.05):
            if key.fileobj is sys.stdin:
                for fork in forks:
                    os.kill(fork, signal.SIGKILL)
                return
            if key.fileobj is not listener:  # its caller has ended
                os.kill(key.data, signal.SIGKILL)
                chooser.unregister(key.fileobj)
                continue
            connection, _ = listener.accept()
            text, files, *_ = socket.recv_fds(connection, 1 << 20, 3)
            while not text.endswith(b"\n") and (more := connection.recv(1 << 20)):
                text += more
            fork = os.fork()
            if fork == 0:
                for other in (listener, connection, *forks.values()):
                    other.close()
                job = json.loads(text) | {"program": program}
                become(job, files)
                run(job)
            for file in files:
                os.close(file)
            forks[fork] = connection
            connection.sendall(f"{fork}\n".encode())
            chooser.register(connection, selectors.EVENT_READ, fork)
        while forks:
            fork, status = os.waitpid(-1, os.WNOHANG)
            if not fork:
                break
            connection = forks.pop(fork)
            if connection in chooser.get_map():
                chooser.unregister(connection)
            try:
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            except OSError:  # its caller was killed
                pass
            connection.close()


def call(address: str, words: list[str]) -> int:
    """Have a module or a file forked and wait for it; returns its exit code."""
    unbuffered = words[:1] == ["-u"]
    asked = words[unbuffered:]
    script, module = bool(asked) and asked[0].endswith(".py"), asked[:1] == ["-m"]
    if not (script or module) or "COLD_PYTHON" in os.environ:
        os.execv(sys.executable, [sys.executable, *words])
    job = {"words": asked[module:], "script": script, "unbuffered": unbuffered}
    job |= {"folder": os.getcwd(), "environment": dict(os.environ)}
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    socket.send_fds(server, [json.dumps(job).encode() + b"\n"], [0, 1, 2])
    answers = server.makefile()
    process = int(answers.readline())
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: os.kill(process, number))
    code = int(answers.readline() or 1)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    role, address, *rest = sys.argv[1:]
    if role == "serve":
        serve(address, *rest)
    else:
        os._exit(call(address, rest))
