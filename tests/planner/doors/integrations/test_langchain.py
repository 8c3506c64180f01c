"""The middleware in real agents of LangChain; only the model is pretended, and keeps what it received."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from apportion import Budget, Decision, Ledger, Planner
from apportion.planner.session import PLANNER_FAILED
from apportion.tokens import count_tokens

pytest.importorskip("langchain", reason="needs the extra langchain")

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from apportion.planner.doors.integrations.calls import CallRefusedError
from apportion.planner.doors.integrations.langchain import PlannerMiddleware
from apportion.planner.doors.integrations.variants import Variants

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apportion import Session

TASK = "Which agents did the crew name?"


class PretendedModel(BaseChatModel):
    """Gives the answers that it was given, and keeps each request."""

    answers: list[Any]
    requests: list[tuple[list[Any], dict[str, Any]]] = Field(default_factory=list)
    model_name: str = "claude-sonnet-4-5"
    effort: str | None = None

    @property
    def _llm_type(self) -> str:
        return "pretended"

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **options: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], tool_choice=tool_choice, **options)

    def _answer(self, messages: list[Any], options: dict[str, Any]) -> Any:
        self.requests.append((messages, options))
        answer = self.answers[len(self.requests) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _generate(
        self,
        messages: Any,
        stop: Any = None,  # noqa: ARG002
        run_manager: Any = None,  # noqa: ARG002
        **options: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages, options))])

    @property
    def bytes(self) -> list[str]:
        """Each request as JSON, without the numbers that LangChain gives to messages."""
        return [
            json.dumps([[message.model_dump(exclude={"id"}) for message in messages], options])
            for messages, options in self.requests
        ]

    @property
    def tokens(self) -> int:
        return sum(count_tokens(str(message.content)) for messages, _ in self.requests for message in messages)

    def tools(self, number: int) -> list[str]:
        return [tool["function"]["name"] for tool in self.requests[number][1].get("tools", ())]


class StreamingModel(PretendedModel):
    def _stream(
        self,
        messages: Any,
        stop: Any = None,  # noqa: ARG002
        run_manager: Any = None,  # noqa: ARG002
        **options: Any,
    ) -> Iterator[Any]:
        answer = self._answer(messages, options)
        for word in str(answer.content).split(" "):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word, tool_call_chunks=[]))


def answer(text: str = "", tool: str = "", **arguments: str) -> AIMessage:
    calls = [{"name": tool, "args": arguments, "id": f"{tool}-{sorted(arguments.items())}"}] if tool else []
    used = {"input_tokens": 1_000, "output_tokens": 20, "total_tokens": 1_020}
    return AIMessage(text, tool_calls=calls, usage_metadata=used)


def asks(*names: str) -> list[Any]:
    return [*(answer(tool="lookup", name=name) for name in names), answer("Done.")]


@pytest.fixture
def lookup(contents: dict[str, str]) -> StructuredTool:
    def find(name: str) -> str:
        return contents[name]

    return StructuredTool.from_function(find, name="lookup", description="Find a text.")


def run(model: PretendedModel, lookup: Any, middleware: Any = (), task: Any = TASK, *, by: str = "invoke") -> Any:
    agent = create_agent(model, [lookup], system_prompt="Be careful.", middleware=middleware)
    asked = {"messages": [HumanMessage(task)]}
    return asyncio.run(agent.ainvoke(asked)) if by == "ainvoke" else agent.invoke(asked)


@pytest.mark.parametrize("by", ["invoke", "ainvoke"])
def test_less_is_sent_and_the_state_keeps_the_originals(
    planner: Planner, lookup: Any, contents: dict[str, str], by: str
) -> None:
    plain, planned = (PretendedModel(answers=asks("table", "table", "text")) for _ in range(2))
    run(plain, lookup, by=by)
    with planner.session("w") as session:
        state = run(planned, lookup, [PlannerMiddleware(session)], by=by)
        saved = session.hand_back.saved_tokens
    assert planned.tokens < 0.5 * plain.tokens
    assert plain.tokens - planned.tokens == pytest.approx(saved, rel=0.2)
    results = [message.content for message in state["messages"] if isinstance(message, ToolMessage)]
    assert results == [contents["table"], contents["table"], contents["text"]]
    for (sent, _), (whole, _) in zip(planned.requests, plain.requests, strict=True):
        pairs = [(type(message), getattr(message, "tool_call_id", None)) for message in sent]
        assert pairs == [(type(message), getattr(message, "tool_call_id", None)) for message in whole]
    assert "same 9,345 bytes as result 1 above" in planned.requests[2][0][-1].content


def test_switched_off_each_request_is_the_same_to_the_byte(off: Planner, lookup: Any) -> None:
    plain, switched_off = (PretendedModel(answers=asks("table", "text", "text")) for _ in range(2))
    run(plain, lookup)
    with off.session("w", budget=Budget(max_tokens=1)) as session:
        run(switched_off, lookup, [PlannerMiddleware(session)])
        assert session.hand_back.used_tokens == 4_080
    assert switched_off.bytes == plain.bytes


def test_the_tool_expand_is_offered_once_something_is_left_out_and_gives_it_back_whole(
    planner: Planner, lookup: Any, contents: dict[str, str]
) -> None:
    model = PretendedModel(answers=[*asks("table", "text")[:2]])
    with planner.session("w") as session:
        middleware = PlannerMiddleware(session)
        with pytest.raises(IndexError):
            run(model, lookup, [middleware])
        cut = model.requests[2][0][-1].content
        handle = "h:" + cut.split("expand h:")[1].split()[0].rstrip("]")
        model = PretendedModel(
            answers=[*asks("table", "text")[:2], answer(tool="expand", handle=handle), answer("Done.")]
        )
        run(model, lookup, [middleware])
    assert len(cut) < 0.9 * len(contents["text"])
    assert [model.tools(number) for number in range(4)] == [["lookup"], ["lookup"], *2 * [["expand", "lookup"]]]
    assert model.requests[3][0][-1].content == contents["text"]
    assert model.requests[3][0][-3].content == cut


def test_a_handle_that_nobody_gave_out_is_answered_in_words(planner: Planner, lookup: Any) -> None:
    model = PretendedModel(answers=[answer(tool="expand", handle="h:00000000"), answer("Done.")])
    with planner.session("w") as session:
        state = run(model, lookup, [PlannerMiddleware(session)])
    assert "unknown handle" in state["messages"][2].content


@pytest.mark.parametrize(("mandatory", "decision"), [(True, Decision.ABORT), (False, Decision.DEFER)])
def test_a_budget_that_is_used_up_ends_the_agent_with_a_reason(
    planner: Planner, lookup: Any, *, mandatory: bool, decision: Decision
) -> None:
    model = PretendedModel(answers=asks("text"))
    with planner.session("w", budget=Budget(max_tokens=1_040)) as session:
        state = run(model, lookup, [PlannerMiddleware(session, agent="writer", mandatory=mandatory)])
        assert (session.hand_back.deferred, session.hand_back.aborted) == (
            ((), ("writer",)) if mandatory else (("writer",), ())
        )
        with pytest.raises(CallRefusedError, match="writer") as refused:
            run(model, lookup, [PlannerMiddleware(session, agent="writer", mandatory=mandatory, refuse="raise")])
    assert len(model.requests) == 1
    assert model.requests[0][1]["max_tokens"] < 1_040
    last = state["messages"][-1]
    assert last.response_metadata["apportion"]["decision"] == decision == refused.value.step.decision
    assert last.response_metadata["apportion"]["reasons"]
    assert "budget" in last.text


def test_sub_agents_at_work_together_share_one_budget(lookup: Any, contents: dict[str, str], tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        planner = Planner(ledger=ledger)
        children: list[PretendedModel] = []

        async def review(question: str, session: Session) -> str:
            children.append(model := PretendedModel(answers=asks("table", "text")))
            middleware = PlannerMiddleware(session, agent="reviewer", sub_agent=True, mandatory=False)
            agent = create_agent(model, [lookup], middleware=[middleware])
            return str((await agent.ainvoke({"messages": [HumanMessage(question)]}))["messages"][-1].text)

        async def main(session: Session) -> list[str]:
            return await asyncio.gather(*(review(f"{n}. {contents['text']}", session) for n in range(6)))

        with planner.session("w", budget=Budget(max_tokens=17_000)) as session:
            answers = asyncio.run(main(session))
            done = session.hand_back
        books = ledger.account("w").tokens
    calls = sum(len(model.requests) for model in children)
    # All 18 calls would use 18,360 tokens: some are refused, in whatever order they run.
    assert done.steps == calls < 18
    assert done.used_tokens == books.spent == 1_020 * calls <= 17_000
    assert books.held == 0
    assert len(done.deferred) == sum("deferred" in answer for answer in answers) > 0


def test_an_error_in_the_planner_lets_the_original_through(planner: Planner, lookup: Any, broken: None) -> None:
    plain, planned = (PretendedModel(answers=asks("table", "text")) for _ in range(2))
    run(plain, lookup)
    with planner.session("w") as session:
        middleware = PlannerMiddleware(session)
        run(planned, lookup, [middleware])
        assert session.hand_back.used_tokens == 3_060
    assert planned.bytes == plain.bytes
    assert [call.flags for call in middleware.calls.done] == [(f"{PLANNER_FAILED}: RuntimeError: no luck",)] * 3


def test_a_session_that_is_closed_lets_the_original_through(planner: Planner, lookup: Any) -> None:
    model = PretendedModel(answers=asks("table"))
    session = planner.session("w")
    session.close()
    middleware = PlannerMiddleware(session)
    run(model, lookup, [middleware])
    assert len(model.requests) == 2
    assert all("could not be planned" in call.flags[0] for call in middleware.calls.done)
    assert session.hand_back.used_tokens == 2_040


def test_a_call_that_fails_gives_back_what_was_held(lookup: Any, tmp_path: Path) -> None:
    with (
        Ledger(tmp_path / "ledger.db") as ledger,
        Planner(ledger=ledger).session("w", budget=Budget(max_tokens=50_000)) as session,
    ):
        with pytest.raises(ConnectionError):
            run(PretendedModel(answers=[ConnectionError("cut off")]), lookup, [PlannerMiddleware(session)])
        assert ledger.account("w").tokens.held == 0


def test_streams_come_through_and_are_booked(planner: Planner, lookup: Any) -> None:
    model = StreamingModel(answers=[answer("One two three.")])
    with planner.session("w") as session:
        middleware = PlannerMiddleware(session)
        agent = create_agent(model, [lookup], middleware=[middleware])
        parts = agent.stream({"messages": [HumanMessage(TASK)]}, stream_mode="messages")
        assert [part.text for part, _ in parts if part.text] == ["One", "two", "three."]
    call = middleware.calls.done[0]
    assert call.usage is not None
    assert call.usage.output
    assert call.usage.estimated  # the pretended stream says nothing of its usage


def test_parts_that_are_no_text_are_passed_on_as_they_are_and_named(planner: Planner, contents: dict[str, str]) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    strange = {"type": "hologram", "data": [1, 2]}
    model = PretendedModel(answers=asks("both"))

    def find(name: str) -> list[Any]:
        return [{"type": "text", "text": contents["table"]}, image]

    tool = StructuredTool.from_function(find, name="lookup", description="Find.")
    with planner.session("w") as session:
        middleware = PlannerMiddleware(session)
        run(model, tool, [middleware], [{"type": "text", "text": TASK}, image, strange])
    user, result = model.requests[1][0][1], model.requests[1][0][-1]
    assert user.content[1:] == [image, strange]
    assert result.content[1] == image
    assert len(result.content[0]["text"]) < 0.5 * len(contents["table"])
    assert middleware.calls.done[1].unread == {"image_url": 2, "hologram": 1}
    assert "2 x image_url passed on, not counted" in middleware.calls.done[1].flags


@pytest.mark.parametrize("by", ["invoke", "ainvoke"])
def test_a_simplified_call_is_made_with_the_model_the_effort_and_the_tools_of_its_variant(
    tight: Session, lookup: Any, by: str
) -> None:
    asked = PretendedModel(answers=[], effort="max")
    cheap = PretendedModel(answers=asks(), model_name="claude-haiku-4-5", effort="high")
    variants = Variants(models={"claude-haiku-4-5": cheap}, tools={"simplified": []})
    middleware = PlannerMiddleware(tight, variants=variants)
    state = run(asked, lookup, [middleware], by=by)
    assert state["messages"][-1].text == "Done."
    (_, options), call = cheap.requests[0], middleware.calls.done[0]
    assert (options["effort"], options.get("tools"), options["max_tokens"]) == ("medium", None, call.max_output_tokens)
    assert tight.hand_back.used_usd == pytest.approx(1_000 * 1e-6 + 20 * 5e-6)
    assert asked.requests == []
