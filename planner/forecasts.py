"""Which forecasts a planner goes by: documented priors, or a model that was trained on past workflows.

Loading takes a while and a model never changes, so each process loads a folder once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from apportion.errors import InputError
from apportion.models.demand import PriorDemand

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
        degraded: Why documented priors stand in for a trained model.
    """

    demand: DemandForecaster
    learned: bool = False
    degraded: tuple[str, ...] = ()


def forecasts(folder: Path | None) -> Forecasts:
    """Return the forecasts of the models in a folder; priors where there is none, or where it cannot be used.

    Args:
        folder: Where `apportion train` keeps its versions; `None` asks for priors.
    """
    return Forecasts(PriorDemand()) if folder is None else _loaded(folder)


def require_trained(folder: Path | None) -> None:
    """Refuse a folder into which nothing was ever trained: whoever names one expects forecasts from it.

    Raises:
        InputError: There is no version of the models.
    """
    from apportion.models.persistence import versions

    if folder is not None and not versions(folder):
        raise InputError("no models have been trained yet", path=folder, hint="Train them: apportion train")


@lru_cache(maxsize=4)
def _loaded(folder: Path) -> Forecasts:
    from apportion.models.persistence import load_or_priors

    found = load_or_priors(folder)
    demand = found.models[MODEL]
    learned = not isinstance(demand, PriorDemand)
    return Forecasts(demand, learned, () if learned else found.degraded)
