"""The profiles describe R2 and B2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.errors import SettingsError
from wal_pipeline.stores.s3.profiles import B2, MIB, R2


def test_endpoints_are_made_from_account_and_region() -> None:
    """Also R2's jurisdictions, which stand behind the account id."""
    assert R2.endpoint_url("0123abcd") == "https://0123abcd.r2.cloudflarestorage.com"
    assert R2.endpoint_url("0123abcd.eu") == "https://0123abcd.eu.r2.cloudflarestorage.com"
    assert B2.endpoint_url("us-east-005") == "https://s3.us-east-005.backblazeb2.com"


@pytest.mark.parametrize("place", ["", "a/b", "a b", "a@b", "a:1", "-a", "a\n"])
def test_what_is_no_host_name_is_refused(place: str) -> None:
    """An account id with a slash would send the keys elsewhere."""
    with pytest.raises(SettingsError, match="cannot be part of a host name"):
        R2.endpoint_url(place)


def test_regions() -> None:
    """R2 has one; B2's is the endpoint's second label."""
    assert R2.region_of("https://127.0.0.1:1") == "auto"
    assert B2.region_of("https://s3.eu-central-003.backblazeb2.com") == "eu-central-003"
    for url in ("https://127.0.0.1:8333", "https://localhost:8333", "https://[::1]:1"):
        with pytest.raises(SettingsError) as raised:
            B2.region_of(url)
        assert raised.value.hint == "Set B2_REGION."


def test_price_classes() -> None:
    """R2 bills puts and lists as A, reads as B; B2 bills no uploads."""
    operations = ("put_object", "list_objects_v2", "get_object", "head_object", "delete_object")
    assert [R2.price_class(name) for name in operations] == ["A", "A", "B", "B", "free"]
    assert [B2.price_class(name) for name in operations] == ["free", "A", "B", "B", "free"]


@given(st.integers(min_value=1, max_value=40 * 1024**4))
def test_parts_hold_the_object_within_the_rules(size: int) -> None:
    """Whole MiB, at least 5 MiB, at most 10,000 of them."""
    part = R2.part_rules.part_size_for(size)
    assert part % MIB == 0
    assert part >= 5 * MIB
    assert -(-size // part) <= 10_000


def test_an_object_beyond_all_parts_is_refused() -> None:
    """The limit is named."""
    limit = R2.part_rules.max_part_size_bytes * R2.part_rules.max_parts
    with pytest.raises(SettingsError) as raised:
        R2.part_rules.part_size_for(limit + 1)
    assert raised.value.message == f"an object of {limit + 1} bytes is too large, expected at most {limit}"
