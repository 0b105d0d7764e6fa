"""Files without content stand in for those that were left out, and nothing else may be missing."""

import json
from pathlib import Path

import pytest

from wal_pipeline.commands.restore.chosen.left_out import (
    LEFT_OUT_WORD,
    LeftOutDatabases,
    check_parts,
    fill_left_out,
    read_manifest_files,
    stand_ins,
)
from wal_pipeline.commands.restore.files.listed_files import ManifestFile
from wal_pipeline.commands.restore.untar import HELD_BACK
from wal_pipeline.errors import RestoreError

LEFT_OUT = LeftOutDatabases({16386: "b"})
_WANTED = {"global/pg_control": 8, "base/16385/1259": 3}
_OTHERS = {
    "base/16386/PG_VERSION": 3,
    "base/16386/1259": 3 << 30,
    "pg_tblspc/16400/PG_18_1/16386/16390": 8192,
}


def make_folder(folder: Path, sizes: dict[str, int], *, there: dict[str, int] | None = None) -> Path:
    """A data directory with a manifest of these files, of which those that are wanted lie there."""
    files = [{"Path": name, "Size": size} for name, size in sizes.items()]
    files[-1:] = [{"Encoded-Path": files[-1]["Path"].encode().hex(), "Size": files[-1]["Size"]}]  # type: ignore[union-attr,attr-defined]
    folder.mkdir()
    (folder / "backup_manifest").write_text(json.dumps({"Files": files}))
    for name, size in (_WANTED if there is None else there).items():
        path = folder / (HELD_BACK if name == "global/pg_control" else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    return folder


def test_each_file_has_its_size_and_takes_no_room(tmp_path: Path) -> None:
    """Replay finds it; the version file lets nobody connect, in words that the server shows."""
    folder = make_folder(tmp_path / "pgdata", _WANTED | _OTHERS)
    found = fill_left_out(folder, [folder], LEFT_OUT)
    assert found == ("base/16386", "pg_tblspc/16400/PG_18_1/16386")
    large = (folder / "base/16386/1259").stat()
    assert (large.st_size, large.st_blocks) == (3 << 30, 0)
    assert (folder / "pg_tblspc/16400/PG_18_1/16386/16390").read_bytes() == bytes(8192)
    assert (folder / "base/16386/PG_VERSION").read_text() == f"{LEFT_OUT_WORD}\n"
    assert (folder / "base/16385/1259").read_bytes() == b"xxx"


def test_the_servers_words_fit_where_it_reads_them() -> None:
    """ValidatePgVersion reads one word of at most 63 bytes, and shows it where its number is no server's version."""
    assert len(LEFT_OUT_WORD) <= 63
    assert LEFT_OUT_WORD.startswith("0:")
    assert " " not in LEFT_OUT_WORD


@pytest.mark.parametrize(
    ("there", "found"), [({"global/pg_control": 8}, "not come"), (_WANTED | {"base/16385/1259": 2}, "2 bytes")]
)
def test_a_wanted_file_that_did_not_come_is_an_error(tmp_path: Path, there: dict[str, int], found: str) -> None:
    """Whatever the index of the volumes said."""
    folder = make_folder(tmp_path / "pgdata", _WANTED | _OTHERS, there=there)
    for check in (lambda: check_parts(folder, LEFT_OUT), lambda: fill_left_out(folder, [folder], LEFT_OUT)):
        with pytest.raises(RestoreError) as caught:
            check()
        assert caught.value.message == (
            f"file 'base/16385/1259' has {found}, expected 3 bytes by PostgreSQL's manifest"
        )
    assert not (folder / "base/16386").exists()


def test_an_incremental_file_has_the_size_that_its_base_backup_gives() -> None:
    """The files of a chain stand in under the names that pg_combinebackup gives them."""
    full = [ManifestFile("base/16386/1259", 8192), ManifestFile("base/16386/1", 8192), ManifestFile("base/16386/2", 7)]
    parent = [ManifestFile("base/16386/INCREMENTAL.1259", 40), ManifestFile("base/16386/1", 16384)]
    newest = [
        *(ManifestFile(f"base/16386/INCREMENTAL.{number}", 12) for number in (1259, 1, 3)),
        ManifestFile("base/16385/INCREMENTAL.1259", 12),
        ManifestFile("base/16386/4", 24576),
    ]
    assert list(stand_ins([full, parent, newest], LEFT_OUT)) == [
        ManifestFile("base/16386/1259", 8192),
        ManifestFile("base/16386/1", 16384),
        ManifestFile("base/16386/3", 0),
        ManifestFile("base/16386/4", 24576),
    ]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"Files": [{"Path": "a"}]}', '{"Files": [{"Path": "a", "Size": -1}]}']
)
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """Without it nobody knows what must be there."""
    path = tmp_path / "backup_manifest"
    path.write_text(text)
    with pytest.raises(RestoreError) as caught:
        read_manifest_files(path)
    assert caught.value.message.startswith(f"PostgreSQL's manifest '{path}' cannot be read: ")


@pytest.mark.parametrize("name", ["base/16386/../../../x", "/base/16386/1"])
def test_a_stand_in_stays_in_the_data_directory(tmp_path: Path, name: str) -> None:
    """What a manifest says is trusted no more than a tar."""
    folder = make_folder(tmp_path / "pgdata", _WANTED | {name: 3, "base/16386/1": 1})
    with pytest.raises(RestoreError):
        fill_left_out(folder, [folder], LEFT_OUT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pgdata"]


def test_a_page_that_replay_missed_in_anything_else_is_told() -> None:
    """In a database that was not left out, in what all share, and in a folder that is no database's."""
    invalid = {
        "base/16386": "b",
        "pg_tblspc/16400/PG_18_1/16386": "b in a tablespace",
        "base/16385": "a",
        "global": "shared",
        "somewhere": "unknown",
    }
    assert LEFT_OUT.missed(invalid) == ("a", "shared", "unknown")
    assert LeftOutDatabases().missed({"base/16386": "b"}) == ("b",)
