"""The hosted steps with the real `openai` client against a real HTTP server that has bad days: nothing sent twice, every error a clear line."""

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import openai
import pytest
from hosted_server import Fault, FaultyServer, echo_training

from helpers import jsonl
from helpers.course import bilingual
from helpers.course.errors import CourseError, UsageError
from helpers.jsonl import hosted
from helpers.jsonl.hosted import Hosted
from helpers.jsonl.practice_server import PracticeServer, Tuned

KEY = "sk-a-secret-that-must-not-be-shown"
MODEL = "practice-base"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    before = bilingual.get_language()
    bilingual.set_language("en")
    yield
    bilingual.set_language(before)


@pytest.fixture
def server():
    with FaultyServer(echo_training) as running:
        yield running


def row(number: int, answer: str = "") -> str:
    return json.dumps(
        {
            "messages": [
                {"role": "user", "content": f"Question number {number}?"},
                {"role": "assistant", "content": answer or f"It is answer {number}."},
            ]
        }
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(row, range(12))), encoding="utf-8")
    return path


@pytest.fixture
def connect(server, tmp_path):
    """Makes a service object as a fresh kernel would, over the same state file; what it tells is in `.told`."""

    def make(**options) -> Hosted:
        told: list[str] = []
        service = Hosted(
            tmp_path / "state" / "hosted.json",
            **{
                "api_key": KEY,
                "base_url": server.base_url,
                "timeout": 5,
                "retries": 3,
                "first_wait": 0.01,
                "tell": told.append,
            }
            | options,
        )
        service.told = told
        return service

    return make


def one_of_each(server) -> bool:
    return (len(server.jobs.files), len(server.jobs.jobs)) == (1, 1)


def test_the_whole_way(server, connect, file):
    service = connect()
    job = service.start(file, MODEL, {"n_epochs": 2, "batch_size": 4}, suffix="marv", seed=7)
    job = service.follow(job.id, every=0.02)
    assert job.status == "succeeded" and job.trained_tokens == 24 and job.seed == 7
    assert (
        job.hyperparameters.n_epochs,
        job.hyperparameters.batch_size,
        job.hyperparameters.learning_rate_multiplier,
    ) == (2, 4, 1.0)
    model = service.tuned_model(job)
    assert (
        ":marv:" in model
        and service.ask(model, [{"role": "user", "content": "Question number 3?"}], temperature=0)
        == "It is answer 3."
    )
    texts = [line.split("  ")[1] for line in service.told if "  " in line]
    assert (
        texts[0].startswith("Created")
        and texts[-1] == "The job has successfully completed"
        and sum("loss" in text for text in texts) == 4
    )
    assert (
        len(texts) == len(set(texts)) == len(server.jobs.jobs[job.id].events)
        and service.told[-1] == "status: succeeded"
    )
    stored = service.client.files.content(job.training_file).read()
    assert stored == file.read_bytes() and service.state.jobs()[0]["hyperparameters"] == {
        "n_epochs": 2,
        "batch_size": 4,
    }


def test_a_second_call_or_kernel_sends_and_shows_nothing_again(server, connect, file):
    first = connect()
    job = first.start(file, MODEL, {"n_epochs": 1})
    first.follow(job.id, every=0.02)
    again = connect()
    assert (
        first.start(file, MODEL, {"n_epochs": 1}).id
        == job.id
        == again.start(file, MODEL, {"n_epochs": 1}).id
    )
    again.follow(job.id, every=0.02)
    assert [line for line in again.told if "  " in line] == []
    (connect().state.path).unlink()  # and on another machine, which has no state file
    assert connect().start(file, MODEL, {"n_epochs": 1}).id == job.id
    copy = file.with_name("renamed.jsonl")
    copy.write_bytes(file.read_bytes())
    assert connect().start(copy, MODEL, {"n_epochs": 1}).id == job.id
    assert server.count("POST", "/files") == server.count("POST", "/jobs") == 1


