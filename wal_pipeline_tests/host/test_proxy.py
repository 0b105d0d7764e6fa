"""Tests which proxy counts for an address."""

import pytest

from wal_pipeline.errors import SettingsError
from wal_pipeline.host.proxy import proxy_for

URL = "https://s3.example.com:9000"
PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("https_proxy", "no_proxy", "expected"),
    [
        ("", "", None),
        (PROXY, "", PROXY),
        (" proxy:3128 ", "", PROXY),
        (PROXY, "example.org", PROXY),
        (PROXY, "example.org, .example.com", ""),
        (PROXY, "s3.example.com:9000", ""),
        (PROXY, "s3.example.com:9001", PROXY),
        ("socks5://proxy:1080", "*", ""),
    ],
)
def test_a_proxy_counts_as_other_programs_read_the_two_names(
    https_proxy: str, no_proxy: str, expected: str | None
) -> None:
    """An empty text goes without a proxy, whatever the environment says."""
    assert proxy_for(URL, https_proxy, no_proxy) == expected


@pytest.mark.parametrize("address", ["socks5://me:hunter2@proxy:1080", "http://me:hunter2@", "http://me:hunter2@h:x"])
def test_a_proxy_that_cannot_be_used_is_refused_without_its_password(address: str) -> None:
    """Only where a store is behind it: a local store needs none."""
    with pytest.raises(SettingsError, match="HTTPS_PROXY cannot be used") as found:
        proxy_for(URL, address, "")
    assert "hunter2" not in str(found.value)
