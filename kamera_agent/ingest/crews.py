"""Who does the work on a library: this process, several, or actors on Ray."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from kamera_agent.errors import KameraError, MissingExtraError
from kamera_agent.ingest.ingester import Ingester, Job, Outcome

# Files per worker that are on their way: one that is worked on, and one that waits for it.
AHEAD = 2
TIMEOUT_S = 5.0


def alone(job: Job, paths: Sequence[Path]) -> Iterator[Outcome]:
    """The outcomes of the files, by this process."""
    with Ingester(job) as ingester:
        yield from map(ingester.take, paths)


def in_processes(job: Job, paths: Sequence[Path], num_workers: int) -> Iterator[Outcome]:
    """The outcomes of the files as they come, by so many processes on this machine; each has a model of its own.

    Raises KameraError where a process dies or cannot load the model.
    """
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(num_workers):
        numbers.put(number)
    waiting = iter(paths)
    pool = ProcessPoolExecutor(num_workers, context, _begin, (job, numbers, num_workers))
    try:
        running = {pool.submit(_take, path) for path in islice(waiting, AHEAD * num_workers)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(_take, path) for path in islice(waiting, len(done))}
            yield from (future.result() for future in done)
    except BrokenProcessPool as error:
        raise KameraError(
            "A worker could not load the model, or was killed, perhaps for its memory. What was stored stays; run the "
            "command again, with fewer workers."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


# The Ingester of a worker process.
_mine: list[Ingester] = []


def _begin(job: Job, numbers: multiprocessing.Queue[int], num_workers: int) -> None:
    """Load the model in a worker: on a GPU of its own where there are any, else with its share of the CPUs."""
    if torch.cuda.is_available():
        job = replace(job, device=f"cuda:{numbers.get() % torch.cuda.device_count()}")
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // num_workers))
    _mine.append(Ingester(job))


def _take(path: Path) -> Outcome:
    return _mine[0].take(path)


def on_ray(job: Job, paths: Sequence[Path], address: str, num_workers: int) -> Iterator[Outcome]:
    """The outcomes of the files as they come, by so many actors on a Ray cluster, each with a GPU where there are any.

    address: of the cluster, such as auto; local begins one on this machine. The files and the store must be where every
    node finds them. An actor that dies is started again, and its file is tried once more.
    Raises MissingExtraError without Ray, and KameraError where a cluster cannot be reached or an actor does not start.
    """
    if find_spec("ray") is None:
        raise MissingExtraError("--ray", "ray", "ray")
    import ray

    _require_listener(address)
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR")
        gpus = min(1.0, ray.cluster_resources().get("GPU", 0) / num_workers)
        actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=1, max_task_retries=1)(Ingester)
        waiting = iter(paths)
        running = dict[Any, Any]()
        for worker in [actor.remote(job) for _ in range(num_workers)]:
            running |= {worker.take.remote(path): worker for path in islice(waiting, AHEAD)}
        while running:
            [done], _ = ray.wait([*running])
            worker = running.pop(done)
            running |= {worker.take.remote(path): worker for path in islice(waiting, 1)}
            yield ray.get(done)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise KameraError(f"The Ray cluster {address!r} does not do the work: {error}") from error
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raise KameraError where nobody listens at HOST:PORT: Ray would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), TIMEOUT_S).close()
        except (OSError, OverflowError) as error:
            raise KameraError(f"There is no Ray cluster {address!r}: {error}") from error
