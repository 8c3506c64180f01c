"""Run the what-if example of docs/planning.md and put what it prints under it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from _marked import renew, replaced

PAGE = Path(__file__).with_name("planning.md")
EXAMPLE = re.compile(r"^```python\n((?:(?!^```$).)*?what_if\(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_example(page: str) -> str:
    """Return what the example of the page prints, without trailing blanks."""
    found = EXAMPLE.search(page)
    if found is None:
        raise ValueError("docs/planning.md holds no Python block that calls what_if")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "example.py")
        script.write_text(found[1], encoding="utf-8")
        run = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True)  # noqa: S603
    return "\n".join(line.rstrip() for line in run.stdout.strip().splitlines())


def renewed(page: str) -> str:
    """Return the page with what its example prints now."""
    return replaced(page, "what-if", f"```text\n{run_example(page)}\n```\n")


if __name__ == "__main__":
    renew(PAGE, renewed)
