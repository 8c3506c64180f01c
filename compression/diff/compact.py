"""The compact form of a context between machines: zstd, with what the receiver holds as its dictionary.

A model cannot read it, so it saves transport and storage, never model tokens. What is unpacked is bounded before the
first byte is: by the size that the frame states, which must be the one that was announced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.compression.diff.types import EMPTY, Reason
from apportion.compression.diff.wire import rebuild, write_whole
from apportion.errors import DeltaError

if TYPE_CHECKING:
    import zstandard

    from apportion.compression.diff.types import Context

LEVEL = 3
"""Level of zstd; 19 saves 6 to 15 per cent more bytes and takes ten times as long."""

MAX_WINDOW_LOG = 27
"""Largest window, as a power of two: 128 MB, enough for the largest base and its target."""

ROOM = 2**20
"""Bytes that the first lines of the sections may take beyond the size of the contents."""


def pack(target: Context, base: Context) -> bytes:
    """Return a context as a zstd frame that only whoever holds the base can unpack."""
    import zstandard

    dictionary = write_whole(base)
    content = write_whole(target)
    window = max(10, min(MAX_WINDOW_LOG, (len(dictionary) + len(content)).bit_length()))
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, dict_size=len(dictionary), source_size=len(content), window_log=window, write_content_size=True
    )
    if not dictionary:
        return zstandard.ZstdCompressor(compression_params=parameters).compress(content)
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=_dictionary(dictionary)).compress(content)


def unpack(frame: bytes, base: Context, target: str, *, size: int, max_bytes: int) -> Context:
    """Return the context of a frame, compared with its digest.

    Args:
        frame: What `pack` made.
        base: The dictionary with which it was made.
        target: Digest of the context that it must give.
        size: Bytes of contents that it must give.
        max_bytes: Most that is unpacked, whatever the frame says.

    Raises:
        DeltaError: The frame is damaged, too large, or gives another context.
    """
    import zstandard

    if not 0 <= size <= max_bytes:
        raise DeltaError(f"a context of {size} bytes; {max_bytes} are rebuilt at most", reason=Reason.TOO_LARGE)
    dictionary = write_whole(base)
    try:
        stated = zstandard.get_frame_parameters(frame).content_size
        if stated in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
            raise DeltaError("a frame that does not state its size", reason=Reason.MALFORMED)
        if not size <= stated <= 2 * size + ROOM:
            raise DeltaError(f"a frame of {stated} bytes for a context of {size}", reason=Reason.TOO_LARGE)
        unpacker = zstandard.ZstdDecompressor(
            dict_data=_dictionary(dictionary) if dictionary else None, max_window_size=2**MAX_WINDOW_LOG
        )
        content = unpacker.decompress(frame, max_output_size=stated, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DeltaError(f"damaged frame: {error}", reason=Reason.MALFORMED) from None
    context = rebuild(content, EMPTY, max_bytes=size)
    if context.size != size or context.digest != target:
        raise DeltaError("a frame gives another context than it says", reason=Reason.HASH_MISMATCH)
    return context


def _dictionary(content: bytes) -> zstandard.ZstdCompressionDict:
    import zstandard

    return zstandard.ZstdCompressionDict(content, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
