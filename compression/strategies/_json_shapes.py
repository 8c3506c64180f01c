"""Shapes: the keys that objects of a JSON text share, and what their fields have in common."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from apportion.compression.strategies._json_text import Embedded, Number, Pairs

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

MIN_SHARED_KEYS = 0.6
"""Share of the keys of two shapes that must be common for them to become one with optional fields."""

MIN_DEFAULT_SHARE = 0.4
"""Share of the values of a field that must be equal for that value to be left out of the rows."""

MIN_DEFAULT_CHARS = 6
"""A shorter value is no longer than the sign that would stand for it."""

WIDE = 12
"""Rows with more fields than a reader can count name the key of each value, and leave out what is usual."""

MAX_SHAPES = 200
"""More kinds of objects than this make no table."""

AGAIN = "#"
"""Stands between a key that an object has more than once, and how many times it has occurred."""

ABSENT: Any = object()
"""Stands for a key that an object of a shape does not have."""


@dataclass(slots=True)
class Field:
    """One key of a shape.

    Attributes:
        key: The key.
        constant: Value that all objects of the shape have here, or `ABSENT`.
        default: Value that many have, or `ABSENT`.
        is_text: Whether all values are strings, so that they need no quotes to tell them from numbers.
        shape: The shape of all objects that stand here, or `None`.
        is_list: Whether they stand in lists.
    """

    key: str
    constant: Any = ABSENT
    default: Any = ABSENT
    is_text: bool = False
    shape: Shape | None = None
    is_list: bool = False


@dataclass(slots=True)
class Shape:
    """Objects with the same keys in the same order; some may lack some.

    Attributes:
        name: Short name, unique in its text.
        fields: The keys, in order.
        shown: The fields that rows show: those without a constant.
    """

    name: str
    fields: list[Field] = field(default_factory=list)

    @property
    def shown(self) -> list[Field]:
        """The fields that stand in rows."""
        return [each for each in self.fields if each.constant is ABSENT]


def find_shapes(values: Sequence[Any]) -> dict[tuple[str, ...], Shape]:
    """Return the shapes of all objects inside some values, by their keys; objects that stand alone have none."""
    groups: dict[tuple[str, ...], list[Pairs]] = {}
    for pairs in _objects(values):
        keys = keys_of(pairs)
        if len(set(keys)) == len(keys) and not _is_ambiguous(pairs, keys):
            groups.setdefault(keys, []).append(pairs)
    shapes: dict[tuple[str, ...], Shape] = {}
    members: list[tuple[Shape, list[Pairs]]] = []
    for orders, keys in _merged(groups):
        found = [pairs for order in orders for pairs in groups[order]]
        if len(found) < 2:
            continue
        shape = Shape(_name(len(members)), [Field(key) for key in keys])
        members.append((shape, found))
        shapes.update(dict.fromkeys(orders, shape))
    for shape, found in members:
        _describe(shape, found, shapes)
    return shapes


def shape_of(value: Any, shapes: dict[tuple[str, ...], Shape]) -> Shape | None:
    """Return the shape of a value, or `None` where it has none."""
    return shapes.get(keys_of(value)) if isinstance(value, Pairs) else None


def keys_of(pairs: Pairs) -> tuple[str, ...]:
    """Return the keys of an object in their order; one that occurs again has a number behind it.

    >>> keys_of(Pairs([("id", 1), ("name", 2), ("id", 3)]))
    ('id', 'name', 'id#2')
    """
    keys = tuple([key for key, _ in pairs])
    if len(set(keys)) == len(keys):
        return keys
    often: Counter[str] = Counter()
    numbered = []
    for key in keys:
        often[key] += 1
        numbered.append(key if often[key] == 1 else f"{key}{AGAIN}{often[key]}")
    return tuple(numbered)


def _is_ambiguous(pairs: Pairs, keys: tuple[str, ...]) -> bool:
    """Say whether an object has a key of its own that looks like one that occurs again."""
    return any(AGAIN in key and without_number(key, keys) != key for key, _ in pairs)


def by_key(pairs: Pairs) -> dict[str, Any]:
    """Return the values of an object by its keys, as `keys_of` names them."""
    return dict(zip(keys_of(pairs), [value for _, value in pairs], strict=True))


def without_number(key: str, keys: Container[str]) -> str:
    """Return a key as it stood, which may be named with a number only because it occurs among others again."""
    name, sign, number = key.rpartition(AGAIN)
    return name if sign and number.isdecimal() and name in keys else key


def _objects(values: Iterable[Any]) -> Iterator[Pairs]:
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, Embedded):
            value = value.value
        if isinstance(value, Pairs):
            if value:
                yield value
            waiting.extend(inner for _, inner in reversed(value) if isinstance(inner, (list, Embedded)))
        elif isinstance(value, list):
            waiting.extend(inner for inner in reversed(value) if isinstance(inner, (list, Embedded)))


def _merged(groups: dict[tuple[str, ...], list[Pairs]]) -> Iterator[tuple[list[tuple[str, ...]], tuple[str, ...]]]:
    """Yield groups of key orders with the order that unites them, the most frequent first."""
    united: list[tuple[list[tuple[str, ...]], tuple[str, ...]]] = []
    for keys in sorted(groups, key=lambda keys: -len(groups[keys]))[:MAX_SHAPES]:
        for number, (orders, order) in enumerate(united):
            union = _union(order, keys)
            if union is not None:
                united[number] = ([*orders, keys], union)
                break
        else:
            united.append(([keys], keys))
    yield from united


def _union(order: tuple[str, ...], keys: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return an order of keys of which both orders are part, or `None` where they differ too much."""
    common = set(order) & set(keys)
    if len(common) < MIN_SHARED_KEYS * len(set(order) | set(keys)):
        return None
    if [key for key in order if key in common] != [key for key in keys if key in common]:
        return None
    union, position = [], 0
    for key in order:
        if key in common:
            while keys[position] != key:
                union.append(keys[position])
                position += 1
            position += 1
        union.append(key)
    return (*union, *keys[position:])


