from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.strategies.log_templates import LogTemplates
from apportion.compression.strategies.types import Item, Query
from apportion.compression.validation.facts import extract_facts, missing_facts


def form_of(text: str) -> str:
    form = LogTemplates().encode(text, Item(text.encode()), Query())
    assert form is not None
    assert LogTemplates().decode(form, ()) == text
    return form


def test_lines_become_rows_of_the_words_that_differ() -> None:
    lines = [
        f"2026-01-02 10:20:3{number // 2} INFO srv: request id={number} of 10.0.0.{number} done" for number in range(8)
    ]
    assert form_of("\n".join([*lines, "bye"])).split("\n") == [
        '[log 1; * filled by rows; > as it was; " as above]',
        "A:2026-01-02 * INFO srv: request id=* of * done",
        "A 10:20:30 0 10.0.0.0",
        ' " 1 10.0.0.1',
        "10:20:31 2 10.0.0.2",
        ' " 3 10.0.0.3',
        "10:20:32 4 10.0.0.4",
        ' " 5 10.0.0.5',
        "10:20:33 6 10.0.0.6",
        ' " 7 10.0.0.7',
        ">bye",
    ]


def test_the_order_of_interleaved_templates_stays() -> None:
    lines = [
        f"{number}: worker {number} starts task {number * 3}"
        if number % 2
        else f"{number}: memory {number} MB is in use now"
        for number in range(20)
    ]
    rows = form_of("\n".join(lines)).split("\n")[3:]
    assert [row[0] for row in rows] == ["A", "B"] * 10


def test_lines_that_share_their_beginning_only_have_the_rest_as_one_word() -> None:
    said = [
        "cloning the repository",
        "done",
        "now at 3fa9c2d1 of main",
        "installing what is needed for it",
        "x y",
        "ok then",
    ]
    lines = [f"2026-06-18T05:53:{number + 50}.640242Z {text}" for number, text in enumerate(said)]
    lines += [f"{line} again and {'again ' * number}" for number, line in enumerate(lines, 1)]
    assert form_of("\n".join(lines)).split("\n")[1:4] == [
        "A:2026-06-18T* *",
        "A 05:53:50.640242Z cloning the repository",
        "05:53:51.640242Z done",
    ]


def test_columns_that_were_padded_and_words_that_follow_from_others_are_part_of_the_template() -> None:
    names = ["main", "fix/index-of-tables", "docs", "feat/quick-log-templates-of-all-kinds", "feat/one", "release"]
    lines = [
        f" * [new branch]   {name:<24} -> origin/{name}  {7 ** (number + 1):>7}" for number, name in enumerate(names)
    ]
    assert form_of("\n".join(lines)).split("\n")[:4] == [
        '[log 1; <> filled by rows; > as it was; " as above; <>2 as the second, <>2-x without x; <><9 padded to 9]',
        "A: * [new branch]   <>1-origin/<24 -> <> <>>8",
        "A origin/main 7",
        " origin/fix/index-of-tables 49",
    ]


def test_lines_in_which_words_follow_from_others_in_another_way_have_templates_of_their_own() -> None:
    branches = [
        f"12:00:{number:02}  * [new branch]  topic-{number}/x -> origin/topic-{number}/x" for number in range(20)
    ]
    tags = [f"12:01:{number:02}  * [new tag]  v1.{number}.0 -> v1.{number}.0" for number in range(20)]
    assert form_of("\n".join(branches + tags)).split("\n")[1:3] == [
        "A:<>  * [new branch]  <>2-origin/ -> <>",
        "B:<>  * [new tag]  <>2 -> <>",
    ]


def test_blanks_that_follow_no_rule_divide_the_lines() -> None:
    lines = [f"job {number} is{' ' * (number % 3 + 1)}done by worker {number * 7} of the pool" for number in range(30)]
    assert form_of("\n".join(lines)).split("\n")[1:4] == [
        "A:job * is done by worker * of the pool",
        "B:job * is  done by worker * of the pool",
        "C:job * is   done by worker * of the pool",
    ]


