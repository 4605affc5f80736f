"""Strangers: whoever lacks the secret of a namespace cannot tell by time whether it holds a picture that he has.

A stranger makes keys of pictures that the namespace holds, and of pictures that it does not, and looks both up, in
random order. Both are misses; a two-sample test must not tell their times apart.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.torture.children import scratch
from benchmarks.torture.figures import Figures
from kamera_agent.chunk import Key, Record
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.vision.fingerprint import chunk_key, fingerprint_image

NUM_PICTURES = 500
SECRET = bytes(range(32))
# A true null hypothesis is rejected once in a thousand runs.
SIGNIFICANT = 1e-3


def key_of(picture: int, secret: bytes | None) -> Key:
    pixels = np.full((8, 8, 3), picture % 256, np.uint8)
    pixels[0, 0] = picture // 256
    return chunk_key("image", fingerprint_image(pixels), pixels.shape, (), "", {}, {}, "theirs", secret)


def run(count: int, seed: int) -> Figures:
    """Look up so many pictures of both kinds. Counts `told_apart`, and gives the p-value of the test."""
    rng = random.Random(seed)
    with scratch() as folder, LmdbStore(folder, 64 << 20) as store:
        for picture in range(NUM_PICTURES):
            key = key_of(picture, SECRET)
            store.put_many([Record.of(key, key.digest, "base", [[torch.zeros(2048)]])])
        store.flush()
        keys = {
            is_held: [key_of(picture + NUM_PICTURES * (not is_held), None) for picture in range(NUM_PICTURES)]
            for is_held in (True, False)
        }
        times: dict[bool, list[float]] = {True: [], False: []}
        kinds = [True] * count + [False] * count
        rng.shuffle(kinds)
        for is_held in kinds:
            key = rng.choice(keys[is_held])
            start = time.perf_counter()
            found = store.get_many([key])
            times[is_held].append(time.perf_counter() - start)
            assert not found
    p_value = rank_test(times[True], times[False])
    return Figures(lookups=2 * count, told_apart=p_value < SIGNIFICANT, p_value=round(p_value, 4))  # type: ignore[arg-type]


def rank_test(left: Sequence[float], right: Sequence[float]) -> float:
    """The two-sided p-value of Mann and Whitney's test that both samples are of one distribution.

    By the normal approximation, without a correction for ties, of which times of a nanosecond's resolution have few.
    """
    order = np.argsort(np.concatenate([left, right]), kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(1, len(order) + 1)
    num_left, num_right = len(left), len(right)
    u = ranks[:num_left].sum() - num_left * (num_left + 1) / 2
    deviation = math.sqrt(num_left * num_right * (num_left + num_right + 1) / 12)
    return math.erfc(abs(u - num_left * num_right / 2) / deviation / math.sqrt(2))
