"""The practice server, asked through the real `openai` client: retries, jobs, events, refusals."""

import contextlib
import json
import os
import time

import httpx
import openai
import pytest

from helpers.practice_server import PracticeServer

CHATS = [
    [{"role": "user", "content": f"{n} + 1?"}, {"role": "assistant", "content": f"{n + 1}"}]
    for n in range(12)
]


def train(files, hyperparameters, emit):
    emit("Step 1/1: train_loss=1.500", step=1, train_loss=1.5)
    rows = sum(len(path.read_text().splitlines()) for path in files.values())
    if hyperparameters.get("n_epochs") == 99:
        raise RuntimeError("out of memory")
    return lambda messages, options: (f"echo {messages[-1]['content']}", True), rows * 10


@pytest.fixture
def chat_file(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in CHATS))
    return path


@contextlib.contextmanager
def practice(*arguments, **options):
    server = PracticeServer(*arguments, **options).start()
    yield server
    server.stop()


def connect(server, **options):
    return openai.OpenAI(base_url=server.base_url, api_key="practice", **options)


def follow(client, path, epochs=1):
    """Upload, create, wait; the finished job."""
    file = client.files.create(file=path, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model="practice-base",
        training_file=file.id,
        suffix="echo",
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs}}},
    )
    until = time.monotonic() + 30
    while job.status not in ("succeeded", "failed") and time.monotonic() < until:
        time.sleep(0.02)
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


def test_from_upload_to_answer_through_two_faults(chat_file):
    with practice(train, faults=[429, 500]) as server:
        client = connect(server, max_retries=4)
        start = time.monotonic()
        job = follow(client, chat_file)
        assert time.monotonic() - start >= 1  # Retry-After of the 429
        assert (job.status, job.trained_tokens) == ("succeeded", 120)
        assert job.hyperparameters.n_epochs == 1 and job.fine_tuned_model.startswith("ft:")
        events = client.fine_tuning.jobs.list_events(job.id).data  # the newest first
        assert "Created" in events[-1].message and "New fine-tuned model" in events[0].message
        assert [e.data["train_loss"] for e in events if e.type == "metrics"] == [1.5]
        reply = client.chat.completions.create(
            model=job.fine_tuned_model, messages=[{"role": "user", "content": "Hi"}]
        )
        assert reply.choices[0].message.content == "echo Hi"
        assert [status for *_, status in server.log][:3] == [429, 500, 200]
        assert len(server.files) == len(server.jobs) == 1


def test_an_answer_says_whether_it_came_to_its_end():
    with practice(train) as server:
        server.tuned = {
            name: lambda messages, options, ended=ended: (options["model"], ended)
            for name, ended in (("whole", True), ("cut", False))
        }
        for name, reason in (("whole", "stop"), ("cut", "length")):
            asked = {"model": name, "messages": [{"role": "user", "content": "Hi"}]}
            (choice,) = connect(server).chat.completions.create(**asked).choices
            assert (choice.message.content, choice.finish_reason) == (name, reason)


def test_both_files_are_sent_checked_and_listed_with_their_job(chat_file, tmp_path):
    other = [dict(CHATS[0][0], content="40 + 2?"), CHATS[0][1]]
    leak, clean = tmp_path / "leak.jsonl", tmp_path / "clean.jsonl"
    leak.write_text(json.dumps({"messages": CHATS[0]}))
    clean.write_text(json.dumps({"messages": other}))
    with practice(train) as server:
        client = connect(server)
        for path, status in ((clean, "succeeded"), (leak, "failed")):
            ids = [client.files.create(file=p, purpose="fine-tune").id for p in (chat_file, path)]
            job = client.fine_tuning.jobs.create(
                model="practice-base", training_file=ids[0], validation_file=ids[1]
            )
            while job.status not in ("succeeded", "failed"):
                time.sleep(0.02)
                job = client.fine_tuning.jobs.retrieve(job.id)
            assert job.status == status and job.validation_file == ids[1]
        assert "validation_file" in job.error.message and "in_train" in job.error.message
        listed = client.fine_tuning.jobs.list().data  # the newest first
        assert [(j.status, j.trained_tokens) for j in listed] == [
            ("failed", None),
            ("succeeded", 130),
        ]
        assert len(client.fine_tuning.jobs.list(limit=1).data) == 1


def test_without_retries_the_fault_reaches_the_caller(chat_file):
    with practice(train, faults=[429]) as server:
        client = connect(server, max_retries=0)
        with pytest.raises(openai.RateLimitError, match="injected fault"):
            client.files.create(file=chat_file, purpose="fine-tune")
        assert not server.files


