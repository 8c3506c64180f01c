"""OpenAI Agents SDK: a model that makes each call as its step says, for filters of the SDK cannot change settings.

    agent = Agent("writer", model=hooks.model("gpt-4.1"))

Without it, the input of a call is planned and nothing else: neither its longest output nor a simplified variant holds.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agents import Model, MultiProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agents import ModelSettings

    from apportion.planner.doors.integrations.calls import PlannedCall

CALL: ContextVar[PlannedCall | None] = ContextVar("apportion_call", default=None)
"""The call that the filter has planned, in the task that makes it."""


class PlannedModel(Model):
    """Calls a model, or that of a variant, with the longest output, the effort and the tools of the step.

    Args:
        model: What is called, unless a step says otherwise; a name is looked up as the SDK does by default.
    """

    def __init__(self, model: Model | str) -> None:
        self._inner = MultiProvider().get_model(model) if isinstance(model, str) else model
        self.model = model if isinstance(model, str) else getattr(model, "model", None)
        """Its name, or `None` where it has none."""

    async def get_response(
        self,
        system_instructions: Any,
        input: Any,  # noqa: A002  (as in the interface)
        model_settings: Any,
        tools: Any,
        *more: Any,
        **named: Any,
    ) -> Any:
        """Make a call whose answer comes in one piece."""
        model, settings, kept = self._planned(model_settings, tools)
        return await model.get_response(system_instructions, input, settings, kept, *more, **named)

    async def stream_response(
        self,
        system_instructions: Any,
        input: Any,  # noqa: A002  (as in the interface)
        model_settings: Any,
        tools: Any,
        *more: Any,
        **named: Any,
    ) -> AsyncIterator[Any]:
        """Make a call whose answer comes in parts."""
        model, settings, kept = self._planned(model_settings, tools)
        async for event in model.stream_response(system_instructions, input, settings, kept, *more, **named):
            yield event

    def get_retry_advice(self, request: Any) -> Any:
        """Return what the model says of trying again."""
        return self._inner.get_retry_advice(request)

    async def close(self) -> None:
        """Close the model; those of variants belong to whoever made them."""
        await self._inner.close()

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self._inner._cleanup_on_run_end(owner)  # noqa: SLF001  (the SDK's runner calls it on us)

    def _planned(self, settings: ModelSettings, tools: Any) -> tuple[Model, ModelSettings, Any]:
        call = CALL.get()
        if call is None:
            return self._inner, settings, tools
        most = call.max_output_tokens
        if most is not None:
            settings = replace(settings, max_tokens=min(most, settings.max_tokens or most))
        thinking = settings.reasoning
        if thinking is not None and call.effort(thinking.effort) != thinking.effort:
            less = thinking.model_copy(update={"effort": call.effort(thinking.effort)})
            settings = replace(settings, reasoning=less)
        return call.other or self._inner, settings, call.tools(tools)
