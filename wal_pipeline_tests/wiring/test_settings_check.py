"""Settings that are used at night are judged by day."""

from pathlib import Path

import pytest

from wal_pipeline.errors import SettingsError
from wal_pipeline.settings import load_settings
from wal_pipeline.wiring.pipeline import open_pipeline
from wal_pipeline.wiring.settings_check import check_settings, is_cron, unused_names


def judge(folder: Path, **given: str) -> str | None:
    (file := folder / "settings.env").touch()
    try:
        check_settings(load_settings(given, file))
    except SettingsError as error:
        return str(error)
    return None


def test_the_settings_as_they_come_are_right(tmp_path: Path) -> None:
    """And a schedule may be off."""
    assert judge(tmp_path) is None
    assert judge(tmp_path, WAL_PIPELINE_VERIFY_CRON="OFF") is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"WAL_PIPELINE_COST_CRON": "0 25 * * *"},
            "WAL_PIPELINE_COST_CRON is '0 25 * * *', expected five fields in cron's form, such as '15 2 * * *', or "
            "'off'\nHINT: The fields are minute, hour, day of the month, month and day of the week, in UTC.",
        ),
        (
            {"WAL_PIPELINE_CODEC_LEVEL": "12"},
            "WAL_PIPELINE_CODEC_LEVEL is 12, expected 1 to 9 for codec 'gzip'\n"
            "HINT: Without it the codec's usual level is taken; WAL_PIPELINE_CODEC chooses the codec.",
        ),
        (
            {"WAL_PIPELINE_BASE_BACKUP_CODEC": "lz4", "WAL_PIPELINE_BASE_BACKUP_CODEC_LEVEL": "17"},
            "WAL_PIPELINE_BASE_BACKUP_CODEC_LEVEL is 17, expected -7 to 16 for codec 'lz4'\n"
            "HINT: Without it the codec's usual level is taken; WAL_PIPELINE_BASE_BACKUP_CODEC chooses the codec.",
        ),
    ],
    ids=["cron", "level", "base backup's level"],
)
def test_what_cannot_be_used(tmp_path: Path, given: dict[str, str], message: str) -> None:
    """The message names the setting and the way out."""
    assert judge(tmp_path, **given) == message


CRONS = (
    *("15 2 * * *", "*/5 * * * *", "0 0 * * sun", "0 0 * * mon-fri", "0 0 * * 7", "0 0 * jan-dec/2 *", "1,2,3 * * * *"),
    *(
        "@daily",
        "@Daily",
        "@reboot",
        "0 0 L * *",
        "0 0 * * 5#2",
        "0 0 ? * *",
        "0 0 * * l5",
        "0/5 * * * *",
        "*/70 * * * *",
    ),
    *("", "monthly", "* * * *", "* * * * * *", "60 * * * *", "0 24 * * *", "0 0 0 * *", "0 0 1-40 * *", "0 0 * 13 *"),
    *("*/70 * * * *", "0 0 * * 8", "a b c d e", "*/0 * * * *", "1-59/0 * * * *", "1,,2 * * * *", "*-5 * * * *"),
)


@pytest.mark.parametrize("cron", CRONS)
def test_a_cron_expression_is_what_dagster_takes_for_one(cron: str) -> None:
    """Without importing it, which takes seconds."""
    from dagster._utils.schedules import is_valid_cron_schedule  # noqa: PLC0415 - the test's own

    assert is_cron(cron) == is_valid_cron_schedule(cron)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ALL_PROXY", "set HTTPS_PROXY, and NO_PROXY for what is reached without it"),
        ("http_proxy", "set HTTPS_PROXY, and NO_PROXY for what is reached without it"),
        ("AWS_CA_BUNDLE", "set WAL_PIPELINE_CA_BUNDLE, which adds to the usual authorities"),
        ("SSL_CERT_FILE", "set WAL_PIPELINE_CA_BUNDLE, which adds to the usual authorities"),
        ("AWS_SECRET_ACCESS_KEY", "each store has its own settings, which begin with R2_ and B2_"),
        ("PGDATESTYLE", "the sessions set the form of their values themselves"),
        ("PGHOSTS", "it is none of libpq's variables for a connection; look for a spelling mistake"),
        ("R2_KEY", "no setting has this name; look for a spelling mistake"),
        ("PG_WAL_ARCHIVE_DIRS", "is 'PG_WAL_ARCHIVE_DIR' meant?"),
    ],
)
def test_a_name_that_looks_like_ours_is_not_dropped_without_a_word(name: str, why: str) -> None:
    """It stands in the settings file, and nothing reads it."""
    assert unused_names([name, "R2_BUCKET_NAME"]) == [f"'{name}' in the settings file is not used: {why}"]


def test_other_programs_names_are_left_alone() -> None:
    """The file is docker compose's too, and perhaps an application's."""
    names = [
        "POSTGRES_PASSWORD",
        "RECORDS_PASSWORD",
        "DAGSTER_PG_HOST",
        "TZ",
        "HOME",
        "no_proxy",
        "PGDATA",
        "PGPASSWORD",
    ]
    assert unused_names(names) == []


def test_the_settings_file_is_looked_through_when_a_command_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for each name."""
    (file := tmp_path / "settings.env").write_text("ALL_PROXY=http://proxy\nPOSTGRES_PASSWORD=x\n")
    open_pipeline(file)
    assert [record.getMessage() for record in caplog.records] == [
        "'ALL_PROXY' in the settings file is not used: set HTTPS_PROXY, and NO_PROXY for what is reached without it"
    ]
    caplog.clear()
    open_pipeline(file, quiet=True)
    assert caplog.records == []
