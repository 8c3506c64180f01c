"""How soon the MCP server answers: from the start of the process to its first answer, and each tool's schema.

    python benchmarks/mcp_start.py [--quick] [--json FILE]

The server is started anew each time, as a host does it, and is asked for its tools over standard input. Processor time
is that of the whole process until it has answered and ended. Needs the extra mcp.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from _harness import Mark, arguments, percentile, report
from apportion.planner.doors.mcp.catalogue import schema_tokens

STARTS = 10
MOST_S = 2.0

REQUESTS = {
    "2026-07-28": {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "server/discover",
        "params": {
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "benchmark", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            }
        },
    },
    "2025-06-18": {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "benchmark", "version": "1"},
        },
    },
}
"""The first request of a host, by protocol version."""


def main() -> None:
    """Measure and report."""
    asked = arguments(__doc__ or "", quick="one start of each kind")
    starts = 1 if asked.quick else STARTS
    rows: list[dict[str, Any]] = []
    marks: list[Mark] = []
    for protocol, request in REQUESTS.items():
        measured = [first_answer(request) for _ in range(starts)]
        wall, cpu = ([one[which] for one in measured] for which in (0, 1))
        row: dict[str, Any] = {
            "protocol": protocol,
            "starts": starts,
            "wall s p50": percentile(wall, 0.5),
            "wall s p95": percentile(wall, 0.95),
            "cpu s p50": percentile(cpu, 0.5),
        }
        rows.append(row)
        value = row["wall s p50"]
        marks.append(Mark(f"first answer, {protocol}", value, "s", f"at most {MOST_S} s", value <= MOST_S))
    tokens = sum(schema_tokens().values())
    marks.append(Mark("all schemas", tokens, "tokens", "at most 900 tokens", tokens <= 900))
    report("mcp_start", rows, marks, packages=["mcp", "pydantic"], file=asked.json, notes=[asked.cut])


def first_answer(request: dict[str, Any]) -> tuple[float, float]:
    """Return seconds from the start to the first answer, and processor seconds of the whole process."""
    before = os.times()
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "apportion", "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(request).encode() + b"\n")
        server.stdin.flush()
        answer = json.loads(server.stdout.readline())
        seconds = time.perf_counter() - start
        server.stdin.close()
        server.wait()
    assert "result" in answer, answer
    after = os.times()
    return seconds, after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    main()
