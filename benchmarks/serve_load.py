"""Many questions at once against a running chat service: are all answered, how quick is /health?

    python -m helpers serve --profile cpu &              # or --engine gguf
    python benchmarks/serve_load.py [--url http://127.0.0.1:7860] [--requests 30] [--seconds 30]

First one user alone asks a few questions one after the other (time to the first piece), then all
requests come at the same time, while /health is asked ten times a second. With --seconds each of
them is a client who asks again, until the time is over. Prints JSON; --json keeps it with date,
versions and machine. Exit code 1 when a request was neither answered nor refused with a message
(429).
"""

import argparse
import json
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import paired

from helpers.files import write_json

DISHES = ("Soto Ayam", "Tempe Orek", "Ikan Bakar", "Tahu Isi", "Rendang Sapi", "Sate Kambing")


def question(n: int, tokens: int) -> dict:
    message = {"role": "user", "content": f"Buatkan resep {DISHES[n % len(DISHES)]}."}
    return {"messages": [message], "max_tokens": tokens}


def first_piece(web: httpx.Client, body: dict) -> float:
    """Seconds from sending a question to the first piece of its answer, as a client sees them."""
    began, first = time.perf_counter(), 0.0
    with web.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as reply:
        for line in reply.iter_lines():  # to the end, so that the next question finds an idle model
            if not first and '"content"' in line:
                first = time.perf_counter() - began
    return first


def watch_health(web: httpx.Client, over: threading.Event) -> tuple[list[float], int]:
    """Seconds each /health took until `over`, and the longest queue it told of."""
    seconds, longest = [], 0
    while not over.wait(0.1):
        began = time.perf_counter()
        facts = web.get("/health").json()
        seconds.append(time.perf_counter() - began)
        longest = max(longest, facts["waiting"])
    return seconds, longest


def measure(
    web: httpx.Client, requests: int, tokens: int, alone: int, lasting: float = 0.0
) -> dict:
    """Both parts of the measurement; times in seconds. `lasting`: how long each client asks."""
    health = web.get("/health")
    while health.status_code == 503 and health.json()["status"] == "loading":
        time.sleep(0.5)
        health = web.get("/health")
    facts, over = health.raise_for_status().json(), threading.Event()
    first = [first_piece(web, question(n, tokens)) for n in range(alone)]

    def ask(n: int) -> tuple[int | str, int]:
        """(status or what went wrong, tokens) of one question."""
        try:
            reply = web.post("/v1/chat/completions", json=question(n, tokens))
            return reply.status_code, reply.json().get("usage", {}).get("completion_tokens", 0)
        except (httpx.HTTPError, ValueError) as problem:  # counted: that is what is measured
            return f"{type(problem).__name__}: {problem}", 0

    def client(n: int) -> list[tuple[int | str, int]]:
        """All that one client was answered: at least one question, until the time is over."""
        answers, end = [ask(n)], time.perf_counter() + lasting
        while time.perf_counter() < end:
            if answers[-1][0] == 429:
                time.sleep(0.2)  # as a person who is told that the queue is full
            answers.append(ask(n))
        return answers

    with ThreadPoolExecutor(requests + 1) as pool:
        watched, began = pool.submit(watch_health, web, over), time.perf_counter()
        replies = [reply for some in pool.map(client, range(requests)) for reply in some]
        wall = time.perf_counter() - began
        over.set()
        seconds, longest = watched.result()
    return {
        **{name: facts[name] for name in ("engine", "model", "profile")},
        "requests": len(replies),
        "clients": requests,
        "answered": sum(status == 200 for status, _ in replies),
        "refused": sum(status == 429 for status, _ in replies),
        "errors": [status for status, _ in replies if status not in (200, 429)],
        "first_alone_s": statistics.median(first),
        "first_alone_max_s": max(first),
        "wall_s": wall,
        "tokens_per_s": sum(written for _, written in replies) / wall,
        "longest_queue": longest,
        "health_calls": len(seconds),
        "health_p50_s": statistics.median(seconds),
        "health_max_s": max(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:7860")
    parser.add_argument("--requests", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0, help="how long each of them asks again")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--alone", type=int, default=5, help="questions of the one user")
    parser.add_argument("--json", type=Path, help="keep the result in this file")
    given = parser.parse_args()
    limits = httpx.Limits(max_connections=given.requests + 2)
    with httpx.Client(base_url=given.url, timeout=600, limits=limits) as web:
        found = measure(web, given.requests, given.tokens, given.alone, given.seconds)
    print(json.dumps(found, indent=1))
    if given.json:
        write_json(given.json, paired.about() | found)
    sys.exit(bool(found["errors"]))


if __name__ == "__main__":
    main()
