r"""Edits of a JSON text by paths, where the text is one that a JSON writer wrote on one line.

    /orders/3/status "shipped"       set, or add at the end of an object
    /orders/3/note -                 take away
    /orders/4 +{"id":7}              put in before element 4, or at the end

Content is bytes: edits are used only if the edited JSON, written in the style of the new text, is the new text, byte
for byte. A number that is spelt otherwise (`1.10`), a key that stands twice, keys in another order: then they are not.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from apportion.compression.diff.types import Reason
from apportion.errors import DeltaError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Path = tuple[str | int, ...]

MAX_EDITS = 2_000
"""Edits beyond which a state is not edited but written anew."""

_STYLES: Final[dict[str, tuple[str, str, bool]]] = {
    ",": (",", ":", False),
    ";": (",", ":", True),
    "_": (", ", ": ", False),
    "-": (", ", ": ", True),
}
"""Separators, and whether characters outside ASCII are escaped, by the sign of a style."""


class JsonEdits(NamedTuple):
    """How one JSON text becomes another."""

    style: str
    lines: tuple[bytes, ...]


def is_style(sign: str) -> bool:
    """Say whether a sign stands for a style."""
    return sign in _STYLES


def find_edits(old: bytes, new: bytes) -> JsonEdits | None:
    """Return edits that should make one JSON text of another, `None` where there are none; they are not proved yet."""
    if not (_is_flat(old) and _is_flat(new)):
        return None
    lines: list[bytes] = []
    try:
        for path, sign, value in _edits((), json.loads(old), json.loads(new)):
            lines.append(_line(path, sign, value))
            if len(lines) > MAX_EDITS:
                return None
    except (ValueError, RecursionError):
        return None
    return JsonEdits(_style_of(new), tuple(lines))


def apply_edits(old: bytes, lines: Sequence[bytes], style: str) -> bytes:
    """Return the JSON text that edits make of another.

    Raises:
        DeltaError: The old text is no JSON, or an edit cannot be done.
    """
    try:
        root: list[Any] = [json.loads(old)]
        for line in lines:
            _apply(root, line.decode())
        return _dumps(root[0], style)
    except (ValueError, RecursionError, IndexError, KeyError, TypeError) as error:
        raise DeltaError(f"damaged delta: an edit of JSON: {error}", reason=Reason.MALFORMED) from None


def _is_flat(text: bytes) -> bool:
    """Say whether a text may be JSON on one line; indented JSON is served better by its lines."""
    return text[:1] in {b"{", b"["} and text[-1:] in {b"}", b"]"} and b"\n" not in text


def _style_of(text: bytes) -> str:
    """Return the style in which a text is probably written."""
    spaced = b'": ' in text or b", " in text[:200]
    if text.isascii():
        return "-" if spaced else ";"
    return "_" if spaced else ","


def _dumps(value: Any, style: str) -> bytes:
    comma, colon, ascii_only = _STYLES[style]
    return json.dumps(value, separators=(comma, colon), ensure_ascii=ascii_only).encode()


def _edits(path: Path, old: Any, new: Any) -> Iterator[tuple[Path, str, Any]]:
    """Yield the edits; what Python holds for equal, as 1 and true, is left for the proof to find."""
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _object_edits(path, old, new)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _array_edits(path, old, new)
    elif type(old) is not type(new) or old != new:
        yield path, "", new


def _object_edits(path: Path, old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[Path, str, Any]]:
    for key, value in old.items():
        if key not in new:
            yield (*path, key), "-", None
        elif value != new[key] or type(value) is not type(new[key]):
            yield from _edits((*path, key), value, new[key])
    for key, value in new.items():
        if key not in old:
            yield (*path, key), "", value


def _array_edits(path: Path, old: list[Any], new: list[Any]) -> Iterator[tuple[Path, str, Any]]:
    shorter = min(len(old), len(new))
    first = last = 0
    while first < shorter and old[first] == new[first]:
        first += 1
    while last < shorter - first and old[len(old) - 1 - last] == new[len(new) - 1 - last]:
        last += 1
    for number in range(first, shorter - last):
        yield from _edits((*path, number), old[number], new[number])
    for number in range(len(old) - last - 1, shorter - last - 1, -1):
        yield (*path, number), "-", None
    for number in range(shorter - last, len(new) - last):
        yield (*path, number), "+", new[number]


def _line(path: Path, sign: str, value: Any) -> bytes:
    where = "".join("/" + (str(step) if isinstance(step, int) else _escape(step)) for step in path)
    what = "" if sign == "-" else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return f"{where} {sign}{what}".encode()


def _escape(key: str) -> str:
    """Return a key as it stands in a path; those with anything unusual in them are escaped as in JSON."""
    return json.dumps(key)[1:-1].replace("~", "~0").replace("/", "~1").replace(" ", "\\u0020")


def _steps(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise ValueError("a path does not begin with /")
    return [json.loads(f'"{step.replace("~1", "/").replace("~0", "~")}"') for step in path.split("/")[1:]]


def _apply(root: list[Any], line: str) -> None:
    path, blank, what = line.partition(" ")
    if not blank:
        raise ValueError("an edit without a value")
    steps = _steps(path)
    place: Any = root
    key: Any = 0
    for step in steps:
        place, key = place[key], step
        if isinstance(place, list):
            key = _index(step, len(place))
        elif not isinstance(place, dict):
            raise TypeError("a path leads into a value")
    if what == "-":
        if not steps:
            raise ValueError("the whole cannot be taken away")
        del place[key]
    elif what.startswith("+") and isinstance(place, list) and steps:
        place.insert(key, json.loads(what[1:]))
    else:
        if isinstance(place, list) and key >= len(place):
            raise IndexError("no such element")
        place[key] = json.loads(what)


def _index(step: str, size: int) -> int:
    """Return an index; only digits count, so that none is negative."""
    if not (step.isascii() and step.isdigit() and len(step) <= 10):
        raise ValueError("not an index")
    index = int(step)
    if index > size:
        raise IndexError("no such element")
    return index
