"""The server over HTTP on loopback: who gets in, and the official client that does."""

from __future__ import annotations

import http.client
import json
import os
import stat
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.planner.doors.mcp.catalogue import TOOLS

pytest.importorskip("mcp", reason="needs the extra mcp")

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from apportion.planner.doors._guards import MAX_BODY_BYTES, Guard, token_of
from apportion.planner.doors.mcp.http import serve_http
from apportion.planner.doors.mcp.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HELLO = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
).encode()


class Site(NamedTuple):
    """A server that runs, and its token."""

    url: str
    token: str

    @property
    def place(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    def post(self, headers: dict[str, str], body: bytes = HELLO) -> tuple[int, str]:
        """Return status and text of the answer; headers may say anything, or `Host` nothing."""
        connection = http.client.HTTPConnection(self.place, timeout=300)
        connection.putrequest("POST", "/mcp", skip_host="Host" in headers)
        given = {"Content-Length": str(len(body)), "Content-Type": "application/json"} | headers
        given.setdefault("Accept", "application/json, text/event-stream")
        for name, value in given.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        found = answer.status, answer.read().decode()
        connection.close()
        return found

    @property
    def bearer(self) -> dict[str, str]:
        """The header that carries the token."""
        return {"Authorization": f"Bearer {self.token}"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "apportion", "mcp", "--http", "--port", "0"]
    files = ["--store", str(folder / "originals"), "--ledger", str(folder / "ledger.db")]
    with ExitStack() as cleaned, subprocess.Popen([*command, *files], stderr=subprocess.PIPE, text=True) as server:
        cleaned.callback(server.terminate)
        assert server.stderr is not None
        token = server.stderr.readline().split()[-1]
        url = server.stderr.readline().split()[-1]
        yield Site(url, token)
        server.terminate()
        rest = server.stderr.read()
    assert "Traceback" not in rest


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_official_client_gets_in_with_the_token(site: Site, mode: str) -> None:
    large = ("word \n" * MAX_BODY_BYTES)[: MAX_BODY_BYTES - 800_000]  # escapes of line feeds take the rest

    async def main() -> None:
        async with (
            httpx2.AsyncClient(headers=site.bearer, timeout=300) as carrier,
            Client(streamable_http_client(site.url, http_client=carrier), mode=mode) as client,
        ):
            assert [tool.name for tool in (await client.list_tools()).tools] == list(TOOLS)
            bad: Any = await client.call_tool("explain_plan", {"plan_id": "plan-x"})
            assert bad.is_error
            assert "hint: Call plan_budget" in bad.content[0].text
            good = await client.call_tool("compress_content", {"content": large, "strategies": ["white_space"]})
            assert not good.is_error
            with anyio.move_on_after(0.05):
                await client.call_tool("compress_content", {"content": large[:400_000]})
            booked = await client.call_tool(
                "record_usage", {"account": mode, "input_tokens": 1, "output_tokens": 1, "limit_tokens": 9}
            )
            assert booked.structured_content["tokens"]["free"] == 7

    anyio.run(main)


def test_without_the_token_nobody_gets_in(site: Site) -> None:
    for value in (
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        f"Basic {site.token}",
        site.token,
        f"Bearer {site.token}x",
    ):
        status, text = site.post({} if value is None else {"Authorization": value})
        assert status == 401
        assert site.token not in text
    assert site.post(site.bearer)[0] == 200


HOSTILE = [
    "evil.example",
    "evil.example:80",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.0.0.1.evil.example",
    "localhost.evil.example:{port}",
    "localhost:{port}.evil.example",
    "127.0.0.1:{port}@evil.example",
    "evil.example#127.0.0.1:{port}",
    "0.0.0.0:{port}",
    "[::]:{port}",
    "2130706433:{port}",
    "127.1:{port}",
    "",
    "null",
    "{port}",
    "*",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_hosts_and_origins_are_refused_although_the_token_is_right(site: Site, hostile: str) -> None:
    value = hostile.format(port=urlsplit(site.url).port)
    assert site.post({**site.bearer, "Host": value})[0] == 403
    for origin in {f"http://{value}", f"https://{value}", value}:
        assert site.post({**site.bearer, "Origin": origin})[0] == 403, origin


def test_names_of_loopback_are_hosts_and_origins_of_ours(site: Site) -> None:
    port = urlsplit(site.url).port
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        place = f"{name}:{port}"
        assert site.post({**site.bearer, "Host": place, "Origin": f"http://{place}"})[0] == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_read(site: Site) -> None:
    status, _text = site.post({**site.bearer, "Content-Length": str(MAX_BODY_BYTES + 1)}, b"")
    assert status == 413


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"jsonrpc":"2.0"}', b"[" * 5_000])
def test_bodies_that_are_no_messages_are_refused_without_a_traceback(site: Site, body: bytes) -> None:
    status, text = site.post(site.bearer, body)
    assert 400 <= status < 500
    assert "Traceback" not in text
    assert 'File "' not in text


@given(headers=st.lists(st.tuples(st.sampled_from([b"host", b"origin", b"authorization"]), st.binary(max_size=30))))
def test_no_other_headers_pass_the_guard(headers: list[tuple[bytes, bytes]]) -> None:
    async def app(*_: Any) -> None:
        raise AssertionError

    guard = Guard(app, token="a-token-that-is-not-guessed", hosts=["localhost:1"])  # noqa: S106  (none of anybody)
    assert guard.refusal(headers) is not None
    right = [(b"host", b"localhost:1"), (b"authorization", b"Bearer a-token-that-is-not-guessed")]
    assert guard.refusal(right) is None
    extra = [one for one in headers if one[0] != b"authorization" or one not in right]
    assert (guard.refusal([*right, *extra]) is None) is not bool(extra)


def test_a_token_file_is_made_for_its_owner_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    token = token_of(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token_of(file) == token != token_of(None)
    file.chmod(0o644)
    if os.name == "posix":
        with pytest.raises(InputError, match="others may read"):
            token_of(file)
    file.write_text("short\n")
    with pytest.raises(InputError, match="holds no token"):
        token_of(file)


@pytest.mark.parametrize(("host", "port"), [("0.0.0.0", 0), ("no such host", 0), ("127.0.0.1", -1)])  # noqa: S104
def test_addresses_that_cannot_be_are_refused(tmp_path: Path, host: str, port: int) -> None:
    names = [] if host == "0.0.0.0" else ["localhost"]  # noqa: S104
    with Service(originals=tmp_path / "o") as service, pytest.raises((InputError, OverflowError)):
        serve_http(service, token="x" * 20, host=host, port=port, names=names)