def test_a_number_behind_a_time_does_not_keep_a_line_from_having_it_as_its_beginning() -> None:
    said = ["cloning", "24.04.4", "7 of 9", "the end", "x y z", "ok", "so it is now", "b c d e f", "g", "h i j k l m"]
    lines = [f"2026-06-18T05:53:{number + 50}.640242Z {text}" for number, text in enumerate(said * 2)]
    assert "05:53:51.640242Z 24.04.4" in form_of("\n".join(lines)).split("\n")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b-1", "c/22", "", " ", "12", '"', ">7", "*2"]),
            st.integers(0, 12),
            st.integers(0, 9999),
        ),
        min_size=6,
        max_size=30,
    ),
    st.sampled_from(
        [
            "{0:<{1}} {2:>4} x {0}",
            "at {2}  {0} to/{0} end of it",
            "{2} {0:>9}   -> {0:<{1}}  end",
            "{0}{2} is {0}{2}>{1}",
        ]
    ),
)
def test_whatever_stands_in_columns_comes_back(cells: list[tuple[str, int, int]], line: str) -> None:
    text = "\n".join("all the same in these words: " + line.format(*cell) for cell in cells)
    form = LogTemplates().encode(text, Item(text.encode()), Query())
    assert form is None or LogTemplates().decode(form, ()) == text


def test_error_lines_and_all_facts_stay_whole() -> None:
    lines = [
        f"10:00:{number:02} node {number} of cluster-7 replied in {number}.5ms as expected" for number in range(20)
    ]
    lines[7] = "10:00:07 ERROR node 7 of cluster-7 replied in 9999.5ms as expected"
    text = "\n".join(lines)
    form = form_of(text)
    assert ">" + lines[7] in form
    assert not missing_facts(extract_facts(text), form)


def test_a_line_whose_quoted_fact_would_be_torn_stays() -> None:
    lines = [f'{number} took job "build number {number}" from the queue of the day' for number in range(10, 30)]
    form = LogTemplates().encode("\n".join(lines), Item(b""), Query())
    assert form is None or all(f'"build number {number}"' in form for number in range(10, 30))


def test_signs_that_the_text_uses_are_not_used_for_rows() -> None:
    lines = [f'* "quoted" {number} " {number} words of this line are all fixed' for number in range(10)]
    form = form_of("\n".join(lines))
    assert form.startswith('[log 1; <> filled by rows; > as it was; " as above]')
    lines = [f'{number} " {chr(34) if number % 2 else "x"} words of this line are all fixed' for number in range(10)]
    assert "; ^ as above]" in form_of("\n".join(lines))


def test_prose_has_no_templates() -> None:
    text = (
        "One line.\nAnother one here.\n\nAnd this is a third, which is longer.\nA fourth.\nThe fifth.\nThe sixth one."
    )
    assert LogTemplates().encode(text, Item(text.encode()), Query()) is None
    assert LogTemplates().encode("a 1\na 2", Item(b"a 1\na 2"), Query()) is None


def test_words_behind_colours_and_error_lines_in_colour_stay_whole() -> None:
    names = ["Vault", "Ipns", "Shares", "Auth", "Devices", "Health", "Quota", "Files"]
    lines = [
        f"\x1b[32m[Nest] 8{number}  - LOG \x1b[38;5;3m[{name}Controller] \x1b[3{number % 7}m{name}Unit mapped"
        for number, name in enumerate(names)
    ]
    lines[3] = "\x1b[31mERROR in\x1b[39m the Auth part: it failed"
    text = "\n".join(lines)
    assert not missing_facts(extract_facts(text), form_of(text))


def test_the_end_of_a_line_that_is_several_words_where_it_is_read_does_not_mix_up_what_stood_above() -> None:
    said = ["done", "was it", "one two three", "a b c d", "e f g h i", "j k l m n o"] * 2
    lines: list[str] = []
    for number, end in enumerate(said):
        lines.append(f"10:00:{number + 10} continued with {end}")
        lines.append(f"10:00:{number + 10} worker of queue{number // 4} took {number * 7} bytes")
    assert "A:* continued with *" in form_of("\n".join(lines)).split("\n")


def test_the_end_of_words_that_looks_like_a_width_is_no_part_of_a_template() -> None:
    lines = [f"{'abcdefgh'[number]}O>9 server said request {number * 7} was done" for number in range(8)]
    assert form_of("\n".join(lines)).split("\n")[1] == "A:* server said request * was done"
