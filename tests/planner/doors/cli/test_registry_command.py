from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from apportion.errors import InputError
from apportion.planner.doors.cli import app

if TYPE_CHECKING:
    from pathlib import Path

TOOL = {
    "name": "search",
    "description": "Searches the web. It takes a while. Results come in no order.",
    "input_schema": {"type": "object"},
}


@pytest.fixture
def home(place: Path) -> Path:
    (place / "agents").mkdir()
    (place / "agents" / "tester.md").write_text("---\nname: tester\ndescription: Tests.\n---\nYou \x1b[31mtest.\n")
    (place / "agents" / "notes.md").write_text("no agent\n")
    (place / "tools.json").write_text(json.dumps({"tools": [TOOL]}))
    return place


def run(*arguments: str) -> tuple[str, str]:
    done = CliRunner().invoke(app, ["registry", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def test_list_shows_what_each_takes_whole_brief_and_as_a_line(home: Path) -> None:
    out, err = run("list", str(home))
    lines = out.splitlines()
    assert lines[0].split() == ["name", "kind", "tokens", "brief", "line", "hash"]
    assert [line.split()[:2] for line in lines[2:4]] == [["tester", "agent"], ["search", "tool"]]
    assert lines[-1].startswith("2 in all: ")
    assert err == f"skipped {home / 'agents' / 'notes.md'}: has no front matter with a name\n"
    rows = json.loads(run("list", str(home), "--kind", "tools", "--json")[0])
    assert [row["name"] for row in rows] == ["search"]
    assert rows[0]["line_tokens"] < rows[0]["brief_tokens"] < rows[0]["tokens"]


def test_search_and_show_find_one_by_words_name_or_hash(home: Path) -> None:
    found = json.loads(run("search", "the web", str(home), "--json")[0])
    assert [row["name"] for row in found] == ["search"]
    shown = json.loads(run("show", found[0]["hash"][:8], str(home), "--json")[0])
    assert json.loads(shown["content"]) == TOOL
    assert run("search", "nowhere", str(home))[0] == "nothing was found\n"
    text = run("show", "tester", str(home))[0]
    assert "You" in text
    assert "\x1b" not in text


def test_what_is_not_there_is_told(home: Path) -> None:
    for arguments in (["show", "nobody", str(home)], ["list", "--kind", "cat", str(home)], ["list", "missing"]):
        with pytest.raises(InputError):
            run(*arguments)
