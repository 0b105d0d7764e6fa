"""Whether an age identity at hand opens what a restore needs, found out before anything is removed for it."""

from collections.abc import Sequence
from typing import Any

from wal_pipeline.archive.base_backup import BaseBackupManifest
from wal_pipeline.archive.layout import Layout
from wal_pipeline.archive.restore_plan import RestorePlan
from wal_pipeline.commands.archive_get import WalSource, find_copies
from wal_pipeline.commands.base_backup_opening import open_object
from wal_pipeline.errors import CodecError, RestoreError, StoreError, WalPipelineError
from wal_pipeline.stores.base import Store
from wal_pipeline.wal.names import WalFileName, require_file_name

_HINT = "Set WAL_PIPELINE_AGE_IDENTITY_FILE to the file with the age identity."


def check_identities(
    plan: RestorePlan,
    chain: Sequence[BaseBackupManifest],
    stores: Sequence[Store],
    layout: Layout,
    identities: Sequence[Any],
) -> bool:
    """Say whether anything is encrypted; if so, open each base backup's smallest object, the first and the last WAL.

    Raises: RestoreError where something is encrypted that cannot be opened.
    """
    encrypted = [manifest for manifest in chain if manifest.encrypted]
    for manifest in encrypted:
        _require_identities(identities, f"base backup '{manifest.backup_id}'")
        _open_manifest(manifest, stores, layout, identities)
    names = sorted({file.name for file in (*plan.wal[:1], *plan.wal[-1:])})
    found = [name for name in map(require_file_name, names) if _is_encrypted(name, stores, layout)]
    for name in found:
        _require_identities(identities, f"WAL file '{name.name}'")
        try:
            WalSource(layout, tuple(stores), tuple(identities)).fetch(name)
        except WalPipelineError as error:
            raise RestoreError(error.message, hint=_HINT) from error
    return bool(encrypted or found)


def _require_identities(identities: Sequence[Any], what: str) -> None:
    if not identities:
        raise RestoreError(f"{what} is encrypted and there is no identity to open it with", hint=_HINT)


def _open_manifest(
    manifest: BaseBackupManifest, stores: Sequence[Store], layout: Layout, identities: Sequence[Any]
) -> None:
    """Open PostgreSQL's own manifest, a small object of each base backup, from the first store that has it whole."""
    reasons: list[str] = []
    for store in stores:
        try:
            open_object(store, layout, manifest, manifest.backup_manifest, identities=identities, sink=lambda _: None)
        except (StoreError, CodecError) as error:
            reasons.append(f"{store.name}: {error.message.removeprefix(store.name + ': ')}")
        else:
            return
    raise RestoreError(
        f"base backup '{manifest.backup_id}' is encrypted and could not be opened:\n" + "\n".join(reasons), hint=_HINT
    )


def _is_encrypted(name: WalFileName, stores: Sequence[Store], layout: Layout) -> bool:
    """Say whether all copies of a file are encrypted; a store that does not answer says nothing."""
    found: list[bool] = []
    for store in stores:
        try:
            found += [stored.encrypted for _, stored in find_copies(store, layout, name)]
        except StoreError:
            continue
    return bool(found) and all(found)
