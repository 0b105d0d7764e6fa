"""Turns the options of a restore, from the command line or a run's configuration, into a request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wal_pipeline.archive.recovery.target import RecoveryTarget
from wal_pipeline.archive.recovery.target_text import target_from_text
from wal_pipeline.commands.restore.files.verify import VerifyWith
from wal_pipeline.commands.restore.prepare import RestoreRequest
from wal_pipeline.commands.restore.standby.request import (
    StandbyRequest,
    standby_contradictions,
    standby_request,
    wal_only_contradictions,
)
from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.recovery import TargetAction

ANY_STORE: Final = "any"
_CONTRADICTED: Final = (
    *("to_time", "to_lsn", "to_xid", "to_name", "immediate", "timeline"),
    *("force", "base_backup", "waldir", "work_dir", "restore_config"),
)


class RestoreOptionError(RestoreError):
    """An option has a value that it cannot have."""

    is_refusal = True


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """One restore as a person writes it. ``wal-pipeline restore --help`` explains each option.

    The command's parameters and the fields of the restore job's configuration have these names. The values are plain:
    texts, numbers and paths that nothing has looked at yet.
    """

    pgdata: Path | None = None
    plan_only: bool = False
    to_time: str | None = None
    to_lsn: str | None = None
    to_xid: int | None = None
    to_name: str | None = None
    immediate: bool = False
    inclusive: bool = True
    timeline: str = "latest"
    store: str = ANY_STORE
    action: str = TargetAction.PROMOTE.value
    base_backup: str | None = None
    system_identifier: int | None = None
    tablespaces: Mapping[str, Path] = field(default_factory=dict)
    force: bool = False
    owner: str | None = None
    archiving: bool | None = None
    verify: bool = True
    prefetch_dir: Path | None = None
    waldir: Path | None = None
    work_dir: Path | None = None
    restore_config: bool | None = None
    start: bool = False
    config_file: Path | None = None
    server_settings: Mapping[str, str] = field(default_factory=dict)
    only_databases: tuple[str, ...] = ()
    verify_with: str = VerifyWith.OWN.value
    workers: int | None = None
    delta: bool = False
    standby: bool = False
    primary_conninfo: str | None = None
    slot: str | None = None
    tablespace_map_all: Path | None = None
    wal_only: bool = False

    def request(
        self, *, default_pgdata: Path | None, bindir: Path | None, primary_conninfo: str = ""
    ) -> RestoreRequest:
        """Return what these options ask for. ``primary_conninfo`` is the setting's, which may hold a password.

        Raises: RestoreOptionError, StandbyOptionError, RecoveryTargetError, InvalidLsnError, SettingsError.
        """
        pgdata = self.pgdata or default_pgdata
        if pgdata is None:
            raise RestoreOptionError("Missing option '--pgdata': the data directory to restore into.")
        self._require_no_contradiction()
        return RestoreRequest(
            pgdata=pgdata.absolute(),
            target=self._target(),
            action=self._action(),
            base_backup=self.base_backup,
            force=self.force,
            owner=self.owner,
            tablespaces=self.tablespaces,
            verify=self.verify,
            archiving=self.archiving,
            bindir=bindir,
            waldir=None if self.waldir is None else self.waldir.absolute(),
            work_dir=None if self.work_dir is None else self.work_dir.absolute(),
            config_file=None if self.config_file is None else self.config_file.absolute(),
            restore_config=self.restore_config,
            only_databases=tuple(self.only_databases),
            verify_with=self._verify_with(),
            workers=self._workers(),
            delta=self.delta,
            tablespace_root=None if self.tablespace_map_all is None else self.tablespace_map_all.absolute(),
            standby=self._standby(primary_conninfo),
            wal_only=self.wal_only,
        )

    def _standby(self, setting: str) -> StandbyRequest | None:
        if not self.standby:
            return None
        return standby_request(self.primary_conninfo, setting, self.slot, Path.cwd())

    def _given(self) -> dict[str, object]:
        """Return the options that contradict some others, by the names that a person types."""
        return {
            **{name: getattr(self, name) for name in _CONTRADICTED},
            "exclusive": not self.inclusive,
            "action": self.action != TargetAction.PROMOTE,
            "archiving": self.archiving is True,
            "no_archiving": self.archiving is False,
            "only_database": self.only_databases,
            "tablespace_map": self.tablespaces,
            "tablespace_map_all": self.tablespace_map_all,
        }

    def _require_no_contradiction(self) -> None:
        given = self._given()
        found = [*(standby_contradictions(given) if self.standby else ())]
        found += wal_only_contradictions(given) if self.wal_only else ()
        if not self.standby and (self.primary_conninfo or self.slot):
            found.append(f"'--{'primary-conninfo' if self.primary_conninfo else 'slot'}' needs '--standby'.")
        if found:
            raise RestoreOptionError(found[0])
        mode = self.server_settings.get("archive_mode", "off")
        if self.archiving is False and mode.lower() not in ("off", "of", "false", "no", "0"):
            raise RestoreOptionError(f"'archive_mode={mode}' contradicts '--no-archiving': a copy does not archive.")

    def store_names(self, configured: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
        """Return the stores to read, by default all that are ``configured``.

        Raises: RestoreOptionError for one that is not ``known``.
        """
        if self.store == ANY_STORE:
            return tuple(configured)
        if self.store not in known:
            expected = ", ".join((ANY_STORE, *known))
            raise RestoreOptionError(f"'{self.store}' is not a store, expected one of {expected}.")
        return (self.store,)

    def _target(self) -> RecoveryTarget:
        return target_from_text(
            to_time=self.to_time,
            to_lsn=self.to_lsn,
            to_xid=self.to_xid,
            to_name=self.to_name,
            immediate=self.immediate,
            inclusive=self.inclusive,
            timeline=self.timeline,
        )

    def _action(self) -> TargetAction:
        try:
            return TargetAction(self.action)
        except ValueError:
            expected = ", ".join(action.value for action in TargetAction)
            raise RestoreOptionError(f"'{self.action}' is not an action, expected one of {expected}.") from None

    def _verify_with(self) -> VerifyWith:
        try:
            return VerifyWith(self.verify_with)
        except ValueError:
            expected = ", ".join(one.value for one in VerifyWith)
            raise RestoreOptionError(f"'{self.verify_with}' does not verify, expected one of {expected}.") from None

    def _workers(self) -> int | None:
        if self.workers is not None and self.workers < 1:
            raise RestoreOptionError(f"{self.workers} workers restore nothing, expected 1 or more.")
        return self.workers
