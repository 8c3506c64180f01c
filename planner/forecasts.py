"""Which forecasts a planner goes by: documented priors, or a model that was trained on past workflows.

Loading takes a while, so each process loads a version once, and again only where its files have changed: one that could
not be read may since have been repaired. What its forecasts came to does change: where the telemetry store shows that
they no longer fit, they are widened, and plans say so.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from apportion.errors import InputError, StoreError
from apportion.models.calibration import LEVELS
from apportion.models.demand import PriorDemand
from apportion.models.drift import WidenedDemand

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from apportion.models.demand import DemandForecaster
    from apportion.models.features import Caller
    from apportion.models.next_agent import NextAgentModel
    from apportion.models.tool_needs import ToolNeeds
    from apportion.records import Demand

NINETY_PERCENT = 1.2816
"""Standard normal score of the 90 % quantile."""

MODEL = "demand"
"""Name of the demand model among what is trained."""

NEXT_AGENT = "next_agent"
"""Name of the model of the next agent."""

TOOL_NEEDS = "tool_needs"
"""Name of the model of the tools that a run needs."""


class Forecasts(NamedTuple):
    """What forecasts demand.

    Attributes:
        demand: The forecaster.
        learned: Whether it was trained; it then wants to know who calls, and what is known before the call.
        degraded: Why documented priors stand in for a trained model, or why its forecasts are widened.
        version: Version of the trained model.
        next_agent: Forecasts which agent takes the floor next; `None` where it was not trained.
        tool_needs: Forecasts which tools a run needs; `None` where it was not trained.
    """

    demand: DemandForecaster
    learned: bool = False
    degraded: tuple[str, ...] = ()
    version: str | None = None
    next_agent: NextAgentModel | None = None
    tool_needs: ToolNeeds | None = None


class Widening(NamedTuple):
    """What past outcomes say of the forecasts of one version.

    Attributes:
        version: Version of the models.
        factor: How many times as far from the median quantiles above it have to be, at least 1.
        reason: Why.
    """

    version: str
    factor: float
    reason: str


def forecasts(folder: Path | None, widening: Widening | None = None) -> Forecasts:
    """Return the forecasts of the models in a folder; priors where there is none, or where it cannot be used.

    Args:
        folder: Where `apportion train` keeps its versions; `None` asks for priors.
        widening: What past outcomes say of the version in use; of another version it says nothing.
    """
    if folder is None:
        return Forecasts(PriorDemand())
    version = _version(folder)
    found = _loaded(folder, version, _state_of(folder, version))
    if widening is None or not found.learned or widening.version != found.version:
        return found
    demand = WidenedDemand(found.demand, widening.factor) if widening.factor > 1 else found.demand
    return found._replace(demand=demand, degraded=(*found.degraded, widening.reason))


def contingency(
    found: Forecasts, demands: Sequence[Demand], caller: Caller, *, level: Literal["stage", "workflow"] = "stage"
) -> tuple[int, ...]:
    """Share a reserve up to the 90 % quantile of what agents use together: `Variant.contingency_tokens` of each.

    Trained models know how much luck the runs of a stage have in common. Priors do not: there demands count as
    independent (`problem.pooled_contingency`).

    Args:
        found: The forecasts.
        demands: What they say of each agent.
        caller: Who makes the first call.
        level: Whether the agents make up a stage or a workflow.
    """
    from apportion.models.demand import DemandModel
    from apportion.models.drift import widened
    from apportion.planner.problem import pooled_contingency

    widening = found.demand if isinstance(found.demand, WidenedDemand) else None
    demand, factor = (found.demand, 1.0) if widening is None else (widening.demand, widening.factor)
    independent = pooled_contingency(demands, z=NINETY_PERCENT)
    known = all(each.probabilities == LEVELS for each in demands)
    if not (isinstance(demand, DemandModel) and known and any(independent)):
        return independent
    pooled = widened(demand.pooled(demands, caller, level=level), factor)
    at = dict(zip(pooled.probabilities, pooled.tokens, strict=True))
    planned = sum(dict(zip(each.probabilities, each.tokens, strict=True))[0.5] for each in demands)
    reserve = max(0, at[0.9] - planned)
    return tuple(-(-reserve * share // sum(independent)) for share in independent)


def widening_of(folder: Path | None, database: Path | None) -> Widening | None:
    """Return by how much forecasts have to be widened, and why, or `None` where they fit as far as anybody knows.

    Args:
        folder: Where `apportion train` keeps its versions.
        database: The telemetry store that knows what came of past forecasts. One that cannot be read is a reason
            with a factor of 1.
    """
    version = None if folder is None else _version(folder)
    if version is None or database is None or not database.exists():
        return None
    from apportion.models.outcomes import LATEST, drift_of
    from apportion.telemetry.store import TelemetryStore

    try:
        with TelemetryStore(database) as store:
            verdict = drift_of(store.outcomes(version=version, latest=LATEST))
    except StoreError as error:
        return Widening(version, 1.0, f"whether forecasts still fit is unknown: {error}")
    return None if verdict.reason is None else Widening(version, verdict.factor, verdict.reason)


def is_trained(folder: Path) -> bool:
    """Tell whether anything was ever trained into a folder, be it usable or not; loads nothing."""
    from apportion.models.persistence import versions

    return bool(versions(folder))


def require_trained(folder: Path | None) -> None:
    """Refuse a folder into which nothing was ever trained: whoever names one expects forecasts from it.

    Raises:
        InputError: There is no version of the models.
    """
    if folder is not None and not is_trained(folder):
        raise InputError("no models have been trained yet", path=folder, hint="Train them: apportion train")


def _version(folder: Path) -> str | None:
    """Return the version in use, or `None` where there is none, or none that can be told."""
    from apportion.models.persistence import current_version

    try:
        return current_version(folder)
    except InputError:
        return None


def _state_of(folder: Path, version: str | None) -> tuple[tuple[str, int, int, int], ...]:
    """Return name, time of change, length and number of each file that says what the models are."""
    places = [folder / "current", *(sorted((folder / version).glob("*")) if version is not None else ())]
    found = []
    for path in places:
        try:
            about = path.stat()
        except OSError:  # what is missing may be there the next time
            continue
        found.append((path.name, about.st_mtime_ns, about.st_size, about.st_ino))
    return tuple(found)


@lru_cache(maxsize=4)
def _loaded(folder: Path, version: str | None, _state: tuple[tuple[str, int, int, int], ...]) -> Forecasts:
    from apportion.models.persistence import load_or_priors

    found = load_or_priors(folder, version)
    demand = found.models[MODEL]
    trained = {} if found.manifest is None else found.manifest.files
    more = {name: found.models[name] for name in (NEXT_AGENT, TOOL_NEEDS) if name in trained}
    if found.manifest is None or isinstance(demand, PriorDemand):
        return Forecasts(demand, degraded=found.degraded, **more)
    return Forecasts(demand, learned=True, version=found.manifest.version, **more)
