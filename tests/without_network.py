"""The whole course on the tiny model where there is no network at all. Linux.

    unshare --map-root-user --net python tests/without_network.py

In a network namespace of its own the kernels and the practice server still find each other over
the loopback device, which this script switches on, and nothing else answers. Options go to
`python -m pipeline run`.
"""

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

SIOCSIFFLAGS, UP, LOOPBACK = 0x8914, 1, 8  # <linux/sockios.h>, <linux/if.h>


def main() -> int:
    with open("/proc/net/dev") as lines:
        devices = {line.split(":")[0].strip() for line in lines if ":" in line}
    if devices != {"lo"}:
        print(f"devices {sorted(devices)}: not a network namespace of its own. {__doc__}")
        return 2
    with socket.socket() as any_socket:
        request = struct.pack("16sh", b"lo", UP | LOOPBACK)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)
    for host in ("huggingface.co", "1.1.1.1"):
        with contextlib.suppress(OSError), socket.create_connection((host, 443), timeout=5):
            raise SystemExit(f"{host} answers: there is a network")
    os.chdir(Path(__file__).resolve().parents[1])
    run = [sys.executable, "-m", "pipeline", "run", "--profile", "sanity"]
    return subprocess.run([*run, *sys.argv[1:]]).returncode


if __name__ == "__main__":
    sys.exit(main())
