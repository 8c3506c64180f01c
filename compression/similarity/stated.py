"""How alike two texts are in meaning, or why that is not known: for reports, which must say one or the other.

state(original, compressed).similarity
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.similarity.gate import Gate

if TYPE_CHECKING:
    from apportion.compression.similarity.gate import Coverage


class Similarity(NamedTuple):
    """What is known of the likeness of two texts.

    Attributes:
        similarity: Mean coverage of the original, chunk by chunk, in [0, 1]; `None` where it was not measured.
        least: Coverage of the chunk that is covered least; `None` where it was not measured.
        reason: Why it was not measured; empty where it was.
    """

    similarity: float | None
    least: float | None
    reason: str = ""


def state(original: bytes, compressed: bytes, gate: Gate | None = None) -> Similarity:
    """Measure how much of the meaning of an original a text covers; never raises.

    Args:
        original: What was there.
        compressed: What others made of it.
        gate: Measures; one with `seconds` says "not yet" while its model is being loaded in the background, and can
            be asked again. The default one waits.

    >>> state(b"The same text.", b"The same text.").similarity
    1.0
    """
    try:
        found: Coverage = (gate or Gate()).compare(original, compressed)
    except Exception as error:  # noqa: BLE001  (whatever goes wrong with a model, a report says so and goes on)
        return Similarity(None, None, f"not measured: {error}")
    return Similarity(found.mean, found.minimum)
