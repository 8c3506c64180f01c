"""Run the demo and put what it prints into README.md, between the markers `demo:begin` and `demo:end`."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from _marked import renew, replaced

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
WIDTH = "80"


def run(*arguments: str) -> str:
    """Return what a command of ours prints, without trailing blanks."""
    environment = os.environ | {"COLUMNS": WIDTH, "NO_COLOR": "1"}
    command = [str(Path(sys.executable).with_name("apportion")), *arguments]
    done = subprocess.run(  # noqa: S603  (our own command)
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def run_demo() -> str:
    """Return what the demo prints: a workflow with planning off and on, then the replay of the logs."""
    with tempfile.TemporaryDirectory() as folder:
        files = ["--json", f"{folder}/report.json", "--html", f"{folder}/report.html"]
        printed = [run("demo"), run("replay", "fixtures/logs", "--quiet", *files).replace(folder + "/", "")]
    return "\n\n\n".join(printed)


def section(output: str) -> str:
    """Return the text between the markers."""
    machine = f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"What `make demo` prints ({machine}; `make readme` renews it):\n\n```text\n{output}\n```\n"


def renewed(readme: str) -> str:
    """Return the page with what the demo prints now."""
    return replaced(readme, "demo", section(run_demo()))


if __name__ == "__main__":
    renew(README, renewed)
