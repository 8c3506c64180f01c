"""Run the what-if example of docs/planning.md and put what it prints under it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).with_name("planning.md")
MARKED = re.compile(r"(<!-- what-if:begin -->\n).*?(<!-- what-if:end -->)", re.DOTALL)
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
    """Return the page with what its example prints now.

    Raises:
        ValueError: The page does not hold the markers exactly once.
    """
    if len(MARKED.findall(page)) != 1:
        raise ValueError("docs/planning.md must hold the markers what-if:begin and what-if:end once")
    output = run_example(page)
    return MARKED.sub(lambda found: f"{found[1]}```text\n{output}\n```\n{found[2]}", page)


def main() -> None:
    """Renew the page."""
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
