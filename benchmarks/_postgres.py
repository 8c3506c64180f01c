"""A PostgreSQL server of one's own: in a temporary folder, on a Unix socket alone, gone afterwards.

The server refuses to run as root, so root starts it as the user `postgres`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

START_SECONDS = 60.0


class NoServerError(Exception):
    """There is no PostgreSQL server to start here, and why."""


class Server:
    """A running server.

    Args:
        folder: Where its data and socket are.
        binaries: Where its programs are.
        options: Settings, as `name=value`.
    """

    def __init__(self, folder: Path, binaries: Path, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.address = f"postgresql://postgres@/postgres?host={folder}"
        self._binaries = binaries
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = [f"unix_socket_directories={self.folder}", "listen_addresses=", *self._options]
        command = [str(self._binaries / "postgres"), "-D", str(self.folder / "data")]
        command += [part for setting in settings for part in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  (our own arguments)
                _as_postgres(command), stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        ready = [str(self._binaries / "pg_isready"), "-q", "-h", str(self.folder)]
        while subprocess.run(ready, check=False).returncode:  # noqa: S603
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NoServerError(f"PostgreSQL does not start: {(self.folder / 'log').read_text()[-500:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it at once, as a failure would."""
        if self._process is None:
            return
        data = self.folder / "data" / "postmaster.pid"
        if data.exists():
            os.kill(int(data.read_text().split()[0]), signal.SIGQUIT)
        self._process.wait(timeout=START_SECONDS)
        self._process = None


@contextmanager
def private_server(*options: str) -> Iterator[Server]:
    """Give a fresh server, and remove it afterwards.

    Raises:
        NoServerError: Its programs are not installed, or it does not start.
    """
    binaries = _binaries()
    folder = Path(tempfile.mkdtemp(prefix="apportion-pg-", dir="/tmp"))
    server = Server(folder, binaries, options)
    try:
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
        init = [
            str(binaries / "initdb"),
            "-D",
            str(folder / "data"),
            "-A",
            "trust",
            "-U",
            "postgres",
            "-N",
            "-E",
            "UTF8",
        ]
        done = subprocess.run(_as_postgres(init), capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise NoServerError(f"initdb failed: {done.stderr.strip()[-500:]}")
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _as_postgres(command: list[str]) -> list[str]:
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


def _binaries() -> Path:
    """Return the folder of the server's programs, the newest version where there are several."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        raise NoServerError("no PostgreSQL server is installed (no initdb)")
    folder = found[-1].parent if found else Path(os.path.realpath(str(on_path))).parent
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            raise NoServerError("root may not start PostgreSQL, and there is no user postgres") from None
        if shutil.which("runuser") is None:
            raise NoServerError("root may not start PostgreSQL, and there is no runuser")
    return folder
