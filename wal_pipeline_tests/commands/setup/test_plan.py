"""What is wrong with a server's archiving, and what mends it: decided without a server."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.commands.setup.archiver import ArchiverKind, Method, changes_to, current_archiver
from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.commands.setup.plan import SetupPlan, WantedArchiving, choose_method, plan_setup, restart_line
from wal_pipeline.commands.setup.spool import FilesReadable, ServerWrites, SpoolAccess
from wal_pipeline.errors import READ_ONLY_HINT
from wal_pipeline.postgres.archive_command import bytes_too_many, durable_archive_command
from wal_pipeline.postgres.server import AlterableSetting, SettingChange
from wal_pipeline.postgres.server_facts import ServerFacts
from wal_pipeline_tests.support.server_facts import ACCESS, GOOD, SPOOL, access, facts

DURABLE = durable_archive_command(SPOOL)
SHARED = durable_archive_command(SPOOL, group_readable=True)
BASIC_LINES = (
    "ALTER SYSTEM SET basic_archive.archive_directory = '/srv/wal';",
    "ALTER SYSTEM SET archive_command = '';",
    "ALTER SYSTEM SET archive_library = 'basic_archive';",
)


def plan(
    server: ServerFacts = GOOD, spool: SpoolAccess = ACCESS, *, library: bool | None = True, replace: bool = False
) -> SetupPlan:
    return plan_setup(server, spool, WantedArchiving(SPOOL, 300, replace), has_basic_archive=library)


def only_bad(found: SetupPlan) -> Finding:
    """Return the one finding that is not good."""
    bad = [finding for finding in found.findings if finding.status is not Level.OK]
    assert len(bad) == 1, bad
    return bad[0]


def test_a_good_server() -> None:
    """Nothing is wrong, and nothing would be changed."""
    found = plan()
    assert [(finding.name, finding.status, finding.message) for finding in found.findings] == [
        ("version", "ok", "PostgreSQL 18.6"),
        ("wal_level", "ok", "'replica'"),
        ("archive_mode", "ok", "'on'"),
        ("archiver", "ok", "archive_library 'basic_archive' writes into '/srv/wal'"),
        ("archive_timeout", "ok", "300 s"),
        ("spool", "ok", "'/srv/wal', 10.0 GiB free"),
        ("spool: server writes", "ok", "PostgreSQL writes there as user 'root'"),
        ("spool: we read", "ok", "user 'root' can read and remove what PostgreSQL archives"),
    ]
    assert (found.changes, found.restart_line) == ((), None)


def test_a_setting_that_names_another_cluster_is_not_passed_over() -> None:
    """After pg_upgrade the setting may be that of the old cluster, whose WAL alone would be archived."""
    wanted = WantedArchiving(SPOOL, system_identifier=GOOD.system_identifier + 1)
    bad = only_bad(plan_setup(GOOD, ACCESS, wanted, has_basic_archive=True))
    assert (bad.name, bad.status, bad.changes) == ("system identifier", Level.PROBLEM, ())
    assert bad.message == (
        f"{GOOD.system_identifier}, expected {GOOD.system_identifier + 1} by WAL_PIPELINE_SYSTEM_IDENTIFIER: "
        "its WAL would stay in the spool"
    )
    assert bad.mending == (
        "after pg_upgrade remove WAL_PIPELINE_SYSTEM_IDENTIFIER or set it to "
        f"{GOOD.system_identifier}; else mend the connection",
    )
    same = WantedArchiving(SPOOL, system_identifier=GOOD.system_identifier)
    assert not plan_setup(GOOD, ACCESS, same, has_basic_archive=True).problems


def test_an_old_server() -> None:
    """Before version 15 nothing is changed at all."""
    bad = only_bad(plan(facts(server_version_num=140011, server_version="14.11", archive_mode="off")))
    assert bad == Finding("version", Level.PROBLEM, "PostgreSQL 14.11 is too old, expected 15 or newer")


@pytest.mark.parametrize(
    ("changed", "message", "lines"),
    [
        (
            {"wal_level": "minimal"},
            "'minimal', expected 'replica' or 'logical'",
            ("ALTER SYSTEM SET wal_level = 'replica';",),
        ),
        ({"archive_mode": "off"}, "'off', expected 'on'", ("ALTER SYSTEM SET archive_mode = 'on';",)),
        (
            {"archive_timeout_seconds": 0},
            "off, expected at most 300 s: it bounds the age of the last change that no store has",
            ("ALTER SYSTEM SET archive_timeout = '300';",),
        ),
        (
            {"archive_timeout_seconds": 301},
            "301 s, expected at most 300 s: it bounds the age of the last change that no store has",
            ("ALTER SYSTEM SET archive_timeout = '300';",),
        ),
        (
            {"archive_library": "", "archive_directory": ""},
            "nothing archives into '/srv/wal': archive_library and archive_command are not set",
            BASIC_LINES,
        ),
        (
            {"archive_directory": ""},
            "nothing archives into '/srv/wal': archive_library and archive_command are not set",
            BASIC_LINES,
        ),
        (
            {"archive_library": "", "archive_command": "/bin/true"},
            "archive_command '/bin/true' throws the WAL away",
            BASIC_LINES,
        ),
        (
            {"archive_command": DURABLE},
            "archive_library and archive_command are both set: the archiver of PostgreSQL 18 does not start, "
            "and pg_stat_archiver shows no failure",
            BASIC_LINES,
        ),
    ],
)
def test_one_wrong_setting(changed: dict[str, object], message: str, lines: tuple[str, ...]) -> None:
    """Each wrong setting is one problem with the statements that mend it."""
    bad = only_bad(plan(facts(**changed)))
    assert (bad.status, bad.message, bad.mending) == (Level.PROBLEM, message, lines)


@pytest.mark.parametrize("setting", ["archive_mode", "wal_level"])
def test_restart(setting: str) -> None:
    """Only settings that PostgreSQL reads at its start need a restart, and its line is given."""
    wrong = {"archive_mode": "off", "wal_level": "minimal"}
    assert plan(facts(**{setting: wrong[setting]})).restart_line == "sudo pg_ctlcluster 18 main restart"
    assert plan(facts(archive_timeout_seconds=0)).restart_line is None


def test_written_and_waiting_for_a_restart() -> None:
    """What is written already is not written again: the restart is what is left to do."""
    found = plan(facts(archive_mode="off", pending_restart=("archive_mode",), file_settings={"archive_mode": "on"}))
    assert found.changes == ()
    assert [(finding.name, finding.message, finding.lines) for finding in found.problems] == [
        ("archive_mode", "'off' until the server is restarted", ("sudo pg_ctlcluster 18 main restart",)),
    ]
    assert found.restart_line == "sudo pg_ctlcluster 18 main restart"


def test_a_good_value_that_waits_for_another_one() -> None:
    """Its own finding is well, so the restart has one."""
    waits = facts(archive_mode="on", pending_restart=("archive_mode",), file_settings={"archive_mode": "always"})
    assert [(finding.name, finding.message) for finding in plan(waits).problems] == [
        ("restart", "changed, but in force only after a restart: archive_mode")
    ]


def test_taken_back_before_the_restart() -> None:
    """pending_restart stays true after RESET: the value must be written, whatever it says."""
    found = plan(facts(archive_mode="off", pending_restart=("archive_mode",)))
    assert only_bad(found).mending == ("ALTER SYSTEM SET archive_mode = 'on';",)


def test_other_pending_settings_do_not_matter() -> None:
    """A restart that someone else's setting waits for does not keep archiving from working."""
    assert plan(facts(pending_restart=("shared_buffers",))).problems == ()


