"""Run the commands that docs/compression.md shows, and put what they print under them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from _marked import renew, replaced

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path(__file__).with_name("compression.md")

COMMANDS = (
    "apportion compress fixtures/content/json-taubench-airline.txt > shorter.txt",
    "(base64 -w 0 LICENSE; echo) | apportion compress - --strategy literals --store originals",
    "apportion expand h:{handle} b0-40 --store originals",
    "apportion inspect fixtures/content/json-taubench-airline.txt --lines 5",
    "apportion compress fixtures/content/json-taubench-airline.txt --cache > shorter.txt",
    "apportion compress fixtures/content/json-taubench-airline.txt --cache > shorter.txt",
    "apportion status | grep -A 2 ^cache",
)
"""What is run, in this order, in one folder; `{handle}` is the first one that a command before has printed."""


def run_commands() -> str:
    """Return the commands with what they print, without trailing blanks."""
    shown: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("fixtures", "LICENSE"):
            Path(folder, name).symlink_to(ROOT / name)
        program = f'#!/bin/sh\nexec "{sys.executable}" -m apportion "$@"\n'
        Path(folder, "apportion").write_text(program, encoding="utf-8")
        Path(folder, "apportion").chmod(0o755)
        environment = os.environ | {
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "XDG_DATA_HOME": f"{folder}/data",
            "XDG_CONFIG_HOME": f"{folder}/config",
            "COLUMNS": "80",
            "NO_COLOR": "1",
        }
        for command in COMMANDS:
            handle = re.search(r"h:([0-9a-f]{8,})", "\n".join(shown))
            command = command.replace("{handle}", handle[1] if handle else "")  # noqa: PLW2901  (the same, filled in)
            run = subprocess.run(  # noqa: S603  (our own commands)
                ["sh", "-c", command],  # noqa: S607
                cwd=folder,
                env=environment,
                check=True,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            shown += [f"$ {command}", *run.stdout.replace(f"{folder}/", "").splitlines(), ""]
    return "\n".join(line.rstrip() for line in shown).strip()


def renewed(page: str) -> str:
    """Return the page with what its commands print now."""
    return replaced(page, "commands", f"```console\n{run_commands()}\n```\n")


if __name__ == "__main__":
    renew(PAGE, renewed)
