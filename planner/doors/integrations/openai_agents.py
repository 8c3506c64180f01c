"""OpenAI Agents SDK: plans the input of each model call, and books its usage.

    async with PlannerHooks(session) as hooks:
        agent = Agent("writer", model=hooks.model("gpt-4.1"), tools=[hooks.expand_tool()])
        await Runner.run(agent, "...", hooks=hooks, run_config=RunConfig(call_model_input_filter=hooks.filter))

Needs the extra `openai-agents`. The SDK's own history keeps the originals. A call that the session defers or aborts
raises `CallRefusedError`; `as_tool(..., hooks=hooks, failure_error_function=tell_refusal)` tells it to the agent that
called. `openai_models.py` is what makes `hooks.model` keep to a step, and `openai_handoffs.py` is for handoffs.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from agents import FunctionTool, RunHooks, default_tool_error_function

from apportion.compression.expand_tool import EXPAND_TOOL
from apportion.planner.doors.integrations.calls import CallRefusedError, Calls, usage_of
from apportion.planner.doors.integrations.openai_models import CALL, PlannedModel
from apportion.planner.doors.integrations.pieces import EXPAND, Pieces
from apportion.planner.doors.integrations.variants import AS_ASKED, Variants
from apportion.records import Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from agents import Model
    from agents.run_config import CallModelData, ModelInputData

    from apportion.planner.session import Session

_KINDS = {"system": Kind.SYSTEM, "developer": Kind.SYSTEM, "assistant": Kind.ASSISTANT}


class PlannerHooks(RunHooks[Any]):
    """Hooks of a run, with the filters that belong to them; one object serves any number of runs at once.

    Args:
        session: All agents share it, and so its budget.
        model: Name of the model for prices; `None`: what the agent says.
        sub_agents: Names of the agents that others start.
        optional: Names of the agents that are deferred instead of aborted.
        variants: The `Model` to call for each one that a policy may choose, and which tools a variant keeps.
    """

    def __init__(
        self,
        session: Session,
        *,
        model: str | None = None,
        sub_agents: Collection[str] = (),
        optional: Collection[str] = (),
        variants: Variants = AS_ASKED,
    ) -> None:
        self.calls = Calls(session, sub_agents=sub_agents, optional=optional, variants=variants)
        self._model = model

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.calls.release()

    async def filter(self, data: CallModelData[Any]) -> ModelInputData:
        """Plan a call; for `RunConfig.call_model_input_filter`.

        Raises:
            CallRefusedError: The session defers or aborts it.
        """
        agent = data.agent
        named = (self._model, agent.model, getattr(agent.model, "model", None))
        model = next((name for name in named if isinstance(name, str)), None)
        expands = self.calls.enabled and any(tool.name == EXPAND for tool in agent.tools)
        begin = partial(self.calls.begin, model=model, expands=expands, swaps=isinstance(agent.model, PlannedModel))
        call, sent = await asyncio.to_thread(begin, agent.name, data.model_data, _rewrite)
        if call.refused:
            raise CallRefusedError(call.refused)
        CALL.set(call)
        return sent

    async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:  # noqa: ARG002
        """Book what a call used."""
        call, used = CALL.get(), response.usage
        if call is None:
            return
        said = Pieces()
        items = response.to_input_items()
        _items(items, said)
        usage = usage_of(
            used.input_tokens,
            used.output_tokens,
            cache_read=used.input_tokens_details.cached_tokens,
            reasoning=used.output_tokens_details.reasoning_tokens,
        )
        final = not any(item.kind is Kind.TOOL_CALL for item in said.items)
        await asyncio.to_thread(self.calls.end, call, usage, said.joined, final=final)

    def model(self, model: Model | str) -> PlannedModel:
        """Return a model for an agent that keeps to what its steps say: longest output, and simplified variants."""
        return PlannedModel(model)

    def expand_tool(self) -> FunctionTool:
        """Return the tool by which an agent has back what was left out; without it, nothing is."""

        async def expand(_: Any, arguments: str) -> str:
            return self.calls.expand_call(**json.loads(arguments))

        schema, text = EXPAND_TOOL["input_schema"], EXPAND_TOOL["description"]
        enabled = self.calls.enabled
        return FunctionTool(EXPAND, text, schema, expand, strict_json_schema=False, is_enabled=enabled)


def tell_refusal(context: Any, error: Exception) -> str:
    """Say why an agent used as a tool was not called; the SDK's own words ask to try again."""
    return error.message if isinstance(error, CallRefusedError) else default_tool_error_function(context, error)


def _rewrite(data: ModelInputData, pieces: Pieces) -> ModelInputData:
    if data.instructions:
        pieces.text(data.instructions, Kind.SYSTEM)
    return replace(data, input=_items(data.input, pieces))


def _items(items: Iterable[Any], pieces: Pieces) -> list[Any]:
    return [_item(item, pieces) for item in items]


def _item(item: Any, pieces: Pieces) -> Any:
    what = item.get("type", "message") if isinstance(item, dict) else type(item).__name__
    if what == "function_call":
        pieces.text(str(item.get("arguments")), Kind.TOOL_CALL, item.get("name"), item.get("call_id"))
    elif what == "function_call_output":
        output = pieces.content(item.get("output"), Kind.TOOL_RESULT, None, item.get("call_id"))
        return item if output is item.get("output") else {**item, "output": output}
    elif what == "message":
        pieces.content(item.get("content"), _KINDS.get(item.get("role"), Kind.USER))
    else:
        pieces.other(what)
    return item
