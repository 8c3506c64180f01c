"""Turns examples into rows from which the parts of a demand model learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from apportion.models.quantiles import Rows
from apportion.models.shrinkage import chain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from apportion.models.examples import CallExample, Overhead, RunExample, SpanExample
    from apportion.models.priors import StageUse


class Sums(NamedTuple):
    """Sums over runs.

    Attributes:
        runs: Positions of the runs of each sum.
        totals: Logarithms of what they used together, shape (n,).
        chains: Groups of each sum.
        workflows: Workflow of each sum.
    """

    runs: list[tuple[int, ...]]
    totals: NDArray[np.float64]
    chains: list[tuple[str, ...]]
    workflows: list[str]


def use_values(history: Sequence[StageUse], usual_output: int = 0) -> NDArray[np.float64]:
    """Return calls, growth and output per call of earlier runs, shape (n, 3), as `Measure.RUN` wants them."""
    if not history:
        return np.zeros((0, 3))
    rows = [
        (use.calls, use.growth_tokens or 0, usual_output if use.output_tokens is None else use.output_tokens)
        for use in history
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def run_rows(runs: Sequence[RunExample], *, history: bool = True, calls: bool = False) -> Rows:
    """Return rows for the tokens of runs, or for their calls.

    Args:
        runs: The examples.
        history: Whether what the same workflow did before is known.
        calls: Whether calls are meant.
    """
    values = use_values([run.use for run in runs])
    histories = [use_values(run.history if history else ()) for run in runs]
    if calls:
        made = np.log1p(values[:, :1])
        return _rows(runs, [np.log1p(each[:, :1]) for each in histories], made, made[:, 0])
    return _rows(runs, histories, values, _logs([run.total_tokens for run in runs]))


def call_rows(calls: Sequence[CallExample], target: Literal["output", "growth"]) -> Rows:
    """Return rows for the output of calls, or for the growth of the prompt after them where that is known."""
    known = [call for call in calls if target == "output" or call.growth_tokens is not None]
    values = [call.output_tokens if target == "output" else call.growth_tokens or 0 for call in known]
    histories = [call.outputs if target == "output" else call.growths for call in known]
    observed = _logs(values).reshape(-1, 1)
    return _rows(known, [_logs(each).reshape(-1, 1) for each in histories], observed, observed[:, 0])


def span_rows(spans: Sequence[SpanExample]) -> Rows:
    """Return rows for the tokens of stages or workflows as multiples of the first prompt."""
    values = [(_multiple(span.prompt_tokens, span.total_tokens),) for span in spans]
    histories = [np.array([_multiple(*each) for each in span.history]).reshape(-1, 1) for span in spans]
    return _rows(spans, histories, np.array(values).reshape(-1, 1), _logs([span.total_tokens for span in spans]))


def _logs(counts: Sequence[int]) -> NDArray[np.float64]:
    """Return ln(1 + count) of each."""
    found: NDArray[np.float64] = np.log1p(np.array(counts, dtype=np.float64))
    return found


def _multiple(first: int, total: int) -> float:
    return float(np.log1p(total) - np.log1p(first))


def _rows(
    examples: Sequence[CallExample] | Sequence[RunExample] | Sequence[SpanExample],
    histories: list[NDArray[np.float64]],
    values: NDArray[np.float64],
    targets: NDArray[np.float64],
) -> Rows:
    return Rows(
        chains=[chain(example.caller) for example in examples],
        prompts=np.array([example.prompt_tokens for example in examples], dtype=np.float64),
        histories=histories,
        features=np.array([example.features for example in examples], dtype=np.float64),
        workflows=[example.workflow for example in examples],
        values=values,
        targets=targets,
    )


def pool_rows(spans: Sequence[SpanExample]) -> Sums:
    """Return the sums over the runs of stages or workflows."""
    return Sums(
        [span.runs for span in spans],
        _logs([span.total_tokens for span in spans]),
        [chain(span.caller) for span in spans],
        [span.workflow for span in spans],
    )


def overhead_rows(
    overheads: Sequence[Overhead],
) -> tuple[list[tuple[str, ...]], NDArray[np.float64], list[str]] | None:
    """Return groups, tokens of shape (n, 1) and workflow of each context window, or `None` where there are none."""
    if not overheads:
        return None
    tokens = np.array([[each.tokens] for each in overheads], dtype=np.float64)
    return [chain(each.caller) for each in overheads], tokens, [each.workflow for each in overheads]
