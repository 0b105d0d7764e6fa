"""Compresses and encrypts WAL files in memory, into formats that standard tools open."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import deflate
import lz4.frame
import pyrage
import zstandard

from wal_pipeline.archive.records import Codec, Encoding
from wal_pipeline.codec.age import load_recipients
from wal_pipeline.codec.levels import WAL_LEVELS, choose_level
from wal_pipeline.stores.base import Body

# For each gzip level libdeflate's fastest one whose files are smaller than zlib's at that level, or at most 2 % larger,
# for WAL: 'make bench ARGS="--only codecs"' measures it, docs/adr/0005 says why.
_LIBDEFLATE_LEVELS: Final = {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 5, 7: 5, 8: 6, 9: 6}
# With zstd's own window of 2 MiB the quick levels take longer for WAL of the same size within 1 % (measured there too).
QUICK_WINDOW_LOG: Final = 19
QUICK_ZSTD_LEVEL: Final = 5

_TIMES_THE_FILE: Final = {Codec.GZIP: (3, 4), Codec.ZSTD: (2, 4), Codec.LZ4: (3, 4), Codec.NONE: (1, 3)}


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file's bytes as they are stored, and how they were encoded."""

    body: Body
    encoding: Encoding

    def timed(self, seconds: float) -> "Encoded":
        """Return the same with the wall time that the encoding took."""
        return replace(self, encoding=replace(self.encoding, seconds=seconds))


class Encoder:
    """Compresses, then encrypts where there are recipients. One encoder serves many threads."""

    def __init__(self, codec: Codec, level: int | None = None, recipients: Sequence[str] = ()) -> None:
        """``level`` None is the codec's default; ``recipients`` are age public keys (``age1…``) or SSH public keys.

        Raises: SettingsError for a level that the codec does not have or a recipient that age cannot read.
        """
        self.codec = codec
        self.level = choose_level(codec, level, WAL_LEVELS, variable="WAL_PIPELINE_CODEC_LEVEL")
        self._recipients = load_recipients(recipients)

    @property
    def encrypted(self) -> bool:
        """Whether an identity is needed to open its output."""
        return bool(self._recipients)

    def needed_bytes(self, size_bytes: int) -> int:
        """Return about how many bytes of memory a file of that size needs while it is encoded, at worst.

        Measured with content that does not shrink: the file, the compressor's output with its copy, age's.
        """
        plain, encrypted = _TIMES_THE_FILE[self.codec]
        return size_bytes * (encrypted if self.encrypted else plain)

    def encode(self, data: bytes) -> Encoded:
        """Return ``data`` compressed and encrypted, with the digests of the stored bytes."""
        return describe(self._encrypt(self.compress(data)), self.codec, encrypted=self.encrypted)

    def compress(self, data: bytes) -> bytes:
        """Return ``data`` in the codec's file format. The same bytes give the same result."""
        match self.codec:
            case Codec.GZIP:
                return gzip_member(data, self.level)
            case Codec.ZSTD:
                return _zstd_compressor(self.level, len(data)).compress(data)
            case Codec.LZ4:
                return bytes(lz4.frame.compress(data, compression_level=self.level, content_checksum=True))
            case Codec.NONE:
                return data

    def _encrypt(self, data: bytes) -> bytes:
        return bytes(pyrage.encrypt(data, self._recipients)) if self._recipients else data


def _zstd_compressor(level: int, size_bytes: int) -> zstandard.ZstdCompressor:
    chosen = zstandard.ZstdCompressionParameters.from_level(level, source_size=size_bytes, write_checksum=True)
    if level <= QUICK_ZSTD_LEVEL and chosen.window_log > QUICK_WINDOW_LOG:
        chosen = zstandard.ZstdCompressionParameters.from_level(
            level, source_size=size_bytes, write_checksum=True, window_log=QUICK_WINDOW_LOG
        )
    return zstandard.ZstdCompressor(compression_params=chosen)


def gzip_member(data: bytes | memoryview, level: int) -> bytes:
    """Return one gzip member (RFC 1952) that holds ``data``; levels 1 to 9 are about as small as zlib's."""
    return bytes(deflate.gzip_compress(data, _LIBDEFLATE_LEVELS[level]))


def describe(stored: bytes, codec: Codec, *, encrypted: bool) -> Encoded:
    """Return stored bytes with their digests."""
    md5 = hashlib.md5(stored, usedforsecurity=False)
    sha256 = hashlib.sha256(stored).hexdigest()
    encoding = Encoding(codec, encrypted, len(stored), sha256, md5.hexdigest())
    return Encoded(Body(stored, md5.digest(), sha256), encoding)
