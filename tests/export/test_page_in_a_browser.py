"""The chat page of the service in a real browser, over a bot that is no model."""

import dataclasses
import time

import pytest
from test_serve import FakeBot, Running

from helpers import show

pytestmark = pytest.mark.slow
HOSTILE = """<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>"""


@pytest.fixture(scope="module")
def service(cfg):
    show.set_language("id")
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


def test_stop_ends_an_answer_whose_question_is_still_on_its_way(chat, service):
    def slow(route):
        time.sleep(0.7)
        route.continue_()

    chat.route("**/queue/join**", slow)
    ask(chat, "terus menulis")
    chat.locator("#message .stop-button").click()  # before the page knows the answer's id
    chat.wait_for_timeout(1500)
    service.wait_for(lambda: service.writing() == 0, "the answer ends")
    chat.unroute("**/queue/join**")
    ask(chat, "tempe goreng")  # the next question is answered to its end
    chat.wait_for_function(
        "() => document.querySelector('#log').innerText.split('tempe').length > 2"
    )


def test_after_stop_and_clear_the_first_question_is_answered_again(chat, service):
    said = "(word) => document.querySelector('#log').innerText.split(word).length - 1"
    ask(chat, "terus menulis")
    chat.wait_for_function(f"() => ({said})('menulis') > 1")
    chat.locator("#message .stop-button").click()
    service.wait_for(lambda: service.writing() == 0, "the answer ends")
    chat.wait_for_function(f"() => ({said})('dihentikan') > 0")
    chat.locator("#log button[aria-label=Clear], #log button[title=Clear]").first.click()
    chat.wait_for_function(f"() => ({said})('menulis') === 0")
    ask(chat, "tempe goreng tahu")
    chat.wait_for_function(f"() => ({said})('tahu') === 2")


def test_markup_in_a_question_and_in_an_answer_stays_text(chat):
    ask(chat, f"{HOSTILE} tempe")
    written = "() => document.querySelector('#log').innerText.split('tempe').length - 1"
    chat.wait_for_function(f"() => ({written})() === 2")  # in the question and in the answer
    assert chat.evaluate("() => window.hacked") is None
    assert "<img src=x" in log(chat) and not chat.query_selector("#log img[src=x]")
