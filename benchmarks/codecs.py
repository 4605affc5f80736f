"""What lossless compression makes of the KV of chunks: bytes, and the time to write and to read them.

    python -m benchmarks.codecs --json [--rounds 5]

K before RoPE and V in bfloat16, of bases that a window computed:

pocket  screens on the trained model of this package
large   a 1280x720 screenshot on a Qwen2.5-VL of about 60 million parameters with seeded random weights
real    documents on SmolLM2-135M-Instruct, if `make real` has fetched it

Each is written on one thread, by

raw     a copy and its xxh3-128, which is what the store does
zstd    zstd of the bytes, level 1
planes  the exponents apart from signs and fractions, which stay as they are: zstd of the exponents, level 1
across  the same with the tokens of each component in a row: [H, D, T]
int8    the base in int8 with its steps, which is not lossless, as it is; int8_zstd: zstd of that

share   bytes over those in bfloat16. write, read: GB/s of bfloat16; reading ends in tensors as they were

Needs the package zstandard, which langgraph brings.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
import zstandard
from xxhash import xxh3_128_digest

from benchmarks.command import parser_of, show, versions
from benchmarks.compression import draw_cases, look
from benchmarks.real.documents import draw_shelf
from benchmarks.real.weights import PACKAGES, load
from benchmarks.session import picture
from kamera_agent import Kamera
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.runtime.compression import compressed
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.store.speed import measure

Array = np.ndarray[Any, Any]
Parts = Sequence[bytes]
WRITER, READER = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()


def bases(kamera: Kamera) -> list[torch.Tensor]:
    """K and V of all layers of the bases in a store, in bfloat16."""
    kamera.flush()
    keys = [header.key for header in kamera.store.headers() if header.kind == "base"]
    records = kamera.store.get_many(keys).values()
    return [tensor.to(torch.bfloat16) for record in records for layer in record.layers for tensor in layer]


def pocket() -> list[torch.Tensor]:
    with Kamera.pocket() as first:
        for case in draw_cases(8):
            look(first, case).generate("?", max_tokens=1)
        return bases(first)


def large() -> list[torch.Tensor]:
    with Kamera(build_model(seed=0), build_processor()) as kamera:
        window = kamera.window()
        window.add_image(picture(720, 1280, 0))
        window.generate("What changed?", max_tokens=1)
        return bases(kamera)


def real() -> list[torch.Tensor]:
    weights = load(PACKAGES, torch.bfloat16)
    with Kamera(weights.model, weights.tokenizer) as kamera:
        window = kamera.window()
        for text in draw_shelf(0).texts:
            window.add_document(text)
        window.generate("Who is it?", max_tokens=1)
        return bases(kamera)


def _halves(tensor: torch.Tensor) -> Array:
    return tensor.contiguous().view(torch.int16).numpy().view(np.uint16)


def raw(tensor: torch.Tensor) -> Parts:
    copied = _halves(tensor).tobytes()
    xxh3_128_digest(copied)
    return [copied]


def from_raw(parts: Parts, tensor: torch.Tensor) -> Array:
    read = np.empty(tensor.shape, np.uint16)
    np.copyto(read.reshape(-1), np.frombuffer(parts[0], np.uint16))
    xxh3_128_digest(read.data)
    return read


def whole(tensor: torch.Tensor) -> Parts:
    return [WRITER.compress(_halves(tensor).data)]


def from_whole(parts: Parts, tensor: torch.Tensor) -> Array:
    return np.frombuffer(READER.decompress(parts[0]), np.uint16).reshape(tensor.shape)


def planes(tensor: torch.Tensor) -> Parts:
    halves = _halves(tensor)
    rest = (halves >> 8 & 0x80 | halves & 0x7F).astype(np.uint8)
    return [WRITER.compress((halves >> 7).astype(np.uint8).data), rest.tobytes()]


def from_planes(parts: Parts, tensor: torch.Tensor) -> Array:
    exponents = np.frombuffer(READER.decompress(parts[0]), np.uint8).astype(np.uint16)
    rest = np.frombuffer(parts[1], np.uint8).astype(np.uint16)
    return ((rest & 0x80) << 8 | exponents << 7 | rest & 0x7F).reshape(tensor.shape)


def across(tensor: torch.Tensor) -> Parts:
    return planes(tensor.transpose(1, 2))


def from_across(parts: Parts, tensor: torch.Tensor) -> Array:
    return np.ascontiguousarray(from_planes(parts, tensor.transpose(1, 2)).transpose(0, 2, 1))


Codec = tuple[Callable[[torch.Tensor], Parts], Callable[[Parts, torch.Tensor], Array]]
CODECS: Mapping[str, Codec] = {
    "raw": (raw, from_raw),
    "zstd": (whole, from_whole),
    "planes": (planes, from_planes),
    "across": (across, from_across),
}
MODELS: Mapping[str, Callable[[], list[torch.Tensor]]] = {"pocket": pocket, "large": large, "real": real}


def figures(tensors: Sequence[torch.Tensor], num_rounds: int) -> dict[str, dict[str, float]]:
    """Share and speed by codec. Whatever is read back is compared with what was written."""
    num_bytes = sum(tensor.nbytes for tensor in tensors)
    written = {name: [write(tensor) for tensor in tensors] for name, (write, _) in CODECS.items()}
    steps: dict[str, Callable[[], object]] = {}
    for name, (write, read) in CODECS.items():
        for parts, tensor in zip(written[name], tensors, strict=True):
            assert np.array_equal(read(parts, tensor), _halves(tensor)), name
        steps[f"{name} write"] = lambda write=write: [write(tensor) for tensor in tensors]
        steps[f"{name} read"] = lambda read=read, some=written[name]: [*map(read, some, tensors)]
    times = measure(steps, num_rounds)
    found = {
        name: {
            "share": round(sum(len(part) for parts in some for part in parts) / num_bytes, 3),
            **{way: round(num_bytes / statistics.median(times[f"{name} {way}"]) / 1e9, 3) for way in ("write", "read")},
        }
        for name, some in written.items()
    }
    rounded = [*_rounded(tensors)]
    found["int8"] = {"share": round(sum(map(len, rounded)) / num_bytes, 3)}
    found["int8_zstd"] = {"share": round(sum(len(WRITER.compress(each)) for each in rounded) / num_bytes, 3)}
    return found


def _rounded(tensors: Sequence[torch.Tensor]) -> Iterator[bytes]:
    """The tensors of int8 bases: K, V and their steps, of each layer."""
    for keys, values in zip(tensors[::2], tensors[1::2], strict=True):
        yield from (tensor.numpy().tobytes() for tensor in compressed(LayerKV(keys, values)) if tensor is not None)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of writing and reading (default 5)")
    options = parser.parse_args()
    models = [name for name in MODELS if name != "real" or PACKAGES.is_dir()]
    result: dict[str, Any] = {}
    for name in models:
        tensors = MODELS[name]()
        result[name] = {"bytes": sum(tensor.nbytes for tensor in tensors), **figures(tensors, options.rounds)}
        print(name, result[name], flush=True)
    conditions = {"rounds": options.rounds, "cpus": os.cpu_count(), "zstd": zstandard.ZSTD_VERSION, **versions()}
    show({**result, "conditions": {**conditions, "date": datetime.now(UTC).date().isoformat()}}, options.json)


if __name__ == "__main__":
    main()
