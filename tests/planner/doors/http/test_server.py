"""The real server, in a process of its own, by real sockets."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from apportion.errors import InputError
from apportion.planner.ledger import Ledger

pytest.importorskip("uvicorn", reason="needs the extra serve")

from apportion.planner.doors.http.server import serve
from apportion.planner.doors.http.service import Service
from apportion.planner.session import Planner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Site(NamedTuple):
    """A server that runs."""

    url: str
    token: str
    shown: str
    process: subprocess.Popen[str]

    @property
    def place(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    def ask(self, method: str, path: str, body: Any = None, headers: Any = None) -> tuple[int, Any]:
        """Return status and JSON; headers may say anything."""
        connection = http.client.HTTPConnection(self.place, timeout=300)
        data = b"" if body is None else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {self.token}"} | (headers or {})
        connection.putrequest(method, path, skip_host="Host" in given)
        for name, value in (given | {"Content-Length": str(len(data))}).items():
            connection.putheader(name, value)
        connection.endheaders(data)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, json.loads(text) if text.startswith(("{", "[")) else text


@contextmanager
def running(folder: Path) -> Iterator[Site]:
    command = [sys.executable, "-m", "apportion", "serve", "--port", "0", "--token-file", str(folder / "token")]
    files = ["--store", str(folder / "originals"), "--ledger", str(folder / "ledger.db")]
    with subprocess.Popen([*command, *files], stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            assert process.stderr is not None
            shown = process.stderr.readline()
            url = process.stderr.readline().split()[-1]
            yield Site(url, (folder / "token").read_text().strip(), shown, process)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("site")) as found:
        yield found
        found.process.terminate()
        assert found.process.stderr is not None
        assert "Traceback" not in found.process.stderr.read()


HOSTS = [
    "evil.example",
    "evil.example:80",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.0.0.1.evil.example",
    "localhost.evil.example:{port}",
    "localhost:{port}.evil.example",
    "127.0.0.1:{port}@evil.example",
    "0.0.0.0:{port}",
    "[::]:{port}",
    "2130706433:{port}",
    "127.1:{port}",
    "",
    "null",
    "*",
]
ORIGINS = [
    "http://evil.example",
    "https://evil.example:{port}",
    "null",
    "",
    "*",
    "file://",
    "http://127.0.0.1",
    "https://127.0.0.1:{port}",
    "http://127.0.0.1:{port}.evil.example",
    "http://localhost:{port}@evil.example",
    "http://localhost.evil.example:{port}",
    "http://0.0.0.0:{port}",
    "http://127.0.0.1:{port}/",
    "chrome-extension://abcdef",
    "http://127.0.0.1:{port} http://evil.example",
]


def test_hostile_hosts_and_origins_are_all_refused_although_the_token_is_right(site: Site) -> None:
    port = urlsplit(site.url).port
    hostile = [{"Host": value.format(port=port)} for value in HOSTS]
    hostile += [{"Origin": value.format(port=port)} for value in ORIGINS]
    statuses = [site.ask("GET", "/health", headers=headers)[0] for headers in hostile]
    assert statuses == [403] * 30
    for name in ("127.0.0.1", "localhost", "[::1]"):
        headers = {"Host": f"{name}:{port}", "Origin": f"http://{name}:{port}"}
        assert site.ask("GET", "/health", headers=headers)[0] == 200


def test_without_the_token_nobody_gets_in_and_it_is_shown_once(site: Site, tmp_path: Path) -> None:
    for value in ("", "Bearer", "Bearer x", f"Basic {site.token}", f"Bearer {site.token}x"):
        status, text = site.ask("GET", "/health", headers={"Authorization": value})
        assert status == 401
        assert site.token not in text
    assert site.token in site.shown
    with running(tmp_path) as first:
        token = first.token
        assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    with running(tmp_path) as second:
        assert second.token == token
        assert token not in second.shown


def test_malformed_http_does_not_end_the_server(site: Site) -> None:
    rng = random.Random(3)  # noqa: S311  (no secret)
    host, port = site.place.rsplit(":", 1)
    head = f"POST /v1/sessions HTTP/1.1\r\nHost: {site.place}\r\nAuthorization: Bearer {site.token}\r\n"
    messages = [
        b"",
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"x: y\r\n" * 5_000 + b"\r\n",
        head.encode() + b"Content-Length: -1\r\n\r\n",
        head.encode() + b"Content-Length: 99\r\n\r\n{",
        head.encode() + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        head.encode() + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        *(rng.randbytes(200) for _ in range(30)),
    ]
    for message in messages:
        answer = b""
        with socket.create_connection((host, int(port)), timeout=300) as connection, suppress(ConnectionError):
            connection.sendall(message)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65_536):
                answer += part
        assert b"Traceback" not in answer
    assert site.ask("GET", "/health")[0] == 200


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop_it_books_what_is_under_way(number: signal.Signals, code: int, tmp_path: Path) -> None:
    with running(tmp_path) as site:
        _, opened = site.ask("POST", "/v1/sessions", {"workflow": "w", "max_tokens": 50_000})
        path = f"/v1/sessions/{opened['session_id']}"
        _, step = site.ask("POST", f"{path}/before", {"agent": "a", "items": [{"content": "look"}]})
        assert step["decision"] == "run"
        with Ledger(tmp_path / "ledger.db") as ledger:
            held = ledger.account("w").tokens.held
            assert held > 0
            site.process.send_signal(number)
            assert site.process.wait(timeout=300) == code
            stands = ledger.account("w").tokens
            assert (stands.spent, stands.held) == (held, 0)
        assert site.process.stderr is not None
        assert "Traceback" not in site.process.stderr.read()


def test_killed_in_the_middle_nothing_that_was_said_is_lost_and_the_next_server_goes_on(tmp_path: Path) -> None:
    opened = {"workflow": "w", "max_tokens": 90_000}
    asked = {"agent": "a", "items": [{"content": "look " * 900}], "model": "claude-sonnet-4-5"}
    with running(tmp_path) as found:
        _, session = found.ask("POST", "/v1/sessions", opened)
        path = f"/v1/sessions/{session['session_id']}"
        _, step = found.ask("POST", f"{path}/before", asked)
        told = {"number": step["number"], "usage": {"input_uncached": 900, "output": 50}}
        assert found.ask("POST", f"{path}/after", told) == (200, {"done": True})
        assert found.ask("POST", f"{path}/before", asked)[1]["decision"] == "run"  # and nobody hears of it again
        found.process.kill()
        found.process.wait()
    with running(tmp_path) as found:
        assert found.ask("POST", f"{path}/before", asked)[0] == 404
        status, session = found.ask("POST", "/v1/sessions", opened)
        assert status == 201
        step = found.ask("POST", f"/v1/sessions/{session['session_id']}/before", asked)[1]
        assert step["decision"] == "run"
    with Ledger(tmp_path / "ledger.db") as ledger:
        tokens = ledger.account("w").tokens
        assert tokens.spent >= 950
        assert not [finding for finding in ledger.audit() if finding.kind == "wrong"]


def test_other_machines_need_a_name_by_which_they_call() -> None:
    with pytest.raises(InputError, match="reached from other machines"):
        serve(Service(Planner()), token="x" * 20, host="0.0.0.0", port=0)  # noqa: S104
