"""What the figures about scale assume of GPUs, tiers and prices. Put in your own."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.fleet.tiers import GB, Tier


class Gpu(NamedTuple):
    """flops: dense operations per second in bfloat16, by its data sheet. utilisation: the share that a prefill reaches.

    dollars: per hour.
    """

    name: str
    flops: float
    utilisation: float
    dollars: float

    def tokens_per_s(self, token_flops: float) -> float:
        """The rate of a prefill. token_flops: operations of a token."""
        return self.utilisation * self.flops / token_flops


# Data sheets of NVIDIA; with sparsity they say twice as much. Prices: GPU clouds in May 2026, rounded. A serving
# engine reaches 0.3 to 0.5. Plain transformers took 5.0 s for 26,100 tokens of Qwen2.5-VL-7B (13.1 GFLOP each) on an
# H200, with attention and the encoder (docs/benchmarks.md, "A window on a GPU").
ENGINE = Gpu("H100 SXM", 989e12, 0.4, 3.0)
PLAIN = Gpu("H200, plain transformers", 989e12, 0.07, 4.0)
GPUS = (ENGINE, Gpu("L40S", 362e12, 0.4, 1.0), Gpu("L4", 121e12, 0.4, 0.6), PLAIN)

# Between two steps of one agent.
STEP_S = 10.0
MONTH_S = 30 * 24 * 3600.0

# memory  a copy into pinned memory by one thread; a PCIe 5 slot of 16 lanes takes the bytes four times as fast
# nvme    a disk of 7 GB/s, then the copy and the checksums of a core: 1 / (1 / 7 + 1 / 5.6)
# redis   a network of 10 Gbit/s
# s3      16 requests at a time, at 50 MB/s each; AWS says 100 to 200 ms to the first byte
# The first three hold so little that a simulation fills them. Dollars per GB and month: list prices of 2026, rounded.
MEMORY = Tier("memory", 8 * GB, 10 * GB, dollars=3.0)
NVME = Tier("nvme", 32 * GB, 3.1 * GB, 0.0001, dollars=0.1)
REDIS = Tier("redis", 64 * GB, 1.25 * GB, 0.0005, shared=True, dollars=10.0)
S3 = Tier("s3", 4000 * GB, 0.8 * GB, 0.1, shared=True, dollars=0.023)
TIERS = (MEMORY, NVME, REDIS, S3)
NOTHING = Tier("nothing", 0, GB)
STACKS = {"no tier": (NOTHING,), "up to the disk": TIERS[:2], "up to redis": TIERS[:3], "up to s3": TIERS}
