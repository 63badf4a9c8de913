"""Many questions at once against a running chat service: are all answered, how quick is /health?

    python -m helpers serve --profile cpu &              # or --engine gguf
    python benchmarks/serve_load.py [--url http://127.0.0.1:7860] [--requests 30] [--json]

First one user alone asks a few questions one after the other (time to the first piece), then all
requests come at the same time, while /health is asked ten times a second. Exit code 1 when a
request was neither answered nor refused with a message (503).
"""

import argparse
import json
import statistics
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

DISHES = (
    "Soto Ayam",
    "Tempe Orek",
    "Ikan Bakar",
    "Tahu Isi",
    "Rendang Sapi",
    "Sate Kambing",
    "Telur Balado",
    "Udang Goreng",
)


def call(url: str, body: dict | None = None, timeout: float = 600) -> dict:
    """The JSON that GET, or with a body POST, answers with."""
    request = urllib.request.Request(
        url, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=timeout) as reply:
        return json.load(reply)


def first_piece(url: str, body: dict) -> float:
    """Seconds from sending a question to the first piece of its answer, as a client sees them."""
    request = urllib.request.Request(
        url + "/api/chat/stream", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    began, first = time.perf_counter(), 0.0
    with urllib.request.urlopen(request, timeout=600) as reply:
        for line in reply:  # to the end, so that the next question finds an idle model
            if not first and line.startswith(b"data: ") and "piece" in json.loads(line[6:]):
                first = time.perf_counter() - began
    return first


def watch_health(url: str, over: threading.Event) -> tuple[list[float], int]:
    """Seconds each /health took until `over`, and the longest queue it told of."""
    seconds, longest = [], 0
    while not over.is_set():
        began = time.perf_counter()
        facts = call(url + "/health", timeout=30)
        seconds.append(time.perf_counter() - began)
        longest = max(longest, facts["waiting"])
        over.wait(0.1)
    return seconds, longest


def measure(url: str, requests: int, tokens: int, alone: int) -> dict:
    """Both parts of the measurement against the service at `url`; times in seconds."""
    facts = call(url + "/health")
    first = [first_piece(url, question(n, tokens)) for n in range(alone)]
    errors, refused, over = [], [], threading.Event()

    def ask(n: int) -> dict | None:
        try:
            return call(url + "/api/chat", question(n, tokens))
        except urllib.error.HTTPError as problem:
            (refused if problem.code == 503 else errors).append(str(problem))
            return None
        except (OSError, ValueError) as problem:  # counted and shown: that is what is measured
            errors.append(f"{type(problem).__name__}: {problem}")
            return None

    with ThreadPoolExecutor(requests + 1) as pool:
        health = pool.submit(watch_health, url, over)
        began = time.perf_counter()
        replies = [reply for reply in pool.map(ask, range(requests)) if reply]
        wall = time.perf_counter() - began
        over.set()
        seconds, longest = health.result()
    written = sum(reply["tokens"] for reply in replies)
    return {
        "engine": facts["engine"],
        "model": facts["model"],
        "profile": facts["profile"],
        "requests": requests,
        "answered": len(replies),
        "refused": len(refused),
        "errors": errors,
        "first_alone_s": statistics.median(first),
        "first_alone_max_s": max(first),
        "wall_s": wall,
        "tokens": written,
        "tokens_per_s": written / wall,
        "longest_queue": longest,
        "health_calls": len(seconds),
        "health_p50_s": statistics.median(seconds),
        "health_max_s": max(seconds),
    }


def question(n: int, tokens: int) -> dict:
    return {"message": f"Buatkan resep {DISHES[n % len(DISHES)]}.", "max_new_tokens": tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:7860")
    parser.add_argument("--requests", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--alone", type=int, default=5, help="questions of the one user")
    parser.add_argument(
        "--wait", type=float, default=180, help="longest time for the service to be ready, seconds"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    url, end = options.url.rstrip("/"), time.monotonic() + options.wait
    while True:  # 503 while the model loads
        try:
            call(url + "/health")
            break
        except (urllib.error.URLError, OSError) as problem:
            if time.monotonic() > end:
                sys.exit(
                    f"no ready service at {url} within {options.wait:.0f} s ({problem}). Start "
                    "one: python -m helpers serve"
                )
            time.sleep(0.5)
    found = measure(url, options.requests, options.tokens, options.alone)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        print(f"{found['model']} ({found['profile']}) on {found['engine']}")
        print(
            f"one user alone: first piece after {found['first_alone_s']:.2f} s (median of "
            f"{options.alone}), at most {found['first_alone_max_s']:.2f} s"
        )
        print(
            f"{found['requests']} at once: {found['answered']} answered, {found['refused']} "
            f"refused in {found['wall_s']:.1f} s, {found['tokens_per_s']:.0f} tokens/s, "
            f"{len(found['errors'])} errors"
        )
        print(
            f"/health meanwhile ({found['health_calls']} calls, up to {found['longest_queue']} "
            f"waiting): p50 {found['health_p50_s'] * 1000:.0f} ms, "
            f"max {found['health_max_s'] * 1000:.0f} ms"
        )
        print(*found["errors"], sep="\n", end="")
    sys.exit(0 if found["answered"] + found["refused"] == options.requests else 1)


if __name__ == "__main__":
    main()
