"""The files by which hosts and registries find the server."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from apportion.planner.doors.mcp.catalogue import TOOLS, schema_tokens

ROOT = Path(__file__).parents[4]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_registry_entry_says_what_the_package_says() -> None:
    entry = json.loads((ROOT / "server.json").read_text("utf-8"))
    (package,) = entry["packages"]
    assert entry["version"] == package["version"] == PROJECT["version"]
    assert package["identifier"] == PROJECT["name"]
    assert package["registryType"] == "pypi"
    assert package["transport"] == {"type": "stdio"}
    assert 0 < len(entry["description"]) <= 100
    assert entry["name"].startswith("io.github.")


def test_the_host_configuration_starts_our_command() -> None:
    servers = json.loads((ROOT / ".mcp.json").read_text("utf-8"))["mcpServers"]
    server = servers["apportion"]
    assert server["command"] in PROJECT["scripts"]
    assert server["args"] == ["mcp"]


def test_the_page_names_each_tool_with_the_tokens_of_its_schema() -> None:
    page = (ROOT / "docs" / "mcp.md").read_text("utf-8")
    tokens = schema_tokens()
    for name, tool in TOOLS.items():
        assert f"\n| `{name}` | {tokens[name]} | {'yes' if tool.read_only else 'no'} |" in page
    assert f"**{sum(tokens.values())} tokens**" in page
