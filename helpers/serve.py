"""The tuned model as a service: a chat page, GET /health, and the address of an OpenAI-like API.

run_service(llamacpp.open_bot(cfg), port=7860)

Gradio's ChatInterface does the page, llama.cpp's own server the API. Importing this module imports
Gradio.
"""

import socket
import threading
from contextlib import suppress

import gradio as gr
import psutil
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from .chat import Bot, Turn
from .files import CourseError, UsageError, read_toml, sentence

# What the page and the terminal say, by language, and Gradio's options.
WORDED = read_toml("serve.toml")


def page(bot: Bot) -> gr.ChatInterface:
    """The chat page. Its history stands in the browser's tab alone."""
    language = bot.cfg.language

    def respond(message, history, *drawing):
        """The answer so far, again and again while it grows; Stop on the page closes it."""
        # What was said so far: Gradio keeps a text, or a list of parts with one text.
        said = []
        for past in history:
            text = past["content"]
            if not isinstance(text, str):
                text = text[0]["text"]
            if past["role"] == "user":
                said.append(Turn(text, "tuned"))
            else:
                said[-1].answer = text
        talk = bot.conversation(turns=said, **dict(zip(WORDED["sliders"], drawing)))
        # Gradio shows the last value that came, so each one is the answer from its beginning.
        text = ""
        try:
            for piece in talk.reply(message):
                text += piece
                yield text
        except CourseError as problem:
            # A message that is too long or empty: the page says so, and the conversation goes on.
            raise gr.Error(str(problem), print_exception=False) from None
        # A recipe that was found can be told in the other language: a button says so.
        turn = talk.turns[-1]
        if turn.served and not turn.told:
            yield {"role": "assistant", "content": text, "options": [WORDED["other"][language]]}

    # Where a model answers freely; a recipe that is found and told needs none.
    sliders = {} if bot.cooks else WORDED["sliders"]
    return gr.ChatInterface(
        respond,
        examples=[[text] for text in WORDED["examples"][language]],
        description=sentence("page_cooks" if bot.cooks else "page_free"),
        additional_inputs=[gr.Slider(label=name, **options) for name, options in sliders.items()],
        **WORDED["page"],
    )


def create_app(bot: Bot, auth: tuple[str, str] | None = None) -> FastAPI:
    """Page and /health as one app; the model is loaded meanwhile. `auth`: user and password."""
    # Without FastAPI's pages about its API: this app has a page and /health, no more.
    app = FastAPI(openapi_url=None)
    # Written by the thread that loads, read by /health.
    state = {"ready": False, "problem": ""}

    def load():
        """Ready means that the model has written a token, not merely that the process lives."""
        try:
            bot.conversation(plain=True, answer_tokens=1).say("Halo")
            state["ready"] = True
        except Exception as problem:  # nobody would see it in this thread
            state["problem"] = f"{type(problem).__name__}: {problem}"
            print(f"⚠️ {state['problem']}", flush=True)

    # `async`, so it runs in the event loop and need not wait for a thread that writes an answer.
    @app.get("/health")
    async def health():
        """200 once the model answers, 503 before; what answers, where, in how much memory."""
        facts = {
            "model": bot.models[-1],
            "base_model": bot.cfg.base_model,
            "engine": bot.engine,
            "device": bot.cfg.device.name,
            # The resident set: model, engine and page together, but nothing that lies on a GPU.
            "ram_bytes": psutil.Process().memory_info().rss,
        }
        return JSONResponse(state | facts, 200 if state["ready"] else 503)

    # The page is there at once and the model some seconds later; /health tells when.
    threading.Thread(target=load, daemon=True).start()
    # At most 32 questions wait in line.
    return gr.mount_gradio_app(
        app,
        page(bot).queue(max_size=32),
        "/",
        auth=auth,
        theme=gr.themes.Soft(**WORDED["theme"]),
        **WORDED["app"],
    )


def run_service(bot: Bot, host: str = "127.0.0.1", port: int = 7860, auth: str = "") -> None:
    """Serve until Ctrl-C. Prints the addresses; the API's key is the password, if there is one.

    Raises OSError for a port that is taken, the page's or the API's beside it, before anything is
    loaded.
    """
    # A password may hold colons: only the first one is cut.
    user, _, password = auth.partition(":")
    if auth and not password:
        raise UsageError("auth")
    # The port is taken now and handed to uvicorn below, so nobody else can take it meanwhile, and
    # whoever reads the address is served.
    listener = socket.create_server((host, port))
    # With port 0 the system has chosen one.
    port = listener.getsockname()[1]
    # Where to look, told before the model is loaded.
    print(
        f"Dapur LLM: http://{host}:{port} ({bot.engine}; {WORDED['wait'][bot.cfg.language]})",
        flush=True,
    )
    # llama.cpp brings its own server, with OpenAI's routes. Its port is tried before it is told.
    if bot.engine == "gguf":
        beside = port + 1 if port < 65535 else port - 1
        socket.create_server((host, beside)).close()
        bot.address = {"key": password, "host": host, "port": beside}
        print(f"API: http://{host}:{beside}/v1", flush=True)
    # Other machines come in, and nothing asks them who they are.
    if not auth and not host.startswith(("127.", "localhost")):
        print(sentence("open_network"))
    app = create_app(bot, (user, password) if auth else None)
    # At Ctrl-C answers that are being written have three seconds to end.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([listener])
