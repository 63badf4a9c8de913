"""The chat page of the service in a real browser, over a bot that is no model."""

import dataclasses

import pytest
from test_serve import FakeBot, Running

from helpers.course import bilingual

pytestmark = pytest.mark.slow
HOSTILE = """<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>"""


@pytest.fixture(scope="module")
def service(cfg):
    bilingual.set_language("id")
    cfg = dataclasses.replace(cfg, max_new_tokens=400)  # "terus" writes for 40 s
    running = Running(FakeBot(cfg, pause=0.1), cfg).ready()
    yield running
    running.close()


@pytest.fixture(params=["light", "dark"])
def chat(page, service, request):
    page.emulate_media(color_scheme=request.param)
    page.goto(service.url)
    page.wait_for_selector("#message textarea")
    return page


def log(page) -> str:
    return page.inner_text("#log")


def ask(page, text: str) -> None:
    page.fill("#message textarea", text)
    page.press("#message textarea", "Enter")


def test_enter_sends_and_the_answer_grows_until_it_ends(chat):
    ask(chat, " ".join(f"kata{n}" for n in range(20)))
    written = "() => document.querySelector('#log').innerText.split('kata').length - 1"
    chat.wait_for_function(f"() => ({written})() > 21")  # the question's own twenty come first
    assert chat.evaluate(written) < 40, "shown before it is whole"
    chat.wait_for_function(f"() => ({written})() === 40")


def test_stop_can_be_seen_ends_the_answer_and_marks_it(chat, service, screenshots, accessible):
    ask(chat, "terus menulis")
    stop = chat.locator("#message .stop-button")
    colours = stop.evaluate("e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]")
    assert colours[0] != colours[1]
    stop.click()
    service.wait_for(lambda: service.writing() == 0, "the answer ends")
    chat.wait_for_function("() => document.querySelector('#log').innerText.includes('dihentikan')")
    scheme = chat.evaluate("() => matchMedia('(prefers-color-scheme: dark)').matches")
    chat.screenshot(path=screenshots / f"service_{'dark' if scheme else 'light'}.png")
    accessible(chat)


def test_markup_in_a_question_and_in_an_answer_stays_text(chat):
    ask(chat, f"{HOSTILE} tempe")
    written = "() => document.querySelector('#log').innerText.split('tempe').length - 1"
    chat.wait_for_function(f"() => ({written})() === 2")  # in the question and in the answer
    assert chat.evaluate("() => window.hacked") is None
    assert "<img src=x" in log(chat) and not chat.query_selector("#log img[src=x]")
