"""What each hook of Claude Code is answered: the JSON of a hook in, the JSON of its answer out.

    with open_state() as state:
        answer({"hook_event_name": "PreToolUse", "tool_name": "Agent", ...}, state)

`answer` never raises, and says `{}` to whatever it does not know: then the client goes on as it would without us.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from apportion.errors import LedgerError
from apportion.planner.doors.claude_code.agents import UNRESTRICTED, Simplified, SubAgents
from apportion.planner.doors.claude_code.compaction import loss
from apportion.planner.doors.claude_code.ingestion import Ingestion
from apportion.planner.doors.claude_code.transcripts import (
    Version,
    agent_transcript,
    parse_version,
    user_texts,
    version_of,
)
from apportion.records import Budget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apportion.planner.session import Planner

TESTED: Final[Version] = (2, 1, 330)
"""The oldest version of Claude Code that nothing is held back from: on it, the tests have seen everything work."""

SELECT = "recoverable"
"""Level at which parts of results are left out: all facts of a result stay visible, what repeats them goes."""

MAX_SESSIONS = 64
"""Conversations that are known at a time; the one that was silent for longest is forgotten."""

MAX_EDITED = 2_000
"""Files of a conversation that are known to be edited."""

AGENT_TOOLS: Final = frozenset({"Agent", "Task"})
"""Names of the tool that starts a sub-agent, now and before."""

EDITING_TOOLS: Final = frozenset({"Edit", "MultiEdit", "NotebookEdit", "Write"})
"""Tools that edit the file they name."""

WAY_BACK = (
    "apportion: parts of this result are left out where a marker like [731: lines 4-9 left out; expand h:3fa9c2d1 4-9] "
    "stands. To see them, call expand_content of the MCP server apportion, or run: apportion expand h:3fa9c2d1"
)
"""What an agent is told when something is left out for the first time."""

UNTESTED: Final = "the client is not tested"
"""What is noted when the user was told so; no agent is called like that."""

_log = logging.getLogger("apportion.claude_code")

Answer = dict[str, Any]


@dataclass(slots=True)
class Conversation:
    """What is known of one session of Claude Code."""

    id: str
    agents: SubAgents
    version: Version | None = None
    task: str = ""
    model: str | None = None
    edited: dict[str, None] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    notices: list[str] = field(default_factory=list)
    left_told: int | None = None
    number: int = 0
    results: int = 0
    saved_result_tokens: int = 0
    saved_prompt_tokens: int = 0
    lost: int = 0
    checked: int = 0


class HookState:
    """What answers go by: the planner, and the conversations that it knows.

    Args:
        planner: Makes sessions; its store keeps what is left out of results.
        budget_tokens: What the sub-agents of a conversation may use together, or `None`.
        select: Level at which parts of results are left out, or `None` for never.
        simplified: How sub-agents run when little is left of the budget; `None`: as always.
        off_file: Nothing is done while this file exists; `None`: there is no such file.
        tested: The oldest version of the client for which anything is rewritten.
    """

    def __init__(
        self,
        planner: Planner,
        *,
        budget_tokens: int | None = None,
        select: str | None = SELECT,
        simplified: Simplified | None = None,
        off_file: Path | None = None,
        tested: Version = TESTED,
    ) -> None:
        self.planner = planner
        self.budget_tokens = budget_tokens
        self.simplified = simplified
        self.off_file = off_file
        self.tested = tested
        self.ingestion = Ingestion(select, planner.store, planner.options.off)
        self.failures = 0
        self._conversations: OrderedDict[str, Conversation] = OrderedDict()
        self._lock = threading.RLock()

    @property
    def off(self) -> bool:
        """Whether the user has switched everything off."""
        return not self.planner.options.enabled or (self.off_file is not None and self.off_file.exists())

    def conversation(self, session_id: str) -> Conversation:
        """Return what is known of a session of the client; a new one is opened."""
        with self._lock:
            found = self._conversations.get(session_id)
            if found is None:
                found = Conversation(session_id, self._sub_agents(session_id, 0, self.budget_tokens))
                self._conversations[session_id] = found
                while len(self._conversations) > MAX_SESSIONS:
                    self._close(self._conversations.popitem(last=False)[1])
            self._conversations.move_to_end(session_id)
            return found

    def set_budget(self, conversation: Conversation, tokens: int | None) -> None:
        """Give the sub-agents of a conversation another budget; what they used so far counts."""
        with self._lock:
            before = conversation.agents
            before.refresh()
            conversation.number += 1
            left = None if tokens is None else max(1, tokens - before.used_tokens)
            agents = self._sub_agents(conversation.id, conversation.number, left)
            agents.budget_tokens = tokens
            agents.take_over(before)
            conversation.agents = agents
            conversation.left_told = None

    def close(self) -> None:
        """Close all conversations."""
        with self._lock:
            while self._conversations:
                self._close(self._conversations.popitem()[1])

    def _sub_agents(self, session_id: str, number: int, tokens: int | None) -> SubAgents:
        budget = Budget(max_tokens=tokens) if tokens is not None else None
        name = f"claude-code:{session_id[:100]}" + (f":{number}" if number else "")
        try:
            session = self.planner.session(name, budget=budget)
        except LedgerError:  # it was resumed with another budget: the account exists with other limits
            session = self.planner.session(f"{name}/{secrets.token_hex(4)}", budget=budget)
        return SubAgents(session, tokens, self.simplified)

    def _close(self, conversation: Conversation) -> None:
        conversation.agents.close()
        conversation.agents.session.close()


def answer(given: object, state: HookState) -> Answer:
    """Answer a hook; never raises.

    Args:
        given: The JSON of the hook, as it came.
        state: What answers go by.

    Returns:
        The JSON of the answer; `{}` where the client is to go on as it would without us.
    """
    try:
        if not isinstance(given, dict):
            return {}
        session_id, event = given.get("session_id"), given.get("hook_event_name")
        if not isinstance(session_id, str) or not session_id.isprintable() or not isinstance(event, str):
            return {}
        if event in _COMMANDS:
            return _COMMANDS[event](given, state, state.conversation(session_id[:100]))
        if state.off or event not in _ANSWERS:
            return {}
        conversation = state.conversation(session_id[:100])
        if not _is_tested(given, conversation, state):
            return _untested(event, given, state, conversation)
        return _ANSWERS[event](given, state, conversation)
    except Exception as error:  # noqa: BLE001  (whatever is wrong with us, the work goes on)
        state.failures += 1
        _log.error("%s while answering a hook", type(error).__name__)
        return {}


def _is_tested(given: dict[str, Any], conversation: Conversation, state: HookState) -> bool:
    """Say whether the client is a version that rewriting is tested with; what is not known is not tested."""
    if conversation.version is None:
        conversation.version = parse_version(given.get("client_version")) or version_of(given.get("transcript_path"))
    if conversation.version is None:  # at the very beginning there is no transcript yet, and nothing to rewrite
        return given.get("hook_event_name") in {"SessionStart", "UserPromptSubmit"}
    return conversation.version >= state.tested


def _untested(event: str, given: dict[str, Any], state: HookState, conversation: Conversation) -> Answer:
    """Count what is used, rewrite nothing, and tell the user so, once."""
    if event in _COUNTING:
        return _COUNTING[event](given, state, conversation)
    if conversation.version is None or UNTESTED in conversation.told:
        return {}
    conversation.told.add(UNTESTED)
    version, tested = (".".join(map(str, each)) for each in (conversation.version, state.tested))
    return {
        "systemMessage": f"apportion only counts here: Claude Code {version} is older than {tested}, the tested one."
    }


# What happens in the main conversation.


def _session_start(given: dict[str, Any], _state: HookState, conversation: Conversation) -> Answer:
    model = given.get("model")
    if isinstance(model, str):
        conversation.model = model[:200]
    if given.get("source") in {"clear", "compact"}:
        conversation.told.clear()
    return _told("SessionStart", conversation)


def _user_prompt(given: dict[str, Any], _state: HookState, conversation: Conversation) -> Answer:
    prompt = given.get("prompt")
    if isinstance(prompt, str) and prompt and not prompt.startswith(("<task-notification>", "/")):
        conversation.task = prompt[:20_000]
        conversation.agents.session.next_stage()
    agents = conversation.agents
    agents.refresh()
    if agents.budget_tokens is not None and agents.left_tokens != conversation.left_told:
        conversation.left_told = agents.left_tokens
        conversation.notices.append(
            f"apportion: {agents.left_tokens:,} of {agents.budget_tokens:,} tokens for sub-agents are left."
        )
    return _told("UserPromptSubmit", conversation)


def _session_end(_given: dict[str, Any], _state: HookState, conversation: Conversation) -> Answer:
    """Give back what is held. The conversation stays known: it may be resumed, in another process of the client."""
    conversation.agents.close()
    return {}


def _told(event: str, conversation: Conversation, *more: str) -> Answer:
    """Return what the model is to be told at the next opportunity, and forget it."""
    notes = [*conversation.notices, *more]
    conversation.notices.clear()
    if not notes:
        return {}
    return {"hookSpecificOutput": {"hookEventName": event, "additionalContext": "\n\n".join(notes)}}


# Tools.


def _pre_tool(given: dict[str, Any], _state: HookState, conversation: Conversation) -> Answer:
    tool_input, call = given.get("tool_input"), given.get("tool_use_id")
    if given.get("tool_name") not in AGENT_TOOLS or not isinstance(tool_input, dict) or not isinstance(call, str):
        return {}
    start = conversation.agents.start(call, tool_input, model=conversation.model)
    if start.refusal:
        return {
            "hookSpecificOutput": {
                "hookEventName": "PreToolUse",
                "permissionDecision": "deny",
                "permissionDecisionReason": start.refusal,
            }
        }
    if not start.changes:
        return {}
    conversation.saved_prompt_tokens += start.saved_tokens
    # the whole input, because it replaces the other; and no decision, so that the user is asked as ever
    return {"hookSpecificOutput": {"hookEventName": "PreToolUse", "updatedInput": {**tool_input, **start.changes}}}


def _post_tool(given: dict[str, Any], state: HookState, conversation: Conversation) -> Answer:
    tool, tool_input = given.get("tool_name"), given.get("tool_input")
    if not isinstance(tool, str) or not isinstance(tool_input, dict):
        return {}
    if tool in AGENT_TOOLS:
        _agent_returned(given, state, conversation)
        return _told("PostToolUse", conversation)
    path = tool_input.get("file_path") or tool_input.get("notebook_path")
    if tool in EDITING_TOOLS and isinstance(path, str) and len(conversation.edited) < MAX_EDITED:
        conversation.edited[path] = None
    output = _ingested(tool, tool_input, given, state, conversation)
    agent_id = given.get("agent_id")
    told = {} if isinstance(agent_id, str) else _told("PostToolUse", conversation)
    if not output:
        return told
    inner = output["hookSpecificOutput"]
    notes = [
        each["additionalContext"] for each in (told.get("hookSpecificOutput", {}), inner) if "additionalContext" in each
    ]
    return {"hookSpecificOutput": {**inner, **({"additionalContext": "\n\n".join(notes)} if notes else {})}}


def _ingested(
    tool: str, tool_input: dict[str, Any], given: dict[str, Any], state: HookState, conversation: Conversation
) -> Answer:
    if tool == "Read" and tool_input.get("file_path") in conversation.edited:
        return {}
    agent_id, agent_type = given.get("agent_id"), given.get("agent_type")
    sub_agent = isinstance(agent_id, str)
    found = state.ingestion.shorter(
        tool,
        tool_input,
        given.get("tool_response"),
        task=conversation.task,
        expands=not sub_agent or agent_type in UNRESTRICTED,
        sub_agent=sub_agent,
    )
    if found is None:
        return {}
    conversation.results += 1
    conversation.saved_result_tokens += found.original_tokens - found.tokens
    output: dict[str, Any] = {"hookEventName": "PostToolUse", "updatedToolOutput": found.response}
    reader = agent_id if isinstance(agent_id, str) else ""
    if found.left_out and reader not in conversation.told:
        conversation.told.add(reader)
        output["additionalContext"] = WAY_BACK
    return {"hookSpecificOutput": output}


# Sub-agents.


def _agent_returned(given: dict[str, Any], _state: HookState, conversation: Conversation) -> Answer:
    response, call = given.get("tool_response"), given.get("tool_use_id")
    if given.get("tool_name") not in AGENT_TOOLS or not isinstance(response, dict) or not isinstance(call, str):
        return {}
    agent_id = response.get("agentId")
    model = response.get("resolvedModel")
    if conversation.model is None and isinstance(model, str):
        conversation.model = model[:200]
    if isinstance(agent_id, str) and response.get("status") != "async_launched":
        path = agent_transcript(given.get("transcript_path"), agent_id)
        conversation.agents.returned(agent_id, path, call, response.get("usage"))
    return {}


def _agent_started(_given: dict[str, Any], _state: HookState, conversation: Conversation) -> Answer:
    agents = conversation.agents
    if agents.budget_tokens is None:
        return {}
    note = (
        f"apportion: {agents.left_tokens:,} tokens are left for all sub-agents of this session together; "
        f"{agents.running} running."
    )
    return {"hookSpecificOutput": {"hookEventName": "SubagentStart", "additionalContext": note}}


def _agent_stopped(given: dict[str, Any], _state: HookState, conversation: Conversation) -> Answer:
    agent_id, agent = given.get("agent_id"), given.get("agent_type")
    transcript = given.get("agent_transcript_path")
    if isinstance(agent_id, str) and isinstance(transcript, str):
        conversation.agents.stopped(agent_id, transcript, agent if isinstance(agent, str) else None)
        conversation.told.discard(agent_id)
    return {}


def _tool_failed(given: dict[str, Any], _state: HookState, conversation: Conversation) -> Answer:
    call = given.get("tool_use_id")
    if given.get("tool_name") in AGENT_TOOLS and isinstance(call, str):
        conversation.agents.failed(call)
    return {}


# Compaction.


def _compacted(given: dict[str, Any], _state: HookState, conversation: Conversation) -> Answer:
    """Note what a summary does not say; the model is told at the next hook that may tell it anything.

    The hook `SessionStart` with the source `compact` comes before this one, so it cannot be that.
    """
    summary = given.get("compact_summary")
    if not isinstance(summary, str):
        return {}
    found = loss(user_texts(given.get("transcript_path")), conversation.edited, summary)
    conversation.lost += found.lost
    conversation.checked += found.checked
    conversation.told.clear()
    if found.lost:
        conversation.notices.append(found.note())
    return {}


# What the plugin's own commands ask.


def status(state: HookState, conversation: Conversation) -> Answer:
    """Return how a conversation stands, in words and numbers of our own."""
    agents = conversation.agents
    agents.refresh()
    return {
        "off": state.off,
        "client_version": ".".join(map(str, conversation.version)) if conversation.version else None,
        "tested_version": ".".join(map(str, state.tested)),
        "budget_tokens": agents.budget_tokens,
        "used_tokens": agents.used_tokens,
        "left_tokens": agents.left_tokens,
        "sub_agents": {
            "started": agents.started, "running": agents.running, "refused": agents.refused,
            "estimated": agents.estimated, "unbooked": agents.unbooked,
        },
        "results_shortened": conversation.results,
        "saved_result_tokens": conversation.saved_result_tokens,
        "saved_prompt_tokens": conversation.saved_prompt_tokens,
        "compaction": {"checked": conversation.checked, "lost": conversation.lost},
        "failures": state.failures,
    }  # fmt: skip


def _status(_given: dict[str, Any], state: HookState, conversation: Conversation) -> Answer:
    return status(state, conversation)


def _set_budget(given: dict[str, Any], state: HookState, conversation: Conversation) -> Answer:
    tokens = given.get("max_tokens")
    if tokens is None or (isinstance(tokens, int) and not isinstance(tokens, bool) and 0 < tokens <= 2**53):
        state.set_budget(conversation, tokens)
    return status(state, conversation)


_ANSWERS: dict[str, Callable[[dict[str, Any], HookState, Conversation], Answer]] = {
    "SessionStart": _session_start,
    "UserPromptSubmit": _user_prompt,
    "PreToolUse": _pre_tool,
    "PostToolUse": _post_tool,
    "PostToolUseFailure": _tool_failed,
    "SubagentStart": _agent_started,
    "SubagentStop": _agent_stopped,
    "PostCompact": _compacted,
    "SessionEnd": _session_end,
}

_COUNTING = {"PostToolUse": _agent_returned, "SubagentStop": _agent_stopped, "SessionEnd": _session_end}
"""What is done with a client that is not tested: usage is counted, nothing is rewritten."""

_COMMANDS = {"ApportionStatus": _status, "ApportionBudget": _set_budget}
"""What the plugin's commands ask for, by the same way as hooks."""
