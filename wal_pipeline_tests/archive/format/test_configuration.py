"""The tar that holds the configuration files outside the data directory."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.format.configuration import (
    KeptConfiguration,
    configuration_from_tar,
    configuration_name,
    configuration_to_tar,
)
from wal_pipeline.archive.records import Codec
from wal_pipeline.errors import BaseBackupError

PLACES = {
    "data_directory": "/srv/pg",
    "config_file": "/etc/pg/postgresql.conf",
    "hba_file": "/etc/pg/pg_hba.conf",
    "ident_file": "/srv/pg/pg_ident.conf",
}
NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_characters="/"), min_size=1, max_size=80)
PATHS = st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)


@given(
    st.dictionaries(PATHS, st.binary(max_size=2000), max_size=4),
    st.lists(PATHS, max_size=3),
    st.dictionaries(NAMES, NAMES, max_size=3),
)
def test_what_was_kept_is_read_back(files: dict[str, bytes], folders: list[str], names: dict[str, str]) -> None:
    """Every path, content, link and reason."""
    kept = KeptConfiguration(**PLACES, files=files, folders=tuple(folders), links=names, missing=names)
    assert configuration_from_tar(configuration_to_tar(kept)) == kept
    assert kept.is_empty == (not (files or folders or names))


def test_the_tar_is_one_for_standard_tools() -> None:
    """Each file has its path without the first slash, and the object's name says how to open it."""
    kept = KeptConfiguration(**PLACES, files={"/etc/pg/postgresql.conf": b"port = 1\n"})
    with tarfile.open(fileobj=io.BytesIO(configuration_to_tar(kept))) as tar:
        assert tar.getnames() == ["wal-pipeline-configuration.json", "etc/pg/postgresql.conf"]
    assert configuration_name(Codec.ZSTD, encrypted=True) == "configuration.tar.zst.age"


@pytest.mark.parametrize("path", ["/etc/../x", "relative", "/etc/\0x"])
def test_a_path_that_could_lead_elsewhere_is_refused(path: str) -> None:
    """A store's bytes write nothing outside."""
    kept = KeptConfiguration(**PLACES, folders=(path,))
    with pytest.raises(BaseBackupError, match="cannot be read: "):
        configuration_from_tar(configuration_to_tar(kept))


@pytest.mark.parametrize("data", [b"", b"x" * 2000, bytes(10240)])
def test_what_is_no_tar_of_ours_is_refused(data: bytes) -> None:
    """Damage is named, and no exception of another kind ends the plan."""
    with pytest.raises(BaseBackupError, match="cannot be read: "):
        configuration_from_tar(data)


def test_links_and_devices_are_refused() -> None:
    """Only plain files are in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("etc/passwd")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(BaseBackupError, match="'etc/passwd' is no file"):
        configuration_from_tar(buffer.getvalue())
