"""What single namespaces may hold.

Nobody can tell the name of a namespace from its tag in the tables. So that quotas can be listed, and kept
when a store gets another key, each has the name beside it: UTF-8, in an encrypted store as a file is encrypted.
"""

from __future__ import annotations

from functools import partial

from kamera_agent.store.environment import Environment


def set_quota_of(database: Environment, namespace: str, quota_bytes: int | None) -> None:
    """Bound what a namespace may hold, or take that back. Evicts nothing.

    Raises StoreUnavailableError when the medium fails.
    """
    name, label = database.name_of(namespace), namespace.encode("utf-8", "surrogatepass")
    if database.cipher:
        label = database.cipher.encrypt_file(name, label)
    database.write(partial(database.tables.set_quota, quota_bytes, namespace=name, label=label))


def quotas(database: Environment) -> dict[str, int]:
    """Of each namespace that has a quota of its own, the quota in bytes. What is damaged is left out."""
    found = database.read(database.tables.own_quotas) or {}
    named = {_namespace(database, name, label): quota for name, (label, quota) in found.items()}
    return {namespace: quota for namespace, quota in named.items() if namespace is not None}


def quota_problems(database: Environment) -> list[str]:
    """What is wrong with the quotas of single namespaces, for CheckReport.problems."""
    num_unnamed = len(database.read(database.tables.own_quotas) or {}) - len(quotas(database))
    return [f"{num_unnamed} quotas of namespaces do not tell whose they are"] if num_unnamed else []


def _namespace(database: Environment, name: bytes, label: bytes) -> str | None:
    content = database.cipher.decrypt_file(name, label) if database.cipher else label
    try:
        namespace = None if content is None else content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return None if namespace is None or database.name_of(namespace) != name else namespace
