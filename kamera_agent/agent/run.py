"""The run that a call of a chat model belongs to: its thread, and the agent among those that share the thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config

THREAD, NAMESPACE, NODE_NAMESPACE = "thread_id", "checkpoint_ns", "langgraph_checkpoint_ns"


class Run(NamedTuple):
    """thread: the thread_id; empty for a call outside a run. agent: the nodes that the call comes from."""

    thread: str
    agent: str


def find_run(config: RunnableConfig | None, metadata: Mapping[str, Any] | None = None) -> Run:
    """The run of a call. config: as the caller passed it. metadata: of the call, where no config is at hand."""
    given, ambient = config or {}, ensure_config(None)
    # A sub-agent may be given a thread of its own, while the metadata of the outer run are inherited.
    sources = [
        part for place in (given, ambient) for part in (place.get("configurable"), place.get("metadata")) if part
    ] + [metadata or {}]
    thread = next((str(source[THREAD]) for source in sources if source.get(THREAD)), "")
    names = (NAMESPACE, NODE_NAMESPACE)
    namespace = next((str(source[name]) for source in sources for name in names if source.get(name)), "")
    return Run(thread, _without_task_ids(namespace))


def in_run(config: RunnableConfig | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a call, with the conversation and the agent of its run where they name none."""
    run = find_run(config)
    found = {"conversation": run.thread, "agent": run.agent}
    return {**{name: value for name, value in found.items() if value}, **options}


def _without_task_ids(namespace: str) -> str:
    """The nodes of a namespace such as "tools:1f0c|model:98e2": the ids of its tasks are new at every step."""
    return "|".join(part.partition(":")[0] for part in namespace.split("|") if not part.isdigit())
