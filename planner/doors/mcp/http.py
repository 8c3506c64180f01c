"""The server over streamable HTTP, behind the guard of `doors/_guards.py`.

Bodies larger than `MAX_BODY_BYTES` are refused by the SDK before they are parsed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings

from apportion.planner.doors._guards import MAX_BODY_BYTES, Guard, hosts_of, opened
from apportion.planner.doors.mcp.server import log_in_one_line, make_server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apportion.planner.doors._guards import App
    from apportion.planner.doors.mcp.service import Service

PATH: Final = "/mcp"
"""Where the server answers."""


def http_app(service: Service, *, token: str, port: int, names: Sequence[str] = ()) -> App:
    """Return the guarded application.

    Args:
        service: What the tools do.
        token: The bearer token.
        port: The port at which it is served, which is part of Host and Origin.
        names: Further names by which it may be called.
    """
    app = make_server(service).streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,  # clients take events of 1 MiB at most, and a content may have more
        max_request_body_size=MAX_BODY_BYTES,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # the guard is stricter
    )
    return Guard(app, token=token, hosts=hosts_of(port, names))


def serve_http(
    service: Service,
    *,
    token: str,
    host: str,
    port: int,
    names: Sequence[str] = (),
    ready: Callable[[str], object] = lambda _url: None,
) -> None:
    """Serve until the process is asked to end.

    Args:
        service: What the tools do.
        token: The bearer token.
        host: Address to listen at.
        port: Port, or 0 for a free one.
        names: Further names by which it may be called; needed where the address is not this machine's own.
        ready: Called with the URL when the socket listens.

    Raises:
        InputError: The address cannot be listened at, or nobody could call the server by it.
    """
    log_in_one_line()
    hint = "Say by which name, with --allow-host NAME; put TLS before it."
    with opened(host, port, names, hint=hint) as (listener, port, url):  # noqa: PLR1704  (0 has become a real one)
        app = http_app(service, token=token, port=port, names=names)
        ready(f"{url}{PATH}")
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, lifespan="on", timeout_graceful_shutdown=5
        )
        uvicorn.Server(config).run(sockets=[listener])
