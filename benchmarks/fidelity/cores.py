"""Jobs in separate processes, one per core."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import track

J = TypeVar("J")
R = TypeVar("R")


def on_all_cores(work: Callable[[J], R], jobs: Sequence[J], label: str) -> Iterator[R]:
    """Results of work(job), in the order of the jobs, with a progress bar. work: has to be importable in a worker."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"), initializer=_one_thread) as workers:
        yield from track(workers.map(work, jobs), label, len(jobs), console=Console(stderr=True))


def _one_thread() -> None:
    torch.set_num_threads(1)
