"""What the real Claude Code sends with the plugin and without it, as an API on loopback receives it.

    python benchmarks/claude_code.py [--quick] [--json FILE]

Needs the package claude-agent-sdk, which brings the client. The client reads a log and a table of JSON of
`fixtures/content`, then starts a sub-agent with the log in its prompt, which runs one command; the model is scripted,
so that both runs take the same steps. Tokens are those of all texts of all requests, counted in o200k_base; system
prompt and tool definitions are not among them, because the plugin changes none. *identical* says whether the requests
with the plugin switched off, and with the planner down, are byte for byte those without a plugin, but for the random
ids of sub-agents and for times. `--quick` leaves these two runs out.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _claude_code import World, client, say, use
from _harness import Mark, arguments, report
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from _claude_code import Run
    from _fake_api import Request

ROOT = Path(__file__).resolve().parent.parent
FILES = ("logs-cipherbox.txt", "json-taubench-airline.txt")
BUDGET_TOKENS = 200_000
MAIN, SUB = "MAIN-TASK", "SUB-TASK"


def scripted(prompt: str) -> Callable[[Request], list[dict[str, Any]]]:
    """Return the script of the model: read two files, start a sub-agent with a prompt, end."""

    def script(request: Request) -> list[dict[str, Any]]:
        if not any(MAIN in text for text in request.texts()):
            steps = [[use("toolu_sub", "Bash", command=f"cat {FILES[1]}", description="show")], [say("seen")]]
            return steps[min(1, request.answered)]
        given = {"description": "look", "prompt": prompt, "subagent_type": "general-purpose"}
        steps = [
            [use("toolu_log", "Bash", command=f"cat {FILES[0]}", description="show the log")],
            [use("toolu_table", "Bash", command=f"cat {FILES[1]}", description="show the table")],
            [use("toolu_agent", "Agent", run_in_background=False, **given)],
            [say("all done")],
        ]
        return steps[min(request.answered, len(steps) - 1)]

    return script


def tokens_of(run: Run, *, main: bool) -> int:
    """Return the tokens of all texts and results that one of the two conversations sent."""
    requests = [request for request in run.requests if any(MAIN in text for text in request.texts()) == main]
    texts = [text for request in requests for text in (*request.texts(), *request.results().values())]
    return sum(map(count_tokens, texts))


def comparable(run: Run) -> list[bytes]:
    """Return the requests without what differs from run to run."""
    bodies = [re.sub(rb"\ba[0-9a-f]{16}\b", b"AGENT", request.body) for request in run.requests]
    return [re.sub(rb"duration_ms: \d+|<duration_ms>\d+|(?<=_ms\\\":)\d+", b"MS", body) for body in bodies]


def measure(*, quick: bool) -> tuple[list[dict[str, Any]], list[Mark]]:
    """Run the client with the plugin and without, and compare."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place, World(Path(place) / "world", budget_tokens=BUDGET_TOKENS) as world:
        for name in FILES:
            (world.project / name).write_bytes((ROOT / "fixtures" / "content" / name).read_bytes())
        log = (world.project / FILES[0]).read_text("utf-8")
        script = scripted(f"{SUB}: why did it fail?\n```log\n{log}```\nSay it in one line.")
        bare = world.run(f"{MAIN} go", script, hooks=None)
        planned = world.run(f"{MAIN} go", script, hooks="http")
        for conversation, main in (("main", True), ("sub-agent", False)):
            without, with_plan = tokens_of(bare, main=main), tokens_of(planned, main=main)
            saved = 100 * (1 - with_plan / without)
            rows.append({"conversation": conversation, "without": without, "with": with_plan, "saved %": saved})
        saved = rows[1]["saved %"]
        marks = [Mark("sub-agent, tokens received", saved, "% fewer", "> 0", saved > 0)]
        for what, run in () if quick else _passive(world, script):
            same = comparable(run) == comparable(bare)
            marks.append(Mark(what, int(same), "identical", "1", same))
    return rows, marks


def _passive(world: World, script: Callable[[Request], list[dict[str, Any]]]) -> list[tuple[str, Run]]:
    """Return runs in which the plugin is there and must change nothing."""
    world.off_file.touch()
    off = world.run(f"{MAIN} go", script, hooks="http")
    world.off_file.unlink()
    down = world.run(f"{MAIN} go", script, hooks="http", url="http://127.0.0.1:9")
    return [("switched off, requests", off), ("planner down, requests", down)]


def main() -> None:
    """Measure, and print."""
    asked = arguments(__doc__, quick="without the runs in which the plugin must change nothing")
    if client() is None:
        sys.exit("claude_code: the package claude-agent-sdk is not installed: pip install claude-agent-sdk")
    rows, marks = measure(quick=asked.quick)
    report("claude_code", rows, marks, file=asked.json, notes=[asked.cut])


if __name__ == "__main__":
    main()
