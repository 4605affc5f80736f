"""What vLLM is started with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from vllm.config import KVTransferConfig

from kamera_agent.chunk import Key
from kamera_agent.errors import SettingError
from kamera_agent.options import several
from kamera_agent.pages.blueprint import Blueprint
from kamera_agent.store.opening import StorePlace

MODULE = "kamera_vllm.connector"


def transfer_config(
    blueprint: Blueprint, store: StorePlace | Sequence[StorePlace], options: Mapping[str, Any]
) -> KVTransferConfig:
    """The KV transfer of an engine over a store that VllmKamera drives. Arguments and errors as of transfer_facts()."""
    return KVTransferConfig(**transfer_facts(blueprint, store, options, takes_orders=True))


def transfer_facts(
    blueprint: Blueprint, store: StorePlace | Sequence[StorePlace], options: Mapping[str, Any], *, takes_orders: bool
) -> dict[str, Any]:
    """The same as JSON, as `vllm serve --kv-transfer-config` takes it.

    store: folders or URLs, the fastest first. options: fields of Settings. takes_orders: False leaves exact pages
    alone. A client of a server could order KV of any namespace into its request, or write its own under any key.
    Raises SettingError for a secret that is a function: the connector is made in other processes, by names.
    """
    places = [store] if isinstance(store, (str, os.PathLike)) else several("store", store)
    if functions := [name for name, value in options.items() if callable(value)]:
        raise SettingError(f"{functions[0]} is a function, and vLLM's processes need a name: a file, or 'env:NAME'.")
    # The digest covers weights, configuration and processors.
    identity = Key.of(model=blueprint.family.identity.model, processor=blueprint.family.identity.processors)
    return {
        "kv_connector": "KameraConnector",
        "kv_connector_module_path": MODULE,
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {
            "store": [os.fspath(place) for place in places],
            "settings": dict(options),
            "rotation": [*blueprint.rotation],
            "model": identity.digest.hex(),
            "takes_orders": takes_orders,
        },
    }
