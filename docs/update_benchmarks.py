"""Write the list in docs/benchmarks.md anew, from the docstrings of the benchmarks."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from _marked import renew, replaced

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"


def entry(file: Path) -> str:
    """Return what the list says of a benchmark: the first sentence of its docstring, and its command if it has one."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    command = re.search(r"^ {4}(python benchmarks/.*)$", docstring, re.MULTILINE)
    usage = f"\n```text\n{command[1]}\n```\n" if command else ""
    return f"### {file.stem}\n\n{docstring.splitlines()[0]}\n{usage}"


def section() -> str:
    """Return the list."""
    return "\n".join(entry(file) for file in sorted((ROOT / "benchmarks").glob("[a-z]*.py")))


def renewed(page: str) -> str:
    """Return the page with a new list."""
    return replaced(page, "list", f"\n{section()}\n")


if __name__ == "__main__":
    renew(PAGE, renewed)
