"""What was said of a base backup is kept beside its manifest, and never lost without a word."""

import json

from wal_pipeline.archive.format.base_backup.manifest_json import parse_manifest, to_json
from wal_pipeline.archive.format.base_backup.report import BackupReport
from wal_pipeline.archive.records import DamagedPages
from wal_pipeline_tests.support.manifests import make_manifest

REPORT = BackupReport(('skipping special file "./pg_hba.conf"',), (DamagedPages("base/5/16384", (3, 4), 7),))


def test_it_is_read_as_it_was_written() -> None:
    """Warnings and pages come back."""
    assert BackupReport.parse(REPORT.to_json()) == REPORT
    assert BackupReport().is_empty
    assert not REPORT.is_empty


def test_a_damaged_report_is_itself_a_warning() -> None:
    """Nobody may take the base backup for sound because the object cannot be read."""
    values = json.loads(REPORT.to_json())
    for data in (
        REPORT.to_json().replace(b"16384", b"16385"),
        json.dumps({**values, "version": 2}).encode(),
        b"[]",
        b"\0",
    ):
        [warning] = BackupReport.parse(data).warnings
        assert warning.startswith("'report.json' cannot be read")


def test_a_manifest_says_nothing_of_it_so_that_earlier_versions_read_it() -> None:
    """The manifest's bytes are the same with a report or without."""
    manifest = make_manifest()
    reported = make_manifest(report=REPORT)
    assert to_json(reported) == to_json(manifest)
    assert reported == manifest
    assert parse_manifest(to_json(reported), backup_id=manifest.backup_id) == manifest
    assert reported.record().damaged_pages == REPORT.damaged_pages
    assert reported.record().is_damaged


def test_pages_are_named_with_file_and_block() -> None:
    """Those that the server did not name are counted."""
    assert str(REPORT.damaged_pages[0]) == "'base/5/16384' blocks 3, 4 and 5 more"
    assert str(DamagedPages("base/5/16384", (3,), 1)) == "'base/5/16384' block 3"
    assert str(DamagedPages("a file that only the server's log names", (), 0)) == (
        "'a file that only the server's log names'"
    )


def test_damage_is_counted_only_where_it_is_known() -> None:
    """The server names the first blocks of a file, and counts them all; sometimes its log alone knows."""
    known = DamagedPages("base/5/16384", (3, 7), 9)
    assert BackupReport(damaged_pages=(known,)).damage_text == (
        "9 damaged pages: wrong checksum in 'base/5/16384' blocks 3, 7 and 7 more"
    )
    unknown = DamagedPages("a file", (), 0)
    assert BackupReport(damaged_pages=(known, unknown)).damage_text == (
        "damaged pages: wrong checksum in 'base/5/16384' blocks 3, 7 and 7 more; 'a file'"
    )


def test_no_name_of_a_file_is_stored_in_plain_beside_an_encrypted_base_backup() -> None:
    """It is marked all the same."""
    report = BackupReport(('skipping special file "./customers.txt"',), (DamagedPages("base/5/16384", (3,), 2),))
    stored = report.without_names()
    assert stored.warnings == (
        "1 warning, whose words are in the catalog of the host that took it: they may name files",
    )
    assert stored.damage_text == "2 damaged pages: wrong checksum in 'a file that is not named in plain'"
    assert BackupReport().without_names().is_empty
