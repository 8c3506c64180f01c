"""LangChain and LangGraph: a middleware that plans each call of a model; the state keeps the originals.

    agent = create_agent(model, tools, middleware=[PlannerMiddleware(session, agent="writer")])

Needs the extra `langchain`. Where the session defers or aborts a call, the model is not called: its answer is a message
that says why, and whose `response_metadata["apportion"]` holds the decision, so that the agent ends there.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import StructuredTool

from apportion.compression.expand_tool import EXPAND_TOOL
from apportion.planner.doors.integrations.calls import CallRefusedError, Calls, PlannedCall, refusal, usage_of
from apportion.planner.doors.integrations.pieces import EXPAND, Pieces
from apportion.planner.doors.integrations.variants import AS_ASKED, Variants
from apportion.records import Kind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from apportion.planner.session import Session, Step

_KINDS = {SystemMessage: Kind.SYSTEM, HumanMessage: Kind.USER, AIMessage: Kind.ASSISTANT, ToolMessage: Kind.TOOL_RESULT}
_EFFORTS = ("reasoning_effort", "effort")


class PlannerMiddleware(AgentMiddleware[Any, Any, Any]):
    """Asks a session before each call of the model, and tells it afterwards what was used.

    Args:
        session: All agents of a workflow share it, and so its budget.
        agent: Type name of the agent.
        sub_agent: Whether another agent starts it.
        mandatory: Whether the workflow makes no sense without it; else it is deferred instead of aborted.
        model: Name of the model for prices; `None`: what the model says of itself.
        expand: Whether the agent may be offered the tool `expand`, so that parts may be left out.
        max_tokens: Setting of the model that limits an output; `None`: it is not limited.
        variants: What to call for the models that a policy may choose, and which tools a variant keeps.
        refuse: `"answer"` ends the agent with a message, `"raise"` raises `CallRefusedError`.
    """

    def __init__(
        self,
        session: Session,
        *,
        agent: str = "main",
        sub_agent: bool = False,
        mandatory: bool = True,
        model: str | None = None,
        expand: bool = True,
        max_tokens: str | None = "max_tokens",
        variants: Variants = AS_ASKED,
        refuse: str = "answer",
    ) -> None:
        super().__init__()
        named = (agent,)
        started, optional = named if sub_agent else (), () if mandatory else named
        self.calls = Calls(session, sub_agents=started, optional=optional, variants=variants)
        self.agent = agent
        given = {"description": EXPAND_TOOL["description"], "args_schema": EXPAND_TOOL["input_schema"]}
        tool = StructuredTool.from_function(self.calls.expand_call, name=EXPAND, **given)
        self.tools: Sequence[Any] = [tool] if expand and self.calls.enabled else []
        self._model = model
        self._max_tokens = max_tokens
        self._refuse = refuse

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]) -> Any:
        """Plan a call, make it with what the plan sends, and book it."""
        call, request = self._begin(request)
        if call.refused:
            return self._answer(call.refused)
        try:
            response = handler(request)
        except BaseException:
            self.calls.fail(call)
            raise
        self._end(call, response)
        return response

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        """Do the same without holding up the event loop."""
        call, request = await asyncio.to_thread(self._begin, request)
        if call.refused:
            return self._answer(call.refused)
        try:
            response = await handler(request)
        except BaseException:
            self.calls.fail(call)
            raise
        await asyncio.to_thread(self._end, call, response)
        return response

    def _begin(self, request: ModelRequest[Any]) -> tuple[PlannedCall, ModelRequest[Any]]:
        named = (self._model, getattr(request.model, "model_name", None), getattr(request.model, "model", None))
        model = next((name for name in named if isinstance(name, str)), None)
        call, sent = self.calls.begin(self.agent, request, _rewrite, model=model, expands=bool(self.tools))
        tools = call.tools(sent.tools, ours=bool(self.tools))
        model = call.other or sent.model
        settings = call.settings(sent.model_settings, most=self._max_tokens, efforts=_EFFORTS, of=model)
        return call, sent.override(model=model, tools=tools, model_settings=settings)

    def _end(self, call: PlannedCall, response: ModelResponse[Any]) -> None:
        answer = next(message for message in response.result if isinstance(message, AIMessage))
        used = answer.usage_metadata or {}
        details = used.get("input_token_details", {})
        usage = usage_of(
            used.get("input_tokens"),
            used.get("output_tokens"),
            cache_read=details.get("cache_read"),
            cache_write=details.get("cache_creation"),
            reasoning=used.get("output_token_details", {}).get("reasoning"),
        )
        _message(answer, said := Pieces())
        self.calls.end(call, usage, said.joined, final=not answer.tool_calls)

    def _answer(self, step: Step) -> ModelResponse[Any]:
        if self._refuse == "raise":
            raise CallRefusedError(step)
        why = {"decision": str(step.decision), "reasons": list(step.reasons)}
        return ModelResponse(result=[AIMessage(refusal(step), response_metadata={"apportion": why})])


def _rewrite(request: ModelRequest[Any], pieces: Pieces) -> ModelRequest[Any]:
    head = [] if request.system_message is None else [request.system_message]
    old = [*head, *request.messages]
    new = [_message(message, pieces) for message in old]
    if all(one is other for one, other in zip(new, old, strict=True)):
        return request
    return request.override(messages=new[len(head) :], system_message=new[0] if head else None)


def _message(message: Any, pieces: Pieces) -> Any:
    kind = next((kind for cls, kind in _KINDS.items() if isinstance(message, cls)), Kind.USER)
    link = getattr(message, "tool_call_id", None)
    content = pieces.content(message.content, kind, message.name if link else None, link)
    for call in getattr(message, "tool_calls", ()):
        pieces.text(json.dumps(call["args"], default=str), Kind.TOOL_CALL, call["name"], call["id"])
    return message if content is message.content else message.model_copy(update={"content": content})
