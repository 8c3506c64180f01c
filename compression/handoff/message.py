"""The handoff message: Mycelium's members, and ours beside them.

The whole context stands where Mycelium has it: results of earlier agents in `previous_results`, everything else in
`conversation_history`, each message with `kind` and `name` of ours beside `role`. A delta stands in `context.delta`,
and its tag in `metadata.tags`. Readers that drop members they do not know pass the tags on: so it is seen that a delta
was lost, and a context that passed through their hands can still be compared with its digest.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from apportion.compression.diff.envelope import Envelope, Form, enclose, open_envelope, whole
from apportion.compression.diff.types import Context, Reason, Section, is_word
from apportion.compression.handoff.capabilities import NOTHING, Capabilities, is_digest, tags_of
from apportion.errors import DeltaError, InputError
from apportion.telemetry.events import parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apportion.compression.diff.types import Context as HeldContext

VERSION = "1.0"
"""Version of the message, as Mycelium counts it."""

DELTA_TAG: Final = "apportion.delta/1"
"""The tag of a message that carries a delta."""

DIGEST_TAG: Final = "apportion.digest/"
"""What a tag begins with that names the context of a message."""

RESULT_KIND: Final = "previous_result"
"""Kind of the sections that are results of earlier agents, as JSON objects."""

MAX_TRIED = 3
"""Bases on which a delta is tried; the shortest is sent."""

_ASSISTANT: Final = frozenset({"assistant", "thinking", "tool_call", "handoff"})
_MEMBERS: Final = ("files", "user_preferences")


@dataclass(frozen=True, slots=True)
class Party:
    """An agent that hands over, or is handed to.

    Attributes:
        agent_id: Which one it is.
        agent_type: Its role.
        more: Further members, for example `execution_time` or `requirements`.
    """

    agent_id: str
    agent_type: str
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Handoff:
    """Work that is handed on.

    Attributes:
        source: Who hands over.
        target: Who is handed to.
        task: What is to be done, in words; always sent as it is.
        context: What the target needs for it.
        timestamp: When; with time zone.
        handoff_id: Identifies the handoff, as a UUID; `None` where it needs no name.
        workflow_id: Identifies the workflow, as a UUID; `None` where it needs no name.
        more: Further members of `context`: `files` and `user_preferences`.
        state: The member `state`: variables, progress, errors; empty where there is none.
        metadata: The member `metadata`, its tags included.
        capabilities: What the source itself understands and holds, for the answer.
    """

    source: Party
    target: Party
    task: str
    context: Context
    timestamp: datetime
    handoff_id: str | None = None
    workflow_id: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    capabilities: Capabilities = NOTHING


@dataclass(frozen=True, slots=True)
class ReceivedHandoff:
    """What a receiver has of a message.

    Attributes:
        handoff: The handoff; its context is empty where `reason` is not `None`.
        reason: Why the sender is to be asked for the whole context; `None` where it is here.
        exact: Whether the context was compared with its digest; `False` where the message says none.
        form: How the context was sent.
        degraded: What is not as it should be, in words.
    """

    handoff: Handoff
    reason: Reason | None
    exact: bool
    form: Form
    degraded: tuple[str, ...] = ()

    @property
    def context(self) -> Context | None:
        """The context; `None` where the whole has to be asked for."""
        return None if self.reason is not None else self.handoff.context


def write_handoff(
    handoff: Handoff, *, receiver: Capabilities = NOTHING, bases: Mapping[str, HeldContext] | None = None
) -> dict[str, Any]:
    """Return the message of a handoff: with a delta where the receiver can use it, else with the whole context.

    Args:
        handoff: What is handed on.
        receiver: What the receiver said that it understands and holds; by default nothing.
        bases: Contexts that the sender still has, by digest.
    """
    envelope = _envelope(handoff.context, receiver, bases or {})
    context: dict[str, Any] = {"task_description": handoff.task}
    if envelope.form is Form.FULL:
        context |= _whole(handoff.context)
    else:
        context |= {"previous_results": [], "conversation_history": [], "delta": envelope.to_json()}
    context |= {key: value for key, value in handoff.more.items() if key not in context}
    tags = [tag for tag in tags_of({"metadata": dict(handoff.metadata)}) if not _is_ours(tag)]
    tags += [f"{DIGEST_TAG}{handoff.context.digest}", *handoff.capabilities.tags()]
    if envelope.form is not Form.FULL:
        tags.append(DELTA_TAG)
    named = {"handoff_id": handoff.handoff_id, "workflow_id": handoff.workflow_id}
    message: dict[str, Any] = {"version": VERSION} | {key: value for key, value in named.items() if value is not None}
    message |= {"source": _party(handoff.source), "target": _party(handoff.target), "context": context}
    if handoff.state:
        message["state"] = dict(handoff.state)
    return message | {"metadata": {**handoff.metadata, "tags": tags}, "timestamp": handoff.timestamp.isoformat()}


def read_handoff(message: Any, *, held: Mapping[str, HeldContext] | None = None) -> ReceivedHandoff:
    """Return what a message says.

    Args:
        message: JSON values. Members that are not known are ignored.
        held: Contexts that the receiver holds, by digest.

    Raises:
        InputError: It is no handoff message: a required member is missing or of another kind.
    """
    context = _member(message, "context", dict)
    degraded: list[str] = []
    version = _member(message, "version", str)
    major, _, minor = version.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise InputError(f"unusable version {version[:20]!r} of a handoff", hint="It is two numbers, for example 1.0.")
    if version != VERSION:
        degraded.append(f"the message has version {major[:9]}.{minor[:9]}, not {VERSION}")
    timestamp = parse_time(_member(message, "timestamp", str))
    if timestamp is None:
        degraded.append("the timestamp cannot be read")
    found, reason, form = _context(context, tags_of(message), held or {})
    digest = _digest(tags_of(message))
    exact = reason is None and found.digest == digest
    if reason is None and digest is not None and not exact:
        found, reason = Context(), Reason.HASH_MISMATCH
    if reason is not None:
        degraded.append(f"the context is not here: {reason.value}")
    elif digest is None:
        degraded.append("the message does not say what context it should hold")
    metadata = message.get("metadata")
    state = message.get("state")
    handoff = Handoff(
        _read_party(message, "source"),
        _read_party(message, "target"),
        _text(context.get("task_description")),
        found,
        timestamp or datetime.fromtimestamp(0, UTC),
        _text(message.get("handoff_id")) or None,
        _text(message.get("workflow_id")) or None,
        {key: context[key] for key in _MEMBERS if key in context},
        state if isinstance(state, dict) else {},
        metadata if isinstance(metadata, dict) else {},
        Capabilities.of(message),
    )
    return ReceivedHandoff(handoff, reason, exact, form, tuple(degraded))


def _envelope(context: Context, receiver: Capabilities, bases: Mapping[str, HeldContext]) -> Envelope:
    shared, reason = receiver.shared(bases)
    tried = [enclose(context, base) for base in shared[:MAX_TRIED]]
    return min(tried, key=lambda envelope: len(envelope.data)) if tried else whole(context, reason)


def _is_ours(tag: Any) -> bool:
    return isinstance(tag, str) and tag.startswith("apportion.")


def _party(party: Party) -> dict[str, Any]:
    return {**party.more, "agent_id": party.agent_id, "agent_type": party.agent_type}


def _whole(context: Context) -> dict[str, Any]:
    """Return a context in the members that every reader knows."""
    results: list[Any] = []
    for section in context.sections:
        value = _result(section)
        if value is None:
            break
        results.append(value)
    return {
        "previous_results": results,
        "conversation_history": [_message(section) for section in context.sections[len(results) :]],
    }


def _result(section: Section) -> dict[str, Any] | None:
    """Return the result of an earlier agent as JSON; `None` where it is none, or would not come back as it is."""
    if section.kind != RESULT_KIND or section.name:
        return None
    try:
        value = json.loads(section.content)
        same = isinstance(value, dict) and _dumps(value) == section.content
    except (ValueError, RecursionError):
        return None
    return value if same else None


def _dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _message(section: Section) -> dict[str, Any]:
    role = "system" if section.kind == "system" else "assistant" if section.kind in _ASSISTANT else "user"
    message = {"role": role, "content": section.content.decode("utf-8", "replace"), "kind": section.kind}
    if section.name:
        message["name"] = section.name
    if message["content"].encode() != section.content:
        message["content64"] = base64.b64encode(section.content).decode()
    return message


def _context(
    context: dict[str, Any], tags: list[Any], held: Mapping[str, HeldContext]
) -> tuple[Context, Reason | None, Form]:
    """Return the context of a message, or why it is not there, and how it was sent."""
    if "delta" in context:
        try:
            envelope = Envelope.from_json(context["delta"])
            return open_envelope(envelope, held), None, envelope.form
        except DeltaError as error:
            return Context(), Reason(error.reason), Form.DELTA
    if DELTA_TAG in tags:
        return Context(), Reason.DELTA_DROPPED, Form.DELTA
    try:
        sections = [Section(RESULT_KIND, content=_dumps(value)) for value in _list(context, "previous_results")]
        sections += [_section(value) for value in _list(context, "conversation_history")]
    except (ValueError, RecursionError, InputError):
        return Context(), Reason.MALFORMED, Form.FULL
    return Context(tuple(sections)), None, Form.FULL


def _section(message: Any) -> Section:
    if not isinstance(message, dict):
        raise InputError("a message of a conversation is an object", hint="Give it a role and a content.")
    role = message.get("role")
    kind = message.get("kind", role)
    encoded = message.get("content64")
    content = _text(message.get("content")).encode("utf-8", "surrogatepass")
    if isinstance(encoded, str):
        try:
            content = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise InputError("unreadable base 64", hint="Ask for the whole context.") from None
    kind = kind if isinstance(kind, str) and is_word(kind) and kind[0].isalpha() else "user"
    return Section(kind, _text(message.get("name")), content)


def _digest(tags: list[Any]) -> str | None:
    said = [tag.removeprefix(DIGEST_TAG) for tag in tags if isinstance(tag, str) and tag.startswith(DIGEST_TAG)]
    return said[-1] if said and is_digest(said[-1]) else None


def _member(message: Any, name: str, kind: type[Any]) -> Any:
    value = message.get(name) if isinstance(message, dict) else None
    if not isinstance(value, kind):
        raise InputError(f"a handoff message without a usable '{name}'", hint="See docs/handoff.schema.json.")
    return value


def _read_party(message: dict[str, Any], name: str) -> Party:
    party = _member(message, name, dict)
    agent_id, agent_type = (_member(party, member, str) for member in ("agent_id", "agent_type"))
    return Party(agent_id, agent_type, {key: party[key] for key in party if key not in {"agent_id", "agent_type"}})


def _list(context: dict[str, Any], name: str) -> list[Any]:
    value = context.get(name)
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
