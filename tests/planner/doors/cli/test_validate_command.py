"""`apportion validate`, run as users run it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from apportion import embeddings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.planner.doors.cli.conftest import Answer

ORIGINAL = b"# Rules\n\n- Wait 30 seconds.\n- Never push to `main`.\n- Call src/app.py at 10:42.\n"


@pytest.fixture
def run(run: Callable[..., Answer], place: Path) -> Callable[..., Answer]:
    (place / "original.md").write_bytes(ORIGINAL)
    return lambda *arguments, stdin=b"": run("validate", *arguments, stdin=stdin)


def test_a_harmless_rewrite_is_accepted(run: Callable[..., Answer]) -> None:
    answer = run("original.md", "-", stdin=ORIGINAL.replace(b"- ", b"* ").replace(b"`", b'"').replace(b"\n", b"\r\n"))
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("accepted\n\nfacts visible         4 of 4 (100.0%)\n")
    assert "similarity by chunk   not measured: --min-similarity asks for it\n" in answer.out


@pytest.mark.skipif(not embeddings.is_installed(), reason="the extra 'semantic' is not installed")
def test_similarity_is_measured_where_it_is_asked_for(run: Callable[..., Answer], place: Path) -> None:
    same = run("original.md", "original.md", "--min-similarity", "1")
    assert (same.code, "similarity by chunk   1.000 on average" in same.out) == (0, True)
    story = "The bridge was built by the town. Nobody crossed it in winter. " * 40
    (place / "long.md").write_text(story + "\n\n" + ORIGINAL.decode() * 9)
    cut = run("long.md", "-", "--min-similarity", "0.95", "--json", "-", stdin=ORIGINAL * 9)
    found = json.loads(cut.out)
    assert (cut.code, found["least_similarity"]) == (1, 0.0)
    assert found["reasons"][-1].startswith("similarity 0.")
    (place / "bridge.md").write_text("The bridge was built by the town in spring. The ferry was sold.\n")
    near, far = (
        json.loads(run("bridge.md", "-", "--min-similarity", "0", "--json", "-", stdin=text).out)["similarity"]
        for text in (b"In spring the town built the bridge. They sold the ferry.", b"Bake it for an hour, then serve.")
    )
    assert 0.8 < near < 1
    assert far < 0.4


def test_a_rejection_says_what_was_lost_and_what_is_new(run: Callable[..., Answer]) -> None:
    answer = run("original.md", "-", stdin=b"Wait 80 seconds. Call src/app.py.")
    assert answer.code == 1
    assert answer.out.startswith("rejected\n- 1 constraint lost, first: 'Never push to `main`.'\n")
    assert "\nConstraints lost (1):\n- Never push to `main`.\n" in answer.out
    assert "\nFacts that are new (1):\n- 80\n" in answer.out
    assert "\nNegations lost or new (1):\n- Never\n" in answer.out


def test_long_lists_are_cut_in_the_text_and_whole_in_the_json(run: Callable[..., Answer], place: Path) -> None:
    (place / "original.md").write_text("\n\n".join(f"id_{number} stays." for number in range(30)))
    answer = run("original.md", "-", "--json", "found.json")
    assert (answer.code, answer.err) == (1, "wrote found.json\n")
    assert "Facts lost (30):\n- id_0\n" in answer.out
    assert "  ... and 10 more\n" in answer.out
    found = json.loads((place / "found.json").read_text())
    assert len(found["lost"]) == 30
    assert (found["schema"], found["accepted"], found["similarity"]) == ("apportion.validate/1", False, None)
    assert found["similarity_reason"] == "not measured: --min-similarity asks for it"


def test_json_on_standard_output_stands_alone(run: Callable[..., Answer]) -> None:
    answer = run("-", "original.md", "--json", "-", stdin=ORIGINAL)
    assert answer.code == 0
    assert json.loads(answer.out)["visible_share"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("original.md", "missing.md"), "missing.md: cannot be read: No such file or directory"),
        (("original.md", "."), ".: is a directory"),
        (("-", "-"), "standard input can be one of the texts, not both"),
        (("original.md", "original.md", "--json", "original.md"), "--json would overwrite what is read"),
        (("original.md", "original.md", "--min-similarity", "95"), "--min-similarity must be from 0 to 1, not 95"),
        pytest.param(
            ("original.md", "original.md", "--min-similarity", "0.9"),
            "--min-similarity needs the extra 'semantic'",
            marks=pytest.mark.skipif(embeddings.is_installed(), reason="the extra 'semantic' is installed"),
        ),
    ],
)
def test_what_cannot_be_used_is_an_error_with_a_message(
    run: Callable[..., Answer], arguments: tuple[str, ...], message: str
) -> None:
    answer = run(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err


def test_control_characters_of_a_text_do_not_reach_the_terminal(run: Callable[..., Answer]) -> None:
    answer = run("original.md", "-", stdin=b"\x1b]0;title\x07 \x1b[2J \xff\xfe\x00 id_\x1b[31mx")
    assert answer.code == 1
    assert not {"\x1b", "\x07", "\x00"} & set(answer.out)
