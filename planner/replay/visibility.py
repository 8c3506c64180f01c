"""What is visible in a prompt, kept up to date piece by piece.

A context may hold a hundred thousand facts and live for a thousand calls, so nothing here looks at all of them:
each change costs time in proportion to the piece that enters or leaves.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from apportion.planner.replay.evidence import Evidence


class Visibility:
    """The facts and windows that one prompt holds: one agent run, one variant.

    A piece may enter several times; it stays visible until it has left as often.

    Args:
        evidence: The evidence of the run or workflow; pieces are named by their index in it.
        windows: Whether windows are kept count of, not only facts.

    Attributes:
        distinct_facts: Number of distinct facts that are visible now.
    """

    def __init__(self, evidence: Evidence, *, windows: bool = True) -> None:
        self._evidence = evidence
        self._with_windows = windows
        self._pieces: Counter[int] = Counter()
        self._facts = np.zeros(len(evidence.facts), dtype=np.int32)
        self._windows = np.zeros(evidence.window_count if windows else 0, dtype=np.int32)
        self.distinct_facts = 0

    def add(self, piece: int) -> NDArray[np.int32]:
        """Let a piece enter the prompt; returns the facts that became visible."""
        self._pieces[piece] += 1
        if self._with_windows:
            self._windows[self._evidence.piece_windows[piece]] += 1
        facts = self._evidence.piece_facts[piece]
        appeared: NDArray[np.int32] = facts[self._facts[facts] == 0]
        self._facts[facts] += 1
        self.distinct_facts += len(appeared)
        return appeared

    def remove(self, piece: int) -> NDArray[np.int32]:
        """Let a piece leave the prompt; returns the facts that are no longer visible.

        Raises:
            ValueError: The piece is not in the prompt.
        """
        if not self._pieces[piece]:
            raise ValueError(f"piece {piece} is not in the prompt")
        self._pieces[piece] -= 1
        if self._with_windows:
            self._windows[self._evidence.piece_windows[piece]] -= 1
        facts = self._evidence.piece_facts[piece]
        self._facts[facts] -= 1
        vanished: NDArray[np.int32] = facts[self._facts[facts] == 0]
        self.distinct_facts -= len(vanished)
        return vanished

    def visible(self, facts: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Say for each fact id whether it is visible."""
        return np.greater(self._facts[facts], 0)

    def visible_windows(self, windows: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Say for each window id whether it is visible."""
        return np.greater(self._windows[windows], 0)


class Support(NamedTuple):
    """How many facts the baseline shows; how many of these the plan shows, and how many it shows or can fetch."""

    baseline: int
    planned: int
    recoverable: int

    @property
    def share(self) -> float | None:
        """Share of the baseline's facts that the plan shows; `None` where there are none."""
        return self.planned / self.baseline if self.baseline else None


class _View:
    """What the planned side shows or reaches, and how many facts of it the baseline shows as well."""

    def __init__(self, evidence: Evidence, *, windows: bool) -> None:
        self.held = Visibility(evidence, windows=windows)
        self.common = 0


class Comparison:
    """The prompt of one agent run as logged (baseline) beside the one as planned.

    Both are changed through this class, which keeps count of the facts that both show, and of those that the planned
    side shows or can fetch: a masked piece stays within reach until `lose` says that its original did not come back.

    Args:
        evidence: The evidence of the run or workflow.
    """

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._baseline = Visibility(evidence)
        self._planned = _View(evidence, windows=True)
        self._reach = _View(evidence, windows=False)
        self._marked = np.zeros(evidence.window_count, dtype=np.bool_)

    def add(self, piece: int) -> None:
        """Let a piece enter both prompts."""
        self.add_baseline(piece)
        self.add_planned(piece)

    def remove(self, piece: int) -> None:
        """Let a piece leave both prompts."""
        self.remove_baseline(piece)
        self.remove_planned(piece)
        self.lose(piece)

    def add_baseline(self, piece: int) -> None:
        """Let a piece enter the baseline only."""
        appeared = self._baseline.add(piece)
        for view in (self._planned, self._reach):
            view.common += int(np.count_nonzero(view.held.visible(appeared)))

    def remove_baseline(self, piece: int) -> None:
        """Let a piece leave the baseline only."""
        vanished = self._baseline.remove(piece)
        for view in (self._planned, self._reach):
            view.common -= int(np.count_nonzero(view.held.visible(vanished)))

    def add_planned(self, piece: int) -> None:
        """Let a piece enter the planned prompt only, for example when it is expanded again."""
        self._enter(self._planned, piece)
        self._enter(self._reach, piece)

    def remove_planned(self, piece: int) -> None:
        """Let a piece leave the planned prompt only: it is masked or referred to, and stays within reach."""
        self._leave(self._planned, piece)

    def lose(self, piece: int) -> None:
        """Let a piece that is not visible as planned go out of reach: it left the history, or its original is lost."""
        self._leave(self._reach, piece)

    def regain(self, piece: int) -> None:
        """Let a piece come within reach again, without being visible."""
        self._enter(self._reach, piece)

    def _enter(self, view: _View, piece: int) -> None:
        view.common += int(np.count_nonzero(self._baseline.visible(view.held.add(piece))))

    def _leave(self, view: _View, piece: int) -> None:
        view.common -= int(np.count_nonzero(self._baseline.visible(view.held.remove(piece))))

    @property
    def facts(self) -> Support:
        """Facts in the baseline prompt, and how many of these are visible, or recoverable, as planned."""
        return Support(self._baseline.distinct_facts, self._planned.common, self._reach.common)

    def output_facts(self, output: int) -> Support:
        """Facts that an output uses and the baseline shows, and how many are visible, or recoverable, as planned."""
        facts = self._evidence.output_facts[output]
        known = facts[self._baseline.visible(facts)]
        visible, reached = (int(np.count_nonzero(view.held.visible(known))) for view in (self._planned, self._reach))
        return Support(len(known), visible, reached)

    def missing(self, output: int) -> NDArray[np.int32]:
        """Return the windows of an output that the baseline shows and the planned prompt does not."""
        windows = self._evidence.output_windows[output]
        hidden = ~self._planned.held.visible_windows(windows)
        return windows[self._baseline.visible_windows(windows) & hidden]

    def quoted_masked(self, output: int, masked: Iterable[int]) -> list[int]:
        """Return those masked pieces from which an output quotes what stands nowhere in the planned prompt.

        Such a piece holds a window of the output that the baseline shows and the planned prompt does not. Where
        several pieces hold the same window, all of them are returned; the one that holds most comes first.

        Args:
            output: Index of the output.
            masked: Pieces that are in the baseline and masked in the planned prompt.
        """
        missing = self.missing(output)
        if not len(missing):
            return []
        self._marked[missing] = True
        held = {piece: int(np.count_nonzero(self._marked[self._evidence.piece_windows[piece]])) for piece in masked}
        self._marked[missing] = False
        return sorted((piece for piece, count in held.items() if count), key=lambda piece: -held[piece])
