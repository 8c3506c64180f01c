"""A server as a process of its own, and the official client before it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from pathlib import Path


class Command(NamedTuple):
    """How a server is started."""

    arguments: list[str]
    env: dict[str, str]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The command that serves over standard input and output, with files of its own."""
    pytest.importorskip("mcp", reason="needs the extra mcp")
    files = ["--store", str(tmp_path / "originals"), "--ledger", str(tmp_path / "ledger.db")]
    return Command([sys.executable, "-m", "apportion", "mcp", *files], dict(os.environ))
