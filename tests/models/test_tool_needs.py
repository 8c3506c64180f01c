from __future__ import annotations

import pytest

from apportion.errors import InputError
from apportion.models.tool_needs import HANDOFF_TOOL, RunTools, ToolNeeds, folds_of, runs_of
from apportion.records import Kind
from apportion.telemetry.events import Event, WorkflowLog


def run(
    number: int, *used: str, agent: str = "main", source: str = "here", calls: int = 4, **about: object
) -> RunTools:
    return RunTools(f"w{number}", source, agent, calls, dict.fromkeys(used, 1), **about)  # type: ignore[arg-type]


RUNS = [
    *(run(n, "read", *(["fetch"] if n % 4 == 0 else []), "mcp__web__open", "mcp__web__click") for n in range(40)),
    *(run(n, "read", agent="helper", calls=2) for n in range(40)),
]


def test_a_tool_is_needed_as_often_as_runs_of_its_agent_used_it() -> None:
    needs = ToolNeeds().fit_runs(RUNS).predict("main", ["read", "fetch", "never"], source="here")
    assert needs["read"].probability > 0.95
    assert 0.15 < needs["fetch"].probability < 0.35
    assert needs["never"].probability < 0.02
    assert {need.sample_size for need in needs.values()} == {40}


def test_a_new_agent_is_judged_by_its_source_and_a_new_source_by_all() -> None:
    model = ToolNeeds().fit_runs(RUNS)
    new = model.predict("new", ["read"], source="here")["read"]
    assert (new.probability > 0.9, new.sample_size) == (True, 0)
    assert model.predict("new", ["read"], source="elsewhere")["read"].probability > 0.9
    assert model.known_tools("elsewhere") == []
    assert (model.calls("main", source="here"), model.calls("helper", source="here")) == pytest.approx((4, 2), abs=0.2)


def test_a_task_that_names_a_tool_and_an_earlier_use_make_it_likelier() -> None:
    runs = [
        run(n, *(["fetch"] if named else []), text="please fetch it" if named else "please wait", earlier=frozenset())
        for n in range(60)
        for named in [n % 3 == 0]
    ]
    model = ToolNeeds().fit_runs(runs)
    assert model.calibrated_
    asked, other = (
        model.predict("main", ["fetch"], source="here", text=text, earlier=())["fetch"].probability
        for text in ("do fetch that", "do wait")
    )
    assert asked > 0.7
    assert other < 0.3


def test_tools_of_one_server_and_tools_used_together_come_along() -> None:
    model = ToolNeeds().fit_runs(RUNS)
    tools = ["read", "fetch", "mcp__web__open", "mcp__web__shut", "mcp__mail__send"]
    assert model.companions("mcp__web__open", tools, source="here") == ("read", "mcp__web__shut")
    assert model.companions("unknown", tools, source="here") == ()


def test_a_saved_model_says_the_same_and_a_damaged_one_is_refused() -> None:
    model = ToolNeeds().fit_runs(RUNS)
    state = model.to_state()
    same = ToolNeeds.from_state(state)
    assert same.predict("main", ["read", "fetch"], source="here") == model.predict(
        "main", ["read", "fetch"], source="here"
    )
    assert same.metrics() == model.metrics()
    with pytest.raises(ValueError, match="none"):
        ToolNeeds.from_state(state | {"curve": [1.0]})
    with pytest.raises(ValueError, match="more runs"):
        ToolNeeds.from_state(state | {"groups": [{"names": [], "runs": 1, "calls": 1, "used": {"a": 2}}]})


def test_forecasts_are_judged_on_workflows_that_were_held_out() -> None:
    rows = ToolNeeds().fit_runs(RUNS).metrics()
    assert [row["source"] for row in rows] == ["all sources", "here"]
    assert rows[0]["calibration_error"] < 0.1
    for learned, held_out in folds_of(RUNS):
        assert not {each.workflow_id for each in learned} & {each.workflow_id for each in held_out}
    with pytest.raises(InputError, match="which tools are used"):
        ToolNeeds().fit_runs([run(1)])


def test_runs_know_first_uses_and_what_earlier_runs_used() -> None:
    def event(step: int, name: str, run: str, call: int, kind: Kind = Kind.TOOL_CALL) -> Event:
        return Event(step=step, agent=run, agent_run=run, kind=kind, name=name, content="{}", call=call)

    events = [
        event(0, "read", "main", 0),
        event(1, "helper", "main", 1, Kind.HANDOFF),
        event(2, "grep", "sub", 2),
        event(3, "read", "main", 3),
    ]
    main, sub = runs_of(WorkflowLog(id="1", source="s", framework="f", events=events))
    assert (dict(main.used), main.calls, main.earlier) == ({"read": 1, HANDOFF_TOOL: 2}, 3, None)
    assert (dict(sub.used), sub.calls, sub.earlier) == ({"grep": 1}, 1, frozenset({"read", HANDOFF_TOOL}))
