from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jsonschema
import pytest
from pydantic import TypeAdapter

from apportion.planner.doors.mcp.catalogue import TOOLS, ToolEntry, schema_tokens

MOST_TOKENS = 900
"""What all tools may take in a prompt; the page says how many they do take."""


def test_the_tools_are_those_that_were_promised() -> None:
    assert set(TOOLS) == {
        "compress_content",
        "validate_compression",
        "inspect_compression",
        "expand_content",
        "plan_budget",
        "record_usage",
        "handoff_context",
        "explain_plan",
    }


def test_all_schemas_together_are_short_and_the_command_says_how_short() -> None:
    assert sum(schema_tokens().values()) <= MOST_TOKENS
    run = subprocess.run(
        [sys.executable, "-m", "apportion", "mcp", "--list", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout)["tokens"] == sum(schema_tokens().values())


@pytest.mark.parametrize("tool", TOOLS.values(), ids=list(TOOLS))
def test_schemas_are_schemas_that_refuse_what_is_not_known(tool: ToolEntry) -> None:
    taken, given = tool.input_schema(), tool.output_schema()
    for schema in (taken, given):
        jsonschema.Draft202012Validator.check_schema(schema)
    assert taken["additionalProperties"] is False
    assert set(taken["properties"]) == set(tool.takes.model_fields)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"surplus": 1}, taken)


@pytest.mark.parametrize("tool", TOOLS.values(), ids=list(TOOLS))
def test_untrusted_members_take_text_and_what_gives_content_back_is_among_them(tool: ToolEntry) -> None:
    for path in tool.untrusted:
        record: Any = tool.gives
        for part in path.split("."):
            field = record.model_fields[part]
            record = field.annotation
        taken = json.dumps(TypeAdapter(record).json_schema())
        assert '"string"' in taken or '"additionalProperties": true' in taken, path
    gives_back = {"content", "context", "message", "rows", "lost", "new"}.intersection(tool.gives.model_fields)
    assert gives_back <= set(tool.untrusted)


def test_only_what_keeps_something_is_not_read_only() -> None:
    assert [tool.name for tool in TOOLS.values() if not tool.read_only] == [
        "compress_content",
        "record_usage",
        "handoff_context",
    ]


def test_a_start_imports_nothing_heavy() -> None:
    script = (
        "import sys, apportion.planner.doors.mcp.catalogue, apportion.planner.doors.cli\n"
        "try:\n    import apportion.planner.doors.mcp.server\nexcept ImportError:\n    pass\n"
        "heavy = {'ortools', 'sklearn', 'scipy', 'numpy', 'torch', 'sentence_transformers', 'pandas', 'altair'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
