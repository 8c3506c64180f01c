"""A client of the application in this process, and the real server."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import anyio
import pytest

pytest.importorskip("starlette", reason="needs the extra serve")

from apportion.planner.doors.http.app import http_app
from apportion.planner.doors.http.service import Service
from apportion.planner.session import Planner

TOKEN = "a-token-of-these-tests-alone"  # noqa: S105  (of nobody else)


class Answer(NamedTuple):
    """What came back."""

    status: int
    kind: str
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Client:
    """Asks the application, without any socket.

    Args:
        service: What is behind it.
        more: Operations beside ours.
    """

    def __init__(self, service: Service, more: Any = ()) -> None:
        self.service = service
        self._app = http_app(service, token=TOKEN, port=80, more=more)

    async def ask(self, method: str, path: str, body: bytes = b"", headers: Any = None, *, parts: int = 1) -> Answer:
        """Return the answer to one request, whose body comes in parts."""
        size = max(1, -(-len(body) // parts))
        chunks = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
        given = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        given[-1]["more_body"] = False
        sent: list[Any] = []

        async def receive() -> Any:
            return given.pop(0) if given else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        found = (
            [(b"host", b"localhost"), (b"authorization", f"Bearer {TOKEN}".encode())] if headers is None else headers
        )
        raw = path.encode("utf-8", "surrogateescape")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": raw.partition(b"?")[0].decode("utf-8", "replace"),
            "raw_path": raw,
            "query_string": raw.partition(b"?")[2],
            "root_path": "",
            "scheme": "http",
            "headers": found,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await self._app(scope, receive, send)
        kinds = [value for name, value in sent[0]["headers"] if name == b"content-type"]
        content = b"".join(message.get("body", b"") for message in sent)
        return Answer(sent[0]["status"], kinds[0].decode() if kinds else "", content)

    def get(self, path: str) -> Answer:
        """Return the answer to a GET."""
        return anyio.run(self.ask, "GET", path)

    def delete(self, path: str) -> Answer:
        """Return the answer to a DELETE."""
        return anyio.run(self.ask, "DELETE", path)

    def post(self, path: str, body: Any, headers: Any = None) -> Answer:
        """Return the answer to a POST of JSON, or of bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return anyio.run(self.ask, "POST", path, data, headers)


@pytest.fixture
def client() -> Client:
    return Client(Service(Planner(ahead=False)))


@pytest.fixture
def client_of() -> type[Client]:
    """Makes a client of a service."""
    return Client
