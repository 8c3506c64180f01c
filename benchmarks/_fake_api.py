"""A Messages API on loopback that answers by a script and keeps every request, byte for byte.

    with FakeApi(script) as api:
        ...  # a client with ANTHROPIC_BASE_URL=api.url
        api.requests

Standard library only: the benchmark uses it too.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Block = dict[str, Any]
    Script = Callable[["Request"], list[Block]]


@dataclass(frozen=True, slots=True)
class Request:
    """A request for an answer of the model, as it came."""

    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """Its body, read."""
        return json.loads(self.body)  # type: ignore[no-any-return]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Its messages."""
        return self.json["messages"]  # type: ignore[no-any-return]

    @property
    def answered(self) -> int:
        """How many answers of the model it holds already."""
        return sum(message["role"] == "assistant" for message in self.messages)

    @property
    def tools(self) -> list[str]:
        """Names of the tools that it offers."""
        return [tool.get("name", "") for tool in self.json.get("tools", ())]

    def texts(self) -> list[str]:
        """Return the texts of its messages, in their order: what the user and tools say, not what the model did."""
        return [text for message in self.messages if message["role"] == "user" for text in _texts(message["content"])]

    def results(self) -> dict[str, str]:
        """Return the results of tools by the id of their call."""
        found = {}
        for message in self.messages:
            for block in message["content"] if isinstance(message["content"], list) else ():
                if block.get("type") == "tool_result":
                    found[block["tool_use_id"]] = "\n".join(_texts(block.get("content", "")))
        return found


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
        return
    for block in content:
        if block.get("type") == "text":
            yield block["text"]
        elif block.get("type") == "tool_result":
            yield from _texts(block.get("content", ""))


class FakeApi:
    """Answers requests for messages.

    Args:
        script: Returns the blocks of an answer: texts as `{"type": "text", "text": ...}`, calls of tools as
            `{"type": "tool_use", "id": ..., "name": ..., "input": ...}`.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        self.failures: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                self.send_json({}, 404)

            def do_HEAD(self) -> None:
                self.send_json({}, 200)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if not self.path.startswith("/v1/messages"):
                    self.send_json({}, 404)
                elif "count_tokens" in self.path:
                    self.send_json({"input_tokens": len(body) // 4})
                else:
                    api._answer(self, body)

            def send_json(self, value: Any, status: int = 200) -> None:
                """Answer in JSON."""
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: Any, body: bytes) -> None:
        request = Request(body)
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
        try:
            blocks = self._script(request)
        except Exception as error:  # noqa: BLE001  (shown by the test, not lost in a thread)
            self.failures.append(f"{type(error).__name__}: {error}")
            blocks = [{"type": "text", "text": "the script failed"}]
        message = {
            "id": f"msg_{number:04}",
            "type": "message",
            "role": "assistant",
            "model": request.json.get("model", "claude"),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": len(body) // 4, "output_tokens": 1},
        }
        reason = "tool_use" if any(block["type"] == "tool_use" for block in blocks) else "end_turn"
        if not request.json.get("stream"):
            handler.send_json({**message, "content": blocks, "stop_reason": reason})
            return
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("connection", "close")
        handler.end_headers()
        for event in _events(message, blocks, reason):
            handler.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        handler.close_connection = True


def _events(message: dict[str, Any], blocks: list[Block], reason: str) -> Iterator[dict[str, Any]]:
    yield {"type": "message_start", "message": message}
    for index, block in enumerate(blocks):
        start: dict[str, Any]
        if block["type"] == "text":
            start, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            start = dict(block, input={})
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield {"type": "content_block_start", "index": index, "content_block": start}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    written = sum(len(json.dumps(block)) for block in blocks) // 4
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": None},
        "usage": {"output_tokens": max(1, written)},
    }
    yield {"type": "message_stop"}
