"""What the operations do: sessions by their ids, and the planner behind them; safe to call from several threads."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING

from apportion.errors import InputError
from apportion.planner.doors.http import messages

if TYPE_CHECKING:
    from apportion.planner.session import Planner, Session
    from apportion.records import Budget

MAX_SESSIONS = 1_000
"""Sessions that may be open at the same time."""


class UnknownSessionError(InputError):
    """There is no session of this id: it was never opened, or it was closed."""


class Service:
    """The resident planner.

    Args:
        planner: Makes the sessions.
    """

    def __init__(self, planner: Planner) -> None:
        self.planner = planner
        self.warm = False
        self.degraded: list[str] = []
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def health(self) -> messages.Health:
        """Say whether the planner works."""
        from importlib.metadata import version

        status = "ok" if self.warm else "warming"
        return messages.Health(
            status=status, version=version("apportion"), sessions=len(self._sessions), degraded=list(self.degraded)
        )

    def open_session(self, workflow: str, *, budget: Budget | None = None, parent: str | None = None) -> str:
        """Open the session of a workflow, and return its id.

        Raises:
            InputError: Too many are open.
            LedgerError: The account of the workflow exists with other limits.
        """
        return self._opened(secrets.token_hex(8), workflow, budget, parent)

    def session(self, session_id: str) -> Session:
        """Return an open session.

        Raises:
            UnknownSessionError: There is none.
        """
        found = self._sessions.get(session_id)
        if found is None:
            raise UnknownSessionError("there is no such session", hint="Open one: POST /v1/sessions")
        return found

    def named_session(self, name: str, *, budget: Budget | None = None, parent: str | None = None) -> Session:
        """Return the session of a name, such as that of a conversation; it is opened where there is none.

        Raises:
            InputError: Too many are open.
        """
        key = f"name:{name}"
        with self._lock:
            if key in self._sessions:
                return self._sessions[key]
        self._opened(key, name, budget, parent)
        return self._sessions[key]

    def _opened(self, key: str, workflow: str, budget: Budget | None, parent: str | None) -> str:
        with self._lock:
            if key not in self._sessions:
                if len(self._sessions) >= MAX_SESSIONS:
                    raise InputError(f"{MAX_SESSIONS:,} sessions are open", hint="Close those that have ended")
                self._sessions[key] = self.planner.session(workflow, budget=budget, parent=parent)
        return key

    def close(self) -> None:
        """Close all sessions, and give back what they hold for calls that have not come back."""
        with self._lock:
            sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            session.close()
