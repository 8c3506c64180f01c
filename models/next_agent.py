"""Which agent takes the floor next, and which tool is called next: forecasts that say how sure they are, or abstain.

    model = NextAgentModel().fit(read_logs(["~/.claude/projects"], SkipLog()))
    forecast = model.predict(["main", "Explore"], task_text="Fix the login", source="claude_code")
    forecast.expected        # "Explore", "(end)" for no further agent, or None: see forecast.abstention

What happens in `fit`:

1. Six experts (`experts`) learn from all workflows but one fold, and forecast the steps of that fold; workflows are
   never split. These forecasts, of workflows that were not learned from, are what everything below is learned on.
2. The experts are mixed linearly (`mixture`). The weights are those under which the held-out steps are likeliest, for
   each source, drawn towards those of all sources. An expert that does not help on held-out workflows, such as the
   reader of the text in some sources, thus gets next to no weight.
3. The probability of the likeliest step is calibrated by a logistic curve, corrected per source. The others are
   scaled so that the sum stays 1.
4. The experts learn from all workflows.

A forecast abstains where its confidence does not exceed `min_confidence`, where too few earlier steps are behind it,
and where nothing, or too little, was learned from its source. Whoever names no source gets a forecast for a source that
is new: by the experts that count over all sources, mixed and calibrated on whole sources that were held out in turn.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field

from apportion.errors import InputError
from apportion.models.evaluation import calibration_error, calibration_noise, hit_rate_above
from apportion.models.experts import OTHER, StepExperts
from apportion.models.mixture import Held, Mixture
from apportion.models.quick_steps import QuickSteps
from apportion.models.trails import END, WINDOW, Step, agent_steps, tool_steps
from apportion.records import Record, Share

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from apportion.telemetry.events import WorkflowLog
    from apportion.telemetry.stored import StoredWorkflow

__all__ = ["END", "OTHER", "ForecastQuality", "NextAgentModel", "NextForecast", "NextToolModel", "judge"]

MAX_STEPS = 1_500
"""Steps of each source from which classifiers, weights and calibration are learned; counting takes all."""

LEAST_OF_SOURCE = 30
"""Learned steps that a source needs: from fewer, a hit rate of 0.7 is not even told from one of 0.5 (two errors)."""

EVERYWHERE = "all sources"
"""Stands for all sources together in what was judged."""


class NextForecast(Record):
    """What comes next, and how sure that is.

    Attributes:
        likeliest: The likeliest step: a name, `END` for none, or `OTHER` for a name that was never seen.
        confidence: Probability that it comes, calibrated on held-out workflows, in [0, 1].
        probabilities: Probability of each step, the likeliest first, summing to 1.
        sample_size: How many learned steps followed the same step as this one does.
        abstention: Why the forecast should not be acted on, or `None`.
    """

    likeliest: str
    confidence: Share
    probabilities: dict[str, Share]
    sample_size: Annotated[int, Field(ge=0)]
    abstention: str | None = None

    @property
    def expected(self) -> str | None:
        """The likeliest step, or `None` where the forecast abstains."""
        return self.likeliest if self.abstention is None else None


class ForecastQuality(Record):
    """How good forecasts of steps were.

    Attributes:
        source: Where the workflows come from.
        workflows: Number of workflows.
        forecasts: Number of steps that were forecast.
        top_1: Share in which the likeliest step came, in [0, 1].
        coverage: Share in which the forecast did not abstain, in [0, 1].
        hit_rate: Share of these in which it came true; `None` where all abstained.
        named: How many of these named a step, not `END`.
        hit_rate_named: Share of those in which it came true; `None` where there are none.
        calibration_error: Expected calibration error over all forecasts, 10 bins of equal width.
        calibration_noise: The same if calibration were perfect, on average: what so few forecasts cannot tell from 0.
    """

    source: str
    workflows: int
    forecasts: int
    top_1: Share
    coverage: Share
    hit_rate: Share | None
    named: int
    hit_rate_named: Share | None
    calibration_error: Share
    calibration_noise: Share


def judge(forecasts: Sequence[tuple[Step, NextForecast]]) -> list[ForecastQuality]:
    """Return how good forecasts were, in all sources together first, then in each."""
    sources = sorted({step.source for step, _ in forecasts})
    parts = [[pair for pair in forecasts if pair[0].source == source] for source in sources]
    return [_quality(name, part) for name, part in [(EVERYWHERE, forecasts), *zip(sources, parts, strict=True)] if part]


def _quality(source: str, forecasts: Sequence[tuple[Step, NextForecast]]) -> ForecastQuality:
    confidences = [forecast.confidence for _, forecast in forecasts]
    hits = [forecast.likeliest == step.name for step, forecast in forecasts]
    acted = [float(forecast.expected is not None) for _, forecast in forecasts]
    named = [float(forecast.expected not in {None, END}) for _, forecast in forecasts]
    hit_rate, coverage = hit_rate_above(acted, hits, 0.5)
    return ForecastQuality(
        source=source,
        workflows=len({step.workflow_id for step, _ in forecasts}),
        forecasts=len(forecasts),
        top_1=sum(hits) / len(hits),
        coverage=coverage,
        hit_rate=hit_rate,
        named=round(sum(named)),
        hit_rate_named=hit_rate_above(named, hits, 0.5)[0],
        calibration_error=calibration_error(confidences, hits),
        calibration_noise=calibration_noise(confidences),
    )


class _NextModel:
    """What forecasts of agents and of tools share.

    Args:
        min_confidence: A forecast abstains unless its confidence exceeds this, in [0, 1].
        min_samples: A forecast abstains where fewer learned steps followed the same step.
        max_order: Longest context that is told apart, in steps.
        folds: Parts into which workflows are divided to hold out each in turn.

    Attributes:
        experts_: The experts.
        mixture_: How they are mixed, and how the result is calibrated.
        elsewhere_: The same for a source that is new or not named; `None` where only one was learned from.
        held_out_steps_: How many held-out steps the mixture was learned on.
        steps_: How many steps were learned from, per source.
        quality_: How good forecasts of held-out workflows were, each by a mixture that was learned on other ones.
    """

    what: ClassVar[str]
    """What is forecast, for messages."""

    def __init__(
        self, *, min_confidence: float = 0.7, min_samples: int = 10, max_order: int = 3, folds: int = 4
    ) -> None:
        self.min_confidence = min_confidence
        self.min_samples = min_samples
        self.max_order = max_order
        self.folds = folds
        self._quick: dict[bool, QuickSteps] = {}
        self.experts_ = StepExperts(max_order)
        self.mixture_ = Mixture()
        self.elsewhere_: Mixture | None = None
        self.held_out_steps_ = 0
        self.steps_: dict[str, int] = {}
        self.quality_: list[ForecastQuality] = []

    @staticmethod
    def steps_of(workflow: WorkflowLog | StoredWorkflow) -> Iterator[Step]:
        """Yield the steps of a workflow that can be forecast."""
        raise NotImplementedError

    def fit(self, workflows: Iterable[WorkflowLog | StoredWorkflow]) -> Self:
        """Learn from workflows; what was learned before is forgotten. One pass; only their steps are kept meanwhile.

        Raises:
            InputError: They hold no step at all.
        """
        return self.fit_steps([step for workflow in workflows for step in self.steps_of(workflow)])

    def fit_steps(self, steps: Sequence[Step]) -> Self:
        """Learn from steps, as `steps_of` gives them; what was learned before is forgotten.

        Raises:
            InputError: There are none.
        """
        if not steps:
            raise InputError(f"no workflow shows which {self.what} comes next", hint="Train on more workflows")
        folds = [list(self._hold_out(*fold)) for fold in _folds(steps, self.folds)]
        held = [each for fold in folds for _, each in fold]
        self.held_out_steps_ = len(held)
        self.mixture_ = Mixture().fit(held)
        self.elsewhere_ = self._learned_elsewhere(steps)
        self.experts_ = self._learned(steps)
        self._quick = {}
        self.steps_ = {}
        self._note_sources(steps)
        self.quality_ = judge(list(self._cross_judged(folds)))
        return self

    def partial_fit(self, workflows: Iterable[WorkflowLog | StoredWorkflow]) -> Self:
        """Add workflows to what was counted; classifiers, weights and calibration stay as `fit` learned them.

        Workflows that were learned from already would count twice: give new ones only.
        """
        if not self.steps_:
            return self.fit(workflows)
        steps = [step for workflow in workflows for step in self.steps_of(workflow)]
        self.experts_.count(steps)
        self._quick = {}
        self._note_sources(steps)
        return self

    def predict(
        self,
        history: Sequence[str],
        *,
        task_text: str | None = None,
        source: str | None = None,
        agent: str | None = None,
    ) -> NextForecast:
        """Return what comes after a history; before anything is learned, a forecast that abstains.

        Args:
            history: Names of the steps so far, the latest last; for tools with `END` where a turn ended.
            task_text: What was asked last, or `None`.
            source: Where the workflow runs, as in its log (`WorkflowLog.source`), or `None` for a source that is new.
            agent: For tools, the agent that calls them, or `None`.
        """
        return self.forecast(Step("", source or "", agent, tuple(history[-WINDOW:]), task_text, ""), source)

    def forecast(self, step: Step, source: str | None) -> NextForecast:
        """Return what comes in place of a step, whose own name is not looked at; see `predict`."""
        known = source in self.steps_ or self.elsewhere_ is None
        quick = self._quick.get(known) or self._prepared(known=known)
        names, shares = quick.probabilities(step, source)
        return self._forecast(names, shares, self.experts_.seen_after(step, source), source)

    def _prepared(self, *, known: bool) -> QuickSteps:
        """Return what makes quick forecasts for known sources, or for new ones; kept until something is learned."""
        mixture = self.mixture_ if known or self.elsewhere_ is None else self.elsewhere_
        self._quick[known] = QuickSteps(self.experts_, mixture)
        return self._quick[known]

    def metrics(self) -> list[dict[str, Any]]:
        """Return how good forecasts of held-out workflows were, a row for each source, as found by `fit`."""
        return [each.model_dump() for each in self.quality_]

    def evaluate(self, workflows: Iterable[WorkflowLog | StoredWorkflow]) -> list[dict[str, Any]]:
        """Return how good forecasts of the steps of workflows are, a row for each source."""
        steps = (step for workflow in workflows for step in self.steps_of(workflow))
        return [each.model_dump() for each in judge([(step, self.forecast(step, step.source)) for step in steps])]

    def _forecast(
        self, names: Sequence[str], shares: Sequence[float], samples: int, source: str | None
    ) -> NextForecast:
        """Return a forecast, given all names and their probabilities, the likeliest first."""
        return NextForecast.model_construct(
            likeliest=names[0],
            confidence=shares[0],
            probabilities=dict(zip(names, shares, strict=True)),
            sample_size=samples,
            abstention=self._abstention(names[0], shares[0], samples, source),
        )

    def _abstention(self, likeliest: str, confidence: float, samples: int, source: str | None) -> str | None:
        if not self.steps_:
            return "nothing was learned yet"
        if source is not None and source not in self.steps_:
            return f"{source!r} is a new source"
        if source is None and self.elsewhere_ is None:
            return "one source is too few to tell how good a forecast is in others"
        if not self.held_out_steps_:
            return "too few workflows to tell how good a forecast is"
        if source is not None and self.steps_[source] < LEAST_OF_SOURCE:
            return f"{self.steps_[source]} steps of this source were learned; {LEAST_OF_SOURCE} are needed"
        if samples < self.min_samples:
            return f"{samples} earlier cases; {self.min_samples} are needed"
        if likeliest == OTHER:
            return f"the likeliest is no {self.what} that was ever seen"
        if confidence <= self.min_confidence:
            return f"a confidence of {confidence:.2f} does not exceed {self.min_confidence:g}"
        return None

    def _learned(self, steps: Sequence[Step]) -> StepExperts:
        return StepExperts(self.max_order).count(steps).classify(_at_most(steps, MAX_STEPS))

    def _hold_out(self, learned: Sequence[Step], held_out: Sequence[Step]) -> Iterator[tuple[Step, Held]]:
        experts = self._learned(learned)
        for step in _at_most(held_out, -(-MAX_STEPS // self.folds)):
            samples = experts.seen_after(step, step.source)
            yield step, Held(step.source, experts.opinions(step), step.name, samples)

    def _cross_judged(self, folds: Sequence[Sequence[tuple[Step, Held]]]) -> Iterator[tuple[Step, NextForecast]]:
        """Forecast the steps of each fold with a mixture that was learned on the others."""
        for fold in folds:
            mixture = Mixture().fit([held for other in folds if other is not fold for _, held in other])
            for step, held in fold:
                names, shares = mixture.ranked(held.opinions, held.source)
                yield step, self._forecast(names, shares, held.samples, held.source)

    def _learned_elsewhere(self, steps: Sequence[Step]) -> Mixture | None:
        """Learn to mix for new sources, by holding out each source in turn; `None` where there is only one."""
        some = _at_most(steps, MAX_STEPS)
        held: list[Held] = []
        for source in sorted({step.source for step in some}):
            learned = [step for step in some if step.source != source]
            if not learned:
                return None
            experts = StepExperts(self.max_order).count(learned)
            part = [step._replace(source="") for step in some if step.source == source]
            held += [Held("", experts.opinions(step), step.name, experts.seen_after(step, None)) for step in part]
        return Mixture().fit(held)

    def _note_sources(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self.steps_[step.source] = self.steps_.get(step.source, 0) + 1

    def to_state(self) -> dict[str, Any]:
        """Return everything the model is as names, numbers and arrays."""
        return {
            "parameters": {name: getattr(self, name) for name in _PARAMETERS},
            "experts": self.experts_.to_state(),
            "mixture": self.mixture_.to_state(),
            "elsewhere": None if self.elsewhere_ is None else self.elsewhere_.to_state(),
            "held_out_steps": self.held_out_steps_,
            "steps": dict(self.steps_),
            "quality": [each.model_dump() for each in self.quality_],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the model from what `to_state` returned.

        Raises:
            ValueError: The parts do not fit together.
            KeyError: A part is missing.
        """
        made = cls(**{name: state["parameters"][name] for name in _PARAMETERS})
        made.experts_ = StepExperts.from_state(state["experts"])
        made.mixture_ = Mixture.from_state(state["mixture"])
        made.elsewhere_ = None if state["elsewhere"] is None else Mixture.from_state(state["elsewhere"])
        made.held_out_steps_ = int(state["held_out_steps"])
        made.steps_ = {str(source): int(count) for source, count in state["steps"].items()}
        made.quality_ = [ForecastQuality.model_validate(each) for each in state["quality"]]
        return made