def test_plain_cp_is_a_warning() -> None:
    """The plain cp archives: it works, and the plan says why it is not durable."""
    command = "test ! -f /srv/wal/%f && cp %p /srv/wal/%f"
    bad = only_bad(plan(facts(archive_library="", archive_command=command)))
    assert (bad.status, bad.mending) == (Level.WARNING, BASIC_LINES)
    assert bad.message == (
        f"archive_command '{command}' is not known to be durable: after a plain cp, a crash of the host can leave half "
        "a file, or none, of a segment that PostgreSQL has already recycled; and a crash within cp leaves a name that "
        "'test ! -f' then refuses for ever"
    )


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        (
            {"archive_library": "", "archive_command": "pgbackrest archive-push %p"},
            "archive_command 'pgbackrest archive-push %p'",
        ),
        ({"archive_library": "pgx_archive"}, "archive_library 'pgx_archive'"),
        ({"archive_directory": "/other"}, "archive_library 'basic_archive' (into '/other')"),
    ],
)
def test_a_foreign_archiver_is_kept(changed: dict[str, object], found: str) -> None:
    """An archiver that feeds somebody else is replaced only where that was asked for."""
    bad = only_bad(plan(facts(**changed)))
    message = f"{found} archives elsewhere, expected into '/srv/wal'; whoever reads there would get no more WAL"
    assert bad == Finding("archiver", Level.PROBLEM, message, lines=("wal-pipeline setup --apply --replace",))
    assert only_bad(plan(facts(**changed), replace=True)).mending == BASIC_LINES