def test_what_was_sent_is_known_without_asking_for_lists(server, connect, file):
    job = connect().start(file, MODEL)
    server.faults = [
        Fault("GET", path, "status", times=99, status=500) for path in ("/files", "/jobs")
    ]
    assert (
        connect().start(file, MODEL).id == job.id
        and one_of_each(server)
        and all(fault.times == 99 for fault in server.faults)
    )


def test_other_content_or_settings_are_another_file_or_job(server, connect, file):
    service = connect()
    ids = {
        service.start(file, MODEL, {"n_epochs": 1}).id,
        service.start(file, MODEL, {"n_epochs": 2}).id,
        service.start(file, MODEL, {"n_epochs": 1}, suffix="b").id,
    }
    assert len(ids) == 3 and len(server.jobs.files) == 1
    file.write_text(file.read_text() + "\n" + row(99), encoding="utf-8")
    assert service.start(file, MODEL, {"n_epochs": 1}).id not in ids and len(server.jobs.files) == 2


@pytest.mark.parametrize("path", ["/files", "/jobs"])
@pytest.mark.parametrize(
    "fault, told",
    [
        (Fault("POST", "", "cut"), "connection lost"),
        (Fault("POST", "", "slow", seconds=1.2), "no reply"),
        (Fault("POST", "", "late", seconds=0.9), "no reply"),
        (Fault("POST", "", "status", status=503), "HTTP 503"),
    ],
    ids=["cut after it was stored", "stored, reply too late", "stored too late", "503"],
)
def test_a_lost_reply_does_not_lead_to_a_second_file_or_job(
    server, connect, file, path, fault, told
):
    server.faults = [
        Fault(fault.method, path, fault.kind, status=fault.status, seconds=fault.seconds)
    ]
    service = connect(timeout=0.6)
    job = service.start(file, MODEL)
    assert server.faults[0].times == 0 and told in service.told[0]
    time.sleep(0.6)  # whatever was still under way at the server is done now
    assert one_of_each(server) and service.start(file, MODEL).id == job.id and one_of_each(server)


@pytest.mark.parametrize("path", ["/files", "/jobs"])
def test_a_kill_between_request_and_reply(server, connect, file, tmp_path, path):
    server.faults = [Fault("POST", path, "slow", seconds=3)]
    stored = {"/files": server.jobs.files, "/jobs": server.jobs.jobs}[path]
    code = f"from helpers.jsonl.hosted import Hosted; Hosted({str(connect().state.path)!r}, api_key='x', base_url={server.base_url!r}).start({str(file)!r}, {MODEL!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    until = time.monotonic() + 60
    while not stored and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    assert process.wait(10) != 0 and len(stored) == 1
    service = connect()
    service.follow(service.start(file, MODEL).id, every=0.02)
    assert (
        one_of_each(server) and server.count("POST", "/files") == server.count("POST", "/jobs") == 1
    )


def test_passing_faults_are_waited_out(server, connect, file):
    server.faults = [
        Fault(
            "GET",
            "/files",
            "status",
            status=429,
            headers={"retry-after": "0.3"},
            message="Rate limit reached",
        ),
        Fault("GET", "/jobs", "status", times=3, status=500),
        Fault("POST", "/completions", "cut", times=2),
    ]
    service, began = connect(), time.monotonic()
    job = service.start(file, MODEL)
    assert (
        time.monotonic() - began > 0.3
        and service.told[0] == "HTTP 429: trying again in 0.3 s (1 of 3)"
    )
    assert [line.split(":")[0] for line in service.told] == ["HTTP 429"] + ["HTTP 500"] * 3
    service.follow(job.id, every=0.02)
    assert (
        service.ask(
            service.tuned_model(service.status(job.id)),
            [{"role": "user", "content": "Question number 1?"}],
        )
        == "It is answer 1."
    )
    assert one_of_each(server) and not any(fault.times for fault in server.faults)


