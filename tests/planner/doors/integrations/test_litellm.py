"""The logger in real calls of LiteLLM; only the provider is pretended, and keeps what it received.

LiteLLM is not among the tools of development, because of its size: these tests run where it is installed.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from apportion import Budget, Decision, Ledger, Planner
from apportion.planner.session import PLANNER_FAILED
from apportion.tokens import count_tokens

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # read when LiteLLM is imported: no network
pytest.importorskip("litellm", reason="needs the extra litellm")

import litellm
from litellm.exceptions import BudgetExceededError
from litellm.types.utils import CallTypes

from apportion.planner.doors.integrations.calls import CallRefusedError
from apportion.planner.doors.integrations.litellm import PlannerLogger
from apportion.planner.doors.integrations.variants import Variants

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from apportion import Session

pytestmark = [
    pytest.mark.needs_litellm,
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning"),  # LiteLLM's own types
]
TASK = {"role": "user", "content": "Which agents did the crew name?"}


class Key(NamedTuple):
    """What the proxy knows of who calls."""

    key_alias: str | None


class Provider(litellm.CustomLLM):
    """Says that it is done, and keeps each request."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[dict[str, Any]] = []
        self.models: list[str] = []
        self.error: Exception | None = None

    def _keep(self, given: dict[str, Any]) -> None:
        self.requests.append({key: given[key] for key in ("messages", "optional_params")})
        self.models.append(given["model"])
        if self.error is not None:
            raise self.error

    async def acompletion(self, *_: Any, **given: Any) -> Any:
        self._keep(given)
        message = {"role": "assistant", "content": "Done."}
        used = {"prompt_tokens": 1_000, "completion_tokens": 20, "total_tokens": 1_020}
        choices = [{"message": message, "finish_reason": "stop", "index": 0}]
        return litellm.ModelResponse(choices=choices, usage=litellm.Usage(**used))

    async def astreaming(self, *_: Any, **given: Any) -> AsyncIterator[Any]:
        self._keep(given)
        used = {"prompt_tokens": 1_000, "completion_tokens": 20, "total_tokens": 1_020}
        for word, end in (("One ", ""), ("two.", "stop")):
            chunk = {"finish_reason": end, "index": 0, "is_finished": bool(end), "text": word, "tool_use": None}
            yield {**chunk, "usage": used if end else None}

    @property
    def tokens(self) -> int:
        return sum(count_tokens(json.dumps(request["messages"])) for request in self.requests)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    provider = Provider()
    monkeypatch.setattr(litellm, "custom_provider_map", [{"provider": "pretended", "custom_handler": provider}])
    monkeypatch.setattr(litellm, "callbacks", [])
    return provider


def history(*texts: Any) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [TASK]
    for number, text in enumerate(texts):
        function = {"name": "lookup", "arguments": "{}"}
        calls = [{"id": f"c{number}", "type": "function", "function": function}]
        messages.append({"role": "assistant", "content": "Let me see.", "tool_calls": calls})
        messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": text})
    return messages


async def ask(messages: Any, agent: str = "writer", **options: Any) -> Any:
    model = "pretended/claude-sonnet-4-5"
    return await litellm.acompletion(model=model, messages=messages, metadata={"apportion_agent": agent}, **options)


def use(logger: PlannerLogger) -> PlannerLogger:
    litellm.callbacks = [logger]
    return logger


def test_less_is_sent_and_the_caller_keeps_the_originals(
    planner: Planner, provider: Provider, contents: dict[str, str]
) -> None:
    messages = history(contents["table"], contents["table"], contents["text"])
    before = json.dumps(messages)
    with planner.session("w") as session:
        logger = use(PlannerLogger(session))
        asyncio.run(ask(messages, tools=[logger.expand_tool]))
        cut = provider.requests[0]["messages"][-1]["content"]
        handle = "h:" + cut.split("expand h:")[1].split()[0].rstrip("]")
        assert logger.calls.expand_call(handle) == contents["text"]
        assert session.hand_back.used_tokens == 1_020
    assert json.dumps(messages) == before
    assert provider.tokens < 0.5 * count_tokens(before)
    pairs = [(message["role"], message.get("tool_call_id")) for message in provider.requests[0]["messages"]]
    assert pairs == [(message["role"], message.get("tool_call_id")) for message in messages]
    assert "same 9,345 bytes as result 1 above" in provider.requests[0]["messages"][4]["content"]


