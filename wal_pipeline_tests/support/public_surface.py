"""Collects all that a user relies on: ``python -m wal_pipeline_tests.support.public_surface`` prints it as values.

``wal_pipeline_tests/public_surface.json`` keeps the last state. After a change that is meant for users, write it anew:

    python -m wal_pipeline_tests.support.public_surface --write

All imports of the package stand here; the collectors in ``surface`` know no module of it but the published ones.
"""

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args, get_origin
from unittest.mock import patch

import click
import dagster as dg
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex

from wal_pipeline.archive.alerts import AlertKind, Severity, default_severity
from wal_pipeline.archive.format.base_backup.manifest import BackupTablespace
from wal_pipeline.archive.format.base_backup.manifest_json import to_json
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.object_metadata import to_metadata
from wal_pipeline.archive.records import Codec, CommitTimes, Copy, CopyStatus, Encoding, WalFile
from wal_pipeline.catalog.schema import SCHEMA_VERSION, metadata
from wal_pipeline.cli.archive_get import parser
from wal_pipeline.cli.group import cli, run
from wal_pipeline.commands.status.prometheus import ACTIVE_ALERTS, CLUSTER_METRICS, PREFIX, STORE_METRICS
from wal_pipeline.definitions import defs
from wal_pipeline.orchestration.assets.wal.segment_metadata import segment_materialization
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.postgres.archive_command import durable_archive_command
from wal_pipeline.settings import Settings, load_settings, variable_names
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.manifests import make_configuration, make_cuts, make_manifest
from wal_pipeline_tests.support.segments import name_of
from wal_pipeline_tests.support.surface import dagster_code, published
from wal_pipeline_tests.support.surface.command_line import argparse_parser, click_command, said
from wal_pipeline_tests.support.surface.running import PROJECT, SmallArchive, exit_code, plain_environment
from wal_pipeline_tests.support.surface.source import PackageSource
from wal_pipeline_tests.support.surface.text import as_read, pretty

GOLDEN = PROJECT / "wal_pipeline_tests" / "public_surface.json"
LAYOUT = Layout("backups/prod", "orders", 7_575_757_575_757_575_757)
AT = datetime(2026, 11, 22, 17, 45, tzinfo=UTC)
_TAGS = r"(wal_pipeline|dagster|dagster-celery)/"
_SEGMENT = "0000000100000002000000A3"
_FILES = (_SEGMENT, f"{_SEGMENT}.partial", f"{_SEGMENT}.00000028.backup", "00000002.history")
_ABSENT = name_of(10)


