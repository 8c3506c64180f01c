"""The hooks in real runs of the OpenAI Agents SDK; only the model is pretended, and keeps what it received."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from apportion import Budget, Decision, Ledger, Planner
from apportion.compression.handoff import Capabilities, read_handoff
from apportion.planner.session import PLANNER_FAILED
from apportion.tokens import count_tokens

pytest.importorskip("agents.run_config", reason="needs the extra openai-agents")

from agents import Agent, FunctionTool, Model, ModelSettings, RunConfig, Runner, SQLiteSession, Usage, handoff
from agents.items import ModelResponse
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseUsage,
)
from openai.types.shared import Reasoning

from apportion.planner.doors.integrations.calls import ESTIMATED, NOT_CALLABLE, CallRefusedError
from apportion.planner.doors.integrations.openai_agents import PlannerHooks, tell_refusal
from apportion.planner.doors.integrations.openai_handoffs import DeltaHandoffs, context_of
from apportion.planner.doors.integrations.openai_models import PlannedModel
from apportion.planner.doors.integrations.variants import Variants

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from apportion import Session

TASK = "Which agents did the crew name?"


class PretendedModel(Model):
    """Calls tools as it was told, then says that it is done; keeps each request."""

    def __init__(self, *asks: tuple[str, dict[str, str]], prefix: str = "call") -> None:
        self.asks, self.prefix = asks, prefix
        self.requests: list[dict[str, Any]] = []

    def _output(self, request: dict[str, Any]) -> list[Any]:
        self.requests.append(request)
        number = len(self.requests)
        if number > len(self.asks):
            text = ResponseOutputText(text="Done.", type="output_text", annotations=[])
            return [ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[text])]
        name, arguments = self.asks[number - 1]
        call_id = f"{self.prefix} {number}"
        return [
            ResponseFunctionToolCall(type="function_call", name=name, arguments=json.dumps(arguments), call_id=call_id)
        ]

    async def get_response(
        self,
        system_instructions: Any,
        input: Any,  # noqa: A002
        model_settings: Any,
        tools: Any,
        *_: Any,
        **__: Any,
    ) -> ModelResponse:
        output = self._output(request_of(system_instructions, input, model_settings, tools))
        used = Usage(requests=1, input_tokens=1_000, output_tokens=20, total_tokens=1_020)
        return ModelResponse(output=output, usage=used, response_id=None)

    async def stream_response(
        self,
        system_instructions: Any,
        input: Any,  # noqa: A002
        model_settings: Any,
        tools: Any,
        *_: Any,
        **__: Any,
    ) -> AsyncIterator[Any]:
        output = self._output(request_of(system_instructions, input, model_settings, tools))
        details: dict[str, Any] = {
            "input_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 5},
        }
        used = ResponseUsage(input_tokens=1_000, output_tokens=20, total_tokens=1_020, **details)
        response = Response(
            id="r", created_at=0, model="pretended", object="response", output=output, usage=used,
            parallel_tool_calls=False, tool_choice="auto", tools=[],
        )  # fmt: skip
        yield ResponseCompletedEvent(response=response, type="response.completed", sequence_number=0)

    @property
    def bytes(self) -> list[str]:
        return [json.dumps(request, default=repr) for request in self.requests]

    @property
    def tokens(self) -> int:
        return sum(count_tokens(json.dumps(request["input"])) for request in self.requests)

    def results(self, number: int) -> list[Any]:
        return [item["output"] for item in self.requests[number]["input"] if item.get("type") == "function_call_output"]


def request_of(instructions: Any, items: Any, settings: Any, tools: Any) -> dict[str, Any]:
    names = [(tool.name, tool.description, tool.params_json_schema) for tool in tools]
    return {"instructions": instructions, "input": items, "settings": settings, "tools": names}


def lookups(*names: str) -> tuple[tuple[str, dict[str, str]], ...]:
    return tuple(("lookup", {"name": name}) for name in names)


def tool(function: Callable[[str], Any], name: str = "lookup") -> FunctionTool:
    async def call(_: Any, arguments: str) -> Any:
        return function(json.loads(arguments)["name"])

    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    return FunctionTool(name, "Find.", schema, call, strict_json_schema=False)


@pytest.fixture
def lookup(contents: dict[str, str]) -> FunctionTool:
    return tool(contents.__getitem__)


def agent_of(model: Model, *tools: Any, name: str = "writer", handoffs: Any = (), says: str = "Be careful.") -> Any:
    return Agent(name, instructions=says, model=model, tools=list(tools), handoffs=list(handoffs))


async def run(agent: Any, hooks: PlannerHooks | None = None, task: Any = TASK, **options: Any) -> Any:
    config = RunConfig(tracing_disabled=True, call_model_input_filter=hooks.filter if hooks else None)
    return await Runner.run(agent, task, hooks=hooks, run_config=config, **options)


def test_less_is_sent_and_the_session_keeps_the_originals(
    planner: Planner, lookup: Any, contents: dict[str, str]
) -> None:
    plain, planned = (PretendedModel(*lookups("table", "table", "text")) for _ in range(2))
    memory = SQLiteSession("one")

    async def main(session: Session) -> Any:
        await run(agent_of(plain, lookup))
        async with PlannerHooks(session) as hooks:
            await run(agent_of(planned, lookup, hooks.expand_tool()), hooks, session=memory)
        return await memory.get_items()

    with planner.session("w") as session:
        items = asyncio.run(main(session))
        assert session.hand_back.used_tokens == 4_080
    memory.close()
    assert planned.tokens < 0.5 * plain.tokens
    assert [item["output"] for item in items if "output" in item] == [
        contents["table"],
        contents["table"],
        contents["text"],
    ]
    for sent, whole in zip(planned.requests, plain.requests, strict=True):
        pairs = [(item.get("type"), item.get("call_id")) for item in sent["input"]]
        assert pairs == [(item.get("type"), item.get("call_id")) for item in whole["input"]]
    assert "same 9,345 bytes as result 1 above" in planned.results(2)[1]


def test_switched_off_each_request_is_the_same_to_the_byte(off: Planner, lookup: Any) -> None:
    plain, switched_off = (PretendedModel(*lookups("table", "text", "text")) for _ in range(2))

    async def main(session: Session) -> None:
        await run(agent_of(plain, lookup))
        hooks = PlannerHooks(session)
        await run(agent_of(switched_off, lookup, hooks.expand_tool()), hooks)

    with off.session("w", budget=Budget(max_tokens=1)) as session:
        asyncio.run(main(session))
        assert session.hand_back.used_tokens == 4_080
    assert switched_off.bytes == plain.bytes


def test_what_was_left_out_comes_back_whole_by_the_tool_expand(
    planner: Planner, lookup: Any, contents: dict[str, str]
) -> None:
    async def main(session: Session) -> tuple[PretendedModel, PretendedModel, str]:
        hooks = PlannerHooks(session)
        without, first = PretendedModel(*lookups("text")), PretendedModel(*lookups("table", "text"))
        await run(agent_of(without, lookup), hooks)
        await run(agent_of(first, lookup, hooks.expand_tool()), hooks)
        cut = first.results(2)[1]
        handle = "h:" + cut.split("expand h:")[1].split()[0].rstrip("]")
        second = PretendedModel(*lookups("table", "text"), ("expand", {"handle": handle}))
        await run(agent_of(second, lookup, hooks.expand_tool()), hooks)
        return without, second, cut

    with planner.session("w") as session:
        without, second, cut = asyncio.run(main(session))
    assert "expand h:" not in without.results(1)[0]
    assert len(cut) < 0.9 * len(contents["text"])
    assert second.results(3)[-1] == contents["text"]


@pytest.mark.parametrize(("optional", "decision"), [((), Decision.ABORT), (("writer",), Decision.DEFER)])
def test_a_budget_that_is_used_up_raises_the_decision(
    planner: Planner, lookup: Any, optional: tuple[str, ...], decision: Decision
) -> None:
    model = PretendedModel(*lookups("text"))
    with (
        planner.session("w", budget=Budget(max_tokens=1_040)) as session,
        pytest.raises(CallRefusedError, match="writer") as refused,
    ):
        asyncio.run(run(agent_of(model, lookup), PlannerHooks(session, optional=optional)))
    assert refused.value.step.decision is decision
    assert len(model.requests) == 1


def test_agents_used_as_tools_share_one_budget_and_tell_who_called_them(
    lookup: Any, contents: dict[str, str], tmp_path: Path
) -> None:
    children = [PretendedModel(*lookups("table", "text")) for _ in range(5)]

    class Lead(PretendedModel):
        def _output(self, request: dict[str, Any]) -> list[Any]:
            output = super()._output(request)
            if len(self.requests) > 1:
                return output
            asked = [json.dumps({"input": f"{number}. {TASK}"}) for number in range(5)]
            return [
                ResponseFunctionToolCall(type="function_call", name=f"ask_{n}", arguments=text, call_id=f"c{n}")
                for n, text in enumerate(asked)
            ]

    async def main(session: Session) -> list[Any]:
        async with PlannerHooks(session, sub_agents={"reviewer"}, optional={"reviewer"}) as hooks:
            tools = [
                agent_of(child, lookup, name="reviewer", says=contents["text"]).as_tool(
                    f"ask_{number}", "Ask.", hooks=hooks, failure_error_function=tell_refusal
                )
                for number, child in enumerate(children)
            ]
            lead = Lead(("", {}))
            await run(agent_of(lead, *tools, name="lead"), hooks, contents["text"])
            assert {call.run_id for call in hooks.calls.done} > {"lead", "reviewer", "reviewer#2"}
        return lead.results(1)

    with Ledger(tmp_path / "ledger.db") as ledger:
        with Planner(ledger=ledger).session("w", budget=Budget(max_tokens=30_000)) as session:
            answers = asyncio.run(main(session))
            done = session.hand_back
        books = ledger.account("w").tokens
    assert done.used_tokens == books.spent == 1_020 * done.steps <= 30_000
    assert books.held == 0
    assert done.deferred
    assert sum("is deferred" in answer for answer in answers) == len(done.deferred)


def test_a_nested_run_without_hooks_is_booked_by_estimate(lookup: Any) -> None:
    child, lead = PretendedModel(*lookups("text", "text")), PretendedModel(("ask", {"input": "Look."}))

    async def main(session: Session) -> PlannerHooks:
        hooks = PlannerHooks(session)
        ask = agent_of(child, lookup, name="reviewer").as_tool("ask", "Ask.")
        await run(agent_of(lead, ask, name="lead"), hooks)
        return hooks

    with Planner().session("w") as session:
        hooks = asyncio.run(main(session))
        assert session.hand_back.steps == 4
    estimated = [call for call in hooks.calls.done if call.flags == (ESTIMATED,)]
    assert [call.run_id for call in estimated] == ["reviewer"] * 2


def test_an_error_in_the_planner_lets_the_original_through(planner: Planner, lookup: Any, broken: None) -> None:
    plain, planned = (PretendedModel(*lookups("table", "text")) for _ in range(2))

    async def main(session: Session) -> PlannerHooks:
        await run(agent_of(plain, lookup))
        hooks = PlannerHooks(session)
        await run(agent_of(planned, lookup), hooks)
        return hooks

    with planner.session("w") as session:
        hooks = asyncio.run(main(session))
    assert planned.bytes == plain.bytes
    assert [call.flags for call in hooks.calls.done] == [(f"{PLANNER_FAILED}: RuntimeError: no luck",)] * 3


def test_a_call_that_fails_gives_back_what_was_held(tmp_path: Path) -> None:
    class Failing(PretendedModel):
        def _output(self, request: dict[str, Any]) -> list[Any]:  # noqa: ARG002
            raise ConnectionError("cut off")

    async def main(session: Session) -> None:
        async with PlannerHooks(session) as hooks:
            with pytest.raises(ConnectionError):
                await run(agent_of(Failing()), hooks)

    with (
        Ledger(tmp_path / "ledger.db") as ledger,
        Planner(ledger=ledger).session("w", budget=Budget(max_tokens=50_000)) as session,
    ):
        asyncio.run(main(session))
        assert ledger.account("w").tokens.held == 0


def test_streams_come_through_and_are_booked(planner: Planner, lookup: Any, contents: dict[str, str]) -> None:
    model = PretendedModel(*lookups("table"))

    async def main(session: Session) -> PlannerHooks:
        hooks = PlannerHooks(session)
        config = RunConfig(tracing_disabled=True, call_model_input_filter=hooks.filter)
        result = Runner.run_streamed(agent_of(model, lookup), TASK, hooks=hooks, run_config=config)
        events = [event.type async for event in result.stream_events()]
        assert "raw_response_event" in events
        assert result.final_output == "Done."
        return hooks

    with planner.session("w") as session:
        hooks = asyncio.run(main(session))
    assert len(model.results(1)[0]) < 0.5 * len(contents["table"])
    usage = hooks.calls.done[-1].usage
    assert usage is not None
    assert (usage.input_uncached, usage.cache_read, usage.output, usage.reasoning) == (400, 600, 20, 5)


def test_parts_that_are_no_text_are_passed_on_as_they_are_and_named(planner: Planner, contents: dict[str, str]) -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}
    strange = {"type": "item_reference", "id": "x"}
    task = [{"role": "user", "content": [{"type": "input_text", "text": TASK}, image]}, strange]
    model = PretendedModel(*lookups("both"))

    async def main(session: Session) -> PlannerHooks:
        hooks = PlannerHooks(session)
        found = tool(lambda _: [{"type": "text", "text": contents["table"]}, {"type": "image", "image_url": "data:,"}])
        await run(agent_of(model, found), hooks, task)
        return hooks

    with planner.session("w") as session:
        hooks = asyncio.run(main(session))
    sent = model.requests[1]["input"]
    assert sent[0]["content"][1] == image
    assert strange in sent
    text, picture = sent[-1]["output"]
    assert len(text["text"]) < 0.5 * len(contents["table"])
    assert picture["type"] == "input_image"
    assert hooks.calls.done[1].unread == {"input_image": 2, "item_reference": 1}


class Bridge(PretendedModel):
    """Speaks for a remote agent: rebuilds what it is handed over, and says what it understands and holds."""

    def __init__(self) -> None:
        super().__init__()
        self.deltas = True
        self.held: dict[str, Any] = {}
        self.rebuilt: list[list[Any]] = []
        self.sizes: list[int] = []

    def says(self) -> Capabilities:
        return Capabilities(deltas=self.deltas, holds=tuple(self.held))

    def _output(self, request: dict[str, Any]) -> list[Any]:
        items = request["input"]
        self.sizes.append(len(json.dumps(items)))
        if len(items) == 1 and '"handoff' not in items[0]["content"] and items[0]["content"].startswith("{"):
            received = read_handoff(json.loads(items[0]["content"]), held=self.held)
            assert received.context is not None
            items = [json.loads(section.content) for section in received.context.sections]
        context = context_of(items)
        self.held[context.digest] = context
        self.rebuilt.append(items)
        return super()._output(request)


@pytest.mark.parametrize("understands", [True, False])
def test_a_handoff_sends_a_delta_only_to_who_understands_it_and_holds_its_base(
    lookup: Any, contents: dict[str, str], *, understands: bool
) -> None:
    bridge = Bridge()
    bridge.deltas = understands
    handoffs = DeltaHandoffs()
    tester = agent_of(bridge, name="tester")
    over = handoff(tester, input_filter=handoffs.filter("writer", "tester", receiver=bridge.says))

    async def main() -> None:
        history: list[Any] = [{"role": "user", "content": TASK}]
        for name in ("table", "text"):
            model = PretendedModel(*lookups(name), (over.tool_name, {}), prefix=name)
            result = await run(agent_of(model, lookup, handoffs=[over]), None, history)
            history = [*bridge.rebuilt[-1], {"role": "user", "content": "Go on."}]
            assert result.final_output == "Done."

    asyncio.run(main())
    first, second = bridge.rebuilt
    assert second[: len(first)] == first
    assert [item["output"] for item in second if "output" in item][::2] == [contents["table"], contents["text"]]
    assert (bridge.sizes[1] < 0.6 * len(json.dumps(second))) is understands


def test_the_hooks_change_no_setting_of_the_model(lookup: Any) -> None:
    model = PretendedModel()
    with Planner().session("w", budget=Budget(max_tokens=9_000)) as session:
        agent = agent_of(model, lookup)
        agent.model_settings = ModelSettings(max_tokens=7)
        asyncio.run(run(agent, PlannerHooks(session)))
    assert model.requests[0]["settings"].max_tokens == 7


@pytest.mark.parametrize("streamed", [False, True])
def test_a_simplified_call_is_made_with_the_model_the_effort_and_the_tools_of_its_variant(
    tight: Session, lookup: Any, *, streamed: bool
) -> None:
    asked, cheap = PretendedModel(), PretendedModel()
    variants = Variants(models={"claude-haiku-4-5": cheap}, tools={"simplified": ["other"]})

    async def main() -> None:
        async with PlannerHooks(tight, model="claude-sonnet-4-5", variants=variants) as hooks:
            agent = agent_of(hooks.model(asked), lookup)
            agent.model_settings = ModelSettings(reasoning=Reasoning(effort="high", summary="auto"), temperature=0.5)
            if streamed:
                config = RunConfig(tracing_disabled=True, call_model_input_filter=hooks.filter)
                async for _ in Runner.run_streamed(agent, TASK, hooks=hooks, run_config=config).stream_events():
                    pass
            else:
                await run(agent, hooks)
            assert hooks.calls.done[0].max_output_tokens == cheap.requests[0]["settings"].max_tokens

    asyncio.run(main())
    settings = cheap.requests[0]["settings"]
    assert (settings.reasoning.effort, settings.reasoning.summary, settings.temperature) == ("medium", "auto", 0.5)
    assert cheap.requests[0]["tools"] == []
    assert tight.hand_back.used_usd == pytest.approx(1_000 * 1e-6 + 20 * 5e-6)  # Haiku caches no prompt this short
    assert asked.requests == []


def test_a_model_that_is_not_ours_is_called_as_it_is_and_the_call_says_so(tight: Session, lookup: Any) -> None:
    asked, cheap = PretendedModel(), PretendedModel()

    async def main() -> Any:
        variants = Variants(models={"claude-haiku-4-5": cheap})
        async with PlannerHooks(tight, model="claude-sonnet-4-5", variants=variants) as hooks:
            await run(agent_of(asked, lookup), hooks)
            return hooks.calls.done[0]

    call = asyncio.run(main())
    assert NOT_CALLABLE in call.flags[-1]
    assert (len(asked.requests), cheap.requests) == (1, [])


def test_a_model_of_ours_without_a_plan_calls_what_it_was_made_of(lookup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "opens nothing")
    plain, ours = PretendedModel(), PretendedModel()
    asyncio.run(run(agent_of(plain, lookup)))
    asyncio.run(run(agent_of(PlannedModel(ours), lookup)))
    assert ours.bytes == plain.bytes
    assert PlannedModel("gpt-4.1").model == "gpt-4.1"
