"""The real Claude Code before a Messages API on loopback and the resident planner: what a run sent, byte for byte.

    with World(folder) as world:
        run = world.run("MAIN ...", script, hooks="http")
        run.api.requests

The client is the one that the package claude-agent-sdk brings. It gets a home of its own, a key that opens nothing, and
the address of the API; it reaches no network.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from _fake_api import FakeApi
from apportion.planner.doors.claude_code.server import PATH, off_file, operation
from apportion.planner.doors.cli.claude_code import PLUGIN, with_http

if TYPE_CHECKING:
    from _fake_api import Request, Script
    from apportion.planner.doors.claude_code.agents import Simplified
    from apportion.planner.doors.http.operations import Operation

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "a-token-for-this-machine-only"  # noqa: S105  (it opens nothing but the planner of a test)
LONGEST_S = 120
SESSION = "11111111-1111-4111-8111-111111111111"

FIRST = {
    "hook_event_name": "PreToolUse",
    "session_id": "warm",
    "client_version": "2.1.330",
    "tool_name": "Agent",
    "tool_use_id": "warm",
    "tool_input": {"prompt": "go", "subagent_type": "general-purpose"},
}
"""The first hook, which loads what answers all others."""

Hooks = Literal["http", "command", "none"]


def client() -> Path | None:
    """Return the client, or `None` where the package that brings it is not installed."""
    named = os.environ.get("CC_APPORTION_CLIENT")
    if named:
        return Path(named)
    spec = importlib.util.find_spec("claude_agent_sdk")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for name in ("claude", "claude.exe"):
            if (Path(folder) / "_bundled" / name).is_file():
                return Path(folder) / "_bundled" / name
    return None


class Resident:
    """The resident planner as `apportion serve` has it, in a thread.

    Args:
        hooks: Answers hooks.
    """

    def __init__(self, hooks: Operation) -> None:
        import uvicorn

        from apportion.planner.doors._guards import listening
        from apportion.planner.doors.http.app import http_app
        from apportion.planner.doors.http.service import Service
        from apportion.planner.session import Planner

        self._listener = listening("127.0.0.1", 0)
        self.port: int = self._listener.getsockname()[1]
        app = http_app(Service(Planner), token=TOKEN, port=self.port, more=[hooks])
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run of the client.

    Attributes:
        requests: What the API was sent, in order.
        result: What the client printed.
        seconds: How long it took.
    """

    requests: list[Request]
    result: dict[str, Any]
    seconds: float

    def of(self, mark: str) -> list[Request]:
        """Return the requests of the conversation that begins with a prompt that holds a text."""
        return [request for request in self.requests if any(mark in text for text in request.texts())]