def test_waits_double(server, connect, file):
    server.faults = [Fault("GET", "/files", "status", times=9, status=500)]
    service = connect(first_wait=0.2)
    with pytest.raises(CourseError):
        service.start(file, MODEL)
    waits = [float(line.split(" in ")[1].split(" s")[0]) for line in service.told]
    assert len(waits) == 3 and all(0.14 <= wait / 2**n <= 0.21 for n, wait in enumerate(waits)), (
        waits
    )


STATUS = [
    (
        401,
        None,
        "Incorrect API key provided: " + KEY,
        ["key was refused (401)", "OPENAI_API_KEY"],
        1,
    ),
    (
        403,
        None,
        "Country not supported",
        ["not allowed for this account (403): Country not supported", "Ask the service"],
        1,
    ),
    (
        400,
        None,
        "Unknown parameter: " + KEY,
        ["refused (400): Unknown parameter: ***", "Change what it names"],
        1,
    ),
    (404, None, "Unknown request URL", ["refused (404): Unknown request URL"], 1),
    (
        429,
        "insufficient_quota",
        "You exceeded your current quota",
        ["no credit (429)", "run the lesson locally"],
        1,
    ),
    (
        429,
        None,
        "Rate limit reached",
        ["too many requests (429), tried 4 times: Rate limit reached", "Wait 60 seconds"],
        4,
    ),
    (500, None, "The server had an error", ["has a fault (500), tried 4 times", "Try later"], 4),
    (503, None, "Overloaded", ["has a fault (503), tried 4 times: Overloaded"], 4),
]


