"""Planned against used: what the models forecast of agent runs before they began, beside what these then used.

forecast = RunForecasts(folder)                    # the version in use; loaded at the first workflow
with TelemetryStore(path, forecast=forecast) as store:
store.add(log)                                 # notes what was forecast and used
drift_of(store.outcomes(version=version))      # whether forecasts still fit
variance_of(store.outcomes(version=version))   # how good they were
"""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any

from apportion.errors import InputError
from apportion.models.demand import Ask, DemandModel
from apportion.models.drift import CoverageMonitor, DriftVerdict, Interval
from apportion.models.examples import examples_of
from apportion.records import Record, Share
from apportion.telemetry.stored import Outcome, StoredOutcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from apportion.models.persistence import ModelSet
    from apportion.telemetry.events import WorkflowLog
    from apportion.telemetry.stored import StoredWorkflow

LEVEL = 0.9
"""Probability with which a run claims to use no more than the likely tokens."""

LATEST = 1000
"""Latest outcomes from which drift is judged."""


def outcomes_of(model: DemandModel, version: str, workflow: WorkflowLog | StoredWorkflow) -> list[Outcome]:
    """Forecast each agent run of a workflow from what was known before it began, and set its use beside.

    Runs of which the log counts nothing and shows no text are left out.

    Args:
        model: The model.
        version: Its version.
        workflow: The workflow, as it ended.
    """
    runs = [run for run in examples_of([workflow]).runs if run.total_tokens > 0]
    asks = [Ask(run.caller.role, run.prompt_tokens, run.history, run.caller, run.features) for run in runs]
    found = []
    for run, demand in zip(runs, model.forecast_all(asks) if asks else (), strict=True):
        tokens = dict(zip(demand.probabilities, demand.tokens, strict=True))
        outcome = Outcome(
            agent_run=run.agent_run,
            agent=run.caller.agent,
            stage=run.stage,
            low_tokens=tokens[0.1],
            median_tokens=tokens[0.5],
            likely_tokens=tokens[LEVEL],
            used_tokens=run.total_tokens,
            version=version,
        )
        found.append(outcome)
    return found


class RunForecasts:
    """Forecasts the runs of workflows that are being stored, by the version in use; see `TelemetryStore.forecast`.

    A version that was trained after an earlier copy of a workflow had been stored may have learned from it. Its
    forecasts would flatter, so there are none then.

    Args:
        folder: Where `apportion train` keeps its versions.

    Attributes:
        problem: Why some or all workflows were stored without forecasts, or `None`.
        outcomes: Number of runs that were forecast.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problem: str | None = None
        self.outcomes = 0
        self._loaded: ModelSet | None = None

    def __call__(self, log: WorkflowLog, stored_at: datetime | None) -> list[Outcome]:
        """Return what was forecast and what was used; nothing where that is impossible, and `problem` says why."""
        try:
            found = self._outcomes(log, stored_at)
        except InputError as error:
            self.problem = self.problem or str(error)
            return []
        except Exception as error:  # noqa: BLE001  (whatever is wrong with a model, the workflow is to be stored)
            self.problem = self.problem or f"workflow {log.id} cannot be forecast: {type(error).__name__}: {error}"
            return []
        self.outcomes += len(found)
        return found

    def _outcomes(self, log: WorkflowLog, stored_at: datetime | None) -> list[Outcome]:
        from apportion.models.persistence import load_or_priors

        if self._loaded is None:
            self._loaded = load_or_priors(self.folder)
        model, manifest = self._loaded.models["demand"], self._loaded.manifest
        if manifest is None or not isinstance(model, DemandModel):
            raise InputError("; ".join(self._loaded.degraded))
        if stored_at is not None and stored_at <= manifest.created_at:
            return []
        return outcomes_of(model, manifest.version, log)


class Variance(Record):
    """How good forecasts of agent runs were.

    Attributes:
        count: Number of runs.
        coverage: Share of them that used no more than the 90 % quantile of their forecast; `None` without runs.
        width: Median of that quantile relative to the use.
        bias: Median of (median forecast - use) / use; above 0 where forecasts are too high.
    """

    count: int
    coverage: Share | None
    width: float | None
    bias: float | None


def variance_of(outcomes: Sequence[Outcome]) -> Variance:
    """Return how good forecasts were."""
    if not outcomes:
        return Variance(count=0, coverage=None, width=None, bias=None)
    return Variance(
        count=len(outcomes),
        coverage=round(sum(one.used_tokens <= one.likely_tokens for one in outcomes) / len(outcomes), 4),
        width=round(median(one.likely_tokens / one.used_tokens for one in outcomes), 4),
        bias=round(median((one.median_tokens - one.used_tokens) / one.used_tokens for one in outcomes), 4),
    )


def variance_by_agent(outcomes: Sequence[StoredOutcome]) -> dict[tuple[str, str], Variance]:
    """Return how good forecasts were by framework and agent type, the most frequent first."""
    groups: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    for one in outcomes:
        groups[one.framework, one.agent].append(one)
    often = sorted(groups, key=lambda group: (-len(groups[group]), group))
    return {group: variance_of(groups[group]) for group in often}


def drift_of(outcomes: Iterable[Outcome]) -> DriftVerdict:
    """Tell whether runs use more than was forecast more often than they should.

    What counts is the upper side only: the interval reaches as far below the median as the 90 % quantile lies above
    it, and a run that used less than the median counts as the median. So the factor is the one by which quantiles
    above the median have to move away from it.

    Args:
        outcomes: Forecasts of one version, in the order in which they were noted.
    """
    return CoverageMonitor(level=LEVEL).observe_all(
        (
            Interval(2 * one.median_tokens - one.likely_tokens, one.likely_tokens),
            max(one.used_tokens, one.median_tokens),
        )
        for one in outcomes
    )
