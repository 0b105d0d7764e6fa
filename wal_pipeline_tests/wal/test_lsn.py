"""LSNs: text, order and limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.wal.lsn import MAX_LSN, InvalidLsnError, Lsn

lsns = st.integers(0, MAX_LSN).map(Lsn)


@given(lsns)
def test_text_and_back(lsn: Lsn) -> None:
    """An LSN's text reads back as the same LSN."""
    assert Lsn.parse(str(lsn)) == lsn


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_zero_padded_text(high: int, low: int) -> None:
    """Text with leading zeros or lower case, as some releases and programs print it, is the same LSN."""
    assert Lsn.parse(f"{high:08x}/{low:08X}") == high << 32 | low


def test_text_is_as_postgresql_prints_it() -> None:
    """The text is that of PostgreSQL's pg_lsn."""
    assert str(Lsn(0x16_B374D848)) == "16/B374D848"
    assert repr(Lsn(0)) == "Lsn('0/0')"


@pytest.mark.parametrize(
    "text", ["", "/", "1", "1/", "/1", "1/2/3", "G/0", "123456789/0", " 1/2", "1/2\n", "-1/2", "1/+2"]
)
def test_other_text_is_refused(text: str) -> None:
    """Anything but two hex numbers of up to eight digits with a slash is refused by its words."""
    with pytest.raises(InvalidLsnError) as caught:
        Lsn.parse(text)
    assert caught.value.message == f"'{text}' is not an LSN"


@pytest.mark.parametrize("value", [-1, MAX_LSN + 1])
def test_values_outside_64_bits_are_refused(value: int) -> None:
    """An LSN is an unsigned 64-bit number."""
    with pytest.raises(ValueError, match=r"outside 0 to 2\*\*64 - 1"):
        Lsn(value)
