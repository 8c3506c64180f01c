"""The way in for hooks: an operation of the resident planner, and the state behind it.

with ExitStack() as opened:
    app = http_app(service, token=token, port=port, more=[operation(opened)])
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from apportion.planner.doors.claude_code.agents import Simplified
    from apportion.planner.doors.claude_code.hooks import HookState

PATH: Final = "/hooks/claude-code"
"""Where hooks are posted to."""

NO_LEDGER: Final = "none"
"""What to give for a planner that books nothing."""

OFF_FILE: Final = "claude-code.off"
"""File beside the telemetry store that switches the plugin off."""


def off_file() -> Path:
    """Return the file that switches the plugin off while it exists."""
    from apportion.settings import load_settings

    return load_settings().settings.telemetry.database.with_name(OFF_FILE)


@contextmanager
def open_state(
    *,
    originals: Path | None = None,
    ledger: str | Path | None = None,
    budget_tokens: int | None = None,
    simplified: Simplified | None = None,
) -> Iterator[HookState]:
    """Open what hooks are answered with: by default the same files as the command line and the MCP server.

    Args:
        originals: File of the store of originals.
        ledger: File or address of the ledger; `"none"`: each conversation knows only its own budget.
        budget_tokens: What the sub-agents of each conversation may use together, or `None`.
        simplified: How they run when little of it is left.

    Raises:
        StoreError: A file cannot be opened.
    """
    from apportion.planner.doors._contents import QUICK_S, opened_originals, originals_path
    from apportion.planner.doors.claude_code.hooks import SELECT, HookState
    from apportion.planner.ledger import Ledger
    from apportion.planner.planner import PlanOptions
    from apportion.planner.session import Planner
    from apportion.settings import load_settings

    settings = load_settings().settings
    with ExitStack() as opened:
        store = opened.enter_context(opened_originals(originals_path(originals), create=True, wait_s=QUICK_S))
        address = ledger or settings.telemetry.database.with_name("ledger.db")
        books = None if address == NO_LEDGER else opened.enter_context(Ledger(address, on_store_failure="open"))
        options = PlanOptions(
            target_reduction=settings.token_optimization.target_reduction,
            enabled=settings.token_optimization.enabled,
            off=settings.token_optimization.off,
            select=SELECT,
        )
        planner = Planner(options, store=store, ledger=books, framework="claude_code", ahead=False)
        state = HookState(planner, budget_tokens=budget_tokens, simplified=simplified, off_file=off_file())
        opened.callback(state.close)
        yield state


def operation(opened: ExitStack, **options: Any) -> Any:
    """Return what answers hooks, as an operation of the resident planner (`doors/http/operations.py`), for its `more`.

    Args:
        opened: Closes the state in the end; it is opened by the first hook.
        options: As for `open_state`.
    """
    from apportion.planner.doors.http.operations import Operation

    lock = threading.Lock()  # what answers hooks is imported by the first one: the server is to listen at once
    states: list[HookState] = []

    def run(_service: object, given: dict[str, Any], _path: Mapping[str, str]) -> dict[str, Any]:
        from apportion.planner.doors.claude_code.hooks import answer

        with lock:
            if not states:
                states.append(opened.enter_context(open_state(**options)))
        return answer(given, states[0])

    return Operation("POST", PATH, "Answer a hook of Claude Code", run)
