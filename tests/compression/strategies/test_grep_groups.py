from __future__ import annotations

import pytest

from apportion.compression.strategies.grep_groups import GrepGroups
from apportion.compression.strategies.types import Item, Query


def form_of(text: str) -> str:
    form = GrepGroups().encode(text, Item(text.encode()), Query())
    assert form is not None
    assert GrepGroups().decode(form, ()) == text
    return form


def test_results_stand_under_their_path() -> None:
    text = (
        "src/app.py:12:def main():\nsrc/app.py:40:    main()\nlib/a.py:3:x\nno path here\nlib/b.py:1:a:b\nlib/b.py:2:"
    )
    assert form_of(text) == (
        "[grep by file, paths behind @]\n@src/app.py\n12:def main():\n40:    main()\n"
        "lib/a.py:3:x\nno path here\n@lib/b.py\n1:a:b\n2:"
    )


def test_context_lines_and_results_without_numbers_are_grouped() -> None:
    text = "a-1-b/x.py-11-before\na-1-b/x.py:12:hit\n--\na-1-b/x.py-13-after\nsrc/y.ts:text\nsrc/y.ts:more"
    assert form_of(text) == (
        "[grep by file, paths behind @]\n@a-1-b/x.py\n11-before\n12:hit\n--\n13-after\n@src/y.ts\n:text\n:more"
    )


def test_lines_that_report_an_error_stay_whole_amid_their_group() -> None:
    text = "src/app.py:12:x\nsrc/app.py:13:y\nsrc/app.py:14:  raise ValueError: no\nsrc/app.py:15:z"
    assert form_of(text).split("\n")[1:] == ["@src/app.py", "12:x", "13:y", text.split("\n")[2], "15:z"]


def test_paths_with_and_without_a_root_stand_together() -> None:
    text = "cli/state.go:92:func\n/home/me/cli/state.go-93-x\n/home/me/cli/state.go-94-y\ncli/state.go:95:z"
    assert form_of(text) == (
        "[grep by file, + without /home/me/, paths behind @]\n@/home/me/cli/state.go\n+92:func\n93-x\n94-y\n+95:z"
    )


@pytest.mark.parametrize("line", ["12:x", ":x", "7-y", "+5:x", "@=x", "@x", "=", ""])
def test_lines_that_look_like_ours_come_back(line: str) -> None:
    form_of(f"src/app.py:12:a\nsrc/app.py:13:b\n{line}\nsrc/app.py:14:c\nsrc/app.py:15:d\n/r/src/app.py:16:c")


def test_a_path_that_stands_once_stays() -> None:
    assert GrepGroups().encode("src/app.py:1:x\nsrc/b.py:2:y", Item(b""), Query()) is None
