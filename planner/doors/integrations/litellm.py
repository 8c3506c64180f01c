"""LiteLLM: a logger that plans each call of `acompletion`, of a router and of the proxy; callers keep the originals.

    litellm.callbacks = [PlannerLogger(session)]
    await litellm.acompletion(model, messages=messages, metadata={"apportion_agent": "writer"})

Needs the extra `litellm`. A call that the session defers or aborts raises LiteLLM's own `BudgetExceededError`, whose
cause is a `CallRefusedError` with the decision. Only what is called by `await` can be planned: LiteLLM has no hook that
changes the messages of `completion`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from litellm.exceptions import BudgetExceededError
from litellm.integrations.custom_logger import CustomLogger

from apportion.compression.expand_tool import EXPAND_TOOL
from apportion.planner.doors.integrations.calls import CallRefusedError, Calls, PlannedCall, usage_of
from apportion.planner.doors.integrations.pieces import EXPAND, Pieces
from apportion.planner.doors.integrations.variants import AS_ASKED, Variants, tool_name
from apportion.records import Kind

if TYPE_CHECKING:
    from collections.abc import Collection

    from apportion.planner.session import Session

AGENT = "apportion_agent"
"""Member of a call's `metadata` that names the agent."""

PLANNED = frozenset({"completion", "acompletion"})
"""Types of calls whose messages are planned."""

_KINDS = {"system": Kind.SYSTEM, "developer": Kind.SYSTEM, "assistant": Kind.ASSISTANT, "tool": Kind.TOOL_RESULT}
_MAX = ("max_completion_tokens", "max_tokens")


class PlannerLogger(CustomLogger):
    """Asks a session before each call, and tells it afterwards what was used.

    Parts are left out for agents that list `expand_tool` among their tools, and answer it by `calls.expand_call`.

    Args:
        session: All agents share it, and so its budget.
        sub_agents: Names of the agents that others start.
        optional: Names of the agents that are deferred instead of aborted.
        variants: Name or arguments to call for each model that a policy may choose; which tools a variant keeps.
    """

    def __init__(
        self,
        session: Session,
        *,
        sub_agents: Collection[str] = (),
        optional: Collection[str] = (),
        variants: Variants = AS_ASKED,
    ) -> None:
        super().__init__()
        self.calls = Calls(session, sub_agents=sub_agents, optional=optional, reports_late=True, variants=variants)
        self.number = id(self)  # LiteLLM takes loggers for one whose class and public plain attributes are the same
        self._open: dict[str, PlannedCall] = {}

    @property
    def expand_tool(self) -> dict[str, Any]:
        """The schema of the tool `expand`, as `tools` takes it."""
        function = {key: EXPAND_TOOL[key] for key in ("name", "description")}
        return {"type": "function", "function": {**function, "parameters": EXPAND_TOOL["input_schema"]}}

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: Any, call_type: Any) -> Any:  # noqa: ARG002
        """Name the agent of a call to the proxy after the alias of its key, where the call does not name one."""
        alias = getattr(user_api_key_dict, "key_alias", None)
        if alias and self.calls.enabled:
            data["metadata"] = {AGENT: alias, **(data.get("metadata") or {})}
        return data

    async def async_pre_call_deployment_hook(self, kwargs: Any, call_type: Any) -> Any:
        """Plan an attempt at a call.

        Raises:
            BudgetExceededError: The session defers or aborts it.
        """
        if getattr(call_type, "value", call_type) not in PLANNED:
            return None
        agent = str((kwargs.get("metadata") or {}).get(AGENT) or "main")
        tools = kwargs.get("tools") or ()
        expands = EXPAND in map(tool_name, tools)
        named = kwargs.get("model") or getattr(kwargs.get("litellm_logging_obj"), "model", None)  # given by its place
        begin = partial(self.calls.begin, model=named, expands=expands, swaps="model" in kwargs)
        call, messages = await asyncio.to_thread(begin, agent, kwargs.get("messages"), _rewrite)
        if call.refused:
            session, error = self.calls.session, CallRefusedError(call.refused)
            used, limit = session.hand_back.used_usd, session.options.budget.max_usd
            raise BudgetExceededError(used or 0.0, limit or 0.0, error.message) from error
        self._open[kwargs["litellm_call_id"]] = call
        most = next((name for name in _MAX if kwargs.get(name)), "max_tokens")
        changed = call.settings(kwargs, most=most, efforts=("reasoning_effort",)) | {"messages": messages}
        if call.keeps is not None and tools:
            changed["tools"] = call.tools(tools)
        if call.other is not None:
            changed |= {"model": call.other} if isinstance(call.other, str) else call.other
        return changed

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> Any:  # noqa: ARG002
        """Book what a call used that came back in one piece."""
        if hasattr(response, "usage"):
            await self._end(request_data.get("litellm_call_id"), response)

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:  # noqa: ARG002
        """Book what a call used that came back as a stream."""
        await self._end(kwargs.get("litellm_call_id"), response_obj)

    async def async_post_call_failure_deployment_hook(self, request_data: Any, *_: Any, **__: Any) -> None:
        """Give back what is held for an attempt that failed."""
        call = self._open.pop(request_data.get("litellm_call_id"), None)
        if call is not None:
            self.calls.fail(call)

    async def _end(self, call_id: Any, response: Any) -> None:
        call = self._open.pop(call_id, None)
        if call is None:
            return
        used, said = getattr(response, "usage", None), Pieces()
        message = response.choices[0].message.model_dump()
        _message(message, said)
        details = getattr(used, "prompt_tokens_details", None)
        usage = usage_of(
            getattr(used, "prompt_tokens", None),
            getattr(used, "completion_tokens", None),
            cache_read=getattr(details, "cached_tokens", None),
            cache_write=getattr(details, "cache_creation_tokens", None),
        )
        await asyncio.to_thread(self.calls.end, call, usage, said.joined, final=not message.get("tool_calls"))


def _rewrite(messages: Any, pieces: Pieces) -> Any:
    return [_message(message, pieces) for message in messages]


def _message(message: Any, pieces: Pieces) -> Any:
    role, link = message.get("role"), message.get("tool_call_id")
    old = message.get("content")
    content = pieces.content(old, _KINDS.get(role, Kind.USER), message.get("name") if link else None, link)
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        pieces.text(str(function.get("arguments")), Kind.TOOL_CALL, function.get("name"), call.get("id"))
    return message if content is old else {**message, "content": content}
