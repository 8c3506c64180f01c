"""Finding and reading files, without any log format."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.telemetry.advice import HIDDEN
from apportion.telemetry.reading import HEAD_BYTES, Limits, LogSource, SkipLog, expand_path, find_sources

if TYPE_CHECKING:
    from collections.abc import Callable


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def found(*paths: Path | str, skipped: SkipLog | None = None) -> list[str]:
    skipped = SkipLog() if skipped is None else skipped
    return [source.name for source in find_sources(paths, skipped)]


def reasons(skipped: SkipLog) -> list[str]:
    return [skip.reason for skip in skipped.messages]


# --- finding


def test_a_directory_gives_its_files_in_a_stable_order_without_the_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "deep/er/c.json", ".hidden", ".git/config", "deep/.d"):
        write(tmp_path / name, "{}")
    skipped = SkipLog()
    assert found(tmp_path, skipped=skipped) == ["a.jsonl", "b.jsonl", "c.json"]
    assert sorted(skip.path for skip in skipped.messages) == [
        str(tmp_path / name) for name in (".git", ".hidden", "deep/.d")
    ]
    assert set(reasons(skipped)) == {HIDDEN}
    assert skipped.files == 3


def test_a_directory_of_nothing_but_hidden_files_is_not_called_empty(tmp_path: Path) -> None:
    write(tmp_path / ".hidden", "{}")
    skipped = SkipLog()
    assert found(tmp_path, skipped=skipped) == []
    assert reasons(skipped) == [HIDDEN]


def test_a_hidden_file_or_directory_that_is_named_is_read(tmp_path: Path) -> None:
    write(tmp_path / ".claude/log.jsonl", "{}")
    write(tmp_path / ".one", "{}")
    assert found(tmp_path / ".claude", tmp_path / ".one") == ["log.jsonl", ".one"]


def test_a_file_reached_in_several_ways_is_found_once(tmp_path: Path) -> None:
    file = write(tmp_path / "logs/a.jsonl", "{}")
    (tmp_path / "logs/link.jsonl").symlink_to(file)
    (tmp_path / "alias").symlink_to(tmp_path / "logs")
    spellings: list[Path | str] = [
        file,
        tmp_path / "logs",
        tmp_path / "alias",
        f"{tmp_path}/logs/../logs/a.jsonl",
        f"{tmp_path}/**/*.jsonl",
    ]
    assert found(*spellings) == ["a.jsonl"]


def test_the_name_leaves_out_the_compression_suffix() -> None:
    assert [LogSource(Path(name)).name for name in ("a.jsonl.gz", "a.jsonl.zst", "a.json")] == [
        "a.jsonl",
        "a.jsonl",
        "a.json",
    ]


def test_the_root_is_the_directory_that_was_given(tmp_path: Path) -> None:
    file = write(tmp_path / "deep/a.jsonl", "{}")
    by_folder, by_file = find_sources([tmp_path], SkipLog()), find_sources([file], SkipLog())
    assert by_folder[0].root == tmp_path
    assert by_file[0].root == file.parent


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jsonl", ["a.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "b.jsonl", "c.jsonl"]),
        ("x/*", ["b.jsonl", "c.jsonl"]),
        ("x/?.jsonl", ["b.jsonl"]),
        ("[ab].jsonl", ["a.jsonl"]),
        ("**/.*.jsonl", [".h.jsonl"]),
        ("x", ["b.jsonl", "c.jsonl"]),
    ],
)
def test_glob_patterns_descend_and_leave_hidden_files_alone(tmp_path: Path, pattern: str, names: list[str]) -> None:
    for name in ("a.jsonl", "x/b.jsonl", "x/y/c.jsonl", ".h.jsonl", "x/.git/d.jsonl", "e.txt"):
        write(tmp_path / name, "{}")
    assert sorted(found(f"{tmp_path}/{pattern}")) == names


def test_a_file_whose_name_looks_like_a_pattern_is_taken_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "[a].jsonl", "{}")
    write(tmp_path / "a.jsonl", "{}")
    assert found(f"{tmp_path}/[a].jsonl") == ["[a].jsonl"]


def test_a_glob_over_two_link_loops_ends(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "{}")
    (tmp_path / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path)
    assert found(f"{tmp_path}/**/*.jsonl") == ["a.jsonl"]


def test_a_relative_path_and_the_home_directory_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "logs/a.jsonl", "{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert found("logs/a.jsonl") == found("~/logs") == found("lo*/*") == ["a.jsonl"]


def test_link_loops_are_cut_and_links_inside_the_directory_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "real/a.jsonl", "{}")
    (tmp_path / "real/loop").symlink_to(tmp_path)
    (tmp_path / "inside").symlink_to(tmp_path / "real")
    skipped = SkipLog()
    assert found(tmp_path, skipped=skipped) == ["a.jsonl"]
    assert set(reasons(skipped)) == {"symbolic link to a directory that is read already"}
    assert [Path(skip.path).name for skip in skipped.messages] == ["loop", "real"]
    assert skipped.files == skipped.unused == 2


def test_links_that_lead_outside_are_not_followed_but_counted(tmp_path: Path) -> None:
    write(tmp_path / "outside/secret.jsonl", "{}")
    write(tmp_path / "given/a.jsonl", "{}")
    (tmp_path / "given/folder").symlink_to(tmp_path / "outside")
    (tmp_path / "given/file.jsonl").symlink_to(tmp_path / "outside/secret.jsonl")
    skipped = SkipLog()
    assert found(tmp_path / "given", skipped=skipped) == ["a.jsonl"]
    assert reasons(skipped) == ["symbolic link leads outside the directory"] * 2
    assert sorted(Path(skip.path).name for skip in skipped.messages) == ["file.jsonl", "folder"]


def test_a_link_outside_that_is_itself_given_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere/a.jsonl", "{}")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert found(tmp_path / "link") == ["a.jsonl"]


@pytest.mark.parametrize(
    ("target", "reason"), [("missing", "symbolic link leads nowhere"), ("link", "symbolic link leads to itself")]
)
def test_broken_links_are_counted(tmp_path: Path, target: str, reason: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / target)
    write(tmp_path / "a.jsonl", "{}")
    skipped = SkipLog()
    assert found(tmp_path, skipped=skipped) == ["a.jsonl"]
    assert reasons(skipped) == [reason]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing.jsonl", "no such file or directory"),
        ("missing/*.jsonl", "the pattern matches nothing"),
        ("a\0b", "embedded null"),
        ("x" * 300, "name too long"),
        ("a.jsonl/below", "Not a directory"),
    ],
)
def test_a_path_that_names_nothing_is_counted_once_and_the_rest_goes_on(tmp_path: Path, path: str, reason: str) -> None:
    write(tmp_path / "a.jsonl", "{}")
    skipped = SkipLog()
    assert found(f"{tmp_path}/{path}", tmp_path / "a.jsonl", skipped=skipped) == ["a.jsonl"]
    assert skipped.files == len(skipped.messages) == 1
    assert re.search(reason, skipped.messages[0].reason, re.IGNORECASE)


def test_an_empty_path_is_not_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.jsonl", "{}")
    monkeypatch.chdir(tmp_path)
    skipped = SkipLog()
    assert found("", skipped=skipped) == []
    assert reasons(skipped) == ["an empty path was given"]


def test_a_single_path_may_stand_without_a_list(tmp_path: Path) -> None:
    log = write(tmp_path / "a.jsonl", "{}")
    for one in (log, str(log)):
        assert [source.path for source in find_sources(one, SkipLog())] == [log]


def test_a_path_is_expanded_without_reading_anything(tmp_path: Path) -> None:
    log = write(tmp_path / "a.jsonl", "{}")
    skipped = SkipLog()
    assert expand_path(str(tmp_path / "*.jsonl"), skipped) == [log]
    assert expand_path(str(tmp_path), skipped) == [tmp_path]
    assert expand_path(str(tmp_path / "missing"), skipped) == []
    assert [str(message) for message in skipped.messages] == [f"{tmp_path / 'missing'}: no such file or directory"]


def test_an_empty_directory_is_counted(tmp_path: Path) -> None:
    skipped = SkipLog()
    assert found(tmp_path, skipped=skipped) == []
    assert reasons(skipped) == ["the directory holds no files"]


def test_sockets_are_counted(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        skipped = SkipLog()
        assert found(tmp_path, skipped=skipped) == []
    assert reasons(skipped) == ["not a regular file"]


# --- pipes


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def test_standard_input_is_read_once_and_can_be_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, gzip.compress(b'{"a":1}\n'))
    sources = find_sources(["-", "-"], SkipLog())
    assert [source.label for source in sources] == ["<stdin>"]
    assert [list(sources[0].json_lines(SkipLog())) for _ in range(2)] == [[(1, {"a": 1})]] * 2


def test_too_much_on_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"x" * 101)
    skipped = SkipLog()
    assert find_sources(["-"], skipped, limits=Limits(document_bytes=100)) == []
    assert reasons(skipped) == ["more than 100 bytes through a pipe: save them to a file first"]


def test_a_named_pipe_can_be_sniffed_and_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b'{"a":1}\n',))
    writer.start()
    (source,) = find_sources([pipe, pipe], SkipLog())
    writer.join()
    assert source.head == b'{"a":1}\n'
    assert list(source.json_lines(SkipLog())) == [(1, {"a": 1})]


# --- lines and documents


def test_lines_are_numbered_from_one_and_blank_ones_left_out() -> None:
    source = LogSource(None, data=b'\n {"a":1} \r\n\n{"b":2}')
    assert list(source.lines(SkipLog())) == [(2, b'{"a":1}'), (4, b'{"b":2}')]


def test_a_line_of_ten_megabytes_is_read() -> None:
    long = json.dumps({"content": "x" * 10_000_000}).encode()
    source = LogSource(None, data=long + b"\n" + b'{"after":1}\n')
    values = list(source.json_lines(SkipLog()))
    assert [number for number, _ in values] == [1, 2]
    assert len(values[0][1]["content"]) == 10_000_000


@pytest.mark.parametrize("length", [19, 20, 21, 45, 400])
def test_only_lines_over_the_limit_are_skipped(length: int) -> None:
    source = LogSource(None, data=b"1\n" + b"x" * length + b"\n2", limits=Limits(line_bytes=20))
    skipped = SkipLog()
    kept = [number for number, _ in source.lines(skipped)]
    assert kept == ([1, 2, 3] if length <= 20 else [1, 3])
    assert [(skip.line, skip.reason) for skip in skipped.messages] == (
        [] if length <= 20 else [(2, "line longer than 20 bytes")]
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_unicode_encodings_read_like_utf_8(encoding: str) -> None:
    text = '{"a": "Grüße, 世界 🙂"}\n{"b": 2}\n'
    source = LogSource(None, data=text.encode(encoding))
    assert list(source.json_lines(SkipLog())) == [(1, {"a": "Grüße, 世界 🙂"}), (2, {"b": 2})]
    assert source.head.decode() == text


def test_nan_and_infinity_are_unknown() -> None:
    source = LogSource(None, data=b'{"a": NaN, "b": [Infinity, -Infinity]}')
    assert source.document() == {"a": None, "b": [None, None]}
    assert list(source.json_lines(SkipLog())) == [(1, {"a": None, "b": [None, None]})]


VALUES = [{"a": [1, {"b": None}]}, {"c": "x\ny"}, [1, 2]]


@pytest.mark.parametrize("name", ["log.jsonl", "log.json", "log"])
@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("".join(json.dumps(value) + "\n" for value in VALUES), VALUES),
        (json.dumps(VALUES[0], indent=2), VALUES[:1]),
        (json.dumps(VALUES[0]), VALUES[:1]),
        ("\n\n".join(json.dumps(value, indent=2) for value in VALUES), VALUES),
        ("\n  [\n" + ",\n".join(json.dumps(value) for value in VALUES) + "\n]\n", [VALUES]),
    ],
    ids=["json lines", "pretty-printed", "one line", "pretty-printed, several", "array over lines"],
)
def test_the_layout_of_json_follows_from_the_content_not_from_the_name(
    name: str, text: str, values: list[object]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = LogSource(write(Path(folder, name), text))
        assert [value for _, value in source.documents(SkipLog())] == values


def test_documents_after_each_other_know_their_lines() -> None:
    text = "\n" + "\n".join(json.dumps(value, indent=1) for value in VALUES[:2])
    lines = [number for number, _ in LogSource(None, data=text.encode()).documents(SkipLog())]
    assert lines == [2, 2 + json.dumps(VALUES[0], indent=1).count("\n") + 1]


def test_a_broken_document_does_not_cost_those_before_it() -> None:
    skipped = SkipLog()
    source = LogSource(None, data=b'{\n"a": 1\n}\n{\n"b": \n')
    assert [value for _, value in source.documents(skipped)] == [{"a": 1}]
    assert [(skip.line, skip.whole_file) for skip in skipped.messages] == [(4, False)]


def test_a_document_on_one_line_may_be_longer_than_a_line(tmp_path: Path) -> None:
    limits = Limits(line_bytes=20, document_bytes=1000)
    text = json.dumps({"a": "x" * 100})
    assert [value for _, value in LogSource(write(tmp_path / "a.json", text), limits=limits).documents(SkipLog())]
    skipped = SkipLog()
    assert list(LogSource(write(tmp_path / "a.jsonl", text), limits=limits).documents(skipped)) == []
    assert reasons(skipped) == ["line longer than 20 bytes"]


def test_a_document_over_the_limit_is_refused() -> None:
    source = LogSource(None, data=b"[" + b" " * 100 + b"]", limits=Limits(document_bytes=101))
    with pytest.raises(InputError, match="JSON document larger than 101 bytes"):
        source.document()


@settings(max_examples=settings().max_examples // 4)
@given(st.lists(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5), min_size=1))
def test_whatever_json_lines_were_written_are_read(values: list[object]) -> None:
    data = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode("utf-8", "surrogatepass")
    skipped = SkipLog()
    assert [value for _, value in LogSource(None, data=data).documents(skipped)] == values
    assert skipped.lines == 0


# --- compression


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gzip", "zstandard"])
@given(parts=st.lists(st.binary(max_size=2000), min_size=1, max_size=4))
def test_compressed_content_reads_as_if_it_were_plain(compress: Callable[[bytes], bytes], parts: list[bytes]) -> None:
    plain = b"x" + b"".join(parts)  # whatever follows an x is no byte order mark
    packed = compress(b"x") + b"".join(compress(part) for part in parts)
    assert LogSource(None, data=packed).open().read() == plain


def test_gzip_with_padding_behind_it_is_read() -> None:
    assert LogSource(None, data=gzip.compress(b"text") + b"\0" * 512).open().read() == b"text"


def test_a_long_zstandard_window_is_read() -> None:
    block = os.urandom(10_000)
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, enable_ldm=True)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compress(b"x" + block * 2_000)
    assert LogSource(None, data=packed).open().read() == b"x" + block * 2_000


def test_the_head_is_decompressed_and_bounded() -> None:
    source = LogSource(None, data=gzip.compress(b"x" * (HEAD_BYTES + 10)))
    assert source.head == b"x" * HEAD_BYTES


# --- the list of what was skipped


def test_the_counts_are_complete_where_messages_are_not_kept() -> None:
    skipped = SkipLog(keep=2)
    for number in range(1, 6):
        skipped.line("a", number, "bad")
    skipped.file("b", "worse", line=7)
    assert (skipped.files, skipped.lines, len(skipped.messages)) == (1, 5, 2)


def test_what_was_read_and_holds_nothing_of_use_is_told_from_what_could_not_be_read() -> None:
    skipped, other = SkipLog(), SkipLog()
    skipped.file("a", "cannot open")
    other.file("b", "no messages", unused=True)
    skipped.extend(other)
    assert (skipped.files, skipped.unused) == (2, 1)


def test_logs_of_skips_are_added_up() -> None:
    left, right = SkipLog(keep=3), SkipLog()
    left.file("a", "x")
    for number in (1, 2, 3):
        right.line("b", number, "y")
    left.extend(right)
    assert (left.files, left.lines) == (1, 3)
    assert [str(skip) for skip in left.messages] == ["a: x", "b:1: y", "b:2: y"]


def test_a_message_is_one_line_of_bearable_length() -> None:
    skipped = SkipLog()
    skipped.line("a.jsonl", 3, "1 validation error\n  for Event\n" + "and on " * 1000)
    assert str(skipped.messages[0]).startswith("a.jsonl:3: 1 validation error for Event and on")
    assert len(skipped.messages[0].reason) <= 300
    assert "\n" not in str(skipped.messages[0])