def _describe(shape: Shape, found: list[Pairs], shapes: dict[tuple[str, ...], Shape]) -> None:
    rows = [by_key(pairs) for pairs in found]
    for each in shape.fields:
        values = [row[each.key] for row in rows if each.key in row]
        complete = len(values) == len(rows)
        each.is_text = all(type(value) is str for value in values)
        each.shape, each.is_list = _common_shape(values, shapes)
        plain = Counter(map(_plain, values))
        del plain[None]
        if not plain:
            continue
        (kind, value), count = plain.most_common(1)[0]  # type: ignore[misc]  # None is gone
        value = kind() if kind in {list, Pairs} else value
        if complete and count == len(rows):
            each.constant = value
        elif count >= 2 and count >= MIN_DEFAULT_SHARE * len(rows):
            each.default = value
    wide = len(shape.shown) > WIDE
    for each in shape.fields:
        long = isinstance(each.default, str) and len(each.default) >= MIN_DEFAULT_CHARS
        if not (long or wide) or (long and "\n" in each.default):
            each.default = ABSENT


def _plain(value: Any) -> tuple[type, Any] | None:
    """Return a value by which to count, or `None` for one that the legend does not show."""
    if isinstance(value, (list, Embedded)):
        return None if value else (type(value), ())
    return type(value), value


def _common_shape(values: list[Any], shapes: dict[tuple[str, ...], Shape]) -> tuple[Shape | None, bool]:
    """Return the one shape of all objects among the values, and whether they stand in lists."""
    containers = [value for value in values if isinstance(value, list)]
    is_list = bool(containers) and not any(isinstance(value, Pairs) for value in containers)
    objects = [item for value in containers for item in value] if is_list else containers
    found = {id(shape): shape for shape in (shape_of(item, shapes) for item in objects)}
    if len(found) != 1:
        return None, False
    return next(iter(found.values())), is_list


def _name(number: int) -> str:
    """Return the name of a shape: A to Z, then A1 and so on."""
    letter, round_number = chr(ord("A") + number % 26), number // 26
    return f"{letter}{round_number}" if round_number else letter


def is_number(spelling: str) -> bool:
    """Say whether a bare word is read as a number.

    >>> [is_number(word) for word in ("-1.50", "1e400", "NaN", "2026-01-02", "1.2.3", "abc")]
    [True, True, True, False, False, False]
    """
    if spelling in {"NaN", "Infinity", "-Infinity"}:
        return True
    if not spelling or spelling[0] not in "-0123456789" or set(spelling) - set("0123456789+-.eE"):
        return False
    try:
        float(spelling)
    except ValueError:
        return False
    return True


__all__ = ["ABSENT", "Field", "Number", "Shape", "find_shapes", "is_number", "shape_of"]
