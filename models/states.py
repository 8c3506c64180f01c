"""The parts of a demand model as plain values, and back: what `persistence` saves.

A part becomes a dictionary of its attributes with its name under `PART`. Coming back, each part must have exactly the
attributes that it has here, of a shape that its forecasts rely on: a file can hold wrong numbers, but none on which a
forecast would fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from apportion.models.boosting import CORNERS, Boosting
from apportion.models.calibration import LEVELS, Conformal
from apportion.models.features import FEATURES
from apportion.models.pooling import COLUMNS, DRAWS, Pooling
from apportion.models.quantiles import Measure, QuantileModel
from apportion.models.shrinkage import ATOMS, ROOT, Shrinkage

if TYPE_CHECKING:
    from collections.abc import Mapping

PART = "part"

_TREES = ("feature_", "threshold_", "left_", "right_", "unknown_left_", "value_")
_QUANTILES = ("shrinkage_", "own_weight_", "conformal_", "boosting_", "boosted_conformal_", "elsewhere_", "report_")

ATTRIBUTES: dict[type, tuple[str, ...]] = {
    Shrinkage: ("weight", "atoms_", "counts_", "examples_"),
    Conformal: ("least_workflows", "offsets_", "counts_"),
    Boosting: ("seed", "known_", "baseline_", *_TREES),
    QuantileModel: ("measure", "boost", "seed", *_QUANTILES),
    Pooling: ("seed", "common_", "draws_", "conformal_", "losses_"),
}
"""The attributes of each part."""

_PARTS = {part.__name__: part for part in ATTRIBUTES}


def state_of(value: Any) -> Any:
    """Return a part, or a value within one, as dictionaries, lists, text, numbers and arrays."""
    if type(value) in ATTRIBUTES:
        return {PART: type(value).__name__} | {key: state_of(each) for key, each in vars(value).items()}
    return {key: state_of(each) for key, each in value.items()} if isinstance(value, dict) else value


def part_from(state: Any) -> Any:
    """Return what `state_of` was given.

    Raises:
        ValueError: A part lacks an attribute, has one too many, or they do not fit together.
    """
    if not isinstance(state, dict):
        return state
    values = {key: part_from(each) for key, each in state.items() if key != PART}
    return _part(state[PART], values) if PART in state else values


def _part(name: str, values: Mapping[str, Any]) -> Any:
    kind = _PARTS.get(name)
    if kind is None or set(values) != set(ATTRIBUTES[kind]):
        raise ValueError(f"{name} has other attributes")
    made: Any = object.__new__(kind)
    vars(made).update(values)
    if not _FITS[kind](made):
        raise ValueError(f"the attributes of {name} do not fit together")
    return made


def _shrinkage_fits(part: Shrinkage) -> bool:
    same = part.atoms_.keys() == part.counts_.keys() == part.examples_.keys()
    counted = all(type(each) is int and each >= 0 for each in (*part.counts_.values(), *part.examples_.values()))
    shapes = {atoms.shape for atoms in part.atoms_.values()}
    usable = len(shapes) == 1 and next(iter(shapes))[:-1] == (ATOMS,) and all(map(_finite, part.atoms_.values()))
    return same and counted and usable and ROOT in part.atoms_


def _conformal_fits(part: Conformal) -> bool:
    return ROOT in part.offsets_ and all(map(_offsets_fit, part.offsets_.values()))


def _offsets_fit(offsets: Any) -> bool:
    return _finite(offsets) and offsets.shape == (len(LEVELS),)


def _boosting_fits(part: Boosting) -> bool:
    arrays = [getattr(part, name) for name in _TREES]
    trees, nodes = part.left_.shape
    shaped = {each.shape for each in arrays} == {(trees, nodes)} and trees > 0 and trees % len(CORNERS) == 0
    whole = all(each.dtype.kind == "i" for each in (part.feature_, part.left_, part.right_))
    within = all(each.min() >= 0 and each.max() < nodes for each in (part.left_, part.right_))
    known = part.known_.shape == (len(FEATURES) + len(CORNERS),) and part.known_.dtype == np.bool_
    features = part.feature_.min() >= 0 and part.feature_.max() < np.size(part.known_)
    numbers = _finite(part.value_) and _finite(part.baseline_) and part.baseline_.shape == (len(CORNERS),)
    return bool(shaped and whole and within and known and features and numbers)


def _quantile_model_fits(part: QuantileModel) -> bool:
    kinds = (part.shrinkage_, Shrinkage), (part.conformal_, Conformal)
    boosted = part.boosting_ is None or (
        isinstance(part.boosting_, Boosting) and isinstance(part.boosted_conformal_, Conformal)
    )
    weighed = isinstance(part.own_weight_, float) and 0.0 < part.own_weight_ < np.inf
    elsewhere = part.elsewhere_ is None or _offsets_fit(part.elsewhere_)
    if not (boosted and weighed and elsewhere and all(isinstance(each, kind) for each, kind in kinds)):
        return False
    return bool(part.shrinkage_.atoms_[ROOT].shape[1] == Measure(part.measure).columns)


def _pooling_fits(part: Pooling) -> bool:
    drawn = _finite(part.draws_) and part.draws_.shape == (DRAWS, COLUMNS + 1)
    return isinstance(part.conformal_, Conformal) and 0.0 <= part.common_ < 1.0 and drawn


def _finite(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype == np.float64 and bool(np.isfinite(array).all())


_FITS: dict[type, Any] = {
    Shrinkage: _shrinkage_fits,
    Conformal: _conformal_fits,
    Boosting: _boosting_fits,
    QuantileModel: _quantile_model_fits,
    Pooling: _pooling_fits,
}
