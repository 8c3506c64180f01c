from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.planner.prompt import MOST_INPUT, PlannedPrompt, need_after, path_of, prior_need

shares = st.floats(0.0, 1.0)
counts = st.integers(0, 500)


@given(shares, counts, counts, counts, st.booleans())
def test_a_need_is_a_probability(prior: float, uses: int, calls: int, age: int, superseded: bool) -> None:  # noqa: FBT001
    need = need_after(prior, uses=uses, calls=calls, age=age, superseded=superseded)
    assert 0.0 <= float(need) < 1.0


def test_a_need_falls_with_age_and_with_a_newer_sight_of_the_file_and_rises_with_uses() -> None:
    plain = need_after(0.4, uses=0, calls=5, age=5)
    assert need_after(0.4, uses=0, calls=9, age=9) < plain
    assert need_after(0.4, uses=0, calls=5, age=5, superseded=True) < plain
    assert need_after(0.4, uses=2, calls=5, age=7) > plain
    assert need_after(0.0, uses=3, calls=1, age=1, superseded=False) == 0.0


def test_right_after_it_was_first_sent_a_need_is_the_prior() -> None:
    assert float(need_after(0.4, uses=0, calls=0, age=0)) == pytest.approx(0.4)


def test_what_was_found_is_needed_more_than_what_was_run_and_less_in_a_sub_agent() -> None:
    shell, read, found = (prior_need(1000, tool=tool, handed_back=False) for tool in ("Bash", "Read", "Grep"))
    assert shell < read < found == prior_need(1000, tool="Task", handed_back=True)
    assert prior_need(1000, tool="Bash", handed_back=False, sub_agent=True) < shell
    assert prior_need(100, tool=None, handed_back=False) < prior_need(1000, tool=None, handed_back=False)


@pytest.mark.parametrize(
    ("given_input", "path"),
    [
        ('{"file_path": "/a.py"}', "/a.py"),
        ('{"filePath": "/b.py", "limit": 3}', "/b.py"),
        ('{"path": ""}', None),
        ('{"path": 3}', None),
        ('{"command": "ls"}', None),
        ("ls -l", None),
        ("{", None),
        ("[" * 100_000, None),
        ('{"path": "' + "x" * MOST_INPUT + '"}', None),
    ],
)
def test_the_file_of_a_tool_call_is_found_by_the_usual_names(given_input: str, path: str | None) -> None:
    assert path_of(given_input) == path


def test_an_item_that_is_sent_again_keeps_what_is_known_of_it() -> None:
    prompt = PlannedPrompt()
    for _ in range(2):
        prompt.append(piece=0, logged=0, visible=9, tokens=9.0, born=0, need=0.5, maskable=True)
    prompt.touch(0, 3)
    for row in range(2):
        prompt.show_file(row, "a.py")
    prompt.inherit(1, 0)
    assert (prompt.column("uses")[1], prompt.column("superseded")[1]) == (1, True)
