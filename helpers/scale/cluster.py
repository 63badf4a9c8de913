"""A Dask cluster for a lesson: connect, compare the workers with ourselves, map in order.

with connect() as client:                                     # two processes of this machine
    table, report = load_recipes(folder, each=over(client))  # as `load_recipes(folder)`
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path

from distributed import Client, Future, LocalCluster
from distributed.scheduler import KilledWorker

from ..course.bilingual import num, tr
from ..course.errors import CourseError, UsageError

PACKAGES = ("numpy", "pandas", "pyarrow", "dask", "distributed")  # that may change a result
ROOMS = ("course", "data")  # whose code the tasks run
WAITING = 4  # chunks on their way for each worker: enough to keep it busy, and memory stays flat
SECONDS = 10.0  # until an address that does not answer is given up


@contextmanager
def connect(
    address: str = "", workers: int = 2, seconds: float = SECONDS, check: bool = True
) -> Iterator[Client]:
    """A client of the scheduler at `address`; empty: of `workers` new processes of this machine.

    `check`: refuse workers that differ from this process (`same_everywhere`). Raises CourseError
    when nothing answers at the address within `seconds`, UsageError for a number below 1.
    """
    if not address:
        if type(workers) is not int or workers < 1:
            raise UsageError(f"workers is {workers!r}; expected a whole number from 1.")
        with tempfile.TemporaryDirectory() as scratch, _local(workers, scratch) as cluster:
            with Client(cluster) as client:
                yield client
        return
    try:
        client = Client(address, timeout=seconds)
    except (OSError, TimeoutError, ValueError) as problem:
        raise CourseError(
            f"tidak ada scheduler Dask yang menjawab di {address!r} dalam {num(seconds)} detik "
            f"({type(problem).__name__}). Jalankan `dask scheduler` di sana dan periksa alamat dan "
            'firewall, atau kosongkan alamatnya (SCHEDULER = "") untuk memakai mesin ini.',
            f"no Dask scheduler answers at {address!r} within {num(seconds)} seconds "
            f"({type(problem).__name__}). Start `dask scheduler` there and check address and "
            'firewall, or leave the address empty (SCHEDULER = "") to use this machine.',
        ) from None
    with client:
        if check:
            same_everywhere(client)
        yield client


def _local(workers: int, scratch: str) -> LocalCluster:
    """Processes with one thread each: cleaning is Python and Arrow, and threads share one GIL."""
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # 8787 may be taken
        local_directory=scratch,
        silence_logs=50,  # a worker that dies is told in our own words
    )


def fingerprint() -> dict[str, str]:
    """What must agree between processes: Python, packages, and a hash of the code that runs."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    found |= {name: importlib.metadata.version(name) for name in PACKAGES}
    code, helpers = hashlib.sha256(), Path(__file__).parents[1]
    for room in ROOMS:
        for path in sorted((helpers / room).iterdir()):
            if path.suffix in (".py", ".toml"):
                code.update(path.name.encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n"))
    return found | {"helpers": code.hexdigest()[:12]}


def same_everywhere(client: Client) -> int:
    """The number of workers, all of which run what this process runs; CourseError where not."""
    try:
        found = client.run(fingerprint)
    except Exception as problem:  # of the worker: no such module, or another version of ours
        raise CourseError(
            f"kode kursus tidak bisa dijalankan di worker ({type(problem).__name__}: {problem}). "
            "Pasang requirements.lock dan versi kursus yang sama di setiap mesin.",
            f"the course's code does not run on a worker ({type(problem).__name__}: {problem}). "
            "Install requirements.lock and the same version of the course on every machine.",
        ) from None
    if not found:
        raise _nobody()
    for worker, theirs in found.items():
        if told := differences(fingerprint(), theirs):
            raise CourseError(
                f"worker {worker} memakai versi lain: {told}. Hasilnya bisa berbeda; pasang "
                "requirements.lock dan versi kursus yang sama di setiap mesin.",
                f"worker {worker} has other versions: {told}. Its results may differ; install "
                "requirements.lock and the same version of the course on every machine.",
            )
    return len(found)


def differences(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """What differs between two fingerprints, in words; empty where nothing does."""
    return "; ".join(
        f"{name} {theirs.get(name)} ({tr('di sini', 'here')} {ours[name]})"
        for name in ours
        if theirs.get(name) != ours[name]
    )


def over(client: Client, waiting: int = WAITING, seconds: float = 30.0) -> Callable:
    """A `map` whose calls run on the workers, its results in order.

    At most `waiting` calls a worker are on their way. A call whose worker dies is made again on
    another one. Raises CourseError, and cancels what is still waiting, when workers keep dying
    over one call or when none has been there for `seconds`; the call's own error as it is.
    """
    return functools.partial(_ordered, client, waiting, seconds)


def _ordered(client: Client, waiting: int, seconds: float, function: Callable, items: Iterable):
    sent: deque[Future] = deque()
    try:
        for item in items:
            if len(sent) >= waiting * max(1, len(client.nthreads())):
                yield _result(client, sent.popleft(), seconds)
            sent.append(client.submit(function, item, pure=False))
        while sent:
            yield _result(client, sent.popleft(), seconds)
    finally:
        client.cancel(list(sent))


def _result(client: Client, future: Future, seconds: float):
    """The result of a call, however long it takes, while there is a worker to wait for."""
    while True:
        try:
            return future.result(timeout=seconds)
        except KilledWorker as problem:
            times = problem.allowed_failures + 1
            raise CourseError(
                f"{times} worker berturut-turut mati saat memegang potongan yang sama "
                f"({problem.task}). Hasilnya tidak lengkap dan tidak dipakai. Lihat log worker: "
                "sering kali memorinya habis (potongan lebih kecil: chunk_rows).",
                f"{times} workers in a row died holding the same chunk ({problem.task}). The "
                "result is not complete and is not used. See the worker's log: often its memory is "
                "full (smaller chunks: chunk_rows).",
            ) from None
        except TimeoutError:
            if future.status == "error":  # the call's own; a finished one is still on its way here
                raise
            if not client.nthreads():
                raise _nobody() from None
        except CancelledError as problem:
            raise CourseError(
                f"sambungan ke scheduler terputus ({problem}). Hasilnya tidak lengkap dan tidak "
                "dipakai; jalankan lagi scheduler-nya.",
                f"the connection to the scheduler was lost ({problem}). The result is not complete "
                "and is not used; start the scheduler again.",
            ) from None


def _nobody() -> CourseError:
    return CourseError(
        "tidak ada satu worker pun. Jalankan `dask worker ALAMAT` di setiap mesin; hasil yang "
        "sudah ada tidak lengkap dan tidak dipakai.",
        "not a single worker is there. Start `dask worker ADDRESS` on each machine; what was done "
        "so far is not complete and is not used.",
    )
