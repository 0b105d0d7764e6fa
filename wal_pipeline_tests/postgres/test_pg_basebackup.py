"""pg_basebackup runs with the right command line, and its failures are reported."""

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from testbed.ports import LOOPBACK, free_port
from testbed.postgres_install import PostgresInstall
from wal_pipeline.errors import BaseBackupError, SettingsError
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.pg_basebackup import BaseBackupCommand, BaseBackupRun

SECRET = "sesame open=1"


def test_a_password_is_in_the_environment_and_never_on_the_command_line() -> None:
    """Everyone on the machine can read a command line."""
    server = BackupServer(f"host=db user=backup password='{SECRET}'")
    command = BaseBackupCommand(Path("pg_basebackup"), server.program_conninfo(), label="nightly")
    assert not any("sesame" in argument for argument in command.arguments())
    assert conninfo_to_dict(command.conninfo) == {"host": "db", "user": "backup"}
    assert server.program_environment()["PGPASSWORD"] == SECRET


def test_the_password_of_a_key_is_refused() -> None:
    """libpq has no variable for it, so it would be on the command line."""
    with pytest.raises(SettingsError) as caught:
        BackupServer("host=db sslpassword=sesame").program_conninfo()
    assert caught.value.message == (
        "the connection string has 'sslpassword', which a program's command line would show"
    )


def test_the_command_line_says_what_was_asked_for() -> None:
    """A stream without WAL by default; folder, parent, rate and checkpoint where they are set."""
    plain = BaseBackupCommand(Path("pg_basebackup"), "host=db", label="nightly").arguments()
    assert {"--format=tar", "--wal-method=none", "--pgdata=-", "--checkpoint=fast", "--no-password"} <= set(plain)
    asked = BaseBackupCommand(
        Path("pg_basebackup"),
        "host=db",
        label="nightly",
        fast_checkpoint=False,
        target=Path("/staging"),
        parent_manifest=Path("/parent"),
        max_rate_kib=2048,
    ).arguments()
    wanted = {"--pgdata=/staging", "--checkpoint=spread", "--incremental=/parent", "--max-rate=2048"}
    assert wanted <= set(asked)


def test_a_program_that_is_not_there_is_named() -> None:
    """The path and the reason are in the message."""
    with pytest.raises(BaseBackupError) as caught, BaseBackupRun(BaseBackupCommand(Path("/no/such"), "", "x"), {}):
        pass
    assert caught.value.message == "'/no/such' cannot be started: No such file or directory"


@pytest.mark.integration
def test_a_server_that_does_not_answer_is_told_in_pg_basebackups_words(postgres18: PostgresInstall) -> None:
    """Nothing listens at that port."""
    conninfo = f"host={LOOPBACK} port={free_port()}"
    command = BaseBackupCommand(postgres18.program("pg_basebackup"), conninfo, label="x")
    with BaseBackupRun(command, BackupServer(conninfo).program_environment()) as run:
        assert run.tar.read(1) == b""
        with pytest.raises(BaseBackupError, match=r"^pg_basebackup ended with status 1: connection to server at"):
            run.wait()
