"""What the demo works on: source code of a public library, agents, and tools, as the package carries them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from apportion.compression.loading import Registry
from apportion.compression.loading.markdown import front_matter, front_matter_end

_HOME = Path(str(files("apportion"))) / "data" / "demo"


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """One agent, as its file describes it.

    Attributes:
        name: Its type.
        tools: Names of the tools that it is given.
        prompt: Its system prompt.
    """

    name: str
    tools: tuple[str, ...]
    prompt: str


def source_files() -> dict[str, str]:
    """Return the files of the library by path: package `dataset` 1.6.2, MIT licence."""
    folder = _HOME / "dataset"
    return {
        f"dataset/{entry.name.removesuffix('.txt')}": entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".py.txt")
    }


@cache
def agents() -> dict[str, AgentDefinition]:
    """Return the agents by name."""
    found = [_definition(entry.read_bytes()) for entry in (_HOME / "agents").iterdir()]
    return {agent.name: agent for agent in sorted(found, key=lambda agent: agent.name)}


def registry() -> Registry:
    """Return a registry of the agents and of the tools, which come as an MCP server lists them."""
    found = Registry()
    found.add(_HOME / "agents")
    found.add(_HOME / "tools.json")
    return found


def _definition(content: bytes) -> AgentDefinition:
    front, prompt = front_matter(content), content[front_matter_end(content) :].decode()
    return AgentDefinition(front["name"], tuple(front["tools"].split(", ")), prompt.strip())
