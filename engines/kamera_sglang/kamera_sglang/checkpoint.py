"""What tells one checkpoint from another, by its files."""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3
from huggingface_hub import snapshot_download

# Of a large file, so many blocks are read: fast, and changed by any training step.
BLOCK_BYTES, NUM_BLOCKS = 4096, 256
PATTERNS = ("config.json", "*.safetensors", "*.bin", "*.gguf")


def digest_of(model: str, revision: str | None) -> str:
    """BLAKE3 of the configuration and the weights of a checkpoint, a folder or a hub id whose files are here."""
    folder = Path(model)
    if not folder.is_dir():
        folder = Path(snapshot_download(model, revision=revision, local_files_only=True))
    digest = blake3()
    for path in sorted({path for pattern in PATTERNS for path in folder.glob(pattern)}):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        step = max(BLOCK_BYTES, size // NUM_BLOCKS)
        with path.open("rb") as file:
            for start in range(0, size, step):
                file.seek(start)
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()
