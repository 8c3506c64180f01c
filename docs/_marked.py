"""What the scripts here put into a page stands between two markers: `<!-- NAME:begin -->` and `<!-- NAME:end -->`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def replaced(page: str, name: str, text: str) -> str:
    """Return a page with another text between the markers of a name; the markers stay, and the text is taken literally.

    Raises:
        ValueError: The page does not hold the markers exactly once, each on a line of its own.
    """
    begin, end = (re.escape(f"<!-- {name}:{which} -->\n") for which in ("begin", "end"))
    parts = re.split(rf"(?m)(?<=^{begin})|(?=^{end})", page)
    if len(parts) != 3:
        raise ValueError(f"the page must hold the markers {name}:begin and {name}:end once")
    return f"{parts[0]}{text}{parts[2]}"


def renew(file: Path, renewed: Callable[[str], str]) -> None:
    """Write a page anew.

    Args:
        file: The page.
        renewed: Returns what is to stand there, from what stands there now.
    """
    file.write_text(renewed(file.read_text(encoding="utf-8")), encoding="utf-8")
