"""pydantic-ai: a capability that plans each request to a model; the message history keeps the originals.

    agent = Agent(model, name="writer", capabilities=[PlannerCapability(session)])

Needs the extra `pydantic-ai`. A request that the session defers or aborts raises `UsageLimitExceeded` of pydantic-ai,
whose cause is a `CallRefusedError` with the decision.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic_ai import messages
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import UsageLimitExceeded
from pydantic_ai.tools import Tool
from pydantic_ai.toolsets import FunctionToolset

from apportion.compression.expand_tool import EXPAND_TOOL
from apportion.planner.doors.integrations.calls import CallRefusedError, Calls, PlannedCall, usage_of
from apportion.planner.doors.integrations.pieces import EXPAND, Pieces
from apportion.planner.doors.integrations.variants import AS_ASKED, Variants
from apportion.records import Kind

if TYPE_CHECKING:
    from collections.abc import Collection

    from apportion.planner.session import Session, Step

_TEXTS = {messages.SystemPromptPart: Kind.SYSTEM, messages.TextPart: Kind.ASSISTANT}
_TEXTS |= {messages.ThinkingPart: Kind.THINKING}
_EFFORTS = ("thinking", "anthropic_effort", "openai_reasoning_effort")


class PlannerCapability(AbstractCapability[Any]):
    """Asks a session before each request, and tells it afterwards what was used.

    Args:
        session: All agents of a workflow share it, and so its budget.
        model: Name of the model for prices; `None`: what the model says.
        sub_agents: Names of the agents that others start.
        optional: Names of the agents that are deferred instead of aborted.
        expand: Whether agents may be offered the tool `expand`, so that parts may be left out.
        variants: What to call for the models that a policy may choose, and which tools a variant keeps.
    """

    def __init__(
        self,
        session: Session,
        *,
        model: str | None = None,
        sub_agents: Collection[str] = (),
        optional: Collection[str] = (),
        expand: bool = True,
        variants: Variants = AS_ASKED,
    ) -> None:
        super().__init__()
        self.calls = Calls(session, sub_agents=sub_agents, optional=optional, variants=variants)
        self._model = model
        self._expand = expand and self.calls.enabled
        self._open: dict[str, PlannedCall] = {}

    def get_toolset(self) -> FunctionToolset[Any] | None:
        """Return the tool `expand`; requests show it only once something was left out."""
        schema, text = EXPAND_TOOL["input_schema"], EXPAND_TOOL["description"]
        tool: Any = Tool.from_schema(self.calls.expand_call, EXPAND, text, schema)
        return FunctionToolset([tool]) if self._expand else None

    async def prepare_model_request(self, ctx: Any, request_context: Any) -> Any:
        """Plan an attempt at a request.

        Raises:
            UsageLimitExceeded: The session defers or aborts it.
        """
        agent = (ctx.agent and ctx.agent.name) or "main"
        self._release(ctx)
        named = self._model or request_context.model.model_name
        begin = partial(self.calls.begin, model=named, expands=self._expand)
        call, sent = await asyncio.to_thread(begin, agent, request_context, _rewrite)
        if call.refused:
            error = CallRefusedError(call.refused)
            raise UsageLimitExceeded(error.message) from error
        self._open[ctx.run_id] = call
        tools = call.tools(sent.model_request_parameters.function_tools, ours=self._expand)
        parameters = replace(sent.model_request_parameters, function_tools=tools)
        settings = call.settings(sent.model_settings or {}, most="max_tokens", efforts=_EFFORTS) or sent.model_settings
        model = call.other or sent.model
        return replace(sent, model=model, model_settings=settings, model_request_parameters=parameters)

    async def after_model_request(self, ctx: Any, *, request_context: Any, response: Any) -> Any:  # noqa: ARG002
        """Book what an attempt used."""
        call, used = self._open.pop(ctx.run_id, None), response.usage
        if call is not None:
            _message(response, said := Pieces())
            read, write = used.cache_read_tokens, used.cache_write_tokens
            usage = usage_of(used.input_tokens, used.output_tokens, cache_read=read, cache_write=write)
            await asyncio.to_thread(self.calls.end, call, usage, said.joined, final=not response.tool_calls)
        return response

    async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Any) -> Any:
        """Give back what is held for a request that failed or was cancelled."""
        try:
            return await handler(request_context)
        finally:
            self._release(ctx)

    def _release(self, ctx: Any) -> None:
        call = self._open.pop(ctx.run_id, None)
        if call is not None:
            self.calls.fail(call)


def usage_limits(step: Step) -> Any:
    """Return pydantic-ai's `UsageLimits` for a run that was planned as one step, such as that of a sub-agent."""
    return step.limits.as_pydantic_ai()


def _rewrite(request: Any, pieces: Pieces) -> Any:
    for part in request.model_request_parameters.instruction_parts or ():
        pieces.text(part.content, Kind.SYSTEM)
    return replace(request, messages=[_message(message, pieces) for message in request.messages])


def _message(message: Any, pieces: Pieces) -> Any:
    if not isinstance(message, messages.ModelRequest | messages.ModelResponse):
        pieces.other(type(message).__name__)
        return message
    parts = [_part(part, pieces) for part in message.parts]
    same = all(new is old for new, old in zip(parts, message.parts, strict=True))
    return message if same else replace(message, parts=parts)


def _part(part: Any, pieces: Pieces) -> Any:
    if type(part) in _TEXTS:
        pieces.text(part.content, _TEXTS[type(part)])
    elif isinstance(part, messages.UserPromptPart):
        pieces.content(part.content, Kind.USER)
    elif isinstance(part, messages.ToolCallPart):
        pieces.text(part.args_as_json_str(), Kind.TOOL_CALL, part.tool_name, part.tool_call_id)
    elif type(part) is messages.ToolReturnPart and not part.files:
        text = part.model_response_str()
        sent = pieces.text(text, Kind.TOOL_RESULT, part.tool_name, part.tool_call_id, pin=part.outcome != "success")
        return part if sent == text else replace(part, content=sent)
    else:
        pieces.other(part.part_kind)
    return part
