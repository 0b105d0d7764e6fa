"""Finds the system identifiers that a store knows under one cluster's name."""

from collections.abc import Mapping, Sequence

from wal_pipeline.archive.format.keys import cluster_prefix, system_identifier_of
from wal_pipeline.errors import RestoreError, SettingsError
from wal_pipeline.stores.base import Store


def system_identifiers(store: Store, prefix: str, cluster: str) -> set[int]:
    """Return all system identifiers below a cluster's name: one LIST for each."""
    root = cluster_prefix(prefix, cluster)
    found: set[int] = set()
    after = ""
    while (item := next(iter(store.list(root, start_after=after)), None)) is not None:
        part = item.key.removeprefix(root).split("/", 1)[0]
        identifier = system_identifier_of(prefix, cluster, item.key)
        if identifier is not None:
            found.add(identifier)
        after = f"{root}{part}0" if "/" in item.key.removeprefix(root) else item.key  # "0" comes right after "/"
    return found


def only_system_identifier(stores: Sequence[Store], prefix: str, cluster: str) -> int:
    """Return the one system identifier that the stores know under a cluster's name.

    Raises: SettingsError, RestoreError where there is none or there are several; StoreError.
    """
    answers = {store.name: system_identifiers(store, prefix, cluster) for store in stores}
    return choose_system_identifier(answers, prefix, cluster, None)


def choose_system_identifier(answers: Mapping[str, set[int]], prefix: str, cluster: str, given: int | None) -> int:
    """Return ``given`` where a store knows it, else the only one; ``answers`` are what each store knows.

    Raises: SettingsError where nothing is known, RestoreError where ``given`` is not or there are several.
    """
    found = set[int]().union(*answers.values())
    if not found:
        raise SettingsError(
            f"no store ({', '.join(answers)}) has anything below '{cluster_prefix(prefix, cluster)}'",
            hint="Check the cluster's name, the prefix and the buckets.",
        )
    listed = ", ".join(str(identifier) for identifier in sorted(found))
    if given is not None and given not in found:
        raise RestoreError(f"no store has system identifier {given} of cluster '{cluster}', expected one of: {listed}")
    if given is None and len(found) > 1:
        raise RestoreError(
            f"the stores know the cluster '{cluster}' with several system identifiers: {listed}",
            hint="Say which with --system-identifier.",
        )
    return found.pop() if given is None else given