def test_without_the_library() -> None:
    """Where basic_archive is not installed, the durable line is set, and it is good afterwards."""
    bad = only_bad(plan(facts(archive_library="", archive_directory=""), library=False))
    assert bad.changes == (
        SettingChange(AlterableSetting.ARCHIVE_COMMAND, DURABLE),
        SettingChange(AlterableSetting.ARCHIVE_LIBRARY, ""),
    )
    assert plan(facts(archive_library="", archive_command=DURABLE), library=False).problems == ()
    assert plan(facts(archive_library="", archive_command=DURABLE)).problems == ()


def test_a_shared_group() -> None:
    """Where we read through the group, basic_archive's files are closed to us, and the line opens them."""
    shared = access(files_readable=FilesReadable.WITH_GROUP_BIT)
    bad = only_bad(plan(spool=shared))
    assert bad.message == "files in '/srv/wal' are for PostgreSQL's user alone, expected also for its group"
    assert bad.changes[0].value == SHARED
    assert plan(facts(archive_library="", archive_command=SHARED), shared).problems == ()
    assert plan(facts(archive_library="", archive_command=DURABLE), shared).changes == bad.changes


def test_the_library_wins_before_16() -> None:
    """On PostgreSQL 15 a command beside the library is not used."""
    old = facts(server_version_num=150018, archive_command="cp %p /elsewhere/%f")
    assert current_archiver(old, SPOOL) is ArchiverKind.BASIC_ARCHIVE


def test_a_setting_of_the_command_line() -> None:
    """ALTER SYSTEM cannot win over the server's command line, so nothing is written."""
    bad = only_bad(plan(facts(archive_mode="off", settings_sources={"archive_mode": "command line"})))
    assert bad.changes == ()
    assert bad.lines == (
        "take archive_mode off the server's command line, restart it, and run 'wal-pipeline setup' again",
    )


def test_a_standby() -> None:
    """A standby archives only with 'always'."""
    bad = only_bad(plan(facts(in_recovery=True)))
    assert bad.message == "'on' on a standby, which archives only with 'always'"
    assert plan(facts(in_recovery=True, archive_mode="always")).problems == ()


@pytest.mark.parametrize(
    ("changed", "name", "message", "line"),
    [
        ({"exists": False}, "spool", "'/srv/wal' does not exist", "sudo install -d -o root -m 0700 /srv/wal"),
        ({"is_folder": False}, "spool", "'/srv/wal' is not a folder", None),
        (
            {"we_can_remove": False},
            "spool",
            "user 'root' cannot remove files from '/srv/wal'",
            "run wal-pipeline as user 'root', or:",
        ),
        (
            {"server_writes": ServerWrites.REFUSED, "writes_message": "PostgreSQL answered: Permission denied"},
            "spool: server writes",
            "PostgreSQL answered: Permission denied",
            "sudo chown root /srv/wal && sudo chmod u+rwx /srv/wal",
        ),
        (
            {"is_read_only": True, "we_can_remove": False},
            "spool",
            "'/srv/wal' is on a file system that is mounted read-only for this process",
            READ_ONLY_HINT,
        ),
        (
            {"server_writes": ServerWrites.REFUSED, "writes_message": "could not open file: Read-only file system"},
            "spool: server writes",
            "could not open file: Read-only file system",
            "let the server's own unit write there (ReadWritePaths=/srv/wal), or mount it for writing",
        ),
        (
            {"server_writes": ServerWrites.REFUSED, "writes_message": "could not write: No space left on device"},
            "spool: server writes",
            "could not write: No space left on device",
            "make room on the disk of /srv/wal: 'wal-pipeline archive' empties the spool",
        ),
        (
            {"server_writes": ServerWrites.ELSEWHERE},
            "spool: server writes",
            "PostgreSQL wrote a file into its '/srv/wal', but it is not in ours: "
            "the server runs on another host or in another container",
            "share one folder between both",
        ),
        (
            {"files_readable": FilesReadable.NO},
            "spool: we read",
            "user 'root' cannot read what PostgreSQL archives as user 'root'",
            "run wal-pipeline as user 'root', or:",
        ),
    ],
)
def test_the_spool(changed: dict[str, object], name: str, message: str, line: str | None) -> None:
    """Each thing that is wrong with the spool is one problem with the line that mends it."""
    bad = only_bad(plan(spool=access(**changed)))
    assert (bad.name, bad.status, bad.message) == (name, Level.PROBLEM, message)
    assert bad.mending[:1] == (() if line is None else (line,))


