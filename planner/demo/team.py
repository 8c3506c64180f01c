"""The pretended models of the demo's agents: what each looks for, and the steps that it takes in each turn.

An agent reads the prompt that it was sent, and nothing else. A piece in a lossless form says what its original says; of
a stub, a reference or a cut it sees what stands there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import re2

from apportion.records import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SECURITY, REVIEW, ARCHITECTURE, QA = "security-expert", "code-reviewer", "architecture-reviewer", "qa-expert"

LEAD = "lead"
"""The agent that the user talks to."""

TESTS = "dataset/test_injection.py"
"""The file that the tests are written to."""

_LINE = re2.compile(r"^ *(\d+)[\t ](.*)$")


class Call(NamedTuple):
    """A call of a tool."""

    tool: str
    arguments: dict[str, Any]


class Seen(NamedTuple):
    """A piece of the prompt as the agent sees it.

    Attributes:
        kind: What it is.
        path: File that it shows, or `None`.
        text: What it says to the agent.
    """

    kind: Kind
    path: str | None
    text: str


class Finding(NamedTuple):
    """Something that an agent found, with the line of code that shows it."""

    path: str
    line: int
    rule: str
    code: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} [{self.rule}] {self.code}"


@dataclass(frozen=True)
class Rule:
    """What an agent looks for in lines of code."""

    name: str
    pattern: str
    in_tests: bool = False


_RULES: dict[str, tuple[Rule, ...]] = {
    SECURITY: (
        Rule("statement-to-database", r"\b(execute|text)\("),
        Rule("built-by-formatting", r"(%s|%r)[^\n]*[\"'] %|\.format\(|[\"'] \+ \w|\w \+ [\"']"),
        Rule("address-from-outside", r"urlparse|parse_qs|create_engine\("),
        Rule("name-checked-or-quoted", r"normalize_|quote|isinstance\(\w+, str"),
    ),
    REVIEW: (
        Rule("swallowed-error", r"except[^:]*:\s*$|^\s*pass$"),
        Rule("assertion-as-check", r"^\s*assert "),
        Rule("open-question", r"(?i)#.*(todo|fixme|hack|note|xxx|apparently|assume)"),
        Rule("shared-state", r"self\.(lock|local|connections|_tables)\b"),
    ),
    ARCHITECTURE: (
        Rule("import-within", r"^(from|import) dataset"),
        Rule("import-from-outside", r"^(from|import) (sqlalchemy|alembic)"),
        Rule("module-state", r"^[A-Za-z_]+ = "),
        Rule("knows-the-dialect", r"is_postgres|is_sqlite|mysql"),
    ),
    QA: (Rule("existing-test", r"^\s+def test_", in_tests=True),),
}


@dataclass(frozen=True)
class Assignment:
    """What one agent is asked to do in one turn.

    Attributes:
        agent: Who.
        task: The task in words.
        steps: Calls of tools, those of one step in parallel.
    """

    agent: str
    task: str
    steps: tuple[tuple[Call, ...], ...]


@dataclass(frozen=True)
class Turn:
    """One request of the user, and how the lead shares it out."""

    request: str
    assignments: tuple[Assignment, ...]


def _read(*names: str) -> tuple[Call, ...]:
    return tuple(Call("read_file", {"path": f"dataset/{name}.py"}) for name in names)


def _search(pattern: str) -> tuple[Call, ...]:
    return (Call("search", {"pattern": pattern}),)


TURNS = (
    Turn(
        "Review this library before we build on it: security, code, architecture.",
        (
            Assignment(
                SECURITY,
                "Review the security of the library dataset: where does data from outside meet an interpreter?",
                (
                    (Call("list_files", {}), *_search(r"execute|text\(|quote|format")),
                    (Call("outline", {}),),
                    _read("database"),
                    _read("table"),
                    _read("util", "types"),
                    _search(r"urlparse|create_engine|connect"),
                    _read("chunked"),
                ),
            ),
            Assignment(
                REVIEW,
                "Review the code of the library dataset: correctness, clarity, swallowed errors.",
                (
                    (Call("list_files", {}), Call("outline", {})),
                    (Call("run_checks", {}),),
                    _read("table"),
                    _read("util", "chunked"),
                    _read("database"),
                    _search(r"except|assert|lock"),
                ),
            ),
            Assignment(
                ARCHITECTURE,
                "Review how the library dataset is put together: modules, dependencies, state.",
                (
                    (Call("list_files", {}), Call("imports", {})),
                    _read("__init__", "types"),
                    _read("database"),
                    (Call("outline", {}),),
                    _read("table", "chunked"),
                    _search(r"^[a-zA-Z_]+ = |self\._tables|connections"),
                ),
            ),
        ),
    ),
    Turn(
        "Look closer at SQL injection. Which of these places can an attacker reach, and by what?",
        (
            Assignment(
                SECURITY,
                "Go through every place where SQL is built or run, with what the other reviews found.",
                (
                    _search(r"execute|text\(|whereclause|order_by"),
                    _read("table"),
                    _read("database"),
                    _search(r"normalize_column_name|normalize_table_name|normalize_column_key"),
                    _read("util"),
                ),
            ),
        ),
    ),
    Turn(
        "Write test cases for what you found.",
        (
            Assignment(
                QA,
                "Write one test for each place where SQL is built or run, in the style of the existing tests.",
                (
                    _read("test_dataset"),
                    _read("table"),
                    _read("database", "util"),
                    (Call("write_file", {"path": TESTS}),),  # the content is written when its time has come
                    _read("test_injection"),
                    (
                        Call(
                            "edit_file",
                            {"path": TESTS, "old": "import pytest\n", "new": "import dataset\nimport pytest\n"},
                        ),
                    ),
                    _read("test_injection"),
                    (Call("run_checks", {"path": TESTS}),),
                ),
            ),
            Assignment(
                SECURITY,
                "Check that each test attacks a place that you named, and that none of them is missing.",
                (_read("test_injection"), _search(r"DROP TABLE|OR 1=1")),
            ),
        ),
    ),
)


@dataclass
class Agent:
    """One agent with what it has found so far.

    Attributes:
        name: Its type.
        found: What it has reported, in the order in which it was found.
        told: Findings of others that stood in its prompt.
    """

    name: str
    found: dict[Finding, None] = field(default_factory=dict)
    told: dict[Finding, None] = field(default_factory=dict)

    def look(self, prompt: Iterable[Seen]) -> list[Finding]:
        """Read a prompt; return what is in it that the agent has not reported yet."""
        new: dict[Finding, None] = {}
        for piece in prompt:
            if piece.kind is Kind.HANDOFF_RESULT:
                self.told |= dict.fromkeys(_reported(piece.text))
            elif piece.path is not None:
                new |= dict.fromkeys(_hits(self.name, piece.path, piece.text))
        fresh = [finding for finding in new if finding not in self.found]
        self.found |= dict.fromkeys(fresh)
        return fresh

    def tests(self) -> str:
        """Write the tests: one for each statement that reaches the database, by what the agent was told."""
        places = [finding for finding in self.told if finding.rule == "statement-to-database"]
        return "\n\n".join(["import pytest\n", *map(_test, places)]) + "\n"


@cache
def _hits(agent: str, path: str, text: str) -> tuple[Finding, ...]:
    """Return what the rules of an agent find in a file as it was read."""
    patterns = [(rule.name, re2.compile(rule.pattern)) for rule in _RULES[agent] if rule.in_tests == ("test" in path)]
    return tuple(
        Finding(path, number, name, code.strip())
        for number, code in _lines(text)
        for name, pattern in patterns
        if pattern.search(code)
    )


def as_text(call: Call) -> str:
    """Return a call of a tool as it stands in a prompt."""
    return json.dumps({"tool": call.tool, **call.arguments})


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for line in text.splitlines():
        found = _LINE.match(line)
        if found:
            yield int(found[1]), found[2]


def _reported(text: str) -> Iterator[Finding]:
    """Read the findings of a report, as `Finding` writes them."""
    for line in text.splitlines():
        found = _FINDING.match(line)
        if found:
            yield Finding(found[1], int(found[2]), found[3], found[4])


_FINDING = re2.compile(r"^(\S+):(\d+) \[([\w-]+)\] (.*)$")


def _test(place: Finding) -> str:
    """Write a test for a place where a statement reaches the database."""
    name = f"{place.path.removeprefix('dataset/').removesuffix('.py')}_line_{place.line}"
    return f"""@pytest.mark.parametrize("name", ["harmless", "x; DROP TABLE weather; --", 'y" OR 1=1 --'])
def test_no_injection_through_{name}(name):
    # {place.path}:{place.line}: {place.code}
    db = dataset.connect("sqlite:///:memory:")
    table = db["weather"]
    table.insert({{"place": "Berkeley", "temperature": 8}})
    if name == "harmless":
        table.insert({{name: 1}})
        assert name in table.columns
    else:
        with pytest.raises((ValueError, KeyError)):
            table.insert({{name: 1}})
    assert "weather" in db.tables
"""
