"""Write the reference in docs/cli.md anew, from the help of the real command line, or check it with `--check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _marked import replaced

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).with_name("cli.md")
COLUMNS = 80


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, by its full name, in the order of the help."""
    from typer.main import get_command

    from apportion.planner.doors.cli import app

    def below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        parts = getattr(command, "commands", None)
        if not parts:
            yield name, command
            return
        for part, each in parts.items():
            yield from below(each, f"{name} {part}")

    yield from below(get_command(app), "apportion")


def shown(name: str) -> str:
    """Return what `NAME --help` prints."""
    from typer.testing import CliRunner

    from apportion.planner.doors.cli import app

    words = name.split()[1:]
    result = CliRunner().invoke(app, [*words, "--help"], prog_name="apportion", env={"COLUMNS": str(COLUMNS)})
    if result.exit_code:
        raise SystemExit(f"{name} --help ended with {result.exit_code}: {result.output}")
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def section() -> str:
    """Return the reference."""
    parts = [f"### apportion\n\n```text\n{shown('apportion')}\n```\n"]
    parts += [f"### {name.removeprefix('apportion ')}\n\n```text\n{shown(name)}\n```\n" for name, _ in commands()]
    return "\n".join(parts)


def renewed(page: str) -> str:
    """Return the page with a new reference."""
    return replaced(page, "reference", f"\n{section()}\n")


def main() -> None:
    """Renew or check the page."""
    old = PAGE.read_text(encoding="utf-8")
    new = renewed(old)
    if "--check" in sys.argv[1:]:
        if new != old:
            sys.exit("docs/cli.md is not what the command line says: run `make docs`")
        return
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