@pytest.mark.parametrize(
    "status, code, message, told, tries",
    STATUS,
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_each_error_is_one_clear_line(server, connect, file, status, code, message, told, tries):
    server.faults = [
        Fault(
            "POST",
            "/files",
            "status",
            times=9,
            status=status,
            code=code,
            message=message,
            headers={"x-request-id": "req_12"},
        )
    ]
    with pytest.raises(CourseError) as caught:
        connect().start(file, MODEL)
    text = str(caught.value)
    assert (
        text.startswith(f"could not upload train.jsonl at {server.base_url}: ")
        and all(part in text for part in told)
        and "(request req_12)" in text
    ), text
    assert (
        server.count("POST", "/files") == tries and not server.jobs.files and not server.jobs.jobs
    )
    assert KEY not in text and caught.value.__cause__ is None and caught.value.__suppress_context__
    assert ("Nothing is sent twice" in text) == (tries > 1)


def test_a_long_retry_after_is_not_sat_out(server, connect, file):
    server.faults = [
        Fault("POST", "/files", "status", times=9, status=429, headers={"retry-after": "3600"})
    ]
    with pytest.raises(CourseError, match="Wait 3600 seconds"):
        connect().start(file, MODEL)
    assert server.count("POST", "/files") == 1


def test_no_reply_no_connection_no_api(server, connect, file):
    server.faults = [Fault("GET", "/files", "slow", times=9, seconds=1)]
    with pytest.raises(
        CourseError,
        match=r"no reply within 0.2 seconds, tried 2 times. Check the connection, or give a longer timeout",
    ):
        connect(timeout=0.2, retries=1).start(file, MODEL)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    with pytest.raises(
        CourseError,
        match=rf"at http://127.0.0.1:{nobody}/v1: no connection, or it broke, tried 4 times.*OPENAI_BASE_URL",
    ):
        connect(base_url=f"http://127.0.0.1:{nobody}/v1").start(file, MODEL)
    for path, method in (
        ("/files", "GET"),
        ("/files", "POST"),
        ("/jobs", "GET"),
        ("/jobs", "POST"),
        ("/events", "GET"),
        ("/completions", "POST"),
    ):
        server.faults = [Fault(method, path, "page")]
        service = connect()
        with pytest.raises(CourseError, match="not in the form of the API.*usually ends in /v1"):
            job = service.start(file, MODEL)
            service.new_events(job.id)
            service.ask(MODEL, [{"role": "user", "content": "Hi"}])


BAD = {
    "bad_json": '{"messages": [',
    "bad_text": b'{"messages": "\xff"}',
    "json_nan": '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": NaN}]}',
    "no_object": '{"prompt": "a", "completion": "b"}',
    "bad_message": '{"messages": ["hello"]}',
    "empty_answer": row(5, " "),
    "unknown_role": '{"messages": [{"role": "user", "content": "Hi"}, {"role": "bot", "content": "Hi."}]}',
    "role_order": '{"messages": [{"role": "assistant", "content": "Hi."}]}',
    "empty_prompt": '{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "Hi."}]}',
    "duplicate": row(0),
    "nan_in_prompt": '{"messages": [{"role": "user", "content": "usage: nan"}, {"role": "assistant", "content": "High."}]}',
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_line_is_named_and_nothing_is_sent(server, connect, file, kind):
    line = BAD[kind] if isinstance(BAD[kind], bytes) else BAD[kind].encode()
    lines = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join([*lines[:7], line, *lines[7:]]))
    with pytest.raises(CourseError) as caught:
        connect().start(file, MODEL)
    assert str(caught.value).startswith(
        f"train.jsonl, line 8: {jsonl.KINDS[kind]} ("
    ) and "Nothing was uploaded" in str(caught.value)
    assert server.requests == []
    if kind == "duplicate":
        assert connect().start(file, MODEL, allow=("duplicate",)).id


def test_bad_files_and_settings(server, connect, file, tmp_path):
    service, few = connect(), tmp_path / "few.jsonl"
    few.write_text("\n".join(map(row, range(9))), encoding="utf-8")
    with pytest.raises(
        CourseError, match="few.jsonl has 9 rows; a hosted fine-tuning takes 10 or more"
    ):
        service.start(few, MODEL)
    with pytest.raises(CourseError, match="the file holds no row|not an object"):
        few.write_text("")
        service.start(few, MODEL)
    with pytest.raises(UsageError, match="none.jsonl is not a file"):
        service.upload(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match="at most 64"):
        service.start(file, MODEL, suffix="x" * 65)
    assert server.requests == []
    with pytest.raises(
        CourseError, match=r"refused \(400\): Model gpt-0 is not available for fine-tuning"
    ):
        service.start(file, "gpt-0")
    with pytest.raises(
        CourseError, match=r"refused \(400\): Invalid value for hyperparameter n_epochs: 0"
    ):
        service.start(file, MODEL, {"n_epochs": 0})
    with pytest.raises(CourseError, match=r"refused \(404\): The model `gpt-0` does not exist"):
        service.ask("gpt-0", [{"role": "user", "content": "Hi"}])
    with pytest.raises(
        CourseError, match=r"could not look up job ftjob-0 .* Could not find fine tune: ftjob-0"
    ):
        service.follow("ftjob-0")
    assert len(server.jobs.files) == 1 and not server.jobs.jobs


def test_without_a_key(tmp_path, monkeypatch):
    with pytest.raises(CourseError, match="OPENAI_API_KEY is empty.*on this computer"):
        Hosted(tmp_path / "state.json")
    monkeypatch.setenv("OPENAI_API_KEY", "  ")
    assert not hosted.has_key() and "all steps run locally" in hosted.no_key()
    bilingual.set_language("id")
    assert "semua langkah berjalan di komputer ini" in hosted.no_key()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert hosted.has_key()
    with pytest.raises(UsageError, match="is no address"):
        Hosted(tmp_path / "state.json", base_url="api.example.com/v1")


def test_environment_and_secrets(server, file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url.replace("//", "//somebody:password@"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # must not be used for this computer
    service = Hosted(tmp_path / "state.json", first_wait=0.01)
    service.follow(service.start(file, MODEL).id, every=0.02)
    kept = (tmp_path / "state.json").read_text()
    shown = capsys.readouterr()
    for text in (
        kept,
        repr(service),
        repr(vars(service)),
        repr(service._call),
        shown.out,
        shown.err,
    ):
        assert KEY not in text and "password" not in text
    assert server.base_url in kept and "The job has successfully completed" in shown.out


def test_a_spoilt_state_file(connect, file, server):
    path = connect().state.path
    connect().start(file, MODEL)
    for text in ("{", "[]", '{"services": {"a": {}}}', '{"services": 3}'):
        path.write_text(text)
        with pytest.raises(CourseError, match="Delete it and run again"):
            connect()
    path.unlink()
    connect().start(file, MODEL)
    assert one_of_each(server)


def test_a_service_that_forgot_gets_the_file_anew(server, connect, file):
    service = connect()
    file_id = service.upload(file)
    service.client.files.delete(file_id)
    assert service.upload(file) != file_id and len(server.jobs.files) == 1


def test_a_file_that_the_service_cannot_read(server, connect, file, monkeypatch):
    file_id = connect().upload(file)
    server.jobs.files[file_id]["status"] = "uploaded"
    monkeypatch.setattr(hosted, "MOST_READING_S", 0.1)
    with pytest.raises(
        CourseError,
        match=f"has not finished reading train.jsonl .{file_id}. after 0.1 seconds. Run again later. Nothing is sent twice",
    ):
        connect().upload(file)
    server.jobs.files[file_id] |= {"status": "error", "status_details": "not UTF-8."}
    with pytest.raises(CourseError, match="could not read train.jsonl: not UTF-8. Mend the file"):
        connect().upload(file)
    assert connect().upload(file) != file_id and server.count("POST", "/files") == 2


def test_two_services_do_not_mix(server, connect, file):
    connect().start(file, MODEL)
    with FaultyServer(echo_training) as other:
        connect(base_url=other.base_url).start(file, MODEL)
        assert one_of_each(other) and one_of_each(server)


class Gate:
    """A training that stops at each step until it is let on."""

    def __init__(self, steps: int = 3):
        self.step, self.steps, self.ended = threading.Semaphore(0), steps, []

    def __call__(self, path, hyperparameters, emit):
        try:
            for step in range(self.steps):
                assert self.step.acquire(timeout=30)
                emit(f"Step {step + 1}/{self.steps}", step=step + 1)
        finally:
            self.ended.append(path)
        return Tuned(lambda messages, options: ("Done.", "stop"))


def wait_for(condition, seconds: float = 10):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def test_events_in_pages_from_the_last_one_seen(tmp_path, file):
    gate = Gate(steps=130)
    with FaultyServer(gate) as server:
        service = Hosted(
            tmp_path / "s.json", api_key=KEY, base_url=server.base_url, tell=lambda text: None
        )
        job = service.start(file, MODEL)
        for _ in range(120):
            gate.step.release()
        wait_for(lambda: len(server.jobs.jobs[job.id].events) >= 124)
        first = service.new_events(job.id)
        pages = server.count("GET", "/events")
        assert (
            len(first) == 124
            and pages == 3
            and first[-1].message == "Step 120/130"
            and first[0].message.startswith("Created")
        )
        for _ in range(10):
            gate.step.release()
        wait_for(lambda: server.jobs.jobs[job.id].shown["status"] == "succeeded")
        later = Hosted(tmp_path / "s.json", api_key=KEY, base_url=server.base_url)  # a fresh kernel
        assert [e.message for e in later.new_events(job.id)][:2] == [
            "Step 121/130",
            "Step 122/130",
        ] and server.count("GET", "/events") == pages + 1
        assert later.new_events(job.id) == [] and service.status(job.id).trained_tokens is None


def test_following_for_a_while_and_cancelling(tmp_path, file):
    gate = Gate()
    with FaultyServer(gate) as server:
        service = Hosted(
            tmp_path / "s.json", api_key=KEY, base_url=server.base_url, tell=lambda text: None
        )
        first, second = service.start(file, MODEL), service.start(file, MODEL, suffix="second")
        wait_for(
            lambda: (
                server.jobs.jobs[first.id].shown["status"] == "running"
                and server.jobs.jobs[second.id].shown["status"] == "queued"
            )
        )
        assert service.follow(first.id, every=0.02, limit_s=0.1).status == "running"
        with pytest.raises(CourseError, match="is still running. Wait for it with follow"):
            service.tuned_model(service.status(first.id))
        assert service.cancel(first.id).status == "cancelled" and gate.ended == []
        gate.step.release()  # the training notices at its next step, then the second one begins
        wait_for(
            lambda: (
                len(gate.ended) == 1 and server.jobs.jobs[second.id].shown["status"] == "running"
            )
        )
        assert (
            service.cancel(first.id).status == "cancelled" and server.count("POST", "/cancel") == 1
        )
        with pytest.raises(
            CourseError,
            match=f"{first.id} of exactly this file and these settings already was cancelled",
        ):
            service.start(file, MODEL)
        replaced = service.start(file, MODEL, again=True)
        assert (
            replaced.id != first.id
            and service.start(file, MODEL).id == replaced.id
            and len(server.jobs.jobs) == 3
        )
        for _ in range(6):
            gate.step.release()
        assert (
            service.follow(replaced.id, every=0.02).status
            == service.status(second.id).status
            == "succeeded"
        )


def test_a_failed_job_tells_why_and_is_not_repeated_by_itself(tmp_path, file):
    def breaks(path, hyperparameters, emit):
        raise MemoryError("out of memory at step 3")

    with FaultyServer(breaks) as server:
        service = Hosted(
            tmp_path / "s.json", api_key=KEY, base_url=server.base_url, tell=lambda text: None
        )
        job = service.follow(service.start(file, MODEL).id, every=0.02)
        why = r"failed \(training_failed\): The job failed while training: MemoryError: out of memory at step 3"
        with pytest.raises(CourseError, match=f"job {job.id} at {server.base_url} {why}"):
            service.tuned_model(job)
        with pytest.raises(CourseError, match=f"already {why}"):
            service.start(file, MODEL)
        assert len(server.jobs.jobs) == 1 and service.start(file, MODEL, again=True).id != job.id


# The practice server itself, as the bare client meets it


@pytest.fixture
def bare(server):
    return openai.OpenAI(base_url=server.base_url, api_key="x", max_retries=0)


def send(bare, *lines: str, name: str = "a.jsonl"):
    return bare.files.create(file=(name, "\n".join(lines).encode()), purpose="fine-tune")


def finished(bare, **settings):
    job = bare.fine_tuning.jobs.create(model=MODEL, **settings)
    wait_for(lambda: bare.fine_tuning.jobs.retrieve(job.id).status in hosted.DONE)
    return bare.fine_tuning.jobs.retrieve(job.id)


def test_server_refuses_an_upload_that_is_no_jsonl(bare):
    with pytest.raises(
        openai.BadRequestError, match="every line is a JSON dictionary. Line 2 is not a dictionary"
    ):
        send(bare, row(0), "hello", row(2))
    with pytest.raises(openai.BadRequestError, match="takes .jsonl files"):
        send(bare, row(0), name="a.csv")
    with pytest.raises(openai.BadRequestError, match="body.file"):
        bare.post("/files", body={}, cast_to=object)
    assert list(bare.files.list()) == []


def test_server_fails_a_job_whose_file_is_bad(bare):
    file = send(bare, *map(row, range(11)), '{"messages": [{"role": "user", "content": "Hi"}]}')
    job = finished(bare, training_file=file.id)
    assert (job.status, job.error.code, job.error.param) == (
        "failed",
        "invalid_training_file",
        "training_file",
    ) and "Line 12: roles out of order" in job.error.message
    events = list(bare.fine_tuning.jobs.list_events(job.id))
    assert (
        events[0].level == "error"
        and events[0].message == job.error.message
        and events[-1].message.startswith("Created")
    )  # the newest first
    few = finished(bare, training_file=send(bare, *map(row, range(3))).id)
    assert (
        few.error.code == "invalid_n_examples"
        and "3 example(s), but must have at least 10" in few.error.message
    )
    good = send(bare, *map(row, range(10)))
    assert (
        finished(bare, training_file=good.id, validation_file=file.id).error.param
        == "validation_file"
    )
    assert (
        finished(
            bare, training_file=good.id, hyperparameters={"n_epochs": "auto"}
        ).hyperparameters.n_epochs
        == 3
    )


def test_server_pages_refuses_and_forgets(bare, server):
    files = [send(bare, row(n), name=f"{n}.jsonl") for n in range(5)]
    pages = list(bare.files.list(limit=2, order="asc").iter_pages())
    assert [len(page.data) for page in pages] == [2, 2, 1] and [
        f.id for page in pages for f in page.data
    ] == [f.id for f in files]
    assert [f.id for f in bare.files.list(limit=2)] == [f.id for f in files[::-1]] and list(
        bare.files.list(purpose="batch")
    ) == []
    with pytest.raises(openai.BadRequestError, match="no object with id"):
        bare.files.list(after="file-0")
    bare.files.delete(files[0].id)
    with pytest.raises(openai.NotFoundError, match="No such File object"):
        bare.files.retrieve(files[0].id)
    for settings, told in (
        ({"training_file": files[0].id}, "invalid training_file"),
        ({"training_file": files[1].id, "suffix": "x" * 65}, "64 characters"),
        (
            {"training_file": files[1].id, "hyperparameters": {"depth": 3}},
            "Unrecognized hyperparameter: depth",
        ),
    ):
        with pytest.raises(openai.BadRequestError, match=told):
            bare.fine_tuning.jobs.create(model=MODEL, **settings)
    job = finished(bare, training_file=files[1].id)
    with pytest.raises(openai.BadRequestError, match="already completed"):
        bare.fine_tuning.jobs.cancel(job.id)
    assert [model.id for model in bare.models.list()] == [MODEL] and [
        j.id for j in bare.fine_tuning.jobs.list(limit=1)
    ] == [job.id]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{server.base_url}/files", timeout=5)
    with pytest.raises(openai.BadRequestError, match="does not stream"):
        bare.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi"}], stream=True
        )
    with pytest.raises(openai.BadRequestError, match="a list of objects with role and content"):
        bare.chat.completions.create(model=MODEL, messages=[{"role": "user"}])


def test_answers_come_from_the_callables_and_their_faults_are_told(tmp_path):
    def base(messages, options):
        if messages[-1]["content"] == "break":
            raise ZeroDivisionError("no model here")
        return f"{messages[-1]['content']} {options['max_tokens']}", "length"

    with PracticeServer(echo_training, base=base, models=("one", "two")) as server:
        service = Hosted(
            tmp_path / "s.json",
            api_key=KEY,
            base_url=server.base_url,
            first_wait=0.01,
            retries=1,
            tell=lambda text: None,
        )
        assert service.ask("two", [{"role": "user", "content": "Hi"}], max_tokens=3) == "Hi 3"
        reply = service.client.chat.completions.create(
            model="one", messages=[{"role": "user", "content": "Hi"}], max_tokens=3
        )
        assert reply.choices[0].finish_reason == "length"
        with pytest.raises(
            CourseError,
            match=r"has a fault \(500\), tried 2 times: The server had an error: ZeroDivisionError: no model here",
        ):
            service.ask("one", [{"role": "user", "content": "break"}])
    with pytest.raises(CourseError, match="no connection"):
        service.ask("one", [{"role": "user", "content": "Hi"}])
