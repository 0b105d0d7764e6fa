"""Names the settings that tie a restored server to its original, and their values in a copy beside it.

A restored configuration still names its original's archive, publishers, standbys, jobs and files. The list is of
PostgreSQL 13 to 18; a test compares it with the settings that each installed version has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_OLDEST: Final = 13
_NEWEST: Final = 10_000
_OWN_FILES: Final = {"hba_file": "pg_hba.conf", "ident_file": "pg_ident.conf"}

# Their workers or hooks act on nothing outside the session that calls them, so that a copy may preload them while it
# must be able to start workers. Any other library may schedule jobs, or talk to the machines that its original names.
QUIET_LIBRARIES: Final = frozenset(
    {
        *("anon", "auth_delay", "auto_explain", "credcheck", "passwordcheck", "pg_hint_plan", "pg_stat_statements"),
        *("pgaudit", "plpgsql_check", "pg_stat_kcache", "pg_qualstats", "safeupdate", "sepgsql", "set_user"),
    }
)


@dataclass(frozen=True, slots=True)
class CopySetting:
    """A setting's value in a copy. ``apart`` is what it sets apart, in a person's words.

    ``since`` and ``until`` are the first and the last major version that know the setting: others refuse to start
    with it.
    """

    name: str
    value: str
    apart: str
    since: int = _OLDEST
    until: int = _NEWEST


COPY_SETTINGS: Final = (
    CopySetting("archive_mode", "off", "archiving"),
    CopySetting("archive_command", "", "archiving"),
    CopySetting("archive_library", "", "archiving", since=15),
    CopySetting("archive_cleanup_command", "", "commands around the recovery"),
    CopySetting("recovery_end_command", "", "commands around the recovery"),
    CopySetting("promote_trigger_file", "", "commands around the recovery", until=15),
    CopySetting("primary_conninfo", "", "replication slots and connections"),
    CopySetting("primary_slot_name", "", "replication slots and connections"),
    CopySetting("hot_standby_feedback", "off", "replication slots and connections"),
    CopySetting("wal_receiver_create_temp_slot", "off", "replication slots and connections"),
    CopySetting("sync_replication_slots", "off", "replication slots and connections", since=17),
    CopySetting("max_logical_replication_workers", "0", "subscriptions"),
    CopySetting("synchronous_standby_names", "", "waiting for standbys"),
    CopySetting("synchronized_standby_slots", "", "waiting for standbys", since=17),
    CopySetting("bonjour", "off", "its name in the network"),
    CopySetting("cluster_name", "copy", "its name in the process list and in syslog"),
    CopySetting("syslog_ident", "postgres_copy", "its name in the process list and in syslog"),
    CopySetting("log_directory", "log", "log folder"),
    CopySetting("stats_temp_directory", "pg_stat_tmp", "folder of statistics", until=14),
    # A relative path lies in the data directory. An empty one would be one more file that cannot be written.
    CopySetting("external_pid_file", "postmaster.external.pid", "second pid file"),
)


def copy_settings(major: int) -> dict[str, str]:
    """Return the settings of a copy that hold whatever is in its data directory, for one major version."""
    return {one.name: one.value for one in COPY_SETTINGS if one.since <= major <= one.until}


def worker_settings(preloaded: str | None, *, hot_standby: bool) -> dict[str, str]:
    """Return the settings with which no preloaded library of a copy, such as a scheduler, starts a worker.

    Without hot standby, recovery does not ask for as many workers as the original had: the copy has none, and all
    libraries stay. With hot standby it must have them, so that only quiet libraries are loaded. ``preloaded`` is the
    configured ``shared_preload_libraries``, None where it cannot be read.
    """
    if not hot_standby:
        return {"max_worker_processes": "0"}
    names = [name.strip() for name in (preloaded or "").split(",")]
    return {"shared_preload_libraries": ", ".join(name for name in names if library_name(name) in QUIET_LIBRARIES)}


def library_name(text: str) -> str:
    """Return a library's plain name: ``pg_cron`` for ``"$libdir/pg_cron.so"``."""
    return text.strip().strip("\"'").rpartition("/")[2].removesuffix(".so")


def own_access_files(pgdata: Path) -> dict[str, str]:
    """Return the settings that name the access files in the data directory; a file that is not there stays elsewhere.

    PostgreSQL only reads them, so that a copy without its own may read those that its configuration names.
    """
    return {name: str(pgdata / file) for name, file in _OWN_FILES.items() if (pgdata / file).is_file()}


def told_apart(settings: Mapping[str, str]) -> tuple[str, ...]:
    """Return what the settings set apart from the original, in a person's words, each once."""
    words = {one.name: one.apart for one in COPY_SETTINGS} | {
        "max_worker_processes": "background workers",
        "shared_preload_libraries": "background workers",
        "data_directory": "data directory",
        **dict.fromkeys(_OWN_FILES, "access files"),
    }
    return tuple(dict.fromkeys(words[name] for name in settings if name in words))
