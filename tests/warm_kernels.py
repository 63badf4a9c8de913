"""Kernels for tests that have the large libraries already: forked, not started.

`python warm_kernels.py serve SOCKET` imports the libraries once and forks a kernel for each call.
`python warm_kernels.py kernel SOCKET -f FILE` is what Jupyter starts: it passes its files, folder,
environment and signals on to the fork and ends with it, so that a notebook's run sees an ordinary
kernel process. Both ends notice when the other is killed. Importing torch, transformers, peft and
bitsandbytes is more than half of a lesson's time on the tiny model.
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
LIBRARIES += " sklearn.feature_extraction.text nbformat torch transformers.trainer peft"
PASSED_ON = (signal.SIGINT, signal.SIGTERM)


def become_kernel(call: dict, files: list[int]) -> None:
    """In the forked child: the caller's files, folder, environment, arguments; then ipykernel."""
    import random

    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(call["folder"])
    os.environ.clear()
    # ipykernel ends with its parent, which is the server here
    os.environ |= call["environment"] | {"JPY_PARENT_PID": str(os.getppid())}
    own = os.path.dirname(os.path.abspath(__file__))
    paths = filter(None, call["environment"].get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = [*paths, *(path for path in sys.path if path != own)]
    sys.argv = ["ipykernel_launcher", *call["arguments"]]
    random.seed()
    gc.enable()
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


def serve(address: str) -> None:
    """Fork a kernel for each connection, until standard input is closed."""
    gc.disable()
    sys.modules["rfc3987_syntax"] = None  # as in helpers/pipeline
    for name in LIBRARIES.split():
        __import__(name)
    import ipykernel.ipkernel  # noqa: F401  also what every kernel imports

    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    chooser, kernels = selectors.DefaultSelector(), {}  # process -> connection
    for source in (sys.stdin, listener):
        chooser.register(source, selectors.EVENT_READ)
    while True:
        for key, _ in chooser.select(0.05):
            if key.fileobj is sys.stdin:
                for kernel in kernels:
                    os.kill(kernel, signal.SIGKILL)
                return
            if key.fileobj is not listener:  # its Jupyter side has ended
                os.kill(key.data, signal.SIGKILL)
                chooser.unregister(key.fileobj)
                continue
            connection, _ = listener.accept()
            text, files, *_ = socket.recv_fds(connection, 1 << 20, 3)
            while not text.endswith(b"\n") and (more := connection.recv(1 << 20)):
                text += more
            kernel = os.fork()
            if kernel == 0:
                for other in (listener, connection, *kernels.values()):
                    other.close()
                become_kernel(json.loads(text), files)
                return
            for file in files:
                os.close(file)
            kernels[kernel] = connection
            connection.sendall(f"{kernel}\n".encode())
            chooser.register(connection, selectors.EVENT_READ, kernel)
        while kernels:
            kernel, status = os.waitpid(-1, os.WNOHANG)
            if not kernel:
                break
            connection = kernels.pop(kernel)
            if connection in chooser.get_map():
                chooser.unregister(connection)
            try:
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            except OSError:  # its Jupyter side was killed
                pass
            connection.close()


def kernel(address: str, arguments: list[str]) -> int:
    """Have a kernel forked and wait for it; returns its exit code."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    call = {"folder": os.getcwd(), "environment": dict(os.environ), "arguments": arguments}
    socket.send_fds(server, [json.dumps(call).encode() + b"\n"], [0, 1, 2])
    answers = server.makefile()
    process = int(answers.readline())
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: os.kill(process, number))
    code = int(answers.readline() or 1)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    role, address, *rest = sys.argv[1:]
    if role == "serve":
        serve(address)
    else:
        os._exit(kernel(address, rest))