class World:
    """A folder with a home, a project and the planner's files; the planner runs while it is open.

    Args:
        folder: Where all of it lies.
        budget_tokens: What the sub-agents of a conversation may use together, or `None`.
        simplified: How they run when little is left.
    """

    def __init__(self, folder: Path, *, budget_tokens: int | None = None, simplified: Simplified | None = None) -> None:
        self.folder = folder
        self.project = folder / "project"
        self.data = folder / "data" / "apportion"
        self._budget = budget_tokens
        self._simplified = simplified
        self._opened = ExitStack()
        self._runs = 0

    def __enter__(self) -> Self:
        for folder in (self.project, self.data, self.folder / "bin"):
            folder.mkdir(parents=True)
        command = self.folder / "bin" / "apportion"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m apportion "$@"\n', "utf-8")
        command.chmod(0o755)
        before = {name: os.environ.get(name) for name in self._files()}
        self._opened.callback(_restore, before)
        os.environ.update(self._files())
        hooks = operation(self._opened, budget_tokens=self._budget, simplified=self._simplified)
        self.resident = self._opened.enter_context(Resident(hooks))
        self.ask(FIRST)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def ask(self, hook: dict[str, Any]) -> Any:
        """Return the answer of the planner to a hook."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        asked = urllib.request.Request(self.resident.url + PATH, json.dumps(hook).encode(), headers)  # noqa: S310
        with urllib.request.urlopen(asked, timeout=LONGEST_S) as found:  # noqa: S310  (it is ours, on loopback)
            return json.load(found)

    @property
    def off_file(self) -> Path:
        """The file that switches the plugin off while it exists."""
        return off_file()

    def _files(self) -> dict[str, str]:
        """Return the environment that keeps the planner's files in the folder."""
        return {"XDG_DATA_HOME": str(self.data.parent), "XDG_CONFIG_HOME": str(self.folder / "config")}

    def plugin(self, hooks: Hooks, *, mcp: bool = True, url: str | None = None) -> Path:
        """Return the plugin with hooks of a kind, beside or without the MCP server."""
        folder = self.folder / "plugin"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(PLUGIN, folder, ignore=shutil.ignore_patterns("__pycache__"))
        file = folder / "hooks" / "hooks.json"
        if hooks == "http":
            changed = with_http(json.loads(file.read_text("utf-8")), url or self.resident.url)
            file.write_text(json.dumps(changed), "utf-8")
        elif hooks == "none":
            file.write_text('{"hooks": {}}', "utf-8")
        if not mcp:
            (folder / ".mcp.json").unlink()
        return folder

    def run(
        self,
        prompt: str,
        script: Script,
        *,
        hooks: Hooks | None = "http",
        mcp: bool = False,
        url: str | None = None,
        session: str = SESSION,
        resume: bool = False,
        environ: dict[str, str] | None = None,
    ) -> Run:
        """Let the client answer one prompt.

        Args:
            prompt: What the user says.
            script: What the model says.
            hooks: How the plugin asks the planner; `None`: there is no plugin.
            mcp: Whether the plugin has its MCP server.
            url: Where the plugin looks for the planner.
            session: Id of the client's session.
            resume: Whether the session goes on; otherwise the home is a new one.
            environ: Further variables.
        """
        home = self.folder / "home"
        if not resume:
            shutil.rmtree(home, ignore_errors=True)
            (home / ".claude").mkdir(parents=True)
            ids = {"userID": "0" * 64, "machineID": "0" * 64}  # otherwise each home has others, in every request
            (home / ".claude" / ".claude.json").write_text(json.dumps(ids), "utf-8")
        path = client()
        assert path is not None
        with FakeApi(script) as api:
            env = {
                "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                "HOME": str(home),
                "CLAUDE_CONFIG_DIR": str(home / ".claude"),
                "ANTHROPIC_API_KEY": "sk-ant-none",
                "ANTHROPIC_BASE_URL": api.url,
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "CC_APPORTION_TOKEN": TOKEN,
                "CC_APPORTION_URL": url or self.resident.url,
                **self._files(),
                **(environ or {}),
            }
            plugin = [] if hooks is None else ["--plugin-dir", str(self.plugin(hooks, mcp=mcp, url=url))]
            allowed = "Bash,Read,Grep,Agent,mcp__plugin_apportion_apportion__expand_content"
            command = [str(path), "-p", prompt, *plugin, "--output-format", "json", "--allowedTools", allowed]
            command += ["--model", "claude-sonnet-4-5", "--resume" if resume else "--session-id", session]
            started = time.perf_counter()
            found = subprocess.run(  # noqa: S603  (the client that was asked for)
                command, cwd=self.project, env=env, capture_output=True, stdin=subprocess.DEVNULL, timeout=LONGEST_S,
                check=False,
            )  # fmt: skip
            seconds = time.perf_counter() - started
            assert found.returncode == 0, (found.stdout[-2_000:], found.stderr[-2_000:])
            assert not api.failures, api.failures
            return Run(list(api.requests), json.loads(found.stdout), seconds)


def _restore(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def say(text: str) -> dict[str, Any]:
    """Return a text of the model."""
    return {"type": "text", "text": text}


def use(call: str, name: str, **given: Any) -> dict[str, Any]:
    """Return a call of a tool by the model."""
    return {"type": "tool_use", "id": call, "name": name, "input": given}
