"""`--json`: with a file it writes there, alone it prints, wherever it stands on the command line."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from apportion.planner.doors.cli._files import STDIO

_OPTION = "--json"


class JsonFileCommand(TyperCommand):
    """A command whose `--json FILE` may stand alone: `--json` at the end, or before another option, is `--json -`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name standard output where `--json` names no file."""
        named: list[str] = []
        for position, word in enumerate(args):
            named.append(word)
            following = args[position + 1 : position + 2]
            if word == _OPTION and (not following or (following[0].startswith("-") and following[0] != STDIO)):
                named.append(STDIO)
        return super().parse_args(ctx, named)
