"""Help for testing code that builds on apportion: Hypothesis strategies for its records, and checks of plug-ins.

    @given(workflow_logs())
    def test_my_importer_keeps_every_event(log): ...

    def test_my_policy():
        check_policy(MyPolicy())

Hypothesis itself is imported only when a strategy is asked for.
"""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from apportion.planner.policies import Policy
    from apportion.planner.problem import Problem
    from apportion.records import Usage
    from apportion.telemetry.events import Event, WorkflowLog

__all__ = ["check_policy", "json_objects", "texts", "usages", "workflow_logs"]


def texts(*, max_size: int = 40) -> SearchStrategy[str]:
    """Return texts as logs hold them: any characters, also NUL, line ends of all kinds and lone surrogates."""
    from hypothesis import strategies as st

    awkward = st.sampled_from(
        ["", "\0", "a\r\nb\rc\n", "\ud800", "\ufeffx", "null", "'; DROP TABLE events; --", "é\u0301👩‍👧"]
    )
    return awkward | st.text(st.characters(exclude_categories=()), max_size=max_size)


def json_objects() -> SearchStrategy[dict[str, Any]]:
    """Return JSON objects as they stand in `outcome` and `meta`."""
    from hypothesis import strategies as st

    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts()
    values = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3), max_leaves=5
    )
    return st.dictionaries(texts(), values, max_size=3)


def usages() -> SearchStrategy[Usage]:
    """Return usages with any columns unknown and any estimated."""
    from hypothesis import strategies as st

    from apportion.records import USAGE_COLUMNS, Usage

    tokens = st.none() | st.integers(min_value=0, max_value=2**53)
    return st.builds(
        Usage, **dict.fromkeys(USAGE_COLUMNS, tokens), estimated=st.frozensets(st.sampled_from(USAGE_COLUMNS))
    )


def workflow_logs(
    *, max_events: int = 6, workflow_ids: SearchStrategy[str] | None = None
) -> SearchStrategy[WorkflowLog]:
    """Return workflow logs in which every field of every event varies.

    Args:
        max_events: Largest number of events.
        workflow_ids: Identifiers to draw from; any text that is not empty by default.
    """
    from hypothesis import strategies as st

    from apportion.telemetry.events import WorkflowLog

    names = st.text(min_size=1, max_size=12)
    return st.builds(
        WorkflowLog,
        id=workflow_ids if workflow_ids is not None else names,
        source=names,
        framework=names,
        origin=st.none() | texts(max_size=12),
        events=_events(max_events),
        outcome=st.none() | json_objects(),
        meta=json_objects(),
    )


def _events(max_events: int) -> SearchStrategy[tuple[Event, ...]]:
    from hypothesis import strategies as st

    from apportion.records import Kind
    from apportion.telemetry.events import Event

    names = texts(max_size=12)
    amounts = st.none() | st.floats(min_value=0, allow_nan=False, allow_infinity=False)
    calls = st.none() | st.integers(min_value=0, max_value=3)
    offsets = st.integers(min_value=-14 * 60, max_value=14 * 60).map(
        lambda minutes: timezone(timedelta(minutes=minutes))
    )

    @st.composite
    def events(draw: st.DrawFn) -> tuple[Event, ...]:
        steps = sorted(draw(st.sets(st.integers(min_value=0, max_value=50), min_size=1, max_size=max_events)))
        return tuple(
            Event(
                step=step,
                stage=draw(st.integers(min_value=0, max_value=9)),
                agent=draw(names),
                agent_run=draw(names),
                parent_agent=draw(st.none() | names),
                kind=draw(st.sampled_from(Kind)),
                name=draw(st.none() | names),
                content=draw(texts()),
                model=draw(st.none() | names),
                call=draw(calls),
                usage=draw(st.none() | usages()),
                prompt_steps=draw(st.none() | st.lists(st.sampled_from(steps[:nth]), max_size=6).map(tuple))
                if nth
                else draw(st.sampled_from([None, ()])),
                started_at=draw(st.none() | st.datetimes(timezones=offsets)),
                duration_ms=draw(amounts),
                cost_usd=draw(amounts),
                link=draw(st.none() | names),
                is_error=draw(st.booleans()),
                compaction=draw(st.booleans()),
            )
            for nth, step in enumerate(steps)
        )

    return events()


def check_policy(policy: Policy) -> None:
    """Check that a policy keeps the laws on which plans rely.

    It has a name, offers the same for the same problem, only adds choices, never offers twice what an agent has, and
    where nothing fits either keeps silent or raises an error of ours.

    Raises:
        AssertionError: It does not; the message says which law is broken.
    """
    from apportion.errors import ApportionError, InfeasiblePlanError
    from apportion.planner.policies import Offer, Policy, with_policies

    _require(isinstance(policy, Policy), "it has name, offer() and conclude()")
    _require(isinstance(policy.name, str) and policy.name.isprintable() and bool(policy.name), "its name is a word")
    for problem in _sample_problems():
        before = problem.model_dump_json()
        for agent in problem.agents:
            offer = policy.offer(agent, problem)
            _require(isinstance(offer, Offer), f"offer() returns an Offer, not {type(offer).__name__}")
            _require(policy.offer(agent, problem) == offer, "it offers the same for the same problem")
        try:
            offered = with_policies(problem, [policy])
        except ApportionError as error:
            raise AssertionError(f"a policy must keep this law: its offers fit the problem ({error})") from error
        _require(problem.model_dump_json() == before, "it leaves the problem as it is")
        for old, new in zip(problem.agents, offered.agents, strict=True):
            kept = new.variants[: len(old.variants)] == old.variants
            _require(kept, "it keeps the variants that an agent has, in front")  # with_policies sees to it
        _require(with_policies(offered, [policy]) == offered, "it offers nothing that an agent has already")
    try:
        policy.conclude(InfeasiblePlanError("the mandatory part does not fit", missing_tokens=1))
    except ApportionError:
        pass
    except Exception as error:
        raise AssertionError(f"a policy must keep this law: conclude() raises errors of ours ({error!r})") from error


def _require(kept: bool, law: str) -> None:  # noqa: FBT001  (reads as a sentence)
    if not kept:
        raise AssertionError(f"a policy must keep this law: {law}")


def _sample_problems() -> list[Problem]:
    """Return problems with one agent and with several: mandatory or not, with one variant or two."""
    from apportion.planner.problem import Problem

    prices = dict.fromkeys(("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"), 1_000_000)
    demand = {"probabilities": [0.5, 0.9], "tokens": [1000, 3000], "sample_size": 9}
    full = {"model_id": "m", "demand": demand, "value_points": 900, "floor_tokens": 101, "calls": 3}
    first = {"id": "first", "stage_id": "s", "variants": [full], "uses": [{"item_id": "i"}]}
    second = {"id": "second", "stage_id": "s", "variants": [full, full | {"id": "simplified"}], "after": ["first"]}
    third = {"id": "third", "stage_id": "s", "variants": [full], "mandatory": False, "after": ["second"]}
    base = {"models": [{"id": "m", **prices}], "stages": [{"id": "s"}], "items": [{"id": "i", "tokens": 500}]}
    return [
        Problem.parse(base | {"agents": [first]}),
        Problem.parse(base | {"agents": [first, second, third], "max_tokens": 9000}),
    ]
