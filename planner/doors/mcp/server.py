"""The protocol, by way of the official SDK: lists the tools, checks what comes in, and answers mistakes with a hint.

    anyio.run(serve_stdio, Service())

A mistake is a tool error that says what is wrong and what to do next; it never shows a traceback, nor the text that
was given. Tools run in threads, so that one long call holds up nobody, and a cancelled call is answered no more.
"""

from __future__ import annotations

import json
import logging
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from apportion.errors import ApportionError
from apportion.planner.doors.mcp.arguments import refusals
from apportion.planner.doors.mcp.catalogue import INSTRUCTIONS, TOOLS

if TYPE_CHECKING:
    from apportion.planner.doors.mcp.catalogue import ToolEntry
    from apportion.planner.doors.mcp.service import Service

AT_ONCE = 4
"""Calls that are carried out at the same time; others wait."""

UNTRUSTED = "apportion/untrusted"
"""Key of the list of members that quote what was given in, in the result's `_meta`."""


def make_server(service: Service) -> Server[Any]:
    """Return a server of the tools, for any transport.

    Args:
        service: What the tools do; it is closed by its owner.
    """
    turns = threading.BoundedSemaphore(AT_ONCE)
    limiter: list[anyio.CapacityLimiter] = []

    async def list_tools(_context: Any, _params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_described(tool) for tool in TOOLS.values()])

    async def call_tool(_context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        tool = TOOLS.get(params.name)
        if tool is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name[:40]!r}; there are {', '.join(TOOLS)}")
        if not limiter:  # made where there is an event loop
            limiter.append(anyio.CapacityLimiter(64))
        given_up = threading.Event()

        def work() -> types.CallToolResult | None:
            with turns:
                return None if given_up.is_set() else answer(service, tool, params.arguments or {})

        try:
            result = await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=limiter[0])
        finally:
            given_up.set()
        assert result is not None  # only who has given up gets nothing
        return result

    return Server(
        "apportion",
        version=version("apportion"),
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _described(tool: ToolEntry) -> types.Tool:
    return types.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema(),
        output_schema=tool.output_schema(),
        annotations=types.ToolAnnotations(
            read_only_hint=tool.read_only,
            destructive_hint=False,
            idempotent_hint=tool.idempotent,
            open_world_hint=False,
        ),
    )


def answer(service: Service, tool: ToolEntry, given: dict[str, Any]) -> types.CallToolResult:
    """Carry out a call; never raises.

    Args:
        service: What the tools do.
        tool: Which one is called.
        given: Its arguments, unchecked.
    """
    try:
        found = tool.run(service, tool.takes.model_validate(given))
        data = found.model_dump(mode="json")
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    except ValidationError as error:
        accepted = ", ".join(tool.takes.model_fields)
        return _failed(f"{tool.name}: {'; '.join(refusals(error))}", f"It takes {accepted}.")
    except ApportionError as error:
        return _failed(error.message, error.hint)
    except Exception as error:  # noqa: BLE001  (a defect of ours must neither end the server nor show contents)
        return _failed(
            f"{tool.name} failed: {type(error).__name__}", "This is a defect of apportion; go on with the original."
        )
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)],
        structured_content=data,
        _meta={UNTRUSTED: list(tool.untrusted)} if tool.untrusted else None,
    )


def _failed(message: str, hint: str | None) -> types.CallToolResult:
    text = f"error: {message}" + (f"\nhint: {hint}" if hint else "")
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=True)


async def serve_stdio(service: Service) -> None:
    """Serve one client over standard input and output until it closes them."""
    log_in_one_line()
    server = make_server(service)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def log_in_one_line() -> None:
    """Let the SDK's errors be one line on standard error, without tracebacks and without what was sent."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    for name in ("mcp", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.ERROR)
        logger.propagate = False


class _OneLine(logging.Formatter):
    """Says where an error happened and of which type it is, not what it holds."""

    def format(self, record: logging.LogRecord) -> str:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        return f"apportion mcp: {record.levelname.lower()} in {record.name}{f': {kind}' if kind else ''}"
