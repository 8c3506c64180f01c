"""Whatever is wrong with one file gives one message, and the rest is read."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from apportion.plugins import load_plugins
from apportion.telemetry import importers
from apportion.telemetry.importers import find_groups, read_logs
from apportion.telemetry.reading import DEFAULT_LIMITS, HEAD_BYTES, Limits, Skip, SkipLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINES = (Path(__file__).parents[2] / "fixtures/logs/atif/one-per-line.jsonl").read_bytes()
"""Two trajectories, one per line."""

FIRST, SECOND = LINES.splitlines()
COMPRESSORS = [pytest.param(gzip.compress, id="gzip"), pytest.param(zstandard.compress, id="zstandard")]


def read(*paths: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[list[str], list[Skip]]:
    """Return the identifiers of the workflows, and the messages about what was skipped."""
    skipped = SkipLog()
    ids = [log.id for log in read_logs(paths, skipped, limits=limits)]
    assert len(skipped.messages) == skipped.files + skipped.lines
    return ids, skipped.messages


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with a good log in it."""
    good = json.loads(FIRST) | {"session_id": "good"}
    (tmp_path / "good.json").write_text(json.dumps(good))
    return tmp_path


def deep(depth: int) -> bytes:
    """Return a document that is nested too deeply, but only where no importer looks to recognise it."""
    document = b'{"schema_version": "ATIF-v1.4", "steps": [], "notes": "' + b"x" * HEAD_BYTES + b'", "extra": '
    return document + b"[" * depth + b"]" * depth + b"}"


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.jsonl", content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.jsonl", b"", "empty file"),
        ("blank.jsonl", b" \n\n\t\n", "empty file"),
        ("core", b"\x7fELF\0\0\1\2" * 100, "binary file"),
        ("notes.txt", b"Nothing of interest.\n", "no importer recognises the content"),
        ("number.json", b"17", "no importer recognises the content"),
        ("log.jsonl.xz", lzma.compress(LINES), "xz archive: unpack it first"),
        ("log.zip", zipped(LINES), "zip archive: unpack it first"),
        ("cut.gz", gzip.compress(LINES, mtime=0)[:8], "truncated gzip stream"),
        ("cut.zst", zstandard.compress(LINES)[:6], "truncated zstandard stream"),
        ("no.gz", b"\x1f\x8b" + b"no gzip", "broken gzip stream"),
        ("no.zst", b"\x28\xb5\x2f\xfd" + b"\xff" * 60, "broken zstandard stream"),
        ("odd.json", '{"schema_version":"ATIF-v1.4","steps":[]}'.encode("utf-16")[:-1], "not utf-16 text"),
        ("deep.json", deep(100_000), "nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_used_gives_one_message(folder: Path, name: str, content: bytes, reason: str) -> None:
    (folder / name).write_bytes(content)
    ids, messages = read(folder)
    assert ids == ["atif:good"]
    (message,) = messages
    assert message.path == str(folder / name)
    assert reason in message.reason


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (LINES + FIRST[:300], 3, "unfinished last line is not JSON"),
        (FIRST + b"\n" + FIRST[:300] + b"\n" + SECOND, 2, "line is not JSON"),
        (FIRST + b"\n{'single': 'quotes'}\n" + SECOND, 2, "line is not JSON"),
        (FIRST + b'\n{"a": "caf\xe9"}\n' + SECOND, 2, "not UTF-8 text: byte 0xe9"),
        (FIRST + b"\n\0\0\0\0\n" + SECOND, 2, "line is not JSON"),
        (FIRST + b"\n" + b"[" * 100_000 + b"\n" + SECOND, 2, "nested too deeply"),
        (FIRST + b'\n{"a": ' + b"9" * 5000 + b"}\n" + SECOND, 2, "not usable JSON"),
        (FIRST + b'\n{"a": 1}\n' + SECOND, 2, "not an ATIF trajectory"),
        (b'tail of a line"}\n' + LINES, 1, "line is not JSON"),
    ],
    ids=[
        "truncated last line",
        "truncated line",
        "not JSON",
        "latin-1",
        "zeros",
        "deep nesting",
        "huge number",
        "another record",
        "first line cut off",
    ],
)
def test_a_line_that_cannot_be_used_does_not_cost_the_others(
    folder: Path, content: bytes, line: int, reason: str
) -> None:
    (folder / "log.jsonl").write_bytes(content)
    ids, messages = read(folder)
    assert sorted(ids) == ["atif:good", "atif:price-1", "atif:price-2"]
    (message,) = messages
    assert (message.path, message.line, message.whole_file) == (str(folder / "log.jsonl"), line, False)
    assert reason in message.reason


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_unicode_in_another_encoding_is_read(tmp_path: Path, encoding: str, suffix: str) -> None:
    pack: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
    (tmp_path / f"log.jsonl{suffix}").write_bytes(pack[suffix](LINES.decode().encode(encoding)))
    assert read(tmp_path) == (["atif:price-1", "atif:price-2"], [])


