"""The evidence of one agent run, addressed by positions in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apportion.planner.replay.evidence import WINDOW, Evidence, ShortForm, quotable
from apportion.planner.replay.visibility import Comparison, Support
from apportion.records import Action, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from apportion.compression.strategies.types import Outcome
    from apportion.planner.replay.context import LoggedCall
    from apportion.telemetry.events import WorkflowLog


class RunEvidence:
    """Which facts and quotes the two prompts of a run hold.

    Args:
        log: The workflow.
        calls: All calls of the run.
        forms: Shorter forms in which pieces may be sent, by position and action.
    """

    def __init__(
        self,
        log: WorkflowLog,
        calls: Sequence[LoggedCall],
        forms: Mapping[tuple[int, Action], Outcome] | None = None,
    ) -> None:
        forms = forms or {}
        positions = sorted({position for call in calls for position in call.added})
        self._piece = {position: piece for piece, position in enumerate(positions)}
        self._output = {call.number: output for output, call in enumerate(calls)}
        self._evidence = Evidence.build(
            [quotable(log.events[position].kind, log.events[position].content) for position in positions],
            [_action_text(log, call) for call in calls],
            [ShortForm(self._piece[position], *_texts(form)) for (position, _), form in forms.items()],
        )
        self._form = {key: len(positions) + number for number, key in enumerate(forms)}
        self._comparison = Comparison(self._evidence)
        self._positions = positions
        self._holder = np.full(self._evidence.window_count, -1, dtype=np.int64)

    @property
    def facts(self) -> Support:
        """Facts in the logged prompt, and how many of these are visible in the planned one, or can be fetched."""
        return self._comparison.facts

    def enter(self, position: int) -> None:
        """Let a piece enter both prompts."""
        piece = self._piece[position]
        self._comparison.add(piece)
        self._holder[self._evidence.piece_windows[piece]] = piece

    def enter_planned(self, position: int) -> None:
        """Let a piece enter the planned prompt again."""
        self._comparison.add_planned(self._piece[position])

    def shorten(self, position: int, action: Action) -> None:
        """Let a shorter form stand for a piece in the planned prompt; what it leaves out is within reach."""
        self._comparison.remove_planned(self._piece[position])
        self._comparison.add_planned(self._form[position, action])

    def refer(self, position: int, text: str) -> None:
        """Let references stand for a piece in the planned prompt: what they mean stands literally elsewhere in it."""
        piece = self._piece[position]
        self._form[position, Action.REFERENCE] = self._evidence.add_form(piece, text)
        self._comparison.remove_planned(piece)
        self._comparison.add_planned(self._form[position, Action.REFERENCE])

    def fold(self, position: int, before: Action, text: str) -> None:
        """Let a form that leaves parts out stand for a piece in the planned prompt; these are within reach."""
        piece = self._piece[position]
        self.leave_planned(position, before)
        self._form[position, Action.SELECT] = self._evidence.add_form(piece, text, quotable(Kind.TOOL_CALL, text))
        self._comparison.add_planned(self._form[position, Action.SELECT])

    def part(self, call: int, text: str) -> str:
        """Return the part of a piece that an agent asks for, from which a call's output quotes what is not visible."""
        windows = self._comparison.missing(self._output[call])
        return part_around(text, self._evidence.shared.places(text, windows))

    def enter_part(self, position: int, text: str) -> int:
        """Let a part of a piece enter the planned prompt again; return its number."""
        form = self._evidence.add_form(self._piece[position], text, text)
        self._comparison.add_planned(form)
        return form

    def leave_part(self, number: int) -> None:
        """Let a part leave the planned prompt."""
        self._comparison.remove_planned(number)
        self._comparison.lose(number)

    def unfold(self, position: int) -> None:
        """Let a piece stand in the planned prompt whole again, instead of the references to it."""
        self.leave_planned(position, Action.REFERENCE)
        self._comparison.add_planned(self._piece[position])
        self._comparison.lose(self._piece[position])  # it was within reach all along

    def leave_baseline(self, position: int) -> None:
        """Let a piece leave the logged prompt."""
        self._comparison.remove_baseline(self._piece[position])

    def leave_planned(self, position: int, action: Action = Action.KEEP) -> None:
        """Let a piece, in the form in which it was sent, leave the planned prompt, within reach of the agent."""
        if action is Action.KEEP:
            self._comparison.remove_planned(self._piece[position])
        else:
            self._comparison.remove_planned(self._form[position, action])
            self._comparison.lose(self._form[position, action])

    def lose(self, position: int) -> None:
        """Let a piece that has left the planned prompt go out of reach."""
        self._comparison.lose(self._piece[position])

    def regain(self, position: int) -> None:
        """Let a piece come within reach again."""
        self._comparison.regain(self._piece[position])

    def used(self, call: int) -> list[int]:
        """Return the pieces from which a call's output quotes; where several hold the text, the newest."""
        holders = np.unique(self._holder[self._evidence.output_windows[self._output[call]]])
        return [self._positions[piece] for piece in holders if piece >= 0]

    def support(self, call: int) -> Support:
        """Facts that a call's output uses and its logged prompt holds, and how many are visible, or recoverable."""
        return self._comparison.output_facts(self._output[call])

    def quoted(self, call: int, hidden: Iterable[int]) -> list[int]:
        """Return the hidden pieces from which a call's output quotes what stands nowhere in the planned prompt.

        The piece that holds most of it comes first.
        """
        by_piece = {self._piece[position]: position for position in hidden}
        return [by_piece[piece] for piece in self._comparison.quoted_masked(self._output[call], by_piece)]


PART_SHARE = 0.5
"""Share of a text that is taken to come with what is wanted of it: who asks for a part does not know where it ends."""

MOST_PART = 0.8
"""A larger share is not worth asking for: all of it is."""


def part_around(text: str, places: NDArray[np.intp]) -> str:
    """Return whole lines around some places of a text, `PART_SHARE` of it or more; all of it where that is most of it.

    Args:
        text: The text.
        places: Where windows begin that must be within, in characters, increasing.
    """
    if not len(places):
        return text
    first, last = int(places[0]), int(places[-1]) + WINDOW
    more = max(0, round(PART_SHARE * len(text)) - (last - first))
    start = max(0, first - more // 2)
    end = min(len(text), last + more - (first - start))
    start = max(0, min(start, end - round(PART_SHARE * len(text))))
    start = text.rfind("\n", 0, start) + 1
    end = text.find("\n", end)
    end = len(text) if end < 0 else end + 1
    return text if end - start > MOST_PART * len(text) else text[start:end]


def _action_text(log: WorkflowLog, call: LoggedCall) -> str:
    """Return what a call did: its messages and tool calls, without its thinking."""
    events = [log.events[position] for position in call.outputs]
    return "\n\0\n".join(quotable(event.kind, event.content) for event in events if event.kind is not Kind.THINKING)


def _texts(form: Outcome) -> tuple[str, str]:
    """Return what is sent for a piece, and the part of the original that this shows."""
    shown, position = [], 0
    for gap in form.gaps:
        shown.append(form.original[position : gap.span.start])
        position = gap.span.end
    shown.append(form.original[position:])
    return form.content.decode("utf-8", "replace"), b"\0".join(shown).decode("utf-8", "surrogatepass")
