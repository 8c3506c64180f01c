"""What an agent may be given besides its context, and what of it is: tools, skills and agent files.

offered = [*Offered.tools(definitions), Offered("writer", text, EntryKind.AGENT)]
step = session.before("writer", items, offered=offered)
step.loading.tools          # JSON definitions for the request; the last one loads whatever was left out
step.loading.files          # agent files and skills to put into the prompt, by name
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from apportion.compression.loading import EntryKind
from apportion.compression.loading.tool_lists import named
from apportion.errors import ApportionError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from apportion.compression.loading import Entry, Loaded, Registry
    from apportion.planner.loading import LoadForm


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool, a skill or an agent file that an agent may be given.

    Attributes:
        name: Its name.
        content: The text, verbatim; of a tool, its definition as JSON.
        kind: What it is.
        description: What it is for; its first sentence stands in the list of what can be loaded.
        pinned: Whether it is always loaded whole.

    Raises:
        InputError: It has no name.
    """

    name: str
    content: str
    kind: EntryKind = EntryKind.TOOL
    description: str = ""
    pinned: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("what is on offer needs a name", hint="Give the name of the tool, skill or agent.")

    @classmethod
    def tools(cls, definitions: Iterable[Mapping[str, Any]], *, pinned: Collection[str] = ()) -> tuple[Offered, ...]:
        """Return definitions of tools, as Anthropic, OpenAI or MCP write them.

        A tool that the provider runs itself has no schema, so nobody could pass a call of it on: it is pinned.

        Args:
            definitions: The tools of a request.
            pinned: Names of those that are always loaded whole.
        """
        found = []
        for number, tool in enumerate(definitions):
            name, description = named(tool)
            called = bool(name) and any(key in tool for key in _SCHEMAS)
            content = json.dumps(tool, ensure_ascii=False, separators=(",", ":"))
            found.append(
                cls(name or f"#{number}", content, EntryKind.TOOL, description, pinned=name in pinned or not called)
            )
        return tuple(found)


_SCHEMAS = ("input_schema", "inputSchema", "parameters", "function")
"""Members that hold the schema of a tool that the caller runs."""


@dataclass(frozen=True, slots=True)
class Loading:
    """What a step loads of what is on offer; it stays the same for a run, or grows.

    Attributes:
        number: Number of the step with which it was settled: an equal number means that nothing changed.
        tools: Definitions to send, as JSON, in the order of the offer; that of the loader comes last.
        files: Texts of agent files and skills to send, by name.
        forms: How each thing on offer stands in the prompt; an agent file that is not whole is `brief`.
        tokens: Tokens of all that is sent of it, as the model counts them.
        whole_tokens: Tokens if all of it were sent whole.
        reasons: Why less is loaded than there should be; empty if that is not so.
    """

    number: int
    tools: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    forms: Mapping[str, LoadForm] = field(default_factory=lambda: MappingProxyType({}))
    tokens: int = 0
    whole_tokens: int = 0
    reasons: tuple[str, ...] = ()

    @property
    def saved_tokens(self) -> int:
        """Tokens by which each prompt of the run is shorter; below 0 it is longer."""
        return self.whole_tokens - self.tokens


def offered_by(
    registry: Registry, agent: str, take: Callable[[str], Loaded] | None = None
) -> tuple[tuple[Offered, ...], tuple[str, ...]]:
    """Return what a registry offers an agent, and what of it could not be read.

    That is its file, with the tools and skills that the file names; all there are where it names none.

    Args:
        registry: What there is.
        agent: Type name of the agent.
        take: Reads what the agent needs, where it may have been loaded ahead; see `Preloader.take`.
    """
    entry = registry.find(agent, EntryKind.AGENT)
    found: dict[Entry, bytes] = {}
    missing: list[str] = []
    if entry is not None and take is not None:
        try:
            loaded = take(agent)
        except ApportionError as error:
            missing.append(str(error))
        else:
            found |= loaded.contents
            missing += loaded.missing
    names = () if entry is None else entry.words
    wanted = [registry.find(name, kind) for name in names for kind in (EntryKind.TOOL, EntryKind.SKILL)]
    if not any(wanted):
        wanted = [*registry.entries(EntryKind.TOOL), *registry.entries(EntryKind.SKILL)]
    for each in [entry, *wanted]:
        if each is None or each in found:
            continue
        try:
            found[each] = registry.load(each)
        except ApportionError as error:
            missing.append(f"{each.name}: {error.message}")
    ordered = sorted(found, key=lambda each: (each.kind, each.name))  # so that two runs of an agent begin alike
    texts = (found[each].decode("utf-8", "replace") for each in ordered)
    offered = (Offered(e.name, text, e.kind, e.description) for e, text in zip(ordered, texts, strict=True))
    return tuple(offered), tuple(missing)
