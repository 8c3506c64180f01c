from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.compression.loading import EntryKind, Preloader, Registry
from apportion.errors import InputError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apportion.compression.loading import Entry

TOOL = b'{"name": "search", "description": "Searches. It may take some time. Results are many.", "input_schema": {}}'


def write_agents(folder: Path, count: int, size: int = 0) -> Path:
    agents = folder / "agents"
    agents.mkdir()
    for number in range(count):
        text = f"---\nname: a{number}\ntools: search, nothing\n---\n{'x' * size}"
        (agents / f"a{number}.md").write_text(text)
    (folder / "tools.json").write_bytes(b'{"tools": [' + TOOL + b"]}")
    return folder


@pytest.fixture
def preloader(tmp_path: Path) -> Iterator[Preloader]:
    registry = Registry()
    registry.add(write_agents(tmp_path, 3))
    with Preloader(registry) as made:
        yield made


def test_what_was_expected_surely_enough_is_there_with_its_tools(preloader: Preloader) -> None:
    assert preloader.expect("a0", 0.71)
    assert not preloader.expect("a1", 0.7)
    assert not preloader.expect("a1", float("nan"))
    assert not preloader.expect("unknown", 0.99)
    assert preloader.settle(60)
    taken = preloader.take("a0")
    assert taken.ahead
    assert [entry.name for entry in taken.contents] == ["a0", "search"]
    tool = next(entry for entry in taken.contents if entry.kind is EntryKind.TOOL)
    assert taken.forms[tool] == preloader.registry.kept(tool.digest.encode())  # it was made ahead
    assert b"Results are many." not in taken.forms[tool]
    assert not preloader.take("a1").ahead
    counts = preloader.counts()
    assert (counts.loaded, counts.hits, counts.misses, counts.wasted, counts.unsure) == (1, 1, 1, 0, 2)


def test_what_is_not_asked_for_is_counted_as_waste_and_loaded_once(preloader: Preloader) -> None:
    assert preloader.expect("a0", 0.9)
    assert preloader.expect("a0", 0.9)
    assert preloader.settle(60)
    assert preloader.expect("a0", 0.9)
    assert preloader.settle(60)
    counts = preloader.counts()
    assert (counts.expected, counts.loaded, counts.wasted) == (3, 1, 1)
    assert counts.wasted_bytes == sum(len(content) for content in preloader.take("a0").contents.values())


def test_a_file_that_changed_after_it_was_loaded_is_read_anew(preloader: Preloader) -> None:
    preloader.expect("a0", 0.9)
    assert preloader.settle(60)
    entry = preloader.registry.find("a0")
    assert entry is not None
    entry.path.write_text("---\nname: a0\n---\nnew, and longer than it was before, as the tools are gone\n")
    taken = preloader.take("a0")
    assert not taken.ahead
    assert next(iter(taken.contents.values())).endswith(b"are gone\n")


def test_a_failure_is_counted_and_told_and_everything_is_loaded_on_demand_after_the_end(tmp_path: Path) -> None:
    registry = Registry()
    registry.add(write_agents(tmp_path, 2))

    def fails(entry: Entry, content: bytes) -> bytes | None:
        raise ValueError(f"{entry.name} of {len(content)} bytes")

    preloader = Preloader(registry, warm=fails)
    preloader.expect("a0", 0.9)
    assert preloader.settle(60)
    assert preloader.counts().failures == 1
    assert preloader.failures[0].startswith("a0: a0 of ")
    before = threading.active_count()
    preloader.close()
    preloader.close()
    assert threading.active_count() == before - 1
    assert not preloader.expect("a1", 0.9)
    assert (preloader.take("a1").ahead, preloader.take("a1").forms) == (False, {})
    with pytest.raises(StoreError, match="there is no agent"):
        preloader.take("unknown")
    with pytest.raises(InputError):
        Preloader(registry, least_confidence=1.1)


@settings(max_examples=40)
@given(
    max_bytes=st.integers(2_000, 40_000),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.sampled_from([0.5, 0.8])), max_size=25),
)
def test_the_ceiling_holds_and_the_counts_add_up_whatever_is_expected_and_taken(
    tmp_path_factory: pytest.TempPathFactory, max_bytes: int, steps: list[tuple[bool, int, float]]
) -> None:
    registry = Registry(max_bytes=max_bytes)
    registry.add(write_agents(tmp_path_factory.mktemp("x"), 6, size=3_000))
    known = [entry.name for entry in registry.entries(EntryKind.AGENT)]
    taken = 0
    with Preloader(registry) as preloader:
        for expects, number, confidence in steps:
            if not known:
                break
            name = known[number % len(known)]
            if expects:
                preloader.expect(name, confidence)
            else:
                taken += 1
                assert len(next(iter(preloader.take(name).contents.values()))) > 3_000
            assert registry.size <= max_bytes
    counts = preloader.counts()
    assert counts.peak_bytes <= max_bytes
    assert counts.hits + counts.misses == taken
    assert counts.wasted <= counts.loaded
