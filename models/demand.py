"""How many tokens agents will need: one protocol, documented priors, and a model learned from logged workflows.

    model = DemandModel().fit(logs)
    model.forecast("main", prompt_tokens=40_000, history=[StageUse(calls=4, ...)], caller=caller)  # a run in a stage
    model.stage(caller, prompt_tokens=40_000)                   # all that a stage will use, sub-agents included
    model.pooled([demand, demand], caller)                      # several runs together: less than their bounds added up

Every quantile is calibrated on workflows that the model had not seen. Where nothing was learned, `PriorDemand` takes
over; it says so by a sample size that counts the history only. So does the model where a framework is new to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self

import numpy as np

from apportion.errors import InputError
from apportion.models.answers import counted_by, demand_at, demands_at, groups_of, median_of, rows_of
from apportion.models.calibration import LEVELS
from apportion.models.features import Caller
from apportion.models.pooling import Pooling
from apportion.models.priors import PRIORS, PROBABILITIES, Mixture, PriorDemand, StageUse
from apportion.models.quantiles import FOLDS, Measure, QuantileModel, Rows
from apportion.models.rows import call_rows, overhead_rows, pool_rows, run_rows, span_rows, use_values
from apportion.models.shrinkage import ROOT, Shrinkage, chain
from apportion.models.states import part_from, state_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from apportion.models.examples import Examples
    from apportion.records import Demand
    from apportion.telemetry.events import WorkflowLog
    from apportion.telemetry.stored import StoredWorkflow

__all__ = [
    "LEAST_WORKFLOWS",
    "LEVELS",
    "PRIORS",
    "PROBABILITIES",
    "Ask",
    "Caller",
    "DemandForecaster",
    "DemandModel",
    "Mixture",
    "PriorDemand",
    "StageUse",
]

LEAST_WORKFLOWS = 2 * FOLDS
"""Fewer workflows teach nothing that could be checked."""


class DemandForecaster(Protocol):
    """What the planner asks for demand: `PriorDemand`, or `DemandModel`."""

    def forecast(
        self,
        role: str,
        *,
        prompt_tokens: int,
        history: Sequence[StageUse] = (),
        caller: Caller | None = None,
        features: Sequence[float] | None = None,
    ) -> Demand:
        """Return the demand of one agent run in one stage, prompt and output over all its calls.

        Args:
            role: `"main"` for the main agent, `"sub"` for one that it started.
            prompt_tokens: Size of the prompt with which the run starts the stage.
            history: What the same workflow used so far: the run's earlier stages, or earlier runs of its kind.
            caller: Who runs; `None` where nothing but the role is known.
            features: What is known before the first call, in the order of `FEATURES`; `None` where it was not recorded.
        """

    def per_call(self, role: str, *, history: Sequence[StageUse] = (), caller: Caller | None = None) -> tuple[int, int]:
        """Return the median growth of the prompt from call to call, and the median output of a call, in tokens."""

    def overhead_tokens(self, caller: Caller) -> int | None:
        """Return the usual size of system prompt and tool schemas, in tokens; `None` where that is unknown."""


class Ask(NamedTuple):
    """One question about an agent run in a stage; the fields are those of `DemandForecaster.forecast`."""

    role: str
    prompt_tokens: int
    history: Sequence[StageUse] = ()
    caller: Caller | None = None
    features: Sequence[float] | None = None


class DemandModel:
    """Learns demand from logged workflows.

    Args:
        boost: Whether gradient boosting is tried; it is used only where it wins on held-out workflows.
        seed: Seed of folds, draws and learners.

    Attributes:
        run_: Tokens of an agent run in a stage.
        calls_: Calls of an agent run in a stage.
        output_: Output tokens of a call.
        growth_: Growth of the prompt from call to call; `None` where too few workflows show it.
        stage_: Tokens of a stage, all its runs together.
        workflow_: Tokens of a workflow.
        stage_pool_: Pools the runs of a stage, given their forecasts.
        workflow_pool_: Pools the runs of a workflow, given forecasts without its own history.
        overhead_: Distribution of what prompts hold beyond their visible text, or `None` where no log counts prompts.
        workflows_: Number of workflows it was fitted on.
    """

    def __init__(self, *, boost: bool = True, seed: int = 0) -> None:
        self.boost = boost
        self.seed = seed

    def fit(self, workflows: Iterable[WorkflowLog | StoredWorkflow]) -> Self:
        """Learn from logged workflows.

        Args:
            workflows: At least `LEAST_WORKFLOWS` that hold model calls; gone through once.

        Raises:
            InputError: There are too few.
        """
        from apportion.models.examples import examples_of

        return self.fit_examples(examples_of(workflows))

    def fit_examples(self, examples: Examples) -> Self:
        """Learn from examples that were made of logged workflows before.

        Raises:
            InputError: There are too few workflows.
        """
        self.workflows_ = len(examples.workflows)
        if self.workflows_ < LEAST_WORKFLOWS:
            raise InputError(
                f"{self.workflows_} workflows with model calls are too few to learn demand from",
                hint=f"Give at least {LEAST_WORKFLOWS}, or use the priors",
            )
        runs, unaided = run_rows(examples.runs), run_rows(examples.runs, history=False)
        self.run_ = self._fitted(runs, Measure.RUN)
        self.calls_ = self._fitted(run_rows(examples.runs, calls=True), Measure.COUNT)
        self.output_ = self._fitted(call_rows(examples.calls, "output"), Measure.COUNT)
        growths = call_rows(examples.calls, "growth")
        enough = len(set(growths.workflows)) >= LEAST_WORKFLOWS
        self.growth_ = self._fitted(growths, Measure.COUNT) if enough else None
        self.stage_ = self._fitted(span_rows(examples.stages), Measure.MULTIPLE)
        self.workflow_ = self._fitted(span_rows(examples.workflows), Measure.MULTIPLE)
        self.stage_pool_ = self._pool(self.run_.held_out(runs), pool_rows(examples.stages))
        self.workflow_pool_ = self._pool(self.run_.held_out(unaided), pool_rows(examples.workflows))
        overheads = overhead_rows(examples.overheads)
        self.overhead_ = Shrinkage().fit(*overheads) if overheads is not None else None
        return self

    def _fitted(self, rows: Rows, measure: Measure) -> QuantileModel:
        return QuantileModel(measure.value, boost=self.boost, seed=self.seed).fit(rows)

    def _pool(self, held_out: NDArray[np.float64], sums: Any) -> Pooling:
        members = [held_out[list(runs)] for runs in sums.runs]
        return Pooling(self.seed).fit(members, sums.totals, sums.chains, sums.workflows)

    @property
    def report_(self) -> dict[str, dict[str, Any]]:
        """What was decided at the fit and on which numbers, by target."""
        targets = ("run", "calls", "output", "growth", "stage", "workflow")
        models = {target: getattr(self, f"{target}_") for target in targets}
        pools = {"stage_pool": self.stage_pool_, "workflow_pool": self.workflow_pool_}
        return {target: dict(model.report_) for target, model in models.items() if model is not None} | {
            name: {"common": pool.common_, "losses": dict(pool.losses_)} for name, pool in pools.items()
        }

    def forecast(
        self,
        role: str,
        *,
        prompt_tokens: int,
        history: Sequence[StageUse] = (),
        caller: Caller | None = None,
        features: Sequence[float] | None = None,
    ) -> Demand:
        """Return the demand of one agent run in one stage, as quantiles at `LEVELS`; see `DemandForecaster`.

        Raises:
            InputError: The role is unknown.
        """
        return self.forecast_all([Ask(role, prompt_tokens, history, caller, features)])[0]

    def forecast_all(self, asks: Sequence[Ask]) -> list[Demand]:
        """Return the demand of several agent runs; faster than one by one.

        Features count only where all have them.

        Raises:
            InputError: A role is unknown.
        """
        groups = [groups_of(ask.role, ask.caller) for ask in asks]
        histories = [self._uses(ask.history, each) for ask, each in zip(asks, groups, strict=True)]
        found = self.run_.predict(
            rows_of(groups, [a.prompt_tokens for a in asks], histories, [a.features for a in asks])
        )
        sizes = [self.run_.seen(each) + len(ask.history) for ask, each in zip(asks, groups, strict=True)]
        return demands_at(found, sizes)

    def _uses(self, history: Sequence[StageUse], groups: tuple[str, ...]) -> NDArray[np.float64]:
        """Return a history as observations; where it does not know the output, the usual one stands in."""
        usual = self._median_output(groups) if any(use.output_tokens is None for use in history) else 0
        return use_values(history, usual)

    def _median_output(self, groups: tuple[str, ...]) -> int:
        return median_of(self.run_.shrinkage_.atoms(groups)[:, 2])

    def per_call(self, role: str, *, history: Sequence[StageUse] = (), caller: Caller | None = None) -> tuple[int, int]:
        """Return the median growth of the prompt from call to call, and the median output of a call, in tokens.

        Raises:
            InputError: The role is unknown.
        """
        groups = groups_of(role, caller)
        uses = [self._uses(history, groups)]
        (values,), (weights,) = self.run_.shrinkage_.mixtures([groups], uses, self.run_.own_weight_)
        growing = weights * (values[:, 0] > 1)  # one call does not show any growth
        return median_of(values[:, 1], growing if growing.any() else weights), median_of(values[:, 2], weights)

    def calls(self, caller: Caller, *, history: Sequence[int] = (), features: Sequence[float] | None = None) -> Demand:
        """Return how many calls an agent run makes in a stage, as quantiles at `LEVELS` (calls, not tokens).

        Args:
            caller: Who runs.
            history: Calls of the earlier stages of the run, or of earlier runs of its kind in the same workflow.
            features: What is known before the first call.
        """
        return counted_by(self.calls_, caller, history, features)

    def output(self, caller: Caller, *, history: Sequence[int] = (), features: Sequence[float] | None = None) -> Demand:
        """Return the output tokens of the next call, as quantiles at `LEVELS`.

        Args:
            caller: Who calls.
            history: Output tokens of the run's earlier calls.
            features: What is known before the call.
        """
        return counted_by(self.output_, caller, history, features)

    def growth(
        self, caller: Caller, *, history: Sequence[int] = (), features: Sequence[float] | None = None
    ) -> Demand | None:
        """Return by how much the prompt grows until the call after the next, as quantiles at `LEVELS`.

        `None` where the logs showed too little of it. Arguments as those of `output`; `history` holds growths.
        """
        return None if self.growth_ is None else counted_by(self.growth_, caller, history, features)

    def stage(
        self,
        caller: Caller,
        *,
        prompt_tokens: int,
        history: Sequence[tuple[int, int]] = (),
        features: Sequence[float] | None = None,
    ) -> Demand:
        """Return the tokens of a whole stage, of which only the first prompt is known, as quantiles at `LEVELS`.

        Args:
            caller: Who makes the first call.
            prompt_tokens: The first prompt.
            history: First prompt and total tokens of each earlier stage of the workflow.
            features: What is known before the first call.
        """
        groups = chain(caller)
        multiples = np.array([[np.log1p(total) - np.log1p(first)] for first, total in history]).reshape(-1, 1)
        found = self.stage_.predict(rows_of([groups], [prompt_tokens], [multiples], [features]))[0]
        return demand_at(found, self.stage_.seen(groups) + len(history))

    def workflow(self, caller: Caller, *, prompt_tokens: int, features: Sequence[float] | None = None) -> Demand:
        """Return the tokens of a whole workflow, of which only the first prompt is known, as quantiles at `LEVELS`."""
        groups = chain(caller)
        found = self.workflow_.predict(rows_of([groups], [prompt_tokens], [np.zeros((0, 1))], [features]))[0]
        return demand_at(found, self.workflow_.seen(groups))

    def pooled(
        self, demands: Sequence[Demand], caller: Caller, *, level: Literal["stage", "workflow"] = "stage"
    ) -> Demand:
        """Return the demand of several runs together, as quantiles at `LEVELS`.

        Args:
            demands: Forecasts of this model for each run; for a workflow, without its own history.
            caller: Who makes the first call.
            level: Whether the runs make up a stage or a workflow.

        Raises:
            InputError: There are no forecasts, or their probabilities are not those of this model.
        """
        if not demands or any(demand.probabilities != LEVELS for demand in demands):
            raise InputError("only forecasts of a demand model can be pooled", hint="Give those of `forecast`")
        pool = self.stage_pool_ if level == "stage" else self.workflow_pool_
        members = np.log1p([demand.tokens for demand in demands])
        return demand_at(pool.predict(members, chain(caller)), sum(demand.sample_size for demand in demands))

    def metrics(self) -> list[dict[str, Any]]:
        """Return how good forecasts of held-out workflows were, a row for each target, as found by `fit`.

        `loss` is the mean pinball loss over `LEVELS`, of logarithms.
        """
        return [
            {
                "forecast": target,
                "workflows": found["workflows"],
                "examples": found["rows"],
                "loss": round(found.get("loss_boosted", found["loss_shrunk"]), 4),
                "boosted": found.get("boosted", False),
            }
            for target, found in self.report_.items()
            if "rows" in found
        ]

    def evaluate(self, workflows: Iterable[WorkflowLog | StoredWorkflow]) -> list[dict[str, Any]]:
        """Return how good forecasts of workflows are, a row for each level of `held_out.judge`."""
        from apportion.models.examples import examples_of
        from apportion.models.held_out import judge

        examples = examples_of(workflows)
        return [
            {
                "forecast": level,
                "workflows": len(set(judged.workflows)),
                "examples": len(judged),
                "loss": round(judged.loss, 4),
                "coverage_90": round(judged.coverage, 3),
                "upper_by_lower": round(judged.spread, 1),
            }
            for level, judged in (judge(self, examples) if examples.workflows else {}).items()
        ]

    def to_state(self) -> dict[str, Any]:
        """Return everything the model is as dictionaries, text, numbers and arrays."""
        parts = {name: state_of(getattr(self, name)) for name in _PARTS}
        return {"boost": self.boost, "seed": self.seed, "workflows": self.workflows_, "parts": parts}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the model from what `to_state` returned.

        Raises:
            ValueError: The parts do not fit together.
            KeyError: A part is missing.
        """
        made = cls(boost=bool(state["boost"]), seed=int(state["seed"]))
        made.workflows_ = int(state["workflows"])
        for name, (kind, optional) in _PARTS.items():
            part = part_from(state["parts"][name])
            if not (isinstance(part, kind) or (part is None and optional)):
                raise ValueError(f"{name} is no {kind.__name__}")
            if isinstance(part, QuantileModel) and part.measure != _MEASURES[name]:
                raise ValueError(f"{name} does not measure {_MEASURES[name]}")
            if isinstance(part, Shrinkage) and part.atoms_[ROOT].shape[1] != 1:
                raise ValueError(f"{name} holds more than one number for each observation")
            setattr(made, name, part)
        return made

    def overhead_tokens(self, caller: Caller) -> int | None:
        """Return the usual size of the system prompt and tool schemas that the log of an agent does not show.

        It is the median of the first counted prompt minus the visible text, in tokens; `None` where no log counts.
        """
        if self.overhead_ is None:
            return None
        return median_of(self.overhead_.atoms(chain(caller))[:, 0])


_MEASURES = {
    "run_": Measure.RUN,
    **dict.fromkeys(("calls_", "output_", "growth_"), Measure.COUNT),
    **dict.fromkeys(("stage_", "workflow_"), Measure.MULTIPLE),
}
"""What the observations are from which quantiles are learned."""

_PARTS: dict[str, tuple[type, bool]] = {
    **{name: (QuantileModel, name == "growth_") for name in _MEASURES},
    **{f"{name}_pool_": (Pooling, False) for name in ("stage", "workflow")},
    "overhead_": (Shrinkage, True),
}
"""The parts that are learned, what each is, and whether it may be missing."""
