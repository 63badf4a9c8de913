"""The practice server, asked through the real `openai` client: retries, jobs, events, refusals."""

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

CASES = tomllib.loads(Path(__file__).with_name("rows.toml").read_text(encoding="utf-8"))


def train(training_file, validation_file, emit, n_epochs=1):
    """Five tokens a row are learnt; the model repeats what it is told."""
    emit("Step 1: loss=1.500")
    rows = training_file.read_text().splitlines()
    if "broken" in rows:
        raise RuntimeError("out of memory")
    tokens = 5 * len(rows) * n_epochs
    return lambda messages, most: f"echo {messages[-1]['content']} {most}", tokens


@pytest.fixture
def server():
    server = PracticeServer(train)
    yield server
    server.stop()


def connect(server, transport=None, **options):
    http = httpx.Client(trust_env=False, transport=transport)
    return openai.OpenAI(base_url=server.base_url, api_key="practice", http_client=http, **options)


@pytest.fixture
def client(server):
    return connect(server)


@pytest.fixture
def chat_file(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("{}\n" * 12)
    return path


def upload(client, path):
    """The id of the file."""
    return client.files.create(file=path, purpose="fine-tune").id


@pytest.fixture
def file(client, chat_file):
    """The id of a file that lies on the server."""
    return upload(client, chat_file)


def create(client, file, **options):
    jobs = client.fine_tuning.jobs
    return jobs.create(model="practice-base", training_file=file, **options)


def finished(client, job):
    """The job when it is over."""
    while job.status == "running":
        time.sleep(0.02)
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


def test_from_upload_to_answer_through_two_faults(server, chat_file):
    server.faults += [429, 500]
    client = connect(server, max_retries=4)
    start = time.monotonic()
    file = upload(client, chat_file)
    assert time.monotonic() - start >= 1  # Retry-After of the 429
    assert [status for *_, status in server.log] == [429, 500, 200]
    how = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}
    job = finished(client, create(client, file, method=how))
    assert job.trained_tokens == 120
    newest, before, *_ = client.fine_tuning.jobs.list_events(job.id).data
    assert "New fine-tuned model" in newest.message
    assert "loss=1.500" in before.message
    reply = client.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": "Hi"}], max_tokens=7
    )
    assert reply.choices[0].message.content == "echo Hi 7"


class Lossy(httpx.HTTPTransport):
    """The first reply to `create` is lost on its way, when the job has begun."""

    lost = False

    def handle_request(self, request):
        reply = super().handle_request(request)
        if request.url.path.endswith("/fine_tuning/jobs") and not self.lost:
            self.lost = True
            reply.close()
            raise httpx.ReadTimeout("lost", request=request)
        return reply


def test_a_lost_reply_makes_a_second_job_where_the_client_sends_again(server, file):
    """Why lesson 09 sends `create` once and looks at the list of jobs before it sends again."""
    client = connect(server, Lossy(), max_retries=1)
    create(client, file)
    assert len(client.fine_tuning.jobs.list().data) == 2


def test_a_job_that_fails_says_why_and_the_server_lives_on(client, chat_file):
    chat_file.write_text("broken")
    job = finished(client, create(client, upload(client, chat_file)))
    assert job.status == "failed"
    assert "out of memory" in job.error.message
    chat_file.write_text("{}")
    job = finished(client, create(client, upload(client, chat_file)))
    assert job.status == "succeeded"


def test_a_cancelled_job_stops_at_its_next_event_and_keeps_nothing(server, client, file):
    steps = []
    go_on = threading.Event()

    def slow(training_file, validation_file, emit):
        while True:
            emit("Step")
            steps.append("Step")
            go_on.wait(10)

    server.train = slow
    job = create(client, file)
    while not steps:
        time.sleep(0.02)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    go_on.set()
    while job.id in [thread.name for thread in threading.enumerate()]:
        time.sleep(0.02)
    assert len(steps) == 1
    assert not server.tuned
    with pytest.raises(openai.BadRequestError, match="is over: cancelled"):
        client.fine_tuning.jobs.cancel(job.id)


def test_a_deleted_file_is_gone_and_its_id_is_not_given_again(server, client, chat_file, file):
    path = server.files[file]
    assert client.files.delete(file).deleted
    assert not path.exists()
    with pytest.raises(openai.NotFoundError, match="no such file"):
        client.files.delete(file)
    with pytest.raises(openai.NotFoundError, match="no such file"):
        create(client, file)
    assert upload(client, chat_file) != file


@pytest.mark.parametrize("case", CASES["request"])
def test_a_bad_request_is_refused_in_openai_s_form(server, file, case):
    reply = httpx.post(
        f"{server.base_url}/{case['path']}",
        content=case["body"],
        headers={"Content-Type": "application/json"},
        trust_env=False,
    )
    assert reply.status_code == case["status"]
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert case["named"] in error["message"]
    assert not server.jobs


def test_a_page_of_another_site_is_refused_and_one_of_its_own_is_not(server):
    jobs = f"{server.base_url}/fine_tuning/jobs"
    own = server.base_url.removesuffix("/v1")
    for origin, status in (("https://evil.example", 403), ("http://127.0.0.1:1", 403), (own, 200)):
        reply = httpx.get(jobs, headers={"Origin": origin}, trust_env=False)
        assert reply.status_code == status, origin
