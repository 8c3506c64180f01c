"""Who gets in over HTTP: the guard, the bearer token and the socket that all servers of ours share.

Every request is refused before its body is read unless its Host is a name of ours, its Origin (which browsers send) is
ours or missing, and it carries the bearer token: so no page that a browser shows, and no other user of the machine,
can call what is behind the guard.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping, Sequence
    from pathlib import Path

    Message = MutableMapping[str, Any]
    App = Callable[
        [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
        Awaitable[None],
    ]

MAX_BODY_BYTES = 4 * 2**20
"""Bytes of the largest request."""

MIN_TOKEN = 16
"""Characters of the shortest token that is taken."""

LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
"""Names by which a client on the same machine calls the server."""

LOOPBACK_ADDRESSES: Final = frozenset({"127.0.0.1", "localhost", "::1"})
"""Addresses that only this machine can reach."""


class Guard:
    """Refuses requests that do not come from where they should, or from somebody who does not have the token.

    Args:
        app: What answers the others.
        token: The bearer token.
        hosts: Values of the header Host that are ours, with the port, such as `127.0.0.1:8765`.
        told: Where the token is to be found, for those who have none.
    """

    def __init__(
        self,
        app: App,
        *,
        token: str,
        hosts: Iterable[str],
        told: str = "apportion mcp shows it at the start, or --token-file holds it",
    ) -> None:
        self._app = app
        self._told = told.encode()
        self._token = token.encode()
        self._hosts = frozenset(host.lower().encode() for host in hosts)
        self._origins = frozenset(b"http://" + host for host in self._hosts)

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            refusal = self.refusal(scope["headers"])
            if refusal is not None:
                await _refuse(send, *refusal)
                return
        elif scope["type"] != "lifespan":
            return
        await self._app(scope, receive, send)

    def refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, bytes] | None:
        """Return status and reason with which a request is refused, or `None` where it may pass.

        Args:
            headers: Names in lower case, and values.
        """
        found: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            found.setdefault(name, []).append(value.strip())
        hosts, origins = found.get(b"host", []), found.get(b"origin", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 403, b"this server is not called so: see --allow-host"
        if len(origins) > 1 or any(origin.lower() not in self._origins for origin in origins):
            return 403, b"requests from other origins are refused"
        given = found.get(b"authorization", [])
        kind, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        if kind.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            return 401, b"a bearer token is needed: " + self._told
        return None


async def _refuse(send: Callable[[Message], Awaitable[None]], status: int, reason: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason})


def token_of(file: Path | None) -> str:
    """Return the bearer token that a file holds; it is made where it does not exist. Without a file: a new one.

    Raises:
        InputError: The file holds no token, or others may read it.
    """
    if file is None:
        return secrets.token_urlsafe(32)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        token = file.read_text("utf-8", errors="replace").strip()
        if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            hint = f"Give one of {MIN_TOKEN} letters and digits or more, or name a file that does not exist."
            raise InputError("holds no token", path=file, hint=hint) from None
        if os.name == "posix" and file.stat().st_mode & 0o077:
            raise InputError("others may read this token", path=file, hint=f"chmod 600 {file}") from None
        return token
    with os.fdopen(descriptor, "w", encoding="utf-8") as made:
        token = secrets.token_urlsafe(32)
        made.write(token + "\n")
    return token


def hosts_of(port: int, names: Sequence[str] = ()) -> list[str]:
    """Return the values of Host that are ours: the names of this machine, and others, with the port.

    Args:
        port: At which it is served.
        names: Further names by which it may be called.
    """
    hosts = [f"{name}:{port}" for name in (*LOOPBACK, *names)]
    if port == 80:  # which clients leave out
        hosts += [*LOOPBACK, *names]
    return hosts


@contextmanager
def opened(host: str, port: int, names: Sequence[str], *, hint: str) -> Iterator[tuple[socket.socket, int, str]]:
    """Give a socket that listens, its port, and the URL of what is served there; close it at the end.

    Args:
        host: Address to listen at.
        port: Port, or 0 for a free one.
        names: Further names by which it may be called; needed where the address is not this machine's own.
        hint: What to do where they are missing.

    Raises:
        InputError: The address cannot be listened at, or nobody could call the server by it.
    """
    if host not in LOOPBACK_ADDRESSES and not names:
        raise InputError(f"{host} is reached from other machines", hint=hint)
    with listening(host, port) as listener:
        port = listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        yield listener, port, f"http://{shown}:{port}"


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        InputError: The address cannot be listened at.
    """
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{host} is no address of this machine", hint="Leave --host out for 127.0.0.1.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(64)
    except OSError as error:
        listener.close()
        reason = error.strerror or error
        raise InputError(
            f"cannot listen at {host}:{port}: {reason}", hint="Name another --port; 0 takes a free one."
        ) from error
    return listener
