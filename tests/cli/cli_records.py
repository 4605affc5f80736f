"""Records for stores made by hand."""

from collections.abc import Callable

import torch
from typer.testing import Result

from kamera_agent.chunk import Key, Record

RunKamera = Callable[..., Result]


def page(name: str, namespace: str = "default", value: float = 7.25) -> Record:
    """The base of a screenshot: two layers, 1536 bytes in all. value: of every number in the first one."""
    key = Key.of(
        kind="image",
        pixels=name,
        shape=[720, 1280, 3],
        timestamps=[],
        model={"config": {"model_type": "qwen2_vl"}},
        processor={},
        namespace=namespace,
    )
    layer = (torch.full((2, 12, 8), value), torch.full((2, 12, 8), 0.5))
    seen = {"chunks": [], "texts": [], "chain": "00" * 16, "exact": True}
    return Record.of(key, key.digest, "base", [layer[:1], layer[1:]], {**seen, "content": "cd" * 32})


def patch(chunk: bytes, ranks: tuple[int, int], error: float) -> Record:
    """A patch of a chunk, fitted after one other chunk, in a context that its error tells apart."""
    key = Key.of(kind="patch", base=chunk.hex(), antecedents=["ab" * 32], rank=str(max(ranks)))
    layers = [(torch.zeros(12, rank), torch.zeros(rank, 32)) for rank in ranks]
    attributes = {
        "chunks": ["ab" * 32],
        "texts": ["12" * 16],
        "chain": f"{int(min(error, 1e9) * 1000):032x}",
        "exact": False,
        "rank": str(max(ranks)),
        "ranks": ranks,
        "over": "cd" * 32,
        "energy": [1.0, 0.5],
        "error": error,
        "norm": [0.25, 0.25],
    }
    return Record.of(key, chunk, "patch", layers, attributes, chunk)
