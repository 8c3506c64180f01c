"""The server: listens at once, and loads what the first plan needs in the background."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import uvicorn

from apportion.errors import ApportionError
from apportion.planner.doors._guards import opened
from apportion.planner.doors.http.app import http_app

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apportion.planner.doors.http.operations import Operation
    from apportion.planner.doors.http.service import Service

GRACE_S = 5
"""Seconds that requests have to end when the server is asked to stop."""


def serve(
    service: Service,
    *,
    token: str,
    host: str,
    port: int,
    names: Sequence[str] = (),
    more: Sequence[Operation] = (),
    ready: Callable[[str], object] = lambda _url: None,
) -> None:
    """Serve until the process is asked to end; then close all sessions, and give back what they hold.

    Args:
        service: What the operations do.
        token: The bearer token.
        host: Address to listen at.
        port: Port, or 0 for a free one.
        names: Further names by which it may be called; needed where the address is not this machine's own.
        more: Operations beside ours.
        ready: Called with the URL when the socket listens.

    Raises:
        InputError: The address cannot be listened at, or nobody could call the server by it.
    """
    hint = "Say by which name, with --allow-remote NAME; put TLS before it"
    with opened(host, port, names, hint=hint) as (listener, port, url):  # noqa: PLR1704  (0 has become a real one)
        app = http_app(service, token=token, port=port, names=names, more=more)
        ready(url)
        threading.Thread(target=_warm, args=(service,), name="apportion-warm", daemon=True).start()
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=GRACE_S,
        )
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            service.close()


def _warm(service: Service) -> None:
    try:
        service.planner.warm()
    except ApportionError as error:
        service.degraded.append(error.message)
    except Exception as error:  # noqa: BLE001  (whatever it is, the server answers)
        service.degraded.append(f"warming up failed: {type(error).__name__}")
    service.warm = True
    try:
        service.warm_embeddings()
    except Exception as error:  # noqa: BLE001  (as above: sessions need no embeddings)
        service.degraded.append(f"embeddings are not loaded: {type(error).__name__}")
