"""What can be trained, and training it: from workflows to models that know how good they are.

To make another model trainable, give it a line in `TRAINABLE`. It needs `fit(workflows)`, which goes through the
workflows once, and for `persistence` `to_state()` and `from_state(state)`. With a method `metrics()`, a list of rows,
it says how good it is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.errors import InputError
from apportion.models.demand import DemandModel, PriorDemand
from apportion.models.next_agent import NextAgentModel, NextToolModel
from apportion.models.tool_needs import ToolNeeds
from apportion.records import Record, content_hash
from apportion.telemetry.stored import StoredEvent, StoredWorkflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from apportion.records import Usage
    from apportion.telemetry.events import WorkflowLog


class Trainable(NamedTuple):
    """A kind of model.

    Attributes:
        make: Makes one that has learned nothing.
        prior: Makes what stands in for it where there is none: documented priors, or a model that abstains.
        about: What it forecasts, for people.
    """

    make: type[Any]
    prior: Callable[[], Any]
    about: str


TRAINABLE: dict[str, Trainable] = {
    "demand": Trainable(DemandModel, PriorDemand, "how many tokens calls, agents, stages and workflows will need"),
    "next_agent": Trainable(NextAgentModel, NextAgentModel, "which agent takes the floor next, or that none does"),
    "tool_needs": Trainable(ToolNeeds, ToolNeeds, "which tools an agent run will use at all"),
    "next_tool": Trainable(NextToolModel, NextToolModel, "which tool an agent calls next, or that its turn ends"),
}
"""All models that `apportion train` trains, by the name of their file."""


class TrainingData(Record):
    """What models were trained on.

    Attributes:
        fingerprint: Hash over the identifiers of all workflows, the hashes of their contents, and what their calls
            used, whatever their order.
        workflows: Number of workflows.
        without_content: Number of those whose texts were not kept.
        sources: Number of workflows per source.
    """

    fingerprint: str
    workflows: int
    without_content: int
    sources: dict[str, int]

    @classmethod
    def of(cls, workflows: Iterable[WorkflowLog | StoredWorkflow]) -> TrainingData:
        """Go through workflows once and describe them."""
        digests: list[bytes] = []
        sources: Counter[str] = Counter()
        without = 0
        for workflow in workflows:
            about = workflow.summary if isinstance(workflow, StoredWorkflow) else workflow
            sources[about.source] += 1
            without += isinstance(workflow, StoredWorkflow) and not workflow.captured
            digests.append(_digest(about.id, workflow))
        whole = hashlib.sha256(b"".join(sorted(digests))).hexdigest()
        return cls(
            fingerprint=whole, workflows=len(digests), without_content=without, sources=dict(sorted(sources.items()))
        )


class Trained(NamedTuple):
    """Trained models and how good they are.

    Attributes:
        models: The models by their names in `TRAINABLE`; those that found nothing to learn from are left out.
        metrics: For each model that says so, rows of figures on workflows that it had not seen.
        untrained: Why the others were left out.
    """

    models: dict[str, Any]
    metrics: dict[str, list[dict[str, Any]]]
    untrained: dict[str, str]


def train(
    workflows: Iterable[WorkflowLog | StoredWorkflow], *, progress: Callable[[str], None] | None = None
) -> Trained:
    """Train all trainable models.

    Args:
        workflows: Gone through once for each model, so an iterator will not do.
        progress: Called with the name of each model before it is trained.

    Raises:
        InputError: Nothing could be learned at all.
    """
    models: dict[str, Any] = {}
    untrained: dict[str, str] = {}
    for name, kind in TRAINABLE.items():
        if progress is not None:
            progress(name)
        try:
            models[name] = kind.make().fit(workflows)
        except InputError as error:
            untrained[name] = error.message
    if not models:
        reasons = "; ".join(untrained.values())
        raise InputError(f"nothing can be learned ({reasons})", hint="Import more logs: apportion import PATH")
    return Trained(models, metrics_of(models), untrained)


def metrics_of(models: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return what each model says of its own quality, where it does."""
    return {name: model.metrics() for name, model in models.items() if hasattr(model, "metrics")}


def evaluate(
    models: Mapping[str, Any], workflows: Iterable[WorkflowLog | StoredWorkflow]
) -> dict[str, list[dict[str, Any]]]:
    """Return how good models are on workflows, by name, for those that can tell (`evaluate(workflows)`).

    On workflows that they were trained on the figures flatter.
    """
    return {name: model.evaluate(workflows) for name, model in models.items() if hasattr(model, "evaluate")}


def _digest(identifier: str, workflow: WorkflowLog | StoredWorkflow) -> bytes:
    whole = hashlib.sha256(content_hash(identifier).encode())
    for event in workflow.events:
        content = event.content_hash if isinstance(event, StoredEvent) else content_hash(event.content)
        whole.update(f"{content} {_counts(event.usage)}\n".encode())
    return whole.digest()


def _counts(usage: Usage | None) -> str:
    """Return what a call used, and which of that is an estimate."""
    if usage is None:
        return ""
    return f"{usage.model_dump_json(exclude={'estimated'})} {','.join(sorted(usage.estimated))}"
