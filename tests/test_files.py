from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from apportion.files import is_replaced, write_atomically

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
needs_descriptors = pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="there is no /dev/stdout")


def read_once(pipe: Path) -> tuple[threading.Thread, list[str]]:
    """Start to read a pipe as another program would."""
    read: list[str] = []
    thread = threading.Thread(target=lambda: read.append(pipe.read_text(encoding="utf-8")), daemon=True)
    thread.start()
    return thread, read


def test_an_atomic_write_keeps_links_and_permissions(tmp_path: Path) -> None:
    target = tmp_path / "real.toml"
    target.write_text("old")
    target.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(target)
    write_atomically(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_link_that_leads_nowhere_yet_leads_to_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "new")
    write_atomically(tmp_path / "link", "text")
    assert (tmp_path / "folder" / "new").read_text() == "text"


def test_a_name_of_the_greatest_length_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / ("ü" * 127)
    write_atomically(file, "text")
    assert file.read_text() == "text"


@needs_pipes
def test_a_named_pipe_is_written_into_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path / "link"):
        thread, read = read_once(pipe)
        write_atomically(path, "Größe\n")
        thread.join(10)
        assert read == ["Größe\n"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_device_is_an_error_and_stays_a_device() -> None:
    assert not is_replaced(Path("/dev/full"))
    with pytest.raises(OSError, match="No space left") as raised:
        write_atomically(Path("/dev/full"), "text")
    assert raised.value.errno == errno.ENOSPC
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, "text")


PRINT = (
    "import sys; from pathlib import Path; from apportion.files import write_atomically;"
    "print('first', flush=True); write_atomically(Path(sys.argv[1]), 'second\\n')"
)


@needs_descriptors
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_written_into_whatever_it_is(tmp_path: Path, name: str) -> None:
    if not Path(name).exists():
        pytest.skip("not on this system")
    command = [sys.executable, "-c", PRINT, name]
    piped = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert piped.stdout == "first\nsecond\n"
    with (tmp_path / "out.txt").open("w") as out:
        subprocess.run(command, stdout=out, check=True, timeout=300)
    assert (tmp_path / "out.txt").read_text() == "first\nsecond\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


@needs_descriptors
def test_only_files_and_what_is_not_there_yet_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert is_replaced(tmp_path / "file")
    assert is_replaced(tmp_path / "absent")
    assert not is_replaced(tmp_path)
    assert not is_replaced(Path("/dev/null"))
    assert not is_replaced(Path("/dev/stdout"))
    with pytest.raises(OSError, match="symbolic link"):
        is_replaced(tmp_path / "loop")
