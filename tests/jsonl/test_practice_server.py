"""The practice server, asked through the real `openai` client: retries, jobs, events, refusals."""

import contextlib
import sys
import threading
import time
import tomllib
from pathlib import Path

import httpx
import openai
import pytest

from helpers.settings import ROOT

sys.path.append(str(ROOT / "docs"))
from practice_server import PracticeServer  # noqa: E402

ROWS = tomllib.loads(Path(__file__).with_name("rows.toml").read_text(encoding="utf-8"))


def train(training_file, validation_file, emit, n_epochs=1):
    emit("Step 1: loss=1.500")
    rows = training_file.read_text().splitlines()
    if "broken" in rows:
        raise RuntimeError("out of memory")
    return lambda messages, most: f"echo {messages[-1]['content']} {most}", 5 * len(rows) * n_epochs


@pytest.fixture
def chat_file(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("{}\n" * 12)
    return path


@pytest.fixture
def practice():
    """practice(faults) -> server; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(faults=()):
            server = PracticeServer(train, faults)
            stack.callback(server.stop)
            return server

        yield start


def connect(server, transport=None, **options):
    http = httpx.Client(trust_env=False, transport=transport)
    return openai.OpenAI(base_url=server.base_url, api_key="practice", http_client=http, **options)


def follow(client, path):
    """Upload, create, wait; the finished job."""
    file = client.files.create(file=path, purpose="fine-tune")
    how = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}
    create = client.fine_tuning.jobs.create
    job = create(model="practice-base", training_file=file.id, method=how)
    while job.status not in ("succeeded", "failed"):
        time.sleep(0.02)
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


def test_from_upload_to_answer_through_two_faults(practice, chat_file):
    server = practice(faults=[429, 500])
    client = connect(server, max_retries=4)
    start = time.monotonic()
    job = follow(client, chat_file)
    assert time.monotonic() - start >= 1  # Retry-After of the 429
    assert [status for *_, status in server.log][:3] == [429, 500, 200]
    assert (job.status, job.trained_tokens, job.hyperparameters.n_epochs) == ("succeeded", 120, 2)
    events = client.fine_tuning.jobs.list_events(job.id).data  # the newest first
    assert "New fine-tuned model" in events[0].message and "loss=1.500" in events[1].message
    asked = {"model": job.fine_tuned_model, "messages": [{"role": "user", "content": "Hi"}]}
    reply = client.chat.completions.create(**asked, max_tokens=7)
    assert reply.choices[0].message.content == "echo Hi 7"


@pytest.mark.parametrize("retries, jobs", [(0, 1), (1, 2)])
def test_a_lost_reply_makes_a_second_job_where_the_client_sends_again(
    practice, chat_file, retries, jobs
):
    """Why lesson 09 sends `create` once and looks at the list of jobs before it sends again."""
    replies = ["lost"]

    class Lossy(httpx.HTTPTransport):
        def handle_request(self, request):
            reply = super().handle_request(request)
            if replies and request.url.path.endswith("/fine_tuning/jobs"):
                reply.close()
                raise httpx.ReadTimeout(replies.pop(), request=request)
            return reply

    server = practice()
    client = connect(server, Lossy())
    file = client.files.create(file=chat_file, purpose="fine-tune")
    create = client.with_options(max_retries=retries).fine_tuning.jobs.create
    with contextlib.nullcontext() if retries else pytest.raises(openai.APITimeoutError):
        create(model="practice-base", training_file=file.id)
    assert not replies and len(client.fine_tuning.jobs.list().data) == jobs


def test_a_job_that_fails_says_why_and_the_server_lives_on(practice, chat_file):
    server = practice()
    chat_file.write_text("broken")
    job = follow(connect(server), chat_file)
    assert job.status == "failed" and "out of memory" in job.error.message and not server.tuned
    chat_file.write_text("{}")
    assert follow(connect(server), chat_file).status == "succeeded"


def test_an_unknown_job_is_refused_with_its_cause(practice):
    jobs = connect(practice()).fine_tuning.jobs
    for ask in (jobs.retrieve, jobs.list_events, jobs.cancel):
        with pytest.raises(openai.NotFoundError, match="no such job: ftjob-none"):
            ask("ftjob-none")


def test_n_epochs_is_given_to_a_training_that_takes_it(practice, chat_file):
    server = practice()
    client = connect(server)
    file = client.files.create(file=chat_file, purpose="fine-tune")
    for more in ({"n_epochs": 3}, {"n_epochs": "auto"}, {}):
        create = client.fine_tuning.jobs.create  # as Nebius takes them, and older clients
        create(model=server.model, training_file=file.id, extra_body={"hyperparameters": more})
    while not all(job["status"] == "succeeded" for job in server.jobs):
        time.sleep(0.02)
    assert [job["trained_tokens"] for job in server.jobs] == [60, 60, 180]
    server.train = lambda training, validation, emit: (str, 7)  # one that takes no n_epochs
    job = follow(client, chat_file)
    assert (job.trained_tokens, job.hyperparameters.n_epochs) == (7, "auto")


def test_a_cancelled_job_stops_at_its_next_event_and_keeps_nothing(practice, chat_file):
    server, steps, go_on = practice(), [], threading.Event()

    def slow(training_file, validation_file, emit):
        while True:
            steps.append(emit("Step"))
            go_on.wait(10)

    server.train, client = slow, connect(server)
    file = client.files.create(file=chat_file, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=server.model, training_file=file.id)
    while not steps:
        time.sleep(0.02)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    go_on.set()
    while any(thread.name == job.id for thread in threading.enumerate()):
        time.sleep(0.02)
    found = client.fine_tuning.jobs.retrieve(job.id)
    assert len(steps) == 1 and found.status == "cancelled" and not server.tuned
    assert found.fine_tuned_model is None and found.trained_tokens is None
    with pytest.raises(openai.BadRequestError, match="is over: cancelled"):
        client.fine_tuning.jobs.cancel(job.id)


def test_a_deleted_file_is_gone_and_its_id_is_not_given_again(practice, chat_file):
    server = practice()
    client = connect(server)
    file = client.files.create(file=chat_file, purpose="fine-tune")
    path = server.files[file.id]
    assert client.files.delete(file.id).deleted and not path.exists()
    for again in (
        client.files.delete,
        lambda key: client.fine_tuning.jobs.create(model=server.model, training_file=key),
    ):
        with pytest.raises(openai.NotFoundError, match="no such file"):
            again(file.id)
    assert client.files.create(file=chat_file, purpose="fine-tune").id != file.id


@pytest.mark.parametrize("case", ROWS["request"])
def test_a_bad_request_is_refused_in_openai_s_form(practice, chat_file, case):
    server = practice()
    connect(server).files.create(file=chat_file, purpose="fine-tune")
    sent = {"content": case["body"], "headers": {"Content-Type": "application/json"}}
    reply = httpx.post(f"{server.base_url}/{case['path']}", trust_env=False, **sent)
    assert reply.status_code == case["status"] and not server.jobs
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert case["named"] in reply.json()["error"]["message"]


def test_only_six_routes_and_no_other_site(practice, chat_file):
    server = practice()
    job = follow(connect(server), chat_file)
    jobs = f"{server.base_url}/fine_tuning/jobs"
    for path in (server.base_url, f"{jobs}/x/y", f"{jobs}{job.id}", f"{jobs}/{job.id}/checkpoints"):
        assert httpx.get(path, trust_env=False).status_code == 404, path
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", ""):
        for ask in (httpx.get, httpx.post):
            assert ask(jobs, headers={"Origin": origin}, trust_env=False).status_code == 403, origin
    own = {"Origin": server.base_url.removesuffix("/v1")}
    assert httpx.get(jobs, headers=own, trust_env=False).status_code == 200