@pytest.mark.parametrize(
    ("data_directory", "line"),
    [
        ("/var/lib/postgresql/15/main", "sudo pg_ctlcluster 15 main restart"),
        ("/srv/it's data", "pg_ctl restart -m fast -D '/srv/it'\"'\"'s data'"),
        (None, "sudo systemctl restart postgresql"),
    ],
)
def test_restart_line(data_directory: str | None, line: str) -> None:
    """The restart's line fits where the data lies."""
    assert restart_line(facts(data_directory=data_directory)) == line


@given(
    version=st.sampled_from([150018, 160001, 180006]),
    library=st.sampled_from(["", "basic_archive", "other"]),
    command=st.sampled_from(["", "true", DURABLE, SHARED, "cp %p /srv/wal/%f", "cp %p /other/%f"]),
    directory=st.sampled_from(["", "/srv/wal", "/srv/wal/", "/other"]),
    readable=st.sampled_from(list(FilesReadable)),
    has_library=st.sampled_from([True, False, None]),
)
def test_what_is_applied_is_good(
    *, version: int, library: str, command: str, directory: str, readable: FilesReadable, has_library: bool | None
) -> None:
    """Whatever a server has, its changes leave an archiver that a second look finds good: setup is idempotent."""
    before = facts(
        server_version_num=version, archive_library=library, archive_command=command, archive_directory=directory
    )
    spool = access(files_readable=readable)
    values = {change.setting: change.value for change in plan(before, spool, library=has_library, replace=True).changes}
    after = facts(
        server_version_num=version,
        archive_library=values.get(AlterableSetting.ARCHIVE_LIBRARY, library),
        archive_command=values.get(AlterableSetting.ARCHIVE_COMMAND, command),
        archive_directory=values.get(AlterableSetting.BASIC_ARCHIVE_DIRECTORY, directory),
    )
    assert plan(after, spool, library=has_library).changes == ()
    assert current_archiver(after, SPOOL) in (ArchiverKind.BASIC_ARCHIVE, ArchiverKind.DURABLE_COMMAND)


@pytest.mark.parametrize("method", list(Method))
def test_changes_leave_one_of_the_two(method: Method) -> None:
    """From PostgreSQL 16 on, the archiver does not start with a library and a command: one is always emptied."""
    values = {change.setting: change.value for change in changes_to(method, SPOOL)}
    assert bool(values[AlterableSetting.ARCHIVE_COMMAND]) != bool(values[AlterableSetting.ARCHIVE_LIBRARY])


def test_choose_method() -> None:
    """basic_archive is preferred, also where it could not be tried."""
    assert [choose_method(ACCESS, has_basic_archive=has) for has in (True, None, False)] == [
        Method.BASIC_ARCHIVE,
        Method.BASIC_ARCHIVE,
        Method.COMMAND,
    ]


@pytest.mark.parametrize("group", [True, False])
def test_a_command_that_postgresql_15_would_cut_off_is_not_accepted(group: bool) -> None:
    """It exits with 2 for ever; the way out is a shorter path. PostgreSQL 16 and newer have no such limit."""
    long = Path("/srv/" + "d" * 600)
    readable = FilesReadable.WITH_GROUP_BIT if group else FilesReadable.YES
    given = access(folder=long, files_readable=readable)
    wanted = WantedArchiving(long, 300, replace_foreign=False)
    command = durable_archive_command(long, group_readable=group)
    excess = bytes_too_many(command, 15)
    assert excess > 0
    for archive_command in ("", command):
        old = facts(
            server_version_num=150020, archive_library="", archive_directory="", archive_command=archive_command
        )
        [bad] = plan_setup(old, given, wanted, has_basic_archive=False).problems
        assert bad.message.startswith(f"archive_command for this spool is {excess} bytes too long: PostgreSQL 15 cuts")
        assert bad.changes == ()
        assert f"at most {605 - excess} bytes" in " ".join(bad.lines)
        shortest = Path("/" + "d" * (604 - excess))
        assert bytes_too_many(durable_archive_command(shortest, group_readable=group), 15) == 0
        assert bytes_too_many(durable_archive_command(Path(f"{shortest}d"), group_readable=group), 15) == 1
        new = replace(old, server_version_num=160000)
        assert not any(
            "too long" in one.message for one in plan_setup(new, given, wanted, has_basic_archive=False).findings
        )


def test_a_command_that_is_cut_off_now_is_replaced_by_the_library() -> None:
    """Where the server has basic_archive, setup mends it."""
    long = Path("/srv/" + "d" * 600)
    old = facts(
        server_version_num=150020,
        archive_library="",
        archive_directory="",
        archive_command=durable_archive_command(long),
    )
    [bad] = plan_setup(old, access(folder=long), WantedArchiving(long), has_basic_archive=True).problems
    assert "too long" in bad.message
    assert bad.changes == changes_to(Method.BASIC_ARCHIVE, long)
