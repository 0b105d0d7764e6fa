"""Computes the checksums of files: PostgreSQL's CRC-32C and the SHA-2 family, with a restore's way to stop."""

import hashlib
import os
import sys
from collections.abc import Callable
from typing import Final

import google_crc32c

READ_BYTES: Final = 1 << 20
_SHA: Final = {"SHA224": "sha224", "SHA256": "sha256", "SHA384": "sha384", "SHA512": "sha512"}
CRC32C: Final = "CRC32C"
_POLYNOMIAL: Final = 0x82F63B78
_X: Final = 1 << 30


def extend_crc32c(crc: int, data: bytes) -> int:
    """Return the CRC-32C of more bytes: ``crc`` is that of the bytes before ``data``, at first 0."""
    extended: int = google_crc32c.extend(crc, data)
    return extended


def crc32c_hex(crc: int) -> str:
    """Return a CRC-32C as the file index has it: eight hex digits, the highest first."""
    return f"{crc:08x}"


def join_crc32c(first: int, second: int, second_bytes: int) -> int:
    """Return the CRC-32C of two pieces one after the other, from that of each (zlib's crc32_combine, for CRC-32C)."""
    shift, bits, power = 1 << 31, 8 * second_bytes, _X
    while bits:
        if bits & 1:
            shift = _times(power, shift)
        power = _times(power, power)
        bits >>= 1
    return _times(shift, first) ^ second


def _times(left: int, right: int) -> int:
    """Multiply two polynomials modulo that of CRC-32C; the highest bit is that of x to the power of 0."""
    product, bit = 0, 1 << 31
    while bit:
        if left & bit:
            product ^= right
        right = (right >> 1) ^ (_POLYNOMIAL if right & 1 else 0)
        bit >>= 1
    return product


def checksum_of_file(path: str, algorithm: str, go_on: Callable[[], None] = lambda: None) -> bytes:
    """Return the checksum of a whole file as ``backup_manifest`` has it.

    A CRC-32C has its bytes in the order of the machine (checksum_helper.c: pg_checksum_final).

    Raises: ValueError for an algorithm that is not known; OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, READ_BYTES)
        if algorithm == CRC32C:
            crc = 0
            while data:
                crc = google_crc32c.extend(crc, data)
                data = _next(descriptor, go_on)
            return crc.to_bytes(4, sys.byteorder)
        digest = hashlib.new(_sha(algorithm))
        while data:
            digest.update(data)
            data = _next(descriptor, go_on)
        return digest.digest()
    finally:
        os.close(descriptor)


def _next(descriptor: int, go_on: Callable[[], None]) -> bytes:
    go_on()
    return os.read(descriptor, READ_BYTES)


def is_known_algorithm(name: str) -> bool:
    """Say whether PostgreSQL's manifests have checksums of that name."""
    return name == CRC32C or name in _SHA


def _sha(algorithm: str) -> str:
    if algorithm not in _SHA:
        raise ValueError(f"'{algorithm}' is not a checksum of PostgreSQL's manifests")
    return _SHA[algorithm]


def in_manifest_order(crc32c: str) -> bytes:
    """Return a CRC-32C of the file index as ``backup_manifest`` has it."""
    return int(crc32c, 16).to_bytes(4, sys.byteorder)
