"""Which forecasts a planner goes by: documented priors, or a model that was trained on past workflows.

Loading takes a while and a version never changes, so each process loads a version once. What its forecasts came to
does change: where the telemetry store shows that they no longer fit, they are widened, and plans say so.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from apportion.errors import InputError, StoreError
from apportion.models.demand import PriorDemand
from apportion.models.drift import WidenedDemand

if TYPE_CHECKING:
    from pathlib import Path

    from apportion.models.demand import DemandForecaster

MODEL = "demand"
"""Name of the demand model among what is trained."""


class Forecasts(NamedTuple):
    """What forecasts demand.

    Attributes:
        demand: The forecaster.
        learned: Whether it was trained; it then wants to know who calls, and what is known before the call.
        degraded: Why documented priors stand in for a trained model, or why its forecasts are widened.
        version: Version of the trained model.
    """

    demand: DemandForecaster
    learned: bool = False
    degraded: tuple[str, ...] = ()
    version: str | None = None


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
    found = _loaded(folder, _version(folder))
    if widening is None or not found.learned or widening.version != found.version:
        return found
    demand = WidenedDemand(found.demand, widening.factor) if widening.factor > 1 else found.demand
    return found._replace(demand=demand, degraded=(*found.degraded, widening.reason))


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


@lru_cache(maxsize=4)
def _loaded(folder: Path, version: str | None) -> Forecasts:
    from apportion.models.persistence import load_or_priors

    found = load_or_priors(folder, version)
    demand = found.models[MODEL]
    if found.manifest is None or isinstance(demand, PriorDemand):
        return Forecasts(demand, degraded=found.degraded)
    return Forecasts(demand, learned=True, version=found.manifest.version)
