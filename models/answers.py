"""From questions to rows, and from quantiles of logarithms to demands: the two ends of a forecast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apportion.errors import InputError
from apportion.models.calibration import LEVELS
from apportion.models.features import MAIN, SUB, Caller
from apportion.models.priors import MAX_TOKENS
from apportion.models.quantiles import QuantileModel, Rows
from apportion.models.shrinkage import chain, quantiles, shared_chain
from apportion.records import Demand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_LOG_MOST = 37.0
"""Above the logarithm of `MAX_TOKENS`, and far from what overflows."""


def groups_of(role: str, caller: Caller | None) -> tuple[str, ...]:
    """Return the groups of a caller, or of a role where nothing else is known.

    Raises:
        InputError: The role is unknown.
    """
    if role not in {MAIN, SUB}:
        raise InputError(f"nothing is known about the role {role!r}", hint=f"Known roles: {MAIN}, {SUB}")
    return chain(caller) if caller is not None else shared_chain(role)


def median_of(values: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> int:
    """Return the median of values, shape (n,), of equal weight or with weights that need not add up to 1."""
    shares = np.ones(len(values)) if weights is None else weights
    return int(quantiles(values[None], shares[None] / shares.sum(), (0.5,))[0, 0])


def rows_of(
    groups: list[tuple[str, ...]],
    prompts: Sequence[float],
    histories: list[NDArray[np.float64]],
    features: Sequence[Sequence[float] | None],
) -> Rows:
    """Return rows to forecast; features count only where all have them."""
    known = [each for each in features if each is not None]
    columns = np.array(known) if len(known) == len(groups) else np.zeros((len(groups), 0))
    return Rows(groups, np.asarray(prompts, dtype=np.float64), histories, columns)


def counted_by(
    model: QuantileModel, caller: Caller, history: Sequence[int], features: Sequence[float] | None
) -> Demand:
    """Return the quantiles of a count, given what was counted before."""
    groups = chain(caller)
    seen = np.log1p(np.asarray(history, dtype=np.float64)).reshape(-1, 1)
    return demand_at(model.predict(rows_of([groups], [0.0], [seen], [features]))[0], model.seen(groups) + len(history))


def demand_at(levels: NDArray[np.float64], sample_size: int) -> Demand:
    """Return the demand whose quantiles are given as logarithms, shape (len(LEVELS),)."""
    return demands_at(levels[None], [sample_size])[0]


def demands_at(levels: NDArray[np.float64], sample_sizes: Sequence[int]) -> list[Demand]:
    """Return demands whose quantiles are given as logarithms, shape (n, len(LEVELS)), in order.

    They are not checked: that takes longer than the forecast, and whole numbers in order that are cut off at 0 and
    `MAX_TOKENS` pass.
    """
    rounded = np.minimum(np.rint(np.expm1(np.clip(levels, 0.0, _LOG_MOST))), MAX_TOKENS)
    tokens = rounded.astype(np.int64).tolist()
    return [
        Demand.model_construct(probabilities=LEVELS, tokens=tuple(each), sample_size=size)
        for each, size in zip(tokens, sample_sizes, strict=True)
    ]
