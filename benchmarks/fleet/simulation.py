"""A fleet of agents, turn by turn: what the real planner, library and stores decide, without a model's work."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import torch

from benchmarks.fleet.agent import HollowAgent
from benchmarks.fleet.hollow import HollowEngine, Size
from benchmarks.fleet.population import Population, Window
from benchmarks.fleet.tiers import Served, Tier, served, tiered
from kamera_agent.chunk import Chunk, Key
from kamera_agent.config import Settings
from kamera_agent.runtime.families.chunks import NO_PIXELS
from kamera_agent.store.base import Store
from kamera_agent.window.library import Library
from kamera_agent.window.plan import Plan

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of an agent.

    screens: in its window, by name. served: by tier, for its answer. num_prefix: tokens that a prefix cache computes,
        which knows this session only, and forgets nothing of it.
    """

    screens: Window
    plan: Plan
    served: Served
    num_prefix: int

    @property
    def origins(self) -> list[str]:
        """Where the KV of each screen came from."""
        return [row.origin for row in self.plan.rows if row.kind == "image"]


class Machine:
    """The runtime of one machine over its tiers, the fastest first."""

    def __init__(self, engine: HollowEngine, stores: Sequence[Store], size: Size, settings: Settings) -> None:
        self.stores = stores
        self._engine, self._size, self._settings = engine, size, settings
        self._library = Library(engine, tiered(stores), settings)

    def session(self, windows: Iterable[Window]) -> Iterator[Turn]:
        """The turns of a session, each carried out when it is asked for."""
        agent = HollowAgent(self._engine, self._library, self._settings, self._chunk)
        earlier: list[Window] = []
        for window in windows:
            before = served(self.stores)
            plan = agent.ask(window)
            read = served(self.stores).since(before)
            agent.remember()
            yield Turn(window, plan, read, _num_prefix(plan, window, earlier))
            earlier.append(window)

    def _chunk(self, screen: str) -> Chunk:
        num_tokens, axes = self._size.num_tokens, self._engine.family.num_axes
        # As far as the planner looks at it: positions do not matter to it.
        return Chunk(
            Key.of(screen=screen), "image", (0,) * num_tokens, torch.zeros(axes, num_tokens), num_tokens, NO_PIXELS
        )


@dataclass(frozen=True, slots=True)
class Fleet:
    """Machines, the agents on each, and the steps that each agent takes. seed: of what the agents do."""

    num_machines: int
    num_agents: int
    num_steps: int
    seed: int = 0

    def play(
        self, engine: HollowEngine, tiers: Sequence[Tier], size: Size, population: Population, settings: Settings
    ) -> Iterator[Turn]:
        """The turns of all agents. Machines have the tiers that are shared in common."""
        shared = {tier.name: tier.open(size) for tier in tiers if tier.shared}
        agents = list[Iterator[Turn]]()
        for number in range(self.num_machines):
            stores = [shared.get(tier.name) or tier.open(size) for tier in tiers]
            machine = Machine(engine, stores, size, settings)
            agents += self.agents(machine.session, population, number)
        yield from self.take_turns(agents)

    def agents(
        self, session: Callable[[Sequence[Window]], Iterator[T]], population: Population, machine: int = 0
    ) -> list[Iterator[T]]:
        """What the agents of a machine do, session after session."""
        names = [f"{self.seed}.{machine}.{number}" for number in range(self.num_agents)]
        return [chain.from_iterable(map(session, population.sessions(random.Random(name)))) for name in names]

    def take_turns(self, agents: Sequence[Iterator[T]]) -> Iterator[T]:
        """The steps of agents, one of each after the other."""
        for _ in range(self.num_steps):
            yield from map(next, agents)


def _num_prefix(plan: Plan, window: Window, earlier: Sequence[Window]) -> int:
    """Tokens after what a window has in common with the beginning of an earlier one, as far as its screens go."""
    num_common = max((_num_same(window, other) for other in earlier), default=None)
    if num_common is None:
        return plan.num_tokens()
    first = next(number for number, row in enumerate(plan.rows) if row.kind == "image")
    return sum(row.num_tokens for row in plan.rows[first + num_common :])


def _num_same(window: Window, other: Window) -> int:
    same = (one == another for one, another in zip(window, other, strict=False))
    return next((number for number, is_same in enumerate(same) if not is_same), min(len(window), len(other)))
