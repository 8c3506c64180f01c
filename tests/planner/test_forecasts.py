"""Which forecasts a plan goes by, and what past outcomes do to them."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from apportion.models.calibration import LEVELS
from apportion.models.demand import DemandModel, PriorDemand
from apportion.models.drift import WidenedDemand
from apportion.models.features import Caller
from apportion.models.persistence import save_models
from apportion.models.training import TrainingData
from apportion.planner.forecasts import NINETY_PERCENT, Widening, contingency, forecasts, is_trained, widening_of
from apportion.planner.problem import pooled_contingency
from apportion.records import Kind, Usage
from apportion.telemetry.events import LogBuilder
from apportion.telemetry.store import Outcome, TelemetryStore

if TYPE_CHECKING:
    from pathlib import Path

    from apportion.telemetry.events import WorkflowLog

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def session(seed: int, calls: int = 3) -> WorkflowLog:
    builder = LogBuilder(f"w{seed}", source="tests", framework="none")
    random = np.random.default_rng(seed)
    for _ in range(calls):
        builder.add(Kind.USER, "please", agent="main", agent_run="main", stage=0)
        usage = Usage(input_uncached=int(random.integers(1000, 3000)), output=10)
        call = builder.next_call()
        builder.add(Kind.ASSISTANT, "done", agent="main", agent_run="main", stage=0, call=call, usage=usage)
    log = builder.build()
    assert log is not None
    return log


def train(folder: Path, digits: str = "0123abcd") -> str:
    model = DemandModel(boost=False).fit([session(seed) for seed in range(30)])
    data = TrainingData(fingerprint=digits * 8, workflows=30, without_content=0, sources={})
    return save_models(folder, {"demand": model}, data, created_at=NOON).version


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("trained") / "models"
    return folder, train(folder)


def note(database: Path, version: str, used: int, *, times: int = 100) -> None:
    """Store that runs, of which 100 to 200 tokens were forecast, used so many."""
    about = {"agent": "main", "stage": 0, "version": version, "low_tokens": 50, "used_tokens": used}
    made = [Outcome(agent_run=f"r{n}", median_tokens=100, likely_tokens=200, **about) for n in range(times)]
    with TelemetryStore(database, count_tokens=len) as store:
        store.add(session(99))
        store.record_outcomes("w99", made)


def test_forecasts_that_fit_are_left_alone(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder, version = trained
    assert widening_of(None, tmp_path / "t.db") is None
    assert widening_of(folder, None) is None
    assert widening_of(folder, tmp_path / "t.db") is None
    assert not (tmp_path / "t.db").exists()
    note(tmp_path / "t.db", version, used=150)
    assert widening_of(folder, tmp_path / "t.db") is None
    found = forecasts(folder)
    assert (found.learned, found.degraded, found.version) == (True, (), version)


def test_forecasts_that_fit_no_longer_are_widened_and_say_why(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder, version = trained
    note(tmp_path / "t.db", version, used=350)
    widening = widening_of(folder, tmp_path / "t.db")
    assert widening is not None
    assert (widening.version, widening.factor) == (version, 2.5)
    before, after = forecasts(folder), forecasts(folder, widening)
    assert after.learned
    assert after.degraded == (widening.reason,)
    assert "widened 2.5 times" in widening.reason
    one, other = (found.demand.forecast("main", prompt_tokens=2000) for found in (before, after))
    levels = dict(zip(one.probabilities, zip(one.tokens, other.tokens, strict=True), strict=True))
    middle = levels[0.5][0]
    assert levels[0.5] == (middle, middle)
    assert levels[0.9][1] - middle == pytest.approx(2.5 * (levels[0.9][0] - middle), abs=1)
    assert levels[0.9][1] > levels[0.9][0]


def test_drift_is_looked_at_anew_though_models_are_loaded_once(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder, version = trained
    database = tmp_path / "t.db"
    note(database, version, used=150)
    assert forecasts(folder, widening_of(folder, database)).degraded == ()
    note(database, version, used=350)
    assert forecasts(folder, widening_of(folder, database)).degraded != ()
    note(database, version, used=150)
    again = forecasts(folder, widening_of(folder, database))
    assert again.degraded == ()
    assert again.demand is forecasts(folder).demand


def test_outcomes_of_another_version_say_nothing(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder, version = trained
    note(tmp_path / "t.db", "0009-0123abcd", used=350)
    assert widening_of(folder, tmp_path / "t.db") is None
    assert forecasts(folder, Widening("0009-0123abcd", 3.0, "old")) == forecasts(folder)
    assert version != "0009-0123abcd"


def test_a_new_training_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    first = train(folder)
    assert forecasts(folder).version == first
    second = train(folder, "89abcdef")
    assert forecasts(folder).version == second != first


def test_a_store_that_cannot_be_read_is_said_and_widens_nothing(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder, version = trained
    (tmp_path / "t.db").write_text("precious")
    widening = widening_of(folder, tmp_path / "t.db")
    assert widening is not None
    assert widening.factor == 1
    found = forecasts(folder, widening)
    assert found.demand is forecasts(folder).demand
    assert "whether forecasts still fit is unknown" in found.degraded[0]
    assert version


def test_priors_are_not_widened(tmp_path: Path) -> None:
    found = forecasts(None, Widening("0001-0123abcd", 3.0, "drift"))
    assert isinstance(found.demand, PriorDemand)
    assert found.degraded == ()
    assert not is_trained(tmp_path)


def test_a_version_that_could_not_be_loaded_is_tried_again_once_its_files_have_changed(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    folder, version = tmp_path / "models", trained[1]
    shutil.copytree(trained[0], folder)
    file = folder / version / "demand.skops"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    broken = forecasts(folder)
    assert not broken.learned
    assert "is not the file that was saved" in broken.degraded[0]
    assert forecasts(folder).demand is broken.demand
    file.write_bytes(whole)
    mended = forecasts(folder)
    assert (mended.learned, mended.degraded, mended.version) == (True, (), version)
    assert forecasts(folder).demand is mended.demand
    file.unlink()
    assert not forecasts(folder).learned


def test_the_reserve_of_a_stage_is_that_of_the_pooled_forecast(trained: tuple[Path, str]) -> None:
    caller = Caller("none", "tests", "main", "main", None)
    learned = forecasts(trained[0])
    assert isinstance(learned.demand, DemandModel)
    demands = [learned.demand.forecast("main", prompt_tokens=size, caller=caller) for size in (1000, 2000, 3000)]
    pooled = learned.demand.pooled(demands, caller)
    planned = sum(demand.tokens[LEVELS.index(0.5)] for demand in demands)
    reserve = max(0, pooled.tokens[LEVELS.index(0.9)] - planned)
    shares = contingency(learned, demands, caller)
    assert reserve <= sum(shares) < reserve + len(demands)
    high = sum(demand.tokens[LEVELS.index(0.9)] for demand in demands)
    assert sum(shares) < high - planned  # adding up single bounds reserves more
    wide = contingency(learned._replace(demand=WidenedDemand(learned.demand, 2.0)), demands, caller)
    assert sum(wide) >= sum(shares)
    priors = forecasts(None)
    assert contingency(priors, demands, caller) == pooled_contingency(demands, z=NINETY_PERCENT)