def test_without_the_tool_expand_nothing_is_left_out(
    planner: Planner, provider: Provider, contents: dict[str, str]
) -> None:
    with planner.session("w") as session:
        use(PlannerLogger(session))
        asyncio.run(ask(history(contents["text"])))
    assert "expand h:" not in provider.requests[0]["messages"][-1]["content"]


def test_switched_off_each_request_is_the_same_to_the_byte(
    off: Planner, provider: Provider, contents: dict[str, str]
) -> None:
    async def main() -> None:
        await ask(history(contents["table"], contents["text"]))
        with off.session("w", budget=Budget(max_tokens=1)) as session:
            use(PlannerLogger(session))
            await ask(history(contents["table"], contents["text"]))
            assert session.hand_back.used_tokens == 1_020

    asyncio.run(main())
    plain, switched_off = provider.requests
    assert json.dumps(plain) == json.dumps(switched_off)


@pytest.mark.parametrize(("optional", "decision"), [((), Decision.ABORT), (("writer",), Decision.DEFER)])
def test_a_budget_that_is_used_up_raises_the_error_of_litellm(
    planner: Planner, provider: Provider, contents: dict[str, str], optional: tuple[str, ...], decision: Decision
) -> None:
    async def main() -> None:
        await ask([TASK])
        await ask(history(contents["text"]))

    with planner.session("w", budget=Budget(max_tokens=1_040)) as session:
        use(PlannerLogger(session, optional=optional))
        with pytest.raises(BudgetExceededError, match="writer") as refused:
            asyncio.run(main())
    assert isinstance(refused.value.__cause__, CallRefusedError)
    assert refused.value.__cause__.step.decision is decision
    assert len(provider.requests) == 1
    assert provider.requests[0]["optional_params"]["max_tokens"] < 1_040


def test_agents_at_work_together_share_one_budget_through_a_router(
    provider: Provider, contents: dict[str, str], tmp_path: Path
) -> None:
    deployment = {"model_name": "any", "litellm_params": {"model": "pretended/claude-sonnet-4-5", "api_key": "none"}}

    async def main() -> list[Any]:
        router = litellm.Router(model_list=[deployment], num_retries=2)
        asked = (
            router.acompletion(
                model="any",
                messages=[{"role": "user", "content": f"{number}. {contents['text']}"}],
                metadata={"apportion_agent": "reviewer"},
            )
            for number in range(8)
        )
        return await asyncio.gather(*asked, return_exceptions=True)

    with Ledger(tmp_path / "ledger.db") as ledger:
        with Planner(ledger=ledger).session("w", budget=Budget(max_tokens=20_000)) as session:
            use(PlannerLogger(session, sub_agents={"reviewer"}, optional={"reviewer"}))
            answers = asyncio.run(main())
            done = session.hand_back
        books = ledger.account("w").tokens
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert refused
    assert all("reviewer" in str(error) for error in refused)
    assert done.used_tokens == books.spent == 1_020 * len(provider.requests) <= 20_000
    assert books.held == 0
    assert len(provider.requests) + len(refused) == 8


def test_an_error_in_the_planner_lets_the_original_through(
    planner: Planner, provider: Provider, contents: dict[str, str], broken: None
) -> None:
    messages = history(contents["table"], contents["text"])
    with planner.session("w") as session:
        logger = use(PlannerLogger(session))
        asyncio.run(ask(messages))
    assert provider.requests[0]["messages"] == messages
    assert logger.calls.done[0].flags == (f"{PLANNER_FAILED}: RuntimeError: no luck",)


def test_a_call_that_fails_gives_back_what_was_held(provider: Provider, tmp_path: Path) -> None:
    provider.error = ConnectionError("cut off")
    with (
        Ledger(tmp_path / "ledger.db") as ledger,
        Planner(ledger=ledger).session("w", budget=Budget(max_tokens=50_000)) as session,
    ):
        use(PlannerLogger(session))
        with pytest.raises(litellm.APIConnectionError):
            asyncio.run(ask([TASK]))
        assert ledger.account("w").tokens.held == 0


