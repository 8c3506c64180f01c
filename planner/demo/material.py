"""What the demo works on: source code of a public library, agents, and tools, as the package carries them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from apportion.compression.loading import Registry

_HOME = Path(str(files("apportion"))) / "data" / "demo"


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """One agent, as its file describes it.

    Attributes:
        name: Its type.
        description: What it is for, in one sentence.
        tools: Names of the tools that it is given.
        prompt: Its system prompt.
        text: The whole file.
    """

    name: str
    description: str
    tools: tuple[str, ...]
    prompt: str
    text: str


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
    found = [_definition(entry.read_text(encoding="utf-8")) for entry in (_HOME / "agents").iterdir()]
    return {agent.name: agent for agent in sorted(found, key=lambda agent: agent.name)}


def registry() -> Registry:
    """Return a registry of the agents and of the tools, which come as an MCP server lists them."""
    found = Registry()
    found.add(_HOME / "agents")
    found.add(_HOME / "tools.json")
    return found


def _definition(text: str) -> AgentDefinition:
    _, head, prompt = text.split("---\n", 2)
    front = yaml.safe_load(head)
    names = tuple(name.strip() for name in front["tools"].split(","))
    return AgentDefinition(front["name"], front["description"], names, prompt.strip(), text)
