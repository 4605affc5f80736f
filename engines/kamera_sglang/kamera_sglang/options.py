"""The options of an engine that brings KV in, as sglang.Engine takes them and as they are read back."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kamera_agent.config import DEFAULT_STORE
from kamera_agent.errors import SettingError
from kamera_agent.options import path_of, several
from kamera_agent.store.opening import StorePlace

MEMORY = Path("/dev/shm")
LINKER = "KameraLinker"


def linker_options(
    store: StorePlace | Sequence[StorePlace] = DEFAULT_STORE, encryption_key: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Keyword arguments of sglang.Engine. Raises SettingError.

    store: a folder or a URL, or several, the fastest first, as of Kamera; for the KV of whole prompts and for chunks.
    encryption_key: of a store that is encrypted, as of Settings: a file, or "env:NAME".

        engine = sglang.Engine(model_path, page_size=1, **linker_options("chunks"))
    """
    places = [store] if isinstance(store, (str, os.PathLike)) else several("store", store)
    # In memory where that is possible. mkdtemp lets nobody else in.
    mailbox = tempfile.mkdtemp(prefix="kamera-sglang-", dir=MEMORY if MEMORY.is_dir() else None)
    atexit.register(shutil.rmtree, mailbox, ignore_errors=True)
    extra = {
        "store": [path_of("store", place) for place in places],
        "encryption_key": encryption_key and path_of("encryption_key", encryption_key),
        "mailbox": mailbox,
    }
    config = {"linker": LINKER, "linker_module_path": "kamera_sglang.linker", "linker_extra_config": extra}
    return {
        "enable_unified_cache_external_linker": True,
        "unified_cache_external_linker_backend": "dynamic",
        "unified_cache_external_linker_config": config,
    }


class Served(NamedTuple):
    """What an engine serves, and where it finds KV. dtype: as of families.load()."""

    model: str
    revision: str | None
    dtype: str
    store: Sequence[str]
    encryption_key: str | None
    mailbox: str


def read_options(engine: Any) -> Served:
    """The options that an engine was started with. Raises SettingError for one without linker_options()."""
    args = engine.server_args
    config = args.unified_cache_external_linker_config
    if not config or config.get("linker") != LINKER:
        raise SettingError("The engine was started without linker_options(); add them: sglang.Engine(..., **these).")
    extra = config["linker_extra_config"]
    return Served(args.model_path, args.revision, args.dtype, **extra)