def test_a_whole_file_in_latin_1_is_skipped_line_by_line(folder: Path) -> None:
    text = LINES.decode().replace("seat", "Plätze")
    (folder / "log.jsonl").write_bytes(text.encode("latin-1"))
    ids, messages = read(folder)
    assert ids == ["atif:good"]
    assert [(message.line, "not UTF-8 text: byte 0xe4" in message.reason) for message in messages] == [
        (1, True),
        (2, True),
    ]


def test_pretty_printed_json_under_a_jsonl_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(json.dumps(json.loads(FIRST), indent=4))
    assert read(tmp_path) == (["atif:price-1"], [])


def test_a_broken_pretty_printed_document_names_the_line(folder: Path) -> None:
    text = json.dumps(json.loads(FIRST), indent=1)
    cut = text[: text.index('"step_id": 2')]
    (folder / "log.jsonl").write_text(cut)
    ids, messages = read(folder)
    assert ids == ["atif:good"]
    (message,) = messages
    assert message.line == cut.count("\n") + 1
    assert message.reason.startswith("not JSON")


def test_a_line_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    big = json.loads(FIRST)
    big["steps"][0]["message"] = "x" * 10_000_000
    (tmp_path / "log.jsonl").write_bytes(json.dumps(big).encode() + b"\n" + SECOND)
    assert read(tmp_path) == (["atif:price-1", "atif:price-2"], [])


def test_a_line_over_the_limit_is_skipped(folder: Path) -> None:
    limit = max(len(FIRST), len(SECOND))
    (folder / "log.jsonl").write_bytes(FIRST + b"\n" + b" " * limit + FIRST + b"\n" + SECOND)
    ids, messages = read(folder, limits=Limits(line_bytes=limit))
    assert sorted(ids) == ["atif:good", "atif:price-1", "atif:price-2"]
    assert [(message.line, message.reason) for message in messages] == [(2, f"line longer than {limit} bytes")]


def test_a_document_over_the_limit_is_skipped(folder: Path) -> None:
    document = json.dumps(json.loads(FIRST), indent=1).encode()
    (folder / "log.json").write_bytes(document)
    ids, messages = read(folder, limits=Limits(document_bytes=len(document) - 1))
    assert ids == ["atif:good"]
    assert [message.reason for message in messages] == [f"JSON document larger than {len(document) - 1} bytes"]


# --- compressed files


