"""The lessons in a real JupyterLab, and the pages made from them, as a person sees them."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from helpers.classroom import site

from helpers import course
from helpers.settings import ROOT
from pipeline import copies, runner

pytestmark = pytest.mark.slow
NAMES = [item["name"] for item in course.lessons()]
SETTINGS = {  # every cell in the page, not only those in view; no news asked of another host
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
WIDGET = "window.jupyterapp.shell.currentWidget"


def sanity_copy(folder, root):
    """The notebooks with PROFILE = "sanity", and what lessons hand over to 00 and 05."""
    (folder / "notebooks").mkdir(parents=True)
    for name in NAMES:
        nb = nbformat.read(course.NOTEBOOKS / f"{name}.ipynb", 4)
        for cell in nb.cells:
            cell.source = cell.source.replace('PROFILE = "auto"', 'PROFILE = "sanity"')
        nb.metadata.update(nbformat.from_dict(copies.kernel_facts()))  # as in a learner's copy
        nbformat.write(nb, folder / "notebooks" / f"{name}.ipynb")
    command = [sys.executable, "-m", "helpers", "run", "--profile", "sanity"]
    subprocess.run(
        [*command, *"--only 02 --only 03 --only 04".split()],
        cwd=ROOT,
        env=os.environ | {"DAPUR_ARTIFACTS": str(root)},
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def lab(tmp_path_factory, chromium):
    """Address of a JupyterLab over a copy of the lessons; it ends with the module."""
    home = tmp_path_factory.mktemp("lab")
    sanity_copy(home / "course", home / "artifacts")
    for name, values in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = [
        "--no-browser",
        "--allow-root",
        f"--ServerApp.port={port}",
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={home / 'course'}",
        f"--LabApp.user_settings_dir={home / 'settings'}",
        f"--LabApp.workspaces_dir={home / 'workspaces'}",
        "--LabApp.expose_app_in_browser=True",
    ]
    environment = os.environ | {
        "DAPUR_ARTIFACTS": str(home / "artifacts"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "PYTHONPATH": str(ROOT),
    }
    log = (home / "log.txt").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=log
    )
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/status", timeout=10).close()
            break
        except OSError:
            assert server.poll() is None and time.monotonic() < end, (home / "log.txt").read_text()
            time.sleep(0.5)
    yield address
    server.terminate()
    try:
        server.wait(30)
    finally:
        server.kill()
        log.close()


def open_lesson(page, lab, name):
    """Open a lesson in a workspace of its own and wait until its kernel is idle."""
    page.goto(f"{lab}/lab/workspaces/w{time.monotonic_ns()}/tree/notebooks/{name}.ipynb")
    page.wait_for_selector(".jp-MarkdownCell h1")
    page.wait_for_function(f"() => {WIDGET}?.sessionContext?.session?.kernel?.status === 'idle'")


def run_all(page):
    """Run every cell; returns when the kernel has nothing left to do."""
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    page.wait_for_timeout(2000)
    prompts = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.innerText)"
    page.wait_for_function(
        f"() => {WIDGET}.sessionContext.session.kernel.status === 'idle' "
        f"&& !{prompts}.some(text => text.includes('*'))",
        timeout=400_000,
    )


def errors(page):
    kind = "application/vnd.jupyter.error"
    return page.locator(f'.jp-RenderedText[data-mime-type="{kind}"]').all_inner_texts()


def broken_words(page):
    """Words of printed text that stand on two lines although one would hold them."""
    return page.evaluate("""() => [...document.querySelectorAll('.jp-OutputArea-output pre')]
        .flatMap(pre => {
          const found = [], walk = document.createTreeWalker(pre, NodeFilter.SHOW_TEXT);
          for (let text; (text = walk.nextNode());) {
            for (const word of text.data.matchAll(/[\\p{L}\\p{N}]+/gu)) {
              const range = document.createRange();
              range.setStart(text, word.index);
              range.setEnd(text, word.index + word[0].length);
              const lines = [...range.getClientRects()];
              const width = lines.reduce((sum, line) => sum + line.width, 0);
              if (lines.length > 1 && width < pre.clientWidth) found.push(word[0]);
            }
          }
          return found;
        })""")


def shown(page, language):
    """How many Markdown cells of a language can be seen."""
    return page.locator(f".jp-MarkdownCell:visible:has([lang={language}])").count()


@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_opens_with_each_text_marked_as_its_language(page, lab, name, screenshots):
    open_lesson(page, lab, name)
    nb = nbformat.read(course.NOTEBOOKS / f"{name}.ipynb", 4)
    for language in ("id", "en"):
        texts = page.locator(f".jp-RenderedMarkdown > div[lang={language}]")
        assert texts.count() == sum(f'<div lang="{language}">' in c.source for c in nb.cells)
        assert texts.first.inner_text().strip(), "the mark holds its text"
    assert errors(page) == []
    page.wait_for_timeout(1000)  # the kernel's own description has come and nothing was taken over
    assert not page.evaluate(f"() => {WIDGET}.context.model.dirty"), "marked as changed"
    page.screenshot(path=screenshots / f"{name}.png")


def test_run_all_of_00_and_the_switch_hides_one_language_and_shows_it_again(page, lab, screenshots):
    open_lesson(page, lab, "00_start")
    run_all(page)
    assert errors(page) == []
    both = shown(page, "id") + shown(page, "en")
    assert shown(page, "id") and not shown(page, "en"), "LANGUAGE = id is chosen at first"
    buttons = page.locator(".dapur-language").first
    buttons.locator("[value=en]").check()
    assert shown(page, "en") and not shown(page, "id")
    page.screenshot(path=screenshots / "00_english.png")
    buttons.locator("[value=both]").check()
    assert shown(page, "id") == shown(page, "en") == both


def test_the_table_of_contents_names_each_section_once(page, lab):
    open_lesson(page, lab, "00_start")
    page.evaluate("() => window.jupyterapp.shell.activateById('table-of-contents')")
    page.wait_for_selector(".jp-TableOfContents .jp-tocItem-content")
    titles = page.locator(".jp-TableOfContents .jp-tocItem-content").all_inner_texts()
    nb = nbformat.read(course.NOTEBOOKS / "00_start.ipynb", 4)
    texts = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
    headings = [text for text in texts if text.startswith(("# ", "## "))]
    assert len(titles) == len(set(titles)) >= len(headings)


def test_run_all_of_05_and_the_chat_box_answers_enter_with_markup_kept_inert(
    page, lab, screenshots
):
    open_lesson(page, lab, "05_chatbot")
    run_all(page)
    assert errors(page) == []
    assert broken_words(page) == []
    page.evaluate(
        "() => window.jupyterapp.commands.execute('apputils:change-theme', "
        "{theme: 'JupyterLab Dark'})"
    )
    field = page.locator("input[placeholder*=Enter]").first
    field.scroll_into_view_if_needed()
    field.fill("<img src=x onerror='window.hacked=1'> tempe")
    field.press("Enter")
    box = page.locator(".widget-vbox").filter(has=field).last
    page.wait_for_function('() => document.body.innerText.includes("<img src=x onerror")')
    box.locator("[role=status]").filter(has_text="token").wait_for()
    cut = "e => e.scrollWidth > e.clientWidth"
    assert not any(b.evaluate(cut) for b in box.locator("button").all()), "a name is cut off"
    assert page.evaluate("() => window.hacked") is None
    assert page.locator("img[src=x]").count() == 0
    page.screenshot(path=screenshots / "05_chat_dark.png")


def test_report_and_site_have_no_serious_finding_of_axe(
    page, lab, tmp_path_factory, accessible, screenshots
):
    reports = sorted(runner.RUNS.glob("*/report.html"), key=os.path.getmtime)
    page.goto(reports[-1].as_uri())
    accessible(page)
    page.screenshot(path=screenshots / "report.png", full_page=True)
    out = tmp_path_factory.mktemp("site") / "out"
    site.build(out)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto((out / "id" / "00_start.html").as_uri())
        accessible(page)
        page.screenshot(path=screenshots / f"site_{scheme}.png")