class Surface:
    """The sections, each by the name that it has in the golden file; ``folder`` is empty and for this alone."""

    def __init__(self, folder: Path) -> None:
        self._source = PackageSource(published.PACKAGE)
        self._archive = SmallArchive(folder, lambda store: LocalFolderStore("local", store).prepare())
        self._session = cache(self._archive.session)

    @property
    def sections(self) -> dict[str, Callable[[], Any]]:
        """What is asked for each section."""
        return {
            "command line": lambda: click_command("wal-pipeline", cli),
            "archive-get": lambda: argparse_parser(parser()),
            "exit codes": self._exit_codes,
            "session": lambda: self._session(run),
            "settings": _settings,
            "environment": self._source.environment,
            "dagster assets": lambda: dagster_code.assets(_repository()),
            "dagster jobs": lambda: dagster_code.jobs(_repository()),
            "dagster resources": lambda: dagster_code.resources(_repository()),
            "dagster schedules": lambda: dagster_code.schedules(_repository()),
            "dagster sensors": lambda: dagster_code.sensors(_repository()),
            "dagster metadata": self._metadata,
            "tags": lambda: self._source.words(_TAGS),
            "alerts": _alerts,
            "audit log": self._audit,
            "catalog": self._catalog,
            "enumerations": self._source.enumerations,
            "object keys": _object_keys,
            "object metadata": lambda: to_metadata(_wal_file(), _encoding()),
            "base backup manifest": _manifest,
            "files": self._files,
            "metrics": _metrics,
            "shell lines": self._shell_lines,
            "published names": published.names,
            "published programs": lambda: published.programs(self._archive),
            "published script": lambda: published.script(self._archive),
            "run launcher": published.launcher,
            "package": published.package,
        }

    def collect(self, section: str) -> Any:
        """Return one section, as it comes back from JSON. No setting and no settings file of ours is at work."""
        with plain_environment(self._archive.folder, {"PATH": os.environ["PATH"]}):
            return as_read(self.sections[section]())

    def _exit_codes(self) -> dict[str, Any]:
        self._session(run)
        with plain_environment(self._archive.folder, self._archive.environment):
            return {"wal-pipeline": _group_codes(), "wal-pipeline archive-get": self._archive_get_codes()}

    def _archive_get_codes(self) -> dict[str, int]:
        calls = {
            "--help": ["--help"],
            "an unknown option": ["--wrong"],
            "no name of a WAL file": ["wrong", "pg_wal/X"],
            "a store that is not configured": ["--store=r2", _ABSENT, "pg_wal/X"],
            "proven absence": [_ABSENT, "pg_wal/X"],
            "proven absence, --exit-absent=100": ["--exit-absent=100", _ABSENT, "pg_wal/X"],
            "delivered": [name_of(1), "pg_wal/X"],
        }
        program = ("-m", "wal_pipeline.cli.archive_get", "--no-prefetch")
        return {title: self._archive.python(*program, *words).returncode for title, words in calls.items()}

    def _metadata(self) -> dict[str, Any]:
        copy = Copy(_SEGMENT, 7, "r2", CopyStatus.VERIFIED, "key", _encoding(), 1, None, AT, 0.5, 2.0)
        shown = segment_materialization(Keys("main"), _wal_file(), copy, {"checksum": 0.1, "compress": 0.2})
        return {"of a segment, in the UI's order": list(shown.metadata), "in the source": self._source.metadata()}

    def _audit(self) -> dict[str, Any]:
        self._session(run)
        return {
            "written by the session": self._archive.audit_lines(),
            "in the source": self._source.audit_records(),
            "lines in the source": self._source.audit_lines(),
        }

    def _catalog(self) -> dict[str, Any]:
        tables = {table.name: _table(table) for table in metadata.sorted_tables}
        return {
            "schema_version": SCHEMA_VERSION,
            "tables": dict(sorted(tables.items())),
            "value_keys": self._source.value_keys(),
        }

    def _files(self) -> list[str]:
        self._session(run)
        return self._archive.files()

    def _shell_lines(self) -> dict[str, Any]:
        program = ("-m", "wal_pipeline.cli.archive_get", "--print-restore-command")
        given = ("--standby", "--no-prefetch", "--store=local", "--retry-seconds=5")
        lines = {"restore_command": program, "restore_command of a standby": (*program, *given)}
        printed = {title: self._archive.python(*words).stdout.strip() for title, words in lines.items()}
        return {title: self._archive.without_paths(line) for title, line in printed.items()} | {
            "archive_command": durable_archive_command(Path("/spool")),
            "archive_command for a group": durable_archive_command(Path("/spool"), group_readable=True),
        }


def _group_codes() -> dict[str, int]:
    calls = {
        "--help": ["--help"],
        "--version": ["--version"],
        "no such command": ["wrong"],
        "no such option": ["status", "--wrong"],
        "no such settings file": ["--env-file", "none", "list"],
    }
    codes = {title: exit_code(run, words) for title, words in calls.items()}
    raised = {"interrupted": KeyboardInterrupt, "aborted": click.Abort, "command that returns 3": None}
    for title, error in raised.items():
        with patch.object(cli, "main", side_effect=error, return_value=3):
            codes[title] = exit_code(run, [])
    return codes


def _settings() -> dict[str, Any]:
    settings = load_settings({"PG_WAL_ARCHIVE_DIR": "/spool", "WAL_PIPELINE_STATE_FOLDER": "/state"})
    derived = {
        "catalog": settings.catalog(),
        "quarantine": settings.quarantine(),
        "drill_folder": settings.scratch_folder().name,
    }
    fields = {name: _setting(names, Settings.model_fields[name]) for name, names in variable_names().items()}
    return {"fields": fields, "unset, with the spool in /spool and the state in /state": derived}


