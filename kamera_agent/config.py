"""The settings of a Kamera: frozen, checked once at construction, and passed down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from kamera_agent.errors import SettingError
from kamera_agent.options import check_names, real, whole
from kamera_agent.secret import SecretSource, source_of

Fidelity = Literal["exact", "patched", "blind"]
Rank = int | Literal["auto"]
Base = Literal["first", "canonical"]
BaseDtype = Literal["full", "int8"]
OnStale = Literal["refresh", "keep", "compute"]
# What one answer may ask for: fidelity="exact", or what becomes of stale chunks.
Demand = Literal["exact", "refresh", "keep"]
Heal = Literal["ahead", "idle", "never"]
Near = Literal["off", "tiles"]
Policy = Literal["lru", "lfu", "cost"]

# Paths may begin with this name, which locate() replaces. So no default holds a value of the environment.
HOME = "$KAMERA_HOME"
DEFAULT_STORE = HOME
MIB = 1 << 20

SHARES = ("error_budget", "byte_budget")
CHOICES = {"base": Base, "base_dtype": BaseDtype, "fidelity": Fidelity, "stale": OnStale, "heal": Heal, "near": Near}
SECRETS = ("namespace_secret", "encryption_key")
SIZES = ("encoder_cache_bytes", "memory_bytes", "dropped_bytes", "disk_bytes", "quota_bytes")


def locate(path: str | os.PathLike[str]) -> Path:
    """A path whose leading ~ or $KAMERA_HOME is replaced, by the environment at the time of the call."""
    first, *rest = Path(path).parts or (".",)
    return Path(_home(), *rest) if first == HOME else Path(path).expanduser()


def _home() -> Path:
    """The folder of stores and pixels: KAMERA_HOME, else XDG_CACHE_HOME/kamera, else ~/.cache/kamera."""
    if home := os.environ.get("KAMERA_HOME"):
        return Path(home).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification has relative paths ignored.
    return (cache if cache.is_absolute() else Path("~/.cache").expanduser()) / "kamera"


@dataclass(frozen=True, slots=True)
class Settings:
    """The precision that a Kamera may trade for speed, and the bounds on what it keeps.

    base: the KV that a chunk's patches are fitted over. "first": as it was first computed, in whatever window that was.
        "canonical": computed alone after the anchor, in a forward pass of its own (arXiv 2606.23581); it carries
        nothing of any window.
    base_dtype: how bases are kept. "full": in the dtype of the model's KV. "int8": with one step per component of K and
        one per token of V; patches are fitted over the rounded KV, and no recall is exact.
    rank: patch rank per layer. With an integer, a chunk of fewer tokens is refused. "auto" picks the smallest rank per
        layer within both budgets, and keeps the factors in int8, which gives the least divergence per byte. Rounding
        adds an error of about 1 %, whatever the budgets.
    error_budget: for "auto", the relative Frobenius error that a layer's patch may leave, above 0 and up to 1.
    byte_budget: for "auto", the share of the chunk's KV bytes that all its factors may take, above 0 and up to 1.
    fidelity: the KV that an answer may use. "exact": only KV that a full prefill would give. "patched": also KV that
        was computed after other runs, where that is known and mended. "blind": all, as it is.
    stale: what happens to a chunk whose KV was computed after other chunks than those before it now. "refresh": some of
        its tokens are computed again, or all of them where too much would be left. "keep": nothing. "compute": all of
        them are.
    heal: what is computed while no answer is. "idle": stale and approximate spans of live windows, exactly. "ahead":
        these, and the spans of the window that is expected next. "never": nothing.
    near: what happens to a new image that is nearly one of the window. "tiles": only the tokens whose pixels differ are
        computed; the others take the KV of that image, where the model has a token for each tile of a grid. "off": it
        is computed.
    namespace: chunks are never shared between namespaces, even if they are equal.
    namespace_secret: 32 bytes without which nobody can make the keys of the namespace: a file or, as "env:NAME", an
        environment variable with 64 hexadecimal digits, or a function that returns the bytes. None: whoever knows the
        pixels, the model and the namespace can.
    encryption_key: likewise, the key that the disk tier is encrypted with; None encrypts nothing. Needs the extra
        "encryption". A store that exists keeps its key, until `kamera rekey` changes it.
    encoder_cache_bytes: bound on the cached vision-encoder outputs.
    memory_bytes: bound on the store's memory tier, and on computed KV that waits to be written to the store.
    disk_bytes: bound on the disk tier of a new store; None means a tenth of the free disk space, at most 20 GiB. A
        store that exists keeps its bound, until LmdbStore.resize() or `kamera resize` changes it.
    eviction: what goes first when the disk tier is full, from now on and for all processes that use the store. "lru":
        what was used longest ago. "lfu": what was used least for its age. "cost": the same, by what it costs to compute
        again over the bytes that it takes. None: what the store has; a new one has "lru".
    quota_bytes: likewise, the most that each namespace may hold in the disk tier: one above it gives way first. None:
        what the store has, at first no quota.
    ttl_s: likewise, seconds after which what was stored in the disk tier is removed, however often it was used. None:
        what the store has, at first no such time.
    dropped_bytes: bound on the pixels and texts of dropped spans that a window keeps, so that recall can compute them
        again.
    shared_timeout_ms: how long a turn may wait for a shared store in all, in ms. What it has not served then is
        computed.
    """

    base: Base = "first"
    base_dtype: BaseDtype = "full"
    rank: Rank = "auto"
    error_budget: float = 0.1
    byte_budget: float = 0.25
    fidelity: Fidelity = "patched"
    stale: OnStale = "refresh"
    heal: Heal = "ahead"
    near: Near = "off"
    namespace: str = "default"
    namespace_secret: SecretSource | None = None
    encryption_key: SecretSource | None = None
    encoder_cache_bytes: int = 512 * MIB
    memory_bytes: int = 2048 * MIB
    disk_bytes: int | None = None
    eviction: Policy | None = None
    quota_bytes: int | None = None
    ttl_s: int | None = None
    dropped_bytes: int = 256 * MIB
    shared_timeout_ms: int = 200

    def __post_init__(self) -> None:
        if not (self.rank == "auto" or isinstance(self.rank, Real)):
            raise SettingError(f"rank is {self.rank!r}; use a positive integer or 'auto'.")
        self._read_numbers()
        if isinstance(self.rank, int) and self.rank < 1:
            raise SettingError(f"rank is {self.rank}; use at least 1 (fidelity='blind' reuses without a patch).")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise SettingError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(get_args(choices))}.")
        if self.eviction is not None and self.eviction not in get_args(Policy):
            raise SettingError(f"eviction is {self.eviction!r}; use one of {', '.join(get_args(Policy))}, or None.")
        if not self.namespace or not isinstance(self.namespace, str):
            raise SettingError(f"namespace is {self.namespace!r}; give it a name, as a str.")
        for name in SECRETS:
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, source_of(name, value))
        for name in SHARES:
            if not 0 < getattr(self, name) <= 1:
                raise SettingError(f"{name} is {getattr(self, name)}; use a share above 0 and up to 1.")
        for name in SIZES:
            value = getattr(self, name)
            if value is not None and value < 0:
                raise SettingError(f"{name} is {value}; use 0 or more bytes.")
        if self.ttl_s is not None and self.ttl_s < 1:
            raise SettingError(f"ttl_s is {self.ttl_s}; use at least 1 s, or None.")
        if self.shared_timeout_ms < 1:
            raise SettingError(f"shared_timeout_ms is {self.shared_timeout_ms}; use at least 1 ms.")

    def _read_numbers(self) -> None:
        may_be_none = {"rank", "disk_bytes", "quota_bytes", "ttl_s"}
        for names, read in ((SHARES, real), ((*SIZES, "rank", "ttl_s", "shared_timeout_ms"), whole)):
            for name in names:
                value = getattr(self, name)
                if not (value is None and name in may_be_none) and (name, value) != ("rank", "auto"):
                    object.__setattr__(self, name, read(name, value))

    def check_rank(self, num_tokens: int) -> None:
        """Raise SettingError if an integer rank is above num_tokens, the size of a chunk."""
        if isinstance(self.rank, int) and self.rank > num_tokens:
            raise SettingError(
                f"rank {self.rank} is above the chunk's size of {num_tokens} tokens; use a lower rank or rank='auto'."
            )


class SettingOptions(TypedDict, total=False):
    """The fields of Settings, as keyword arguments."""

    base: Base
    base_dtype: BaseDtype
    rank: Rank
    error_budget: float
    byte_budget: float
    fidelity: Fidelity
    stale: OnStale
    heal: Heal
    near: Near
    namespace: str
    namespace_secret: SecretSource | None
    encryption_key: SecretSource | None
    encoder_cache_bytes: int
    memory_bytes: int
    disk_bytes: int | None
    eviction: Policy | None
    quota_bytes: int | None
    ttl_s: int | None
    dropped_bytes: int
    shared_timeout_ms: int


SETTINGS = tuple(SettingOptions.__annotations__)


def make_settings(options: Mapping[str, Any], owner: str) -> Settings:
    """The settings of these options; None stands for the default. owner: what takes the options.

    Raises SettingError.
    """
    check_names(options, SETTINGS, owner)
    return Settings(**{name: value for name, value in options.items() if value is not None})
