"""Which stream a parameter draws from: a 128-bit key hashed from the seed and the parameter's name.

Nothing else enters: not the order of layers, the device, the shard or the framework. 64 bits of the key become
Philox's key and 64 the upper half of its counter, so two names share values only if two 128-bit hashes collide
(for a million names that has probability 1.5e-27).
"""

from __future__ import annotations

import functools
import operator
import struct
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, NamedTuple

from fanin.errors import ArgumentError

_PERSON = b"fanin.fill.v1"  # changing it changes every drawn bit
_WANTED = "give a whole number from 0 to 2**64 - 1"


class Key(NamedTuple):
    """Four 32-bit words: k0, k1 are Philox's key, c2, c3 the upper half of its counter."""

    k0: int
    k1: int
    c2: int
    c3: int

    @classmethod
    def of(cls, packed: bytes) -> Key:
        return cls(*_WORDS.unpack(packed))

    def packed(self) -> bytes:
        """The key's sixteen bytes, each word little-endian."""
        return _WORDS.pack(*self)


def key(seed: int, name: str, purpose: str = "") -> Key:
    """The key of one stream: BLAKE2b-128 of the seed's eight bytes (little-endian) and the name in UTF-8.

    Args:
        seed: 0 <= seed < 2**64.
        name: the parameter's fully qualified name.
        purpose: distinguishes several streams of one parameter, such as where a sparse weight has its zeros.

    Errors: ArgumentError for a seed or name that cannot be.

    Source: Saarinen & Aumasson 2015, The BLAKE2 cryptographic hash, RFC 7693.

    Example:
        >>> key(0, "fc.weight") == key(0, "fc.weight"), key(0, "fc.weight") == key(1, "fc.weight")
        (True, False)
    """
    state = _seeded(check_seed(seed), purpose).copy()
    state.update(_text(name))
    return Key.of(state.digest())


def keys(seed: int, names: Iterable[str]) -> list[bytes]:
    """``key`` of many names under one seed, packed: for thousands of tensors the objects would cost more."""
    copy, found = _seeded(check_seed(seed), "").copy, []
    for name in names:
        hashed = copy()
        hashed.update(name.encode() if type(name) is str and name.isascii() else _text(name))
        found.append(hashed.digest())
    return found


def check_seed(seed: Any) -> int:
    """The seed as a plain int. Errors: ArgumentError unless it is a whole number from 0 to 2**64 - 1.

    Example:
        >>> check_seed(7)
        7
    """
    try:
        value = None if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        value = None
    if value is None:
        raise ArgumentError(f"seed is {seed!r}, a {type(seed).__name__}", remedy=_WANTED)
    if not 0 <= value < 2**64:
        raise ArgumentError(
            f"seed is {value}",
            cause="negative" if value < 0 else "more than 64 bits",
            remedy=_WANTED,
        )
    return value


@functools.lru_cache(maxsize=64)
def _seeded(seed: int, purpose: str) -> Any:
    return blake2b(seed.to_bytes(8, "little"), digest_size=16, person=_PERSON, salt=purpose.encode())


def _text(name: Any) -> bytes:
    if not isinstance(name, str):
        raise ArgumentError(f"name is {name!r}, a {type(name).__name__}", remedy="give the parameter's name, a string")
    return name.encode("utf-8", "surrogatepass")


_WORDS = struct.Struct("<4I")
