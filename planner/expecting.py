"""Loads ahead, in a session, what the next agent needs: its file, and the tools and skills that the file names.

The trained model of the next agent says who is expected; where it is not sure, nothing is done. This machine alone
works, in the background: no model is called. Telemetry hears of each agent that came and had been loaded ahead (`hit`),
had not (`miss`), or was loaded and did not come (`wasted`), and of the most bytes that were in memory.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from apportion.models.trails import WINDOW
from apportion.planner.loading import preload

if TYPE_CHECKING:
    from apportion.compression.loading import Loaded, Preloader
    from apportion.models.next_agent import NextAgentModel
    from apportion.planner.events import Teller


class Expecting:
    """Whom a session expects; safe to share between threads.

    Args:
        preloader: Loads ahead; sessions share one.
        model: Forecasts who is next.
        source: Project, as its logs call it; empty for one that is new.
        teller: Tells events of the session.
    """

    def __init__(self, preloader: Preloader, model: NextAgentModel, source: str, teller: Teller) -> None:
        self._preloader = preloader
        self._model = model
        self._source = source or None
        self._teller = teller
        self._lock = threading.Lock()
        self._trail: list[str] = []
        self._ahead: dict[str, float] = {}

    def took_floor(self, agent: str) -> tuple[str, ...]:
        """Take note that an agent began to run, and return who did so far, the latest last."""
        with self._lock:
            self._trail = [*self._trail[1 - WINDOW :], agent]
            return tuple(self._trail)

    def look_ahead(self, trail: tuple[str, ...], asked: str) -> None:
        """Load ahead what the next agent needs, where a forecast is sure enough of it.

        Args:
            trail: Who has begun to run so far.
            asked: What was asked last.
        """
        forecast = self._model.predict(trail, task_text=asked or None, source=self._source)
        if preload(self._preloader, forecast):
            with self._lock:
                self._ahead[forecast.likeliest] = forecast.confidence

    def take(self, agent: str) -> Loaded:
        """Return what an agent needs: from memory where it was loaded ahead, else read now.

        Raises:
            StoreError: The agent is unknown, or its file cannot be read.
        """
        loaded = self._preloader.take(agent)
        with self._lock:
            confidence = self._ahead.pop(agent, None)
        counts = self._preloader.counts()
        self._teller.tell(
            "preload",
            agent=agent,
            status="hit" if loaded.ahead else "miss",
            used=True if loaded.ahead else None,
            confidence=confidence,
            bytes=sum(entry.size for entry in loaded.contents),
            peak_bytes=counts.peak_bytes,
        )
        return loaded

    def close(self) -> None:
        """Tell who was expected and did not come."""
        with self._lock:
            left, self._ahead = self._ahead, {}
        for agent, confidence in left.items():
            self._teller.tell("preload", agent=agent, status="wasted", used=False, confidence=confidence)
