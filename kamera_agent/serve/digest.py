"""The digest of what a client sends."""

from __future__ import annotations

from blake3 import blake3


def digest_of(*parts: str | bytes) -> bytes:
    """The BLAKE3 digest of parts in order, of 32 bytes."""
    digest = blake3()
    for part in parts:
        # Half an emoji has no bytes in UTF-8.
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()
