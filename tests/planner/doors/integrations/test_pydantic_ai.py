"""The capability in real agents of pydantic-ai; only the model is a function, which keeps what it received."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from apportion import Budget, ContextItem, Decision, Ledger, Planner
from apportion.planner.session import PLANNER_FAILED
from apportion.tokens import count_tokens

pytest.importorskip("pydantic_ai.capabilities", reason="needs the extra pydantic-ai")

from pydantic_ai import Agent, BinaryContent, ImageUrl
from pydantic_ai.exceptions import UsageLimitExceeded
from pydantic_ai.messages import (
    ModelMessagesTypeAdapter,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import DeltaToolCall, FunctionModel
from pydantic_ai.usage import RequestUsage

from apportion.planner.doors.integrations.calls import CallRefusedError
from apportion.planner.doors.integrations.pydantic_ai import PlannerCapability, usage_limits
from apportion.planner.doors.integrations.variants import Variants

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from apportion import Session

TASK = "Which agents did the crew name?"
Asked = tuple[str, dict[str, str]]


@dataclass
class PretendedModel:
    """Calls tools as it was told, then says that it is done; keeps each request."""

    asks: list[Asked]
    requests: list[tuple[list[Any], Any]] = field(default_factory=list)

    def next_call(self, messages: list[Any], info: Any) -> Asked | None:
        self.requests.append((list(messages), info))
        number = len(self.requests) - 1
        return self.asks[number] if number < len(self.asks) else None

    def __call__(self, messages: list[Any], info: Any) -> ModelResponse:
        asked = self.next_call(messages, info)
        part = TextPart("Done.") if asked is None else ToolCallPart(*asked, f"call {len(self.requests)}")
        return ModelResponse(parts=[part], usage=RequestUsage(input_tokens=1_000, output_tokens=20))

    async def stream(self, messages: list[Any], info: Any) -> AsyncIterator[Any]:
        asked = self.next_call(messages, info)
        if asked is not None:
            name, (argument,) = asked[0], asked[1].values()
            yield {0: DeltaToolCall(name, f'{{"name": "{argument}"}}', tool_call_id="one")}
            return
        for word in ("One ", "two ", "three."):
            yield word

    @property
    def bytes(self) -> list[tuple[Any, ...]]:
        """Each request as JSON, without times and the numbers of runs."""
        hidden, dump = {"timestamp", "run_id", "conversation_id"}, ModelMessagesTypeAdapter.dump_python
        return [
            (_without(dump(messages, mode="json"), hidden), info.function_tools, info.model_settings, info.instructions)
            for messages, info in self.requests
        ]

    @property
    def tokens(self) -> int:
        return sum(count_tokens(text) for number in range(len(self.requests)) for text in self.results(number))

    def results(self, number: int) -> list[str]:
        parts = [part for message in self.requests[number][0] for part in message.parts]
        return [part.model_response_str() for part in parts if isinstance(part, ToolReturnPart)]

    def tools(self, number: int) -> list[str]:
        return [tool.name for tool in self.requests[number][1].function_tools]


def _without(value: Any, hidden: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(one, hidden) for key, one in value.items() if key not in hidden}
    return [_without(one, hidden) for one in value] if isinstance(value, list) else value


def asks(*names: str) -> list[Asked]:
    return [("lookup", {"name": name}) for name in names]


def agent_of(model: PretendedModel, lookup: Callable[..., Any], *capabilities: Any, name: str = "writer") -> Any:
    function = FunctionModel(model, stream_function=model.stream)
    return Agent(function, name=name, instructions="Be careful.", tools=[lookup], capabilities=capabilities)


@pytest.fixture
def lookup(contents: dict[str, str]) -> Callable[[str], str]:
    def lookup(name: str) -> str:
        """Find a text."""
        return contents[name]

    return lookup


def test_less_is_sent_and_the_history_keeps_the_originals(
    planner: Planner, lookup: Any, contents: dict[str, str]
) -> None:
    plain, planned = (PretendedModel(asks("table", "table", "text")) for _ in range(2))
    asyncio.run(agent_of(plain, lookup).run(TASK))
    with planner.session("w") as session:
        result = asyncio.run(agent_of(planned, lookup, PlannerCapability(session)).run(TASK))
    assert result.output == "Done."
    assert planned.tokens < 0.5 * plain.tokens
    parts = [part for message in result.all_messages() for part in message.parts]
    kept = [part.content for part in parts if isinstance(part, ToolReturnPart)]
    assert kept == [contents["table"], contents["table"], contents["text"]]
    for (sent, _), (whole, _) in zip(planned.requests, plain.requests, strict=True):
        kinds = [[part.part_kind for part in message.parts] for message in sent]
        assert kinds == [[part.part_kind for part in message.parts] for message in whole]
    assert "same 9,345 bytes as result 1 above" in planned.results(2)[1]


def test_structured_results_are_planned_as_the_text_that_the_model_reads(planner: Planner) -> None:
    rows = [{"id": number, "state": "open", "value": number * 7919} for number in range(200)]

    def lookup(name: str) -> list[dict[str, Any]]:
        """Find rows."""
        return rows

    model = PretendedModel(asks("table"))
    with planner.session("w") as session:
        result = asyncio.run(agent_of(model, lookup, PlannerCapability(session)).run(TASK))
    assert len(model.results(1)[0]) < 3_000
    assert result.all_messages()[2].parts[0].content == rows


def test_switched_off_each_request_is_the_same_to_the_byte(off: Planner, lookup: Any) -> None:
    plain, switched_off = (PretendedModel(asks("table", "text", "text")) for _ in range(2))
    asyncio.run(agent_of(plain, lookup).run(TASK))
    with off.session("w", budget=Budget(max_tokens=1)) as session:
        asyncio.run(agent_of(switched_off, lookup, PlannerCapability(session)).run(TASK))
        assert session.hand_back.used_tokens == 4_080
    assert switched_off.bytes == plain.bytes


def test_the_tool_expand_is_offered_once_something_is_left_out_and_gives_it_back_whole(
    planner: Planner, lookup: Any, contents: dict[str, str]
) -> None:
    with planner.session("w") as session:
        first = PretendedModel(asks("table", "text"))
        asyncio.run(agent_of(first, lookup, PlannerCapability(session)).run(TASK))
        cut = first.results(2)[1]
        handle = "h:" + cut.split("expand h:")[1].split()[0].rstrip("]")
        model = PretendedModel([*asks("table", "text"), ("expand", {"handle": handle})])
        asyncio.run(agent_of(model, lookup, PlannerCapability(session)).run(TASK))
    assert len(cut) < 0.9 * len(contents["text"])
    assert [model.tools(number) for number in range(4)] == [["lookup"], ["lookup"], *2 * [["lookup", "expand"]]]
    assert model.results(3)[1:] == [cut, contents["text"]]


@pytest.mark.parametrize(("optional", "decision"), [((), Decision.ABORT), (("writer",), Decision.DEFER)])
def test_a_budget_that_is_used_up_raises_the_limit_of_pydantic_ai(
    planner: Planner, lookup: Any, optional: tuple[str, ...], decision: Decision
) -> None:
    model = PretendedModel(asks("text"))
    with planner.session("w", budget=Budget(max_tokens=1_040)) as session:
        agent = agent_of(model, lookup, PlannerCapability(session, optional=optional))
        with pytest.raises(UsageLimitExceeded, match="writer") as refused:
            asyncio.run(agent.run(TASK))
    assert isinstance(refused.value.__cause__, CallRefusedError)
    assert refused.value.__cause__.step.decision is decision
    assert len(model.requests) == 1
    assert model.requests[0][1].model_settings["max_tokens"] < 1_040


def test_sub_agents_at_work_together_share_one_budget(contents: dict[str, str], tmp_path: Path) -> None:
    children: list[PretendedModel] = []

    async def work(session: Session) -> list[Any]:
        capability = PlannerCapability(session, sub_agents={"reviewer"}, optional={"reviewer"})

        def lookup(name: str) -> str:
            """Find a text."""
            return contents[name]

        async def review(question: str) -> str:
            """Let a reviewer answer."""
            children.append(model := PretendedModel(asks("table", "text")))
            return str((await agent_of(model, lookup, capability, name="reviewer").run(question)).output)

        lead = PretendedModel([("review", {"question": contents["text"]})])
        main = Agent(FunctionModel(lead), name="lead", tools=[review], capabilities=[capability])
        questions = (review(f"{number}. {contents['text']}") for number in range(5))
        return await asyncio.gather(main.run(contents["text"]), *questions, return_exceptions=True)

    with Ledger(tmp_path / "ledger.db") as ledger:
        with Planner(ledger=ledger).session("w", budget=Budget(max_tokens=40_000)) as session:
            answers = asyncio.run(work(session))
            done = session.hand_back
        books = ledger.account("w").tokens
    refused = [answer for answer in answers if isinstance(answer, UsageLimitExceeded)]
    assert refused
    assert all(isinstance(one, UsageLimitExceeded | str) or one.output == "Done." for one in answers)
    assert done.used_tokens == books.spent == 1_020 * done.steps <= 40_000
    assert books.held == 0
    assert done.deferred


def test_an_error_in_the_planner_lets_the_original_through(planner: Planner, lookup: Any, broken: None) -> None:
    plain, planned = (PretendedModel(asks("table", "text")) for _ in range(2))
    asyncio.run(agent_of(plain, lookup).run(TASK))
    with planner.session("w") as session:
        capability = PlannerCapability(session)
        asyncio.run(agent_of(planned, lookup, capability).run(TASK))
    assert planned.bytes == plain.bytes
    assert [call.flags for call in capability.calls.done] == [(f"{PLANNER_FAILED}: RuntimeError: no luck",)] * 3


def test_streams_come_through_and_are_booked(planner: Planner, lookup: Any, contents: dict[str, str]) -> None:
    model = PretendedModel(asks("table"))

    async def main(session: Session) -> list[str]:
        agent = agent_of(model, lookup, PlannerCapability(session))
        async with agent.run_stream(TASK) as stream:
            return [part async for part in stream.stream_text(delta=True, debounce_by=None)]

    with planner.session("w") as session:
        assert asyncio.run(main(session)) == ["One ", "two ", "three."]
        assert session.hand_back.steps == 2
        assert session.hand_back.used_tokens > 0
    assert len(model.results(1)[0]) < 0.5 * len(contents["table"])


@pytest.mark.parametrize("error", [ConnectionError("cut off"), asyncio.CancelledError()])
def test_a_request_that_fails_gives_back_what_was_held(lookup: Any, tmp_path: Path, error: BaseException) -> None:
    def fail(*_: Any) -> ModelResponse:
        raise error

    async def main(session: Session) -> None:
        agent = Agent(FunctionModel(fail), name="writer", capabilities=[PlannerCapability(session)])
        with pytest.raises(type(error)):
            await agent.run(TASK)

    with (
        Ledger(tmp_path / "ledger.db") as ledger,
        Planner(ledger=ledger).session("w", budget=Budget(max_tokens=50_000)) as session,
    ):
        asyncio.run(main(session))
        assert ledger.account("w").tokens.held == 0


def test_parts_that_are_no_text_are_passed_on_as_they_are_and_named(planner: Planner, contents: dict[str, str]) -> None:
    picture, photo = BinaryContent(b"AAAA", media_type="image/png"), ImageUrl("https://example.com/a.png")

    def lookup(name: str) -> list[Any]:
        """Find a picture."""
        return [contents["table"], picture]

    model = PretendedModel(asks("both"))
    with planner.session("w") as session:
        capability = PlannerCapability(session)
        asyncio.run(agent_of(model, lookup, capability).run([TASK, photo]))
    parts = [part for message in model.requests[1][0] for part in message.parts]
    assert next(part.content for part in parts if isinstance(part, UserPromptPart)) == [TASK, photo]
    assert next(part.content for part in parts if isinstance(part, ToolReturnPart)) == [contents["table"], picture]
    assert capability.calls.done[1].unread == {"ImageUrl": 1, "tool-return": 1}


def test_a_run_that_was_planned_as_one_step_gets_limits_of_pydantic_ai(planner: Planner) -> None:
    with planner.session("w", budget=Budget(max_tokens=10_000)) as session:
        step = session.before("reviewer", [ContextItem("look")], model="claude-sonnet-4-5")
    limits = usage_limits(step)
    assert (limits.total_tokens_limit, limits.output_tokens_limit) == (step.allocated_tokens, step.max_output_tokens)


def test_a_simplified_request_is_made_with_the_model_the_effort_and_the_tools_of_its_variant(
    tight: Session, lookup: Callable[..., Any]
) -> None:
    asked, cheap = PretendedModel([]), PretendedModel([])
    other = FunctionModel(cheap, model_name="claude-haiku-4-5", profile={"supports_thinking": True})
    variants = Variants(models={"claude-haiku-4-5": other}, tools={"simplified": ["other"]})
    capability = PlannerCapability(tight, model="claude-sonnet-4-5", variants=variants)
    agent = agent_of(asked, lookup, capability)
    asyncio.run(agent.run(TASK, model_settings={"thinking": "high", "openai_reasoning_effort": "low"}))
    info, call = cheap.requests[0][1], capability.calls.done[0]
    assert info.model_settings["openai_reasoning_effort"] == "low"
    assert info.model_settings["max_tokens"] == call.max_output_tokens
    assert info.model_request_parameters.thinking == "medium"
    assert info.function_tools == []
    assert tight.hand_back.used_usd == pytest.approx(1_000 * 1e-6 + 20 * 5e-6)
    assert asked.requests == []