@pytest.mark.parametrize("compress", COMPRESSORS)
def test_what_comes_before_the_cut_in_a_compressed_log_is_read(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    step = json.loads(FIRST)["steps"][0]
    lines = [
        {"schema_version": "ATIF-v1.4", "session_id": str(number), "steps": [step | {"message": os.urandom(500).hex()}]}
        for number in range(600)
    ]
    packed = compress("".join(json.dumps(line) + "\n" for line in lines).encode())
    (tmp_path / "log.jsonl").write_bytes(packed[: len(packed) * 2 // 3])
    ids, messages = read(tmp_path)
    assert ids == [f"atif:{number}" for number in range(len(ids))]
    assert 300 < len(ids) < 450
    (message,) = messages
    assert message.line == len(ids) + 1
    assert "truncated" in message.reason


@pytest.mark.parametrize("compress", COMPRESSORS)
def test_a_cut_compressed_document_is_skipped(folder: Path, compress: Callable[[bytes], bytes]) -> None:
    document = json.loads(FIRST) | {"notes": os.urandom(300_000).hex()}
    packed = compress(json.dumps(document, indent=1).encode())
    (folder / "log.json").write_bytes(packed[: len(packed) * 2 // 3])
    ids, messages = read(folder)
    assert ids == ["atif:good"]
    assert ["truncated" in message.reason for message in messages] == [True]


def test_a_damaged_gzip_file_is_noticed(folder: Path) -> None:
    packed = bytearray(gzip.compress(LINES))
    packed[-6] ^= 1  # within the checksum
    (folder / "log.jsonl.gz").write_bytes(packed)
    _, messages = read(folder)
    assert ["broken gzip stream" in message.reason for message in messages] == [True]


def test_garbage_behind_a_gzip_file_is_noticed(folder: Path) -> None:
    (folder / "log.jsonl.gz").write_bytes(gzip.compress(LINES) + b"garbage")
    ids, messages = read(folder)
    assert sorted(ids) == ["atif:good", "atif:price-1", "atif:price-2"]
    assert ["broken gzip stream" in message.reason for message in messages] == [True]


def bomb(compress: Callable[[bytes], bytes], size: int) -> bytes:
    """Return a log whose third line decompresses to `size` blanks."""
    return compress(LINES) + compress(b" " * size)


@pytest.mark.parametrize(("compress", "ratio"), [(gzip.compress, 512), (zstandard.compress, 8192)])
def test_a_bomb_is_refused_by_its_ratio(folder: Path, compress: Callable[[bytes], bytes], ratio: int) -> None:
    packed = bomb(compress, 30_000_000)
    assert len(packed) < 200_000
    (folder / "log.jsonl").write_bytes(packed)
    ids, messages = read(folder)
    assert sorted(ids) == ["atif:good", "atif:price-1", "atif:price-2"]
    assert [(message.line, message.reason) for message in messages] == [
        (3, f"decompresses to more than {ratio} times its size: refused")
    ]


@pytest.mark.parametrize("compress", COMPRESSORS)
def test_a_bomb_is_refused_by_its_size(folder: Path, compress: Callable[[bytes], bytes]) -> None:
    (folder / "log.jsonl").write_bytes(bomb(compress, 3_000_000))
    ids, messages = read(folder, limits=Limits(expanded_bytes=2_000_000))
    assert sorted(ids) == ["atif:good", "atif:price-1", "atif:price-2"]
    assert [(message.line, message.reason) for message in messages] == [
        (3, "decompresses to more than 2000000 bytes: refused")
    ]


@pytest.mark.parametrize("compress", COMPRESSORS)
def test_short_files_of_repeated_text_are_no_bombs(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    (tmp_path / "log.jsonl").write_bytes(bomb(compress, 3_000_000))
    assert read(tmp_path) == (["atif:price-1", "atif:price-2"], [])


def test_a_bomb_does_not_fill_the_memory(folder: Path) -> None:
    import tracemalloc

    compressor = zlib.compressobj(wbits=31)
    blank = b" " * 1_000_000
    packed = b"".join(compressor.compress(blank) for _ in range(300)) + compressor.flush()
    (folder / "log.json").write_bytes(gzip.compress(b'{"schema_version":"ATIF-v1.4","steps":[\n') + packed)
    tracemalloc.start()
    try:
        _, messages = read(folder)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ["refused" in message.reason for message in messages] == [True]
    assert peak < 80_000_000


# --- permissions


@contextmanager
def without_privileges() -> Iterator[None]:
    """Act as a user to whom permissions apply; root becomes `nobody` for a while."""
    if os.geteuid() != 0:
        yield
        return
    loaded = load_plugins(importers.GROUP)  # whose files `nobody` may not be allowed to read
    try:
        os.seteuid(65534)
    except PermissionError:
        pytest.skip("root may not become another user here, and to root no permission applies")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(importers, "load_plugins", lambda _group: loaded)
            yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory with a good log in it that everybody may enter, unlike those of `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "good.jsonl").write_bytes(LINES)
        (folder / "shut").mkdir()
        (folder / "shut/log.jsonl").write_bytes(LINES)
        folder.chmod(0o755)
        read(folder)  # loads what is imported late, which `nobody` may not be allowed to read either
        yield folder
        (folder / "shut").chmod(0o755)


@pytest.mark.parametrize(
    ("path", "mode", "named"),
    [
        ("shut/log.jsonl", 0o000, "shut/log.jsonl"),
        ("shut", 0o000, "shut"),  # can neither be listed nor entered
        ("shut", 0o444, "shut/log.jsonl"),  # can be listed, but not entered
    ],
)
def test_what_may_not_be_read_is_counted(open_folder: Path, path: str, mode: int, named: str) -> None:
    (open_folder / path).chmod(mode)
    with without_privileges():
        ids, messages = read(open_folder)
    assert ids == ["atif:price-1", "atif:price-2"]
    assert [(message.path, message.reason) for message in messages] == [
        (str(open_folder / named), "cannot open: Permission denied")
    ]


def test_a_given_path_that_may_not_be_entered_is_counted(open_folder: Path) -> None:
    (open_folder / "shut").chmod(0o000)
    with without_privileges():
        ids, messages = read(open_folder / "shut/log.jsonl", open_folder / "good.jsonl")
    assert ids == ["atif:price-1", "atif:price-2"]
    assert [message.reason for message in messages] == ["cannot open: Permission denied"]


def test_a_file_that_vanishes_between_finding_and_reading_is_counted(folder: Path) -> None:
    (folder / "log.jsonl").write_bytes(LINES)
    skipped = SkipLog()
    groups = find_groups([folder], skipped)
    (folder / "log.jsonl").unlink()
    ids = [log.id for group in groups for log in group.read(skipped)]
    assert ids == ["atif:good"]
    assert [message.reason for message in skipped.messages] == ["cannot open: No such file or directory"]


def test_nothing_at_all_is_an_answer_too(tmp_path: Path) -> None:
    assert read(tmp_path / "missing") == (
        [],
        [Skip(str(tmp_path / "missing"), None, "no such file or directory", whole_file=True)],
    )
    assert [message.reason for message in read(tmp_path)[1]] == ["the directory holds no files"]


def test_a_thousand_bad_files_are_counted_one_by_one(folder: Path) -> None:
    contents: list[Any] = [b"", b"\0", b"text"]
    for number in range(1200):
        (folder / f"{number}.log").write_bytes(contents[number % 3])
    skipped = SkipLog()
    assert [log.id for log in read_logs([folder], skipped)] == ["atif:good"]
    assert skipped.files == 1200
    assert len(skipped.messages) == 1000
