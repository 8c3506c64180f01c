"""What a call has used, in the units that are booked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from apportion.errors import InputError
from apportion.planner.governor import NUSD
from apportion.planner.ledger.records import Amounts
from apportion.planner.replay.billing import split_prompt

if TYPE_CHECKING:
    from apportion.planner.live import LiveRun
    from apportion.planner.planner import Invocation
    from apportion.planner.replay.billing import Tariff
    from apportion.planner.steps import Step
    from apportion.records import Usage


@dataclass(slots=True)
class Open:
    """A step that runs and has not been heard of.

    Attributes:
        step: The step.
        stage: In which it was asked for.
        tariff: How its model is billed; `None` where nothing is planned.
        run: Its prompt; `None` where it was not planned.
        ask: The question as the planner knows it; `None` in the same case.
    """

    step: Step
    stage: int
    tariff: Tariff | None = None
    run: LiveRun | None = None
    ask: Invocation | None = None


class Use(NamedTuple):
    """What a call has used.

    Attributes:
        sent: Tokens of its prompt.
        written: Tokens of its output.
        cost: In the currency of the tariff.
        usd: The same in US dollars, or `None` where the prices are unknown.
    """

    sent: int
    written: int
    cost: float
    usd: float | None

    @property
    def amounts(self) -> Amounts:
        """The same as the ledger books it."""
        return Amounts(self.sent + self.written, 0 if self.usd is None else round(self.usd * NUSD))


def use_of(usage: Usage, tariff: Tariff | None, *, sent: int = 0, written: int = 0) -> Use:
    """Return what a usage comes to.

    Args:
        usage: What the response says.
        tariff: How the model is billed, or `None`.
        sent: Tokens of the prompt where the response does not say.
        written: Tokens of the output where the response does not say.

    Raises:
        InputError: An amount is negative, which a record that was not checked may hold.
    """
    sent = sent if usage.prompt_tokens is None else usage.prompt_tokens
    written = written if usage.output is None else usage.output
    if sent < 0 or written < 0:
        raise InputError("a usage cannot be negative", hint="Give back what was held with after(step, None)")
    if tariff is None:
        return Use(sent, written, 0.0, None)
    split = split_prompt(float(sent), float(usage.cache_read or 0), tariff.min_cached_tokens)
    cost = tariff.cost(split, float(written))
    return Use(sent, written, cost, cost if tariff.priced else None)
