"""The server as a process, with the official client of the protocol; each test starts one."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.planner.doors.mcp.arguments import MAX_CONTENT_BYTES
from apportion.planner.doors.mcp.catalogue import TOOLS
from apportion.planner.doors.mcp.service import SMALLEST_PROBLEM, Service

pytest.importorskip("mcp", reason="needs the extra mcp")

import anyio
from mcp import Client, MCPError, StdioServerParameters

from apportion.planner.doors.mcp.server import answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

LITERAL = base64.b64encode(bytes(range(256)) * 8).decode()
HOLDS_LITERAL = f"first line\n{LITERAL}\nlast line\n"
PROBLEM: dict[str, Any] = json.loads(SMALLEST_PROBLEM.removeprefix("The smallest: ").partition("; ")[0])


def text_of(result: Any) -> str:
    """Return the text of a result of a tool."""
    text: str = result.content[0].text
    return text


def talk(command: Any, conversation: Callable[[Client], Awaitable[None]], mode: Any = "auto") -> None:
    """Start the server, and hold a conversation with it."""

    async def main() -> None:
        program, *arguments = command.arguments
        params = StdioServerParameters(command=program, args=arguments, env=command.env)
        async with Client(params, mode=mode) as client:
            await conversation(client)

    anyio.run(main)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_each_tool_does_its_work_and_its_result_fits_its_schema(command: Any, mode: str) -> None:
    async def conversation(client: Client) -> None:
        async def call(name: str, **arguments: Any) -> dict[str, Any]:
            result = await client.call_tool(name, arguments)  # the client checks the result against the schema
            assert not result.is_error, result.content
            text = text_of(result)
            assert json.loads(text) == result.structured_content
            if TOOLS[name].untrusted:
                assert result.meta is not None
                assert result.meta["apportion/untrusted"] == list(TOOLS[name].untrusted)
            called.add(name)
            found: dict[str, Any] = result.structured_content
            return found

        called: set[str] = set()
        tools: dict[str, Any] = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert list(tools) == list(TOOLS)
        assert tools["expand_content"].annotations.read_only_hint is True
        assert tools["record_usage"].annotations.read_only_hint is False
        made = await call("compress_content", content=HOLDS_LITERAL, strategies=["literals"], can_expand=True)
        back = await call("expand_content", handle=made["handles"][0])
        assert back["content"] == LITERAL
        await call("inspect_compression", content="the same line\n" * 50)
        assert not (await call("validate_compression", original="Never 1.", compressed="2"))["accepted"]
        plan = await call("plan_budget", problem=PROBLEM, max_usd=0.5)
        assert (await call("explain_plan", plan_id=plan["plan_id"]))["agents"][0]["agent_id"] == "a"
        await call("record_usage", account="run", input_tokens=3, output_tokens=4, limit_tokens=10)
        sent = await call("handoff_context", context="the same line\n" * 50, target="t:tester")
        assert (await call("handoff_context", message=sent["message"]))["context"] == "the same line\n" * 50
        assert called == set(TOOLS)

    talk(command, conversation, mode)


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("compress_content", {}, "content: field required"),
    ("compress_content", {"content": 7}, "content: input should be a valid string"),
    ("compress_content", {"content": "x", "secret-key-name": "s3cr3t-value"}, "not permitted"),
    ("compress_content", {"content": "x", "strategies": ["losless"]}, "Did you mean 'lossless'"),
    ("compress_content", {"content": "x", "target_tokens": -1}, "target_tokens"),
    ("compress_content", {"content": "x", "target_tokens": True}, "target_tokens"),
    ("inspect_compression", {"content": "x", "rows": 10**9}, "rows"),
    ("validate_compression", {"original": "x"}, "compressed: field required"),
    ("expand_content", {"handle": "h:00000000"}, "can_expand"),
    ("expand_content", {"handle": "../../etc/passwd"}, "can_expand"),
    ("plan_budget", {"problem": {"agents": 1}}, "The smallest"),
    ("plan_budget", {"problem": PROBLEM, "deadline_ms": 10**12}, "deadline_ms"),
    ("explain_plan", {"plan_id": "plan-x"}, "Call plan_budget"),
    ("record_usage", {"account": "none", "input_tokens": 1, "output_tokens": 1}, "limit_tokens"),
    ("record_usage", {"account": "", "input_tokens": 1, "output_tokens": 1}, "account"),
    ("handoff_context", {}, "exactly one"),
    ("handoff_context", {"message": {"version": 1}}, "error"),
    ("handoff_context", {"context": "x", "target": "nobody"}, "ID:TYPE"),
]


def test_mistakes_are_tool_errors_with_a_hint_and_the_server_goes_on(command: Any) -> None:
    async def conversation(client: Client) -> None:
        for name, arguments, said in MISTAKES:
            result = await client.call_tool(name, arguments)
            text = text_of(result)
            assert result.is_error, (name, arguments)
            assert said in text
            assert "\nhint: " in text, text
            assert "Traceback" not in text
            assert "s3cr3t-value" not in text
        with pytest.raises(MCPError, match="there is no tool 'no_tool'"):
            await client.call_tool("no_tool", {})
        assert len((await client.list_tools()).tools) == len(TOOLS)

    talk(command, conversation)


def test_large_contents_pass_and_larger_ones_are_refused(command: Any) -> None:
    large = ("word \n" * MAX_CONTENT_BYTES)[:MAX_CONTENT_BYTES]

    async def conversation(client: Client) -> None:
        given = {"strategies": ["white_space"]}
        result = await client.call_tool("compress_content", {"content": large, **given})
        assert not result.is_error
        assert len(result.structured_content["content"]) <= MAX_CONTENT_BYTES
        result = await client.call_tool("compress_content", {"content": large + "x", **given})
        assert result.is_error
        assert "at most 4,194,304" in text_of(result)
        assert len(text_of(result)) < 400

    talk(command, conversation)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_cancelled_calls_are_let_go_and_others_are_answered(command: Any, mode: str) -> None:
    slow = "".join(f"{n} {n * 7919 % 1009} {n * 31}\n" for n in range(4_000))

    async def conversation(client: Client) -> None:
        await client.call_tool("compress_content", {"content": "x"})
        with anyio.move_on_after(0.05) as scope:
            async with anyio.create_task_group() as calls:
                for _ in range(6):  # more than are carried out at once
                    calls.start_soon(client.call_tool, "compress_content", {"content": slow})
        assert scope.cancelled_caught
        result = await client.call_tool("record_usage", {"account": "a", "input_tokens": 1, "output_tokens": 1})
        assert "limit_tokens" in text_of(result)

    talk(command, conversation, mode)


def test_lines_that_are_no_messages_neither_end_the_server_nor_show_its_insides(command: Any) -> None:
    junk = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b'"text"',
        b"[" * 2_000,
        b'{"jsonrpc":"2.0"}',
        b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":{},"method":"tools/call"}',
        b'{"jsonrpc":"2.0","id":1,"method":7}',
        b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":[1]}',
        b'{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"\\ud800"}}',
        b'{"jsonrpc":"2.0","id":4,"method":"no/such"}',
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":99}}',
    ]
    hello = {
        "jsonrpc": "2.0",
        "id": "hello",
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    more = [json.dumps(hello).encode(), *junk, b'{"jsonrpc":"2.0","id":"last","method":"ping"}']
    with subprocess.Popen(
        command.arguments, env=command.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as server:
        watchdog = threading.Timer(600, server.kill)
        watchdog.start()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(b"\n".join([*junk, *more]) + b"\n")
        server.stdin.flush()
        lines = []
        for line in server.stdout:  # a client keeps the input open until it is answered
            lines.append(line)
            if json.loads(line).get("id") == "last":
                break
        rest, errors = server.communicate()
        watchdog.cancel()
    assert server.returncode == 0
    answers = [json.loads(line) for line in lines]
    assert any(one.get("id") == "hello" and "result" in one for one in answers)
    assert any(one.get("id") == "last" and "result" in one for one in answers)
    for output in (b"".join(lines), rest, errors):
        assert b"Traceback" not in output
        assert b'File "' not in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_server_ends_when_asked_although_its_input_is_open(command: Any, number: int, code: int) -> None:
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command.arguments, env=command.env, **pipes) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stderr is not None
        server.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        server.stdin.flush()
        server.stdout.readline()
        server.send_signal(number)
        assert server.wait(timeout=300) == code
        assert b"Traceback" not in server.stderr.read()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("name", list(TOOLS))
@settings(max_examples=30)
@given(data=st.data())
def test_whatever_the_arguments_the_answer_is_a_result_or_an_error_with_a_hint(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tool = TOOLS[name]
    text_fields = {key for key, field in tool.takes.model_fields.items() if field.annotation is str}
    values = {key: st.text(max_size=60) if key in text_fields else json_values for key in tool.takes.model_fields}
    arguments = data.draw(st.fixed_dictionaries({}, optional=values) | st.dictionaries(st.text(), json_values))
    folder: Path = tmp_path_factory.getbasetemp()
    with Service(originals=folder / "originals", ledger=folder / "ledger.db") as service:
        result = answer(service, tool, arguments)
    text = text_of(result)
    if result.is_error:
        assert text.startswith("error: ")
        assert "This is a defect" not in text
    else:
        assert json.loads(text) == result.structured_content