def _setting(names: tuple[str, ...], field: FieldInfo) -> dict[str, Any]:
    default = field.default
    shown = [repr(one) for one in field.metadata if hasattr(one, "__slots__") and "NoDecode" not in repr(one)]
    return said({"names": names, "type": _type_name(field.annotation), "limits": shown}) | {
        "default": default.get_secret_value() if isinstance(default, SecretStr) else default
    }


def _type_name(kind: Any) -> Any:
    """Return a type's name without its module; of a closed set its values."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if get_args(kind):
        parts = [_type_name(one) for one in get_args(kind) if one not in (type(None), Ellipsis)]
        return parts[0] if len(parts) == 1 and get_origin(kind) is not tuple else {"list of": parts[0]}
    values = getattr(kind, "__members__", None)
    return [member.value for member in values.values()] if values else kind.__name__


@cache
def _repository() -> dg.RepositoryDefinition:
    return defs().get_repository_def()


def _alerts() -> dict[str, Any]:
    return {
        "kinds": {kind.value: default_severity(kind).value for kind in sorted(AlertKind)},
        "severities, the least urgent first": [severity.value for severity in Severity],
    }


def _table(table: Table) -> dict[str, Any]:
    indexes = sorted(str(CreateIndex(index).compile(dialect=sqlite.dialect())) for index in table.indexes)
    return said({"columns": {column.name: _column(column) for column in table.columns}, "indexes": indexes})


def _column(column: "Column[Any]") -> dict[str, Any]:
    types = {kind.name: column.type.compile(kind) for kind in (sqlite.dialect(), postgresql.dialect())}
    references = sorted(key.target_fullname for key in column.foreign_keys)
    return said({**types, "key": column.primary_key, "nullable": column.nullable, "references": references})


def _wal_file() -> WalFile:
    name = require_file_name(_SEGMENT)
    start, end = Lsn.parse("2/A3000000"), Lsn.parse("2/A4000000")
    size = 16 * 2**20
    return WalFile(name.name, name.kind, 7, 1, size, "ab" * 32, AT, size, 18, start, end, CommitTimes.KNOWN, AT, AT)


def _encoding() -> Encoding:
    return Encoding(Codec.ZSTD, True, 1000, "cd" * 32, "ef" * 16)


def _object_keys() -> dict[str, Any]:
    ways = [(codec, encrypted) for codec in Codec for encrypted in (False, True)]
    names = [require_file_name(name) for name in _FILES]
    return {
        "roots": [LAYOUT.root, LAYOUT.wal_root, LAYOUT.base_root],
        "wal": {
            name.name: [LAYOUT.wal_key(name, codec, encrypted=encrypted) for codec, encrypted in ways] for name in names
        },
        "base": [key for codec, encrypted in ways for key in _base_keys(codec, encrypted)],
        "manifest": LAYOUT.manifest_key(make_manifest().backup_id),
    }


def _base_keys(codec: Codec, encrypted: bool) -> list[str]:
    more = {"tar_cuts": make_cuts(codec, encrypted), "configuration": make_configuration(codec, encrypted)}
    manifest = make_manifest(codec=codec, encrypted=encrypted, **more)
    parts = [item.name for tar in manifest.tars for item in tar.objects]
    others = [manifest.backup_manifest.name, *(item.name for item in more.values())]
    return [LAYOUT.base_key(manifest.backup_id, part) for part in (*parts, *others)]


def _manifest() -> Any:
    space = BackupTablespace(16384, "/tablespace")
    more = {"tar_cuts": make_cuts(Codec.ZSTD, False), "configuration": make_configuration(Codec.ZSTD, False)}
    return json.loads(to_json(make_manifest(tablespaces=(space,), **more)))


def _metrics() -> dict[str, str]:
    known = {**CLUSTER_METRICS, **STORE_METRICS, ACTIVE_ALERTS: ""}
    return {PREFIX + name: text for name, text in known.items()}


def main() -> None:
    """Print the surface, or write it to the golden file."""
    with TemporaryDirectory() as folder:
        surface = Surface(Path(folder))
        text = pretty({section: surface.collect(section) for section in surface.sections}) + "\n"
    if sys.argv[1:] == ["--write"]:
        GOLDEN.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