_PARAMETERS = ("min_confidence", "min_samples", "max_order", "folds")


class NextAgentModel(_NextModel):
    """Forecasts which agent takes the floor next, or that none does.

    >>> from apportion.records import Kind
    >>> from apportion.telemetry.events import Event, WorkflowLog
    >>> def chat(number):
    ...     events = [Event(step=nth, agent=agent, agent_run=agent, kind=Kind.ASSISTANT, content="", call=nth)
    ...               for nth, agent in enumerate(["plan", "code", "review"])]
    ...     return WorkflowLog(id=str(number), source="demo", framework="demo", events=events)
    >>> model = NextAgentModel().fit(map(chat, range(40)))
    >>> forecast = model.predict(["plan", "code"], source="demo")
    >>> forecast.expected, forecast.sample_size
    ('review', 40)
    >>> model.predict(["plan", "code", "review"], source="demo").expected
    '(end)'
    >>> model.predict(["plan", "code"], source="elsewhere").abstention
    "'elsewhere' is a new source"
    """

    what = "agent"
    steps_of = staticmethod(agent_steps)


class NextToolModel(_NextModel):
    """Forecasts which tool an agent run calls next, or that its turn ends."""

    what = "tool"
    steps_of = staticmethod(tool_steps)


def _folds(steps: Sequence[Step], folds: int) -> Iterator[tuple[list[Step], list[Step]]]:
    """Yield what is learned and what is held out, workflow by workflow, sources evenly; nothing for one workflow."""
    keys = {(step.source, step.workflow_id) for step in steps}
    order = sorted(keys, key=lambda key: (key[0], zlib.crc32(key[1].encode("utf-8", "surrogatepass")), key[1]))
    fold_of = {key: nth % folds for nth, key in enumerate(order)}
    for fold in range(min(folds, len(order)) if len(order) > 1 else 0):
        learned = [step for step in steps if fold_of[step.source, step.workflow_id] != fold]
        yield learned, [step for step in steps if fold_of[step.source, step.workflow_id] == fold]


def _at_most(steps: Sequence[Step], number: int) -> list[Step]:
    """Return at most so many steps of each source, drawn evenly from all over it; always the same ones."""
    by_source: dict[str, list[Step]] = {}
    for step in steps:
        by_source.setdefault(step.source, []).append(step)
    return [step for found in by_source.values() for step in _thinned(found, number)]


def _thinned(steps: Sequence[Step], number: int) -> Iterator[Step]:
    taken = min(number, len(steps))
    return (steps[nth * len(steps) // taken] for nth in range(taken))