@pytest.mark.parametrize("retries, jobs", [(0, 1), (1, 2)])
def test_a_lost_reply_makes_a_second_job_where_the_client_sends_again(chat_file, retries, jobs):
    """Why lesson 09 sends `create` once and looks at the list of jobs before it sends again."""
    replies = ["lost"]

    class Lossy(httpx.HTTPTransport):
        def handle_request(self, request):
            reply = super().handle_request(request)
            if replies and request.url.path.endswith("/fine_tuning/jobs"):
                reply.close()
                raise httpx.ReadTimeout(replies.pop(), request=request)
            return reply

    with practice(train) as server:
        client = connect(server, http_client=httpx.Client(transport=Lossy()))
        file = client.files.create(file=chat_file, purpose="fine-tune")
        create = client.with_options(max_retries=retries).fine_tuning.jobs.create
        with contextlib.nullcontext() if retries else pytest.raises(openai.APITimeoutError):
            create(model="practice-base", training_file=file.id)
        assert not replies and len(server.jobs) == len(client.fine_tuning.jobs.list().data) == jobs


@pytest.mark.parametrize(
    "lines, epochs, message",
    [
        (12, 99, "out of memory"),
        (9, 1, "9 rows, expected at least 10"),
        (0, 1, "line 1: bad_json"),
    ],
)
def test_a_job_that_fails_says_why_and_the_server_lives_on(chat_file, lines, epochs, message):
    rows = chat_file.read_text().splitlines()[:lines] or ["{]"]
    chat_file.write_text("\n".join(rows))
    with practice(train) as server:
        job = follow(connect(server), chat_file, epochs)
        assert job.status == "failed" and message in job.error.message and not server.tuned
        assert connect(server).fine_tuning.jobs.retrieve(job.id).status == "failed"


def test_ten_rows_make_a_job_and_each_job_a_model_of_its_own(chat_file):
    chat_file.write_text("\n".join(chat_file.read_text().splitlines()[:10]))
    with practice(train) as server:
        client = connect(server)
        jobs = [follow(client, chat_file) for _ in range(2)]
        assert [job.status for job in jobs] == ["succeeded"] * 2
        assert all(job.finished_at >= job.created_at for job in jobs)
        assert all(job.fine_tuned_model.endswith(job.id[-8:]) for job in jobs), "not by chance"
        assert len({job.fine_tuned_model for job in jobs}) == len(server.tuned) == 2
        for limit, more in ((1, True), (2, False), (3, False)):
            listed = client.fine_tuning.jobs.list(limit=limit)
            assert (len(listed.data), listed.has_more) == (min(limit, 2), more)


def test_a_file_is_listed_with_what_it_is_for_and_how_long_it_is(chat_file):
    with practice(train) as server:
        file = connect(server).files.create(file=chat_file, purpose="evals")
        assert (file.purpose, file.filename) == ("evals", chat_file.name)
        assert file.bytes == chat_file.stat().st_size == server.path(file.id).stat().st_size


def test_only_a_busy_server_says_how_long_to_wait():
    with practice(train, faults=[429, 500]) as server:
        told = [httpx.get(f"{server.base_url}/fine_tuning/jobs") for _ in range(3)]
    assert [reply.status_code for reply in told] == [429, 500, 200]
    assert [reply.headers.get("Retry-After") for reply in told] == ["1", None, None]


def test_what_no_proxy_leads_to_stays_so_beside_this_machine(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "school.example")
    with practice(train):
        assert {os.environ[n] for n in ("no_proxy", "NO_PROXY")} == {"school.example,127.0.0.1"}


def test_unknown_models_files_and_jobs_are_refused(chat_file):
    with practice(train) as server:
        client = connect(server)
        file = client.files.create(file=chat_file, purpose="fine-tune")
        with pytest.raises(openai.BadRequestError, match="cannot be fine-tuned"):
            client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file.id)
        with pytest.raises(openai.NotFoundError):
            client.fine_tuning.jobs.create(model="practice-base", training_file="file-none")
        with pytest.raises(openai.NotFoundError):
            client.fine_tuning.jobs.retrieve("ftjob-none")
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="ft:none", messages=[])


def test_a_name_that_leads_here_is_refused():
    """DNS rebinding: a web page under its own name must not start jobs on this machine."""
    with practice(train) as server:
        path = f"{server.base_url}/fine_tuning/jobs"
        assert httpx.get(path).status_code == 200
        assert httpx.get(path, headers={"Host": "evil.example"}).status_code == 400


def test_the_server_listens_to_this_machine_alone():
    with practice(train) as server:
        assert server.socket.getsockname()[0] == "127.0.0.1"
