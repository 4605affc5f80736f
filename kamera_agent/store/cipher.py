"""Encryption of records and files with AES-256-GCM. The only file that touches cryptography.

nonce          16 bytes per record: keyed BLAKE3 of all that is encrypted. So equal records stay equal, and no nonce is
               used for two contents, however weak the random numbers of a machine or its clone are.
key            of a record: keyed BLAKE2b of its nonce. The GCM nonce is the number of the value; that of the header
               comes after all of them.
tags           16 bytes each. The tag of a value takes the place of its checksum, inside the header. The header is
               encrypted as well, because it says what a screenshot was seen with.
authenticated  as associated data of header and values: the digest under which the record is stored.

A file is encrypted as the header of a record is, under another number.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3

from kamera_agent.errors import CorruptRecordError, MissingExtraError
from kamera_agent.store.codec import CHECKSUM_BYTES, Bytes, Encoded, Opener

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import AEADDecryptionContext

NONCE_BYTES = TAG_BYTES = 16
HEAD_BYTES = NONCE_BYTES + TAG_BYTES
HEADER_NUMBER = 1 << 32
FILE_NUMBER = HEADER_NUMBER + 1


class Cipher:
    """Encrypts and decrypts the records of one store, or the files of one folder.

    key: 32 bytes. check: 16 bytes that tell a wrong key from the right one, and nothing else.
    Raises MissingExtraError where the package is missing.
    """

    def __init__(self, key: bytes) -> None:
        if find_spec("cryptography") is None:
            raise MissingExtraError("An encrypted store", "cryptography", "encryption")
        self._nonce_key, self._record_key, self._name_key, self.check = (
            blake2b(key=key, person=purpose, digest_size=size).digest()
            for purpose, size in (
                (b"kamera nonces", 32),
                (b"kamera records", 32),
                (b"kamera names", 32),
                (b"kamera check", 16),
            )
        )

    def encrypt(self, digest: bytes, encoded: Encoded) -> Encoded:
        """A record as it is stored."""
        body = encoded.header[CHECKSUM_BYTES:]
        content = blake3(body, key=self._nonce_key)
        for value in encoded.values:
            content.update(value.data)
        nonce = content.digest(NONCE_BYTES)
        sealed = [self._seal(digest, nonce, number, value) for number, value in enumerate(encoded.values)]
        header, tag = self._seal(digest, nonce, HEADER_NUMBER, _with_tags(body, [tag for _, tag in sealed]))
        return Encoded(nonce + tag + header.tobytes(), [value for value, _ in sealed])

    def decrypt_header(self, digest: bytes, blob: bytes | memoryview) -> bytes:
        """The JSON of a header. Raises CorruptRecordError for bytes that `encrypt` did not make of this record."""
        body = self._open(digest, blob, HEADER_NUMBER)
        if body is None:
            raise CorruptRecordError(f"the tag of the header ({len(blob)} bytes) does not match")
        return body

    def name(self, digest: bytes) -> bytes:
        """32 bytes that stand for a digest, and from which nobody without the key can tell it."""
        return blake3(digest, key=self._name_key).digest()

    def encrypt_file(self, digest: bytes, content: bytes) -> bytes:
        """The content of a file as it is written. digest: what the file is found by."""
        # With the digest, as the header of a record has its own: two tags under one nonce would tell of the key.
        nonce = blake3(digest + content, key=self._nonce_key).digest(NONCE_BYTES)
        sealed, tag = self._seal(digest, nonce, FILE_NUMBER, np.frombuffer(content, np.uint8))
        return nonce + tag + sealed.tobytes()

    def decrypt_file(self, digest: bytes, blob: bytes) -> bytes | None:
        """The content of a file; None for bytes that `encrypt_file` did not make under this digest."""
        return self._open(digest, blob, FILE_NUMBER)

    def opener(self, digest: bytes, blob: bytes | memoryview, number: int) -> Opener:
        """Decrypts a value of a record, whose header is blob, into its place."""
        return _Decryption(self._context(bytes(blob[:NONCE_BYTES]), number).decryptor(), digest)

    def _open(self, digest: bytes, blob: bytes | memoryview, number: int) -> bytes | None:
        """The content of nonce, tag and encrypted bytes; None where they do not fit each other."""
        if len(blob) <= HEAD_BYTES:
            return None
        sealed = np.frombuffer(blob[HEAD_BYTES:], np.uint8)
        content, opener = np.empty_like(sealed), self.opener(digest, blob, number)
        opener.copy(sealed, content)
        return content.tobytes() if opener.is_genuine(blob[NONCE_BYTES:HEAD_BYTES].hex()) else None

    def _seal(self, digest: bytes, nonce: bytes, number: int, value: Bytes) -> tuple[Bytes, bytes]:
        """A value encrypted, and its tag."""
        context = self._context(nonce, number).encryptor()
        context.authenticate_additional_data(digest)
        sealed = np.empty_like(value)
        context.update_into(value, sealed)
        context.finalize()
        return sealed, context.tag

    def _context(self, nonce: bytes, number: int) -> Any:
        from cryptography.hazmat.primitives.ciphers import Cipher as Context
        from cryptography.hazmat.primitives.ciphers.algorithms import AES
        from cryptography.hazmat.primitives.ciphers.modes import GCM

        key = blake2b(nonce, key=self._record_key, digest_size=32).digest()
        return Context(AES(key), GCM(number.to_bytes(12, "big")))


class _Decryption:
    """See Opener."""

    def __init__(self, context: AEADDecryptionContext, digest: bytes) -> None:
        context.authenticate_additional_data(digest)
        self._context = context

    def copy(self, source: Bytes, target: Bytes) -> None:
        self._context.update_into(source.data, target.data)

    def is_genuine(self, checksum: str) -> bool:
        from cryptography.exceptions import InvalidTag

        try:
            self._context.finalize_with_tag(bytes.fromhex(checksum))
        except InvalidTag:
            return False
        return True


def _with_tags(body: bytes, tags: list[bytes]) -> Bytes:
    """The JSON of a header with other checksums."""
    fields, rest = json.loads(body), iter(tags)
    for layer in fields["layers"]:
        for value in layer["values"]:
            value["checksum"] = next(rest).hex()
    return np.frombuffer(json.dumps(fields, separators=(",", ":")).encode(), np.uint8)
