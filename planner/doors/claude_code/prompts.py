"""The prompt of a sub-agent: what it says in its own words, and what was pasted into it.

Only what stands between fences of a kind that nobody edits is pasted; everything else, code included, is sent as it is.
"""

from __future__ import annotations

from typing import Final, NamedTuple

FENCE = "```"
"""What a pasted block stands between, alone at the beginning of a line."""

PASTED: Final = frozenset(
    {"", "console", "csv", "json", "jsonl", "log", "logs", "output", "plain", "text", "tsv", "txt"}
)
"""What may follow the opening fence of a block that may be written shorter."""


class Part(NamedTuple):
    """A part of a prompt.

    Attributes:
        text: Word for word.
        pasted: Whether it was pasted, and may be written shorter.
    """

    text: str
    pasted: bool


def parts_of(prompt: str) -> list[Part]:
    r"""Return the parts of a prompt, in their order; joined they are the prompt.

    >>> [part.pasted for part in parts_of("Why?\n```log\nfailed\n```\n")]
    [False, True, False]
    """
    parts: list[Part] = []
    words: list[str] = []
    block: list[str] | None = None
    code = False
    for line in prompt.splitlines(keepends=True):
        mark = line.rstrip()
        if block is not None and mark != FENCE:
            block.append(line)
        elif block is not None:
            parts.append(Part("".join(block), pasted=True))
            words, block = [line], None
        else:
            words.append(line)
            if code:
                code = mark != FENCE
            elif mark.startswith(FENCE):
                code = mark[len(FENCE) :].strip().lower() not in PASTED
                if not code:
                    parts.append(Part("".join(words), pasted=False))
                    words, block = [], []
    if block is not None:  # never closed: then nothing of it was pasted for sure
        words = block
    if words:
        parts.append(Part("".join(words), pasted=False))
    return [part for part in parts if part.text]


def own_words(parts: list[Part]) -> str:
    """Return what a prompt says in its own words: the task."""
    return "".join(part.text for part in parts if not part.pasted)