def test_streams_come_through_and_are_booked(planner: Planner, provider: Provider, contents: dict[str, str]) -> None:
    async def main() -> list[str]:
        stream = await ask(history(contents["table"]), stream=True)
        words = [chunk.choices[0].delta.content async for chunk in stream]
        for _ in range(100):  # LiteLLM tells its loggers of streams when it has time
            if logger.calls.done:
                break
            await asyncio.sleep(0.02)
        return words

    with planner.session("w") as session:
        logger = use(PlannerLogger(session))
        assert asyncio.run(main())[:2] == ["One ", "two."]
        assert session.hand_back.used_tokens == 1_020
    assert len(provider.requests[0]["messages"][-1]["content"]) < 0.5 * len(contents["table"])


def test_parts_that_are_no_text_are_passed_on_as_they_are_and_named(
    planner: Planner, provider: Provider, contents: dict[str, str]
) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with planner.session("w") as session:
        logger = use(PlannerLogger(session))
        asyncio.run(ask(history([{"type": "text", "text": contents["table"]}, image])))
    text, picture = provider.requests[0]["messages"][-1]["content"]
    assert picture == image
    assert len(text["text"]) < 0.5 * len(contents["table"])
    assert logger.calls.done[0].unread == {"image_url": 1}


def test_other_types_of_calls_are_left_alone(planner: Planner) -> None:
    with planner.session("w") as session:
        logger = PlannerLogger(session)
        asked = logger.async_pre_call_deployment_hook({"input": ["text"], "litellm_call_id": "1"}, CallTypes.aembedding)
        assert asyncio.run(asked) is None
        assert session.hand_back.steps == 0


def test_the_proxy_names_an_agent_after_its_key(planner: Planner, off: Planner) -> None:
    async def named(planner: Planner, alias: str | None, **data: Any) -> Any:
        with planner.session("w") as session:
            return await PlannerLogger(session).async_pre_call_hook(Key(alias), None, data, "completion")

    assert asyncio.run(named(planner, "crew")) == {"metadata": {"apportion_agent": "crew"}}
    given = {"metadata": {"apportion_agent": "writer", "trace": "1"}}
    assert asyncio.run(named(planner, "crew", **given)) == given
    assert asyncio.run(named(planner, None)) == {}
    assert asyncio.run(named(off, "crew")) == {}


@pytest.mark.parametrize("other", ["pretended/claude-haiku-4-5", {"model": "pretended/claude-haiku-4-5", "top_p": 0.5}])
def test_a_simplified_call_is_made_with_the_model_the_effort_and_the_tools_of_its_variant(
    tight: Session, provider: Provider, other: Any
) -> None:
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("search", "write")]
    variants = Variants(models={"claude-haiku-4-5": other}, tools={"simplified": ["write"]})
    logger = use(PlannerLogger(tight, variants=variants))
    allowed = {"allowed_openai_params": ["reasoning_effort", "tools"]}
    options: dict[str, Any] = {"reasoning_effort": "high", "tools": tools, **allowed}
    asyncio.run(ask([TASK], **options))
    sent = provider.requests[0]["optional_params"]
    assert provider.models == ["claude-haiku-4-5"]
    assert (sent["reasoning_effort"], sent["tools"]) == ("medium", tools[1:])
    assert sent["max_tokens"] == logger.calls.done[0].max_output_tokens
    assert sent.get("top_p") == (0.5 if isinstance(other, dict) else None)
    assert tight.hand_back.used_usd == pytest.approx(1_000 * 1e-6 + 20 * 5e-6)


def test_a_model_that_was_given_by_its_place_is_planned_as_any_other(planner: Planner, provider: Provider) -> None:
    async def main() -> None:
        await litellm.acompletion("pretended/claude-sonnet-4-5", messages=[TASK])

    with planner.session("w") as session:
        logger = use(PlannerLogger(session))
        asyncio.run(main())
        assert session.hand_back.used_usd == pytest.approx(1_000 * 3e-6 + 20 * 15e-6)
    assert logger.calls.done[0].flags == ()
