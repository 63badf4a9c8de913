"""What stands before the service: only the routes it needs, no large bodies, and a page that talks to nobody else."""

from __future__ import annotations

import asyncio
import json
import re

from fastapi.responses import JSONResponse

MOST_BYTES = (
    256 * 1024
)  # of a request's body; 10,000 characters take 120 kB when every one is an escaped emoji
BODY_S = 30  # the longest time for a body to arrive

# Gradio brings routes that serve files, take uploads, relay to other hosts and show its inside. The chat needs these only.
ROUTES = re.compile(
    r"/|/health|/api/chat(/stream)?"
    r"|/(config/?|theme\.css|favicon\.ico|manifest\.json|robots\.txt)|/(assets|static|svelte)/[\w./-]+"
    r"|/gradio_api/(info/?|startup-events|app_id/?|heartbeat/\w+|queue/(join|data)|cancel|reset/?)"
)

# A second line of defence: whatever came to stand in the page, the browser fetches and sends nothing beyond this host.
HEADERS = {
    "Content-Security-Policy": "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Gate:
    """ASGI middleware. Unknown routes get 404, bodies over MOST_BYTES 413, bodies that do not arrive 408."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close"})

        async def send_with_headers(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((k.lower().encode(), v.encode()) for k, v in HEADERS.items()),
                ]
            await send(message)

        def refuse(status: int, error: str):
            # the rest of an unread body must not be taken for the next request
            headers = {"Connection": "close"} if status in (408, 413) else None
            return JSONResponse({"error": error}, status, headers)(
                scope, receive, send_with_headers
            )

        if not ROUTES.fullmatch(scope["path"]) or ".." in scope["path"]:
            return await refuse(404, "no such page")
        if scope["method"] not in ("GET", "HEAD"):
            try:
                receive = await asyncio.wait_for(self._whole_body(scope, receive), BODY_S)
            except TimeoutError:
                return await refuse(408, f"the body did not arrive within {BODY_S} s")
            except OverflowError:
                return await refuse(413, f"the body is larger than {MOST_BYTES:,} bytes")
            except ValueError:
                return await refuse(400, "expected a JSON object whose data are plain values")
        await self.app(scope, receive, send_with_headers)

    @staticmethod
    async def _whole_body(scope, receive):
        """Read the body and return a `receive` that gives it again.

        Raises OverflowError as soon as it is too large, ValueError when a page event is not plain.
        """
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MOST_BYTES:
            raise OverflowError
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > MOST_BYTES:
                raise OverflowError
        if scope["path"].startswith("/gradio_api/"):
            check_plain(body)
        left = [{"type": "http.request", "body": body}]

        async def again():
            return left.pop() if left else await receive()

        return again


def check_plain(body: bytes) -> None:
    """Raises ValueError unless the `data` of a page event are texts, numbers and the like: all that our page ever sends.

    Gradio copies the file, or fetches the address, that a {"path": ..., "meta": ...} among them names, whatever
    component it is meant for; and in a mounted app it does not even ask whether that path is allowed.
    """
    event = json.loads(body)
    if not isinstance(event, dict) or not isinstance(event.get("data", []), list | None):
        raise ValueError("not an event")
    if any(isinstance(value, dict | list) for value in event.get("data") or []):
        raise ValueError("nested values")
