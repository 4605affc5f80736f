"""Options that agents pass to every provider by habit, and what becomes of them here."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from reprlib import repr as short
from typing import Any

from kamera_agent.errors import InputError
from kamera_agent.options import check_names

log = logging.getLogger(__name__)

# Other names of options that a chat has.
ALIASES = {"max_completion_tokens": "max_tokens", "max_new_tokens": "max_tokens", "model_name": "model"}

# They concern a provider's service, or ask for what every reply has here.
IGNORED = frozenset(
    {
        "api_key",
        "cache_control",
        "extra_headers",
        "max_retries",
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "reasoning_effort",
        "request_timeout",
        "safety_identifier",
        "service_tier",
        "stream",
        "stream_options",
        "stream_usage",
        "streaming",
        "strict",
        "timeout",
        "user",
        "verbosity",
    }
)

# The only value that can be served.
SERVED: Mapping[str, Any] = {
    "best_of": 1,
    "echo": False,
    "extra_body": {},
    "frequency_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "min_p": 0,
    "modalities": ["text"],
    "n": 1,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "store": False,
    "top_logprobs": 0,
}


def check_served(name: str, value: Any, owner: str) -> None:
    """Raise InputError where an option of SERVED has a value that cannot be served. None means the default."""
    if value is not None and value != SERVED[name]:
        raise InputError(f"{owner} cannot serve {name}={short(value)}; leave it out, or use {SERVED[name]!r}.")


def drop_habits(given: Mapping[str, Any], own: Collection[str], owner: str) -> dict[str, Any]:
    """The options under their own names, without those that change nothing here; these are logged at debug level.

    own: names of the options that the owner has. They are never taken for a habit.
    Raises InputError for an option that cannot be served, SettingError for an unknown one.
    """
    options: dict[str, Any] = {}
    ignored = []
    for name, value in given.items():
        target = name if name in own else ALIASES.get(name, name)
        if target in own:
            if target in options and options[target] != value:
                raise InputError(f"{target} and another name for it are given; leave one of them out.")
            options[target] = value
        elif name in SERVED:
            check_served(name, value, owner)
            ignored.append(name)
        elif name in IGNORED:
            ignored.append(name)
        else:
            check_names([name], own, owner)
    if ignored:
        log.debug("%s ignores %s: they change nothing here.", owner, ", ".join(ignored))
    return options
