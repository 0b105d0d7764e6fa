"""The metadata of a list's object say whose it is and what its bytes must be."""

import pytest

from wal_pipeline.archive.format.relation_object import DescribedList, list_from_metadata, list_to_metadata
from wal_pipeline.archive.records import Codec, Encoding
from wal_pipeline.errors import RelationListError
from wal_pipeline.stores.base import check_metadata
from wal_pipeline_tests.support.relation_lists import FIRST_AT, SYSTEM_IDENTIFIER

DESCRIBED = DescribedList(FIRST_AT, SYSTEM_IDENTIFIER, 1234, "a" * 64)
ENCODING = Encoding(Codec.ZSTD, encrypted=True, size_bytes=321, sha256="b" * 64, md5="c" * 32)


def test_it_is_read_as_it_was_written() -> None:
    """In three pairs, which every store can keep; no name of a table stands there."""
    metadata = list_to_metadata(DESCRIBED, ENCODING)
    assert check_metadata("r2", "key", metadata) == metadata
    assert sorted(metadata) == ["relation-list", "wal-format", "wal-stored"]
    assert list_from_metadata("key", metadata) == (DESCRIBED, ENCODING)


@pytest.mark.parametrize("lost", ["relation-list", "wal-format", "wal-stored"])
def test_metadata_that_were_lost_are_named(lost: str) -> None:
    """As in a copy between stores by another program."""
    metadata = list_to_metadata(DESCRIBED, ENCODING)
    del metadata[lost]
    with pytest.raises(RelationListError, match="object 'key' has metadata that cannot be read: KeyError"):
        list_from_metadata("key", metadata)
