"""The same result on several processes, or a clear refusal: real workers, really killed."""

import itertools
import os
import shutil
import sys
import time
import uuid
from concurrent.futures import CancelledError

import dask
import psutil
import pytest
from distributed import Client, LocalCluster

from helpers import scale
from helpers.course import bilingual
from helpers.course.errors import CourseError, UsageError
from helpers.course.settings import ROOT
from helpers.data import recipes
from helpers.scale import cluster

MESSY = ROOT / "data" / "messy"


@pytest.fixture(autouse=True)
def english():
    bilingual.set_language("en")


@pytest.fixture(scope="module")
def client():
    """Two worker processes; a chunk is given up with the second worker that dies over it."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        with scale.connect(workers=2) as client:
            yield client


@pytest.fixture(scope="module")
def alone():
    return recipes.load_recipes(MESSY, chunk_rows=5)


def agrees(found, alone):
    (table, report), (own, own_report) = found, alone
    assert len(own) > 20 and own_report.drops, "nothing to compare"
    assert table.equals(own) and list(table.dtypes) == list(own.dtypes)
    assert report.as_dict() == own_report.as_dict() and report.drops == own_report.drops
    assert report.duplicates().equals(own_report.duplicates())


def test_table_and_report_are_those_of_one_process(client, alone):
    sizes = []

    def each(function, chunks):
        for part in scale.over(client)(function, chunks):
            sizes.append(part.rows_read)
            yield part

    agrees(recipes.load_recipes(MESSY, chunk_rows=5, each=each), alone)
    assert len(sizes) > 10 and min(sizes) < max(sizes), "chunks of different sizes"


def test_a_worker_of_this_machine_is_a_process_of_its_own_with_one_thread(client):
    processes = set(client.run(os.getpid).values())
    assert len(processes) == 2 and os.getpid() not in processes
    assert set(client.nthreads().values()) == {1}


def test_nothing_listens_to_other_machines_or_on_a_port_that_a_second_cluster_would_want(client):
    server = client.cluster.scheduler.http_server
    assert server.address == "127.0.0.1" and server.port != 8787


def test_one_worker_is_enough_and_is_sent_as_many_calls_as_asked_for(monkeypatch):
    def inside(workers, scratch):
        options = {"processes": False, "threads_per_worker": 1, "dashboard_address": None}
        return LocalCluster(n_workers=workers, **options)

    monkeypatch.setattr(cluster, "_local", inside)
    taken = itertools.count()
    with scale.connect(workers=1) as client:
        results = scale.over(client, waiting=2)(abs, (next(taken) for _ in range(9)))
        assert next(results) == 0 and next(taken) == 3, "two on their way, one in the hand"
        assert len(list(results)) == 8


def stamp(item):
    return uuid.uuid4().hex


def test_equal_items_are_calls_of_their_own(client):
    assert len(set(scale.over(client)(stamp, [7] * 3))) == 3


def test_a_record_with_line_breaks_in_its_quotes_is_never_cut(client, tmp_path):
    rows = [f'"Title {i}","a\n\nb ""x"", c\nd","one\r\n""two""\nthree"' for i in range(40)]
    file = tmp_path / "a.csv"
    file.write_bytes(("title,ingredients,steps\n" + "\n".join(rows) + "\n").encode())
    table, report = recipes.load_recipes(file, chunk_rows=7, each=scale.over(client))
    assert (report.rows_read, report.rows_kept) == (40, 40)
    assert list(table["title"]) == [f"Title {i}" for i in range(40)]
    assert set(table["steps"]) == {'one\n"two"\nthree'}


def test_a_worker_killed_midway_changes_nothing(client, alone):
    killed = []

    def each(function, chunks):
        for part in scale.over(client)(function, chunks):
            if not killed:
                killed.append(client.run(os.getpid).popitem()[1])
                psutil.Process(killed[0]).kill()
            yield part

    agrees(recipes.load_recipes(MESSY, chunk_rows=5, each=each), alone)
    assert killed and not psutil.pid_exists(killed[0])


def dies_at_three(item):
    if item == 3:
        os._exit(1)
    return item


def test_a_chunk_that_keeps_killing_workers_is_refused_and_named(client):
    taken = []
    with pytest.raises(CourseError, match=r"2 workers in a row died holding the same chunk"):
        for result in scale.over(client)(dies_at_three, range(8)):
            taken.append(result)
    assert taken == list(range(len(taken))) and len(taken) <= 3, "only what came before, in order"
    with pytest.raises(CourseError, match="is not complete and is not used"):
        list(scale.over(client)(dies_at_three, [3]))


def test_results_come_in_order_and_few_calls_are_under_way(client):
    taken = itertools.count()
    results = scale.over(client, waiting=2)(slow_first, (next(taken) for _ in range(40)))
    assert next(results) == 0
    assert next(taken) <= 2 * 2 + 1, "more chunks in memory than asked for"
    rest = list(results)
    assert rest == sorted(rest) and len(rest) == 39


def slow_first(item):
    time.sleep(0.2 if item == 0 else 0)
    return item


def inverse(item):
    return 1 / item


def test_the_error_of_a_call_is_its_own(client):
    with pytest.raises(ZeroDivisionError):
        list(scale.over(client)(inverse, [1, 2, 0, 4]))


def known_calls(dask_scheduler):
    return len(dask_scheduler.tasks)


def test_after_an_error_nothing_that_was_still_waiting_is_kept(client):
    """Also while the error is kept, and with it all that it was raised in."""
    most = client.run_on_scheduler(known_calls) + 1  # the call that failed
    with pytest.raises(ZeroDivisionError) as kept:
        list(scale.over(client, waiting=8)(inverse, [0, *range(1, 16)]))
    end = time.monotonic() + 5
    while (left := client.run_on_scheduler(known_calls)) > most:
        assert time.monotonic() < end, f"{left} calls, {kept.value}"
        time.sleep(0.05)


class Late:
    """A call that has succeeded while its result is still on its way."""

    status = "finished"

    def __init__(self, *answers):
        self.answers = list(answers)

    def result(self, timeout):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def done(self):
        return True


def test_a_slow_transfer_is_waited_for_and_a_lost_scheduler_is_named(client):
    assert cluster._result(client, Late(TimeoutError(), 42), 0.1) == 42
    failed = Late(TimeoutError("the call's own"))
    failed.status = "error"
    with pytest.raises(TimeoutError, match="the call's own"):
        cluster._result(client, failed, 0.1)
    with pytest.raises(CourseError, match="connection to the scheduler was lost"):
        cluster._result(client, Late(CancelledError("call-1")), 0.1)


def test_without_a_worker_there_is_a_sentence_and_no_waiting_for_ever():
    with LocalCluster(n_workers=0, processes=False, dashboard_address=None) as empty:
        with Client(empty) as client:
            with pytest.raises(CourseError, match="not a single worker is there"):
                list(scale.over(client, seconds=0.3)(inverse, [1]))
            with pytest.raises(CourseError, match="not a single worker is there"):
                cluster.same_everywhere(client)


def test_a_scheduler_that_does_not_answer_is_named_within_its_time():
    begin = time.monotonic()
    with pytest.raises(CourseError, match=r"no Dask scheduler answers at 'tcp://127.0.0.1:9'"):
        with scale.connect("tcp://127.0.0.1:9", seconds=0.5):
            pass
    assert time.monotonic() - begin < 30
    with pytest.raises(CourseError, match="no Dask scheduler answers at 'nowhere at all'"):
        with scale.connect("nowhere at all", seconds=0.5):
            pass


def test_workers_with_other_code_or_packages_are_refused(client, monkeypatch):
    address = client.scheduler.address
    client.wait_for_workers(2, timeout=120)  # those of the tests above that died
    with scale.connect(address, seconds=20) as again:
        assert cluster.same_everywhere(again) == 2
    monkeypatch.setattr(cluster, "ROOMS", ("data",))  # here, not on the workers
    with pytest.raises(CourseError, match=r"worker tcp://\S+ has other versions: helpers \w+ "):
        with scale.connect(address, seconds=20):
            pass


def reads_code_of(*rooms):
    cluster.ROOMS = rooms


def test_one_worker_that_differs_among_several_is_named(client):
    client.wait_for_workers(2, timeout=120)
    for worker in client.nthreads():
        client.run(reads_code_of, "data", workers=[worker])
        with pytest.raises(CourseError, match=f"worker {worker} has other versions: helpers "):
            cluster.same_everywhere(client)
        client.run(reads_code_of, *cluster.ROOMS, workers=[worker])


def test_every_difference_is_named():
    here = cluster.fingerprint()
    assert here["python"] == "{}.{}".format(*sys.version_info)  # its patches change no result
    there = here | {"python": "3.9", "pandas": "1.5.0"}
    told = cluster.differences(here, there)
    assert f"python 3.9 (here {here['python']})" in told and "pandas 1.5.0" in told
    assert "pyarrow" not in told and not cluster.differences(here, dict(here))


def test_a_changed_line_of_the_reader_changes_the_fingerprint(tmp_path, monkeypatch):
    for room in cluster.ROOMS:
        shutil.copytree(ROOT / "helpers" / room, tmp_path / room)
    monkeypatch.setattr(cluster, "__file__", str(tmp_path / "scale" / "cluster.py"))
    before = cluster.fingerprint()["helpers"]
    code = tmp_path / "data" / "cleaning.py"
    code.write_bytes(code.read_bytes().replace(b"\n", b"\r\n"))
    assert cluster.fingerprint()["helpers"] == before, "the line ends of Windows are no difference"
    hashes = {before}
    for changed in (code, code.with_name("columns.toml")):  # its words are read as well
        changed.write_bytes(changed.read_bytes() + b"# more\n")
        hashes.add(cluster.fingerprint()["helpers"])
    assert len(hashes) == 3


def no_such_module():
    raise ModuleNotFoundError("No module named 'helpers'")


def test_workers_without_the_course_are_refused(client, monkeypatch):
    monkeypatch.setattr(cluster, "fingerprint", no_such_module)
    with pytest.raises(CourseError, match="does not run on a worker .*No module named 'helpers'"):
        cluster.same_everywhere(client)


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2"])
def test_a_number_of_workers_that_makes_no_sense_is_refused(workers):
    with pytest.raises(UsageError, match="workers is .*expected a whole number from 1"):
        with scale.connect(workers=workers):
            pass
