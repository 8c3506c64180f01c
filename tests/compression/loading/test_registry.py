from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.compression.loading import Entry, EntryKind, LoadLimits, Registry
from apportion.errors import InputError, StoreError
from apportion.records import content_hash

if TYPE_CHECKING:
    from pathlib import Path

AGENT = "---\nname: {0}\ndescription: Reviews code: all of it.\ntools: Read, search\n---\nYou are {0}.\n"
TOOLS = (
    '\ufeff{"jsonrpc": "2.0", "result": {"tools": [\n'
    '  {"name": "search", "description": "Searches – the web.", "inputSchema": {"x": 1.10, "x": 2}},\n'
    '  {"type": "function", "function": {"name": "read", "description": "Reads.", "parameters": {}}}\n]}}\n'
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder as Claude Code has it, and an index of agents as Mycelium has it."""
    root = tmp_path / "home"
    (root / ".claude" / "agents" / "deep").mkdir(parents=True)
    (root / ".claude" / "agents" / "deep" / "reviewer.md").write_text(AGENT.format("reviewer"))
    (root / ".claude" / "skills" / "pdf").mkdir(parents=True)
    (root / ".claude" / "skills" / "pdf" / "SKILL.md").write_text("---\ndescription: Fills forms.\n---\nFill.\n")
    (root / "plugin" / "agents").mkdir(parents=True)
    (root / "plugin" / "agents" / "01-core-planner.md").write_text(AGENT.format("planner"))
    agent = {"id": "01-core-planner", "file_path": "plugins/agents/01-core-planner.md", "keywords": ["roadmap"]}
    (root / "plugin" / "agents" / "index.json").write_text(json.dumps({"agents": [agent]}))
    (root / "tools.json").write_text(TOOLS, encoding="utf-8")
    (root / "README.md").write_text("---\nname: no agent\n---\n")
    return root


def names(registry: Registry, kind: EntryKind | None = None) -> list[str]:
    return [entry.name for entry in registry.entries(kind)]


def test_agents_skills_and_tools_of_a_folder_are_found_and_notes_are_not(home: Path) -> None:
    registry = Registry()
    assert registry.add(home) == 5
    assert names(registry, EntryKind.AGENT) == ["planner", "reviewer"]
    assert names(registry, EntryKind.SKILL) == ["pdf"]
    assert names(registry, EntryKind.TOOL) == ["read", "search"]
    assert registry.skipped == ()
    assert [entry.name for entry in registry.search("a roadmap please")] == ["planner"]


def test_a_tool_comes_back_with_the_bytes_it_has_in_its_list(home: Path) -> None:
    registry = Registry()
    registry.add(home / "tools.json")
    entry = registry.find("search", EntryKind.TOOL)
    assert entry is not None
    content = registry.load(entry.digest)
    assert content.startswith(b'{"name": "search"')
    assert content.endswith(b'{"x": 1.10, "x": 2}}')  # what JSON would write anew in another way
    assert content in TOOLS.encode()
    assert (content_hash(content), len(content)) == (entry.digest, entry.size)
    assert registry.load(entry) is content
    assert registry.counts().misses == 1


def test_a_changed_file_is_never_passed_off_as_the_old_one_and_is_read_anew(home: Path) -> None:
    registry = Registry()
    registry.add(home)
    old = registry.find("reviewer")
    assert old is not None
    path = old.path
    path.write_text(AGENT.format("reviewer") + "Be strict.\n")
    with pytest.raises(StoreError, match="has changed"):
        registry.load(old)
    new = registry.current("reviewer")
    assert new is not None
    assert new.digest != old.digest
    assert registry.load(new).endswith(b"Be strict.\n")
    path.unlink()
    (home / "plugin" / "agents" / "tester.md").write_text(AGENT.format("tester"))
    assert registry.refresh() == (("tester",), (), ("reviewer",))
    assert registry.load(new.digest).endswith(b"Be strict.\n")  # still in memory: it is what the hash says


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("tools.json", b'{"tools": [{"name": "a"}', "is no JSON (character 24)"),
        ("tools.json", b"[" * 4_000, "is no JSON"),
        ("tools.json", b'{"tools": []} more', "is no JSON (character 13)"),
        ("tools.json", b"\xff\xfe", "is no UTF-8 (byte 0)"),
        ("tools.json", b'[{"name": "a"}, {"name": "a"}, 3]', "tool 'a' stands there twice"),
        ("index.json", b"{", "is no JSON"),
        ("index.json", b'{"agents": [{"file_path": "../../outside.md"}]}', "leads out of its folder"),
        ("index.json", b'{"agents": [{"file_path": "gone.md"}]}', "cannot be read: No such file or directory"),
        ("agent.md", b"You are nobody.\n", "has no front matter with a name"),
        ("agent.md", b"---\nname: a\n" + b"x\n" * 1000, "has no front matter with a name"),
        ("agent.md", b"---\nname: a\n---\n" + b"x" * 5_000, "has 5,016 bytes, more than 4,096"),
    ],
)
def test_a_damaged_file_is_skipped_with_its_reason_and_the_others_are_taken(
    name: str, content: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "outside.md").write_text(AGENT.format("outside"))
    folder = tmp_path / "x" / "agents"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    (folder / "good.md").write_text(AGENT.format("good"))
    registry = Registry(limits=LoadLimits(file_bytes=4_096))
    registry.add(folder)
    assert "good" in names(registry)
    assert "outside" not in names(registry)
    assert reason in [skipped.reason for skipped in registry.skipped]


def test_links_out_of_a_folder_and_what_is_no_file_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    folder.mkdir()
    secret = tmp_path / "secret.md"
    secret.write_text(AGENT.format("secret"))
    (folder / "link.md").symlink_to(secret)
    (folder / "loop").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    (folder / "inside.md").write_text(AGENT.format("inside"))
    (folder / "again.md").symlink_to(folder / "inside.md")
    os.mkfifo(folder / "pipe.md")
    registry = Registry()
    registry.add(folder)
    assert names(registry) == ["inside"]
    reasons = {skipped.path.name: skipped.reason for skipped in registry.skipped}
    assert reasons["link.md"] == "leads out of its folder"
    assert reasons["pipe.md"] == "is no regular file"


def test_a_file_that_becomes_a_link_out_of_its_folder_is_not_loaded(home: Path, tmp_path: Path) -> None:
    registry = Registry()
    registry.add(home)
    entry = registry.find("planner")
    assert entry is not None
    elsewhere = tmp_path / "elsewhere.md"
    elsewhere.write_bytes(entry.path.read_bytes())  # the same content: only where it lies is wrong
    entry.path.unlink()
    entry.path.symlink_to(elsewhere)
    with pytest.raises(StoreError, match="leads out of its folder"):
        registry.load(entry)


def test_what_does_not_exist_and_too_many_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Registry().add(tmp_path / "missing")
    for number in range(4):
        (tmp_path / f"{number}.txt").touch()
    registry = Registry(limits=LoadLimits(files=3))
    registry.add(tmp_path)
    assert [skipped.reason for skipped in registry.skipped] == ["holds more than 3 files"]
    with pytest.raises(StoreError, match="unknown hash"):
        registry.load("0" * 64)


@settings(max_examples=40)
@given(
    max_bytes=st.integers(0, 12_000),
    sizes=st.lists(st.integers(0, 3_000), min_size=1, max_size=8),
    order=st.lists(st.integers(0, 7), max_size=20),
)
def test_the_ceiling_of_bytes_is_never_exceeded_and_contents_are_exact(
    tmp_path_factory: pytest.TempPathFactory, max_bytes: int, sizes: list[int], order: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("x") / "agents"
    folder.mkdir()
    written = {}
    for number, size in enumerate(sizes):
        content = AGENT.format(f"agent{number}").encode() + b"x" * size
        written[f"agent{number}"] = content
        (folder / f"{number}.md").write_bytes(content)
    registry = Registry(max_bytes=max_bytes)
    registry.add(folder)
    known: list[Entry] = registry.entries()
    assert registry.size <= max_bytes
    for number in order:
        if known:
            entry = known[number % len(known)]
            assert registry.load(entry) == written[entry.name]
            registry.keep(entry.digest.encode(), b"y" * (number * 100))
        assert registry.size <= max_bytes
    assert len(known) + len(registry.skipped) == len(sizes)


def test_many_threads_that_ask_for_one_content_read_it_once(home: Path) -> None:
    registry = Registry()
    registry.add(home)
    entry = registry.find("reviewer")
    assert entry is not None
    started, fresh = threading.Barrier(16), []

    def ask() -> None:
        started.wait()
        fresh.append(registry.fetch(entry)[1])

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fresh) == [False] * 15 + [True]
