"""Names, counts, sizes, lengths of time and moments as text, and no part of a secret in one."""

import html
import os
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.text import (
    billed_size,
    coarse_length,
    coarse_size,
    counted,
    hidden,
    length,
    moment_json,
    moment_text,
    moment_utc,
    on_one_line,
    shown_name,
    size,
)

AT = datetime(2026, 11, 22, 17, 45, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"000000010000000000000003", "000000010000000000000003"),
        ("café".encode(), "café"),
        (b"caf\xe9", "caf\\xe9"),
        (b"a\nb\x1b[2J", "a\\nb\\x1b[2J"),
    ],
)
def test_shown_name(raw: bytes, shown: str) -> None:
    """Printable characters stay, and every other byte is spelled out."""
    assert shown_name(os.fsdecode(raw)) == shown


def test_counted() -> None:
    """Only one thing has a noun in the singular."""
    assert [counted(number, "gap") for number in (0, 1, 2)] == ["0 gaps", "1 gap", "2 gaps"]


@pytest.mark.parametrize(
    ("size_bytes", "shown", "coarse", "billed"),
    [
        (0, "0 B", "0 MiB", "0.00 GB"),
        (1023, "1023 B", "0 MiB", "0.00 GB"),
        (1536, "1.5 KiB", "0 MiB", "0.00 GB"),
        (2**20, "1.0 MiB", "1 MiB", "0.00 GB"),
        (2**30 - 1, "1024.0 MiB", "1024 MiB", "1.07 GB"),
        (5 * 2**29, "2.5 GiB", "2.5 GiB", "2.68 GB"),
        (3 * 2**40, "3.0 TiB", "3072.0 GiB", "3298.53 GB"),
    ],
)
def test_sizes(size_bytes: int, shown: str, coarse: str, billed: str) -> None:
    """A screen shows powers of two to the tenth, an alert whole MiB or GiB, a bill powers of ten."""
    assert (size(size_bytes), coarse_size(size_bytes), billed_size(size_bytes)) == (shown, coarse, billed)


@pytest.mark.parametrize(
    ("seconds", "shown", "coarse"),
    [
        (2.46, "2.5 s", "2 s"),
        (119.4, "119 s", "119 s"),
        (179, "3 min", "2 min"),
        (7199, "120 min", "119 min"),
        (9000, "2 h", "2 h"),
        (10_799, "3 h", "2 h"),
        (172_800, "2 days", "2 days"),
        (259_199, "3 days", "2 days"),
    ],
)
def test_lengths(seconds: float, shown: str, coarse: str) -> None:
    """A screen rounds; an alert counts whole units."""
    assert (length(seconds), length(timedelta(seconds=seconds))) == (shown, shown)
    assert coarse_length(timedelta(seconds=seconds)) == coarse


def test_sizes_and_lengths() -> None:
    """They read as people say them."""
    assert [size(n) for n in (0, 1023, 1024, 5 * 2**30)] == ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]
    lengths = [length(n) for n in (0.25, 45, 300, 7200, 3 * 86400)] + [length(None)]
    assert lengths == ["0.2 s", "45 s", "5 min", "2 h", "3 days", "-"]


def test_moments() -> None:
    """People read seconds, JSON holds the whole moment with its zone."""
    assert (moment_text(AT), moment_utc(AT)) == ("2026-11-22 17:45:00", "2026-11-22 17:45:00Z")
    east = AT.astimezone(timezone(timedelta(hours=1)))
    assert moment_json(east) == "2026-11-22T18:45:00.500000+01:00"


def test_what_is_not_known() -> None:
    """A length and a moment that are not known are a dash, and null in JSON."""
    assert (length(None), moment_text(None), moment_json(None)) == ("-", "-", None)


KEY = "AKIA0123456789ABCDEF"


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY} ", f" {KEY}\r\n", f"{KEY[:10]}\n{KEY[10:]}", f"{KEY}ä"])
def test_white_space_in_a_key_does_not_keep_it_in_the_text(key: str) -> None:
    """A line feed at its end was joined with the next word, and then the key was looked for with its line feed."""
    texts = [key, repr(key), repr(key.encode()), " ".join(key.split()), f"b'AWS4 Credential={key}/20260101/auto'"]
    for text in texts:
        said = on_one_line(f"Invalid header value {text} end", [key])
        assert KEY[:10] not in said
        assert KEY[10:] not in said


def test_a_key_across_the_cut_does_not_stay_in_part() -> None:
    """The text is cut at 300 characters after the keys are gone."""
    for start in range(275, 305):
        said = on_one_line("x" * start + KEY, [KEY])
        assert not any(KEY[:length] in said for length in range(4, len(KEY)))


# Without the sign that stands for a secret.
LETTERS = st.characters(codec="utf-8", exclude_characters="*")


@given(
    secret=st.text(LETTERS, min_size=4, max_size=40).filter(lambda text: text.strip() != ""),
    before=st.text(max_size=320),
)
def test_no_form_of_a_secret_stays(secret: str, before: str) -> None:
    """As it is, escaped for Python, for a URL or for HTML."""
    for form in (secret, repr(secret), repr(secret.encode()), quote(secret, safe=""), html.escape(secret)):
        assert secret not in hidden(form, [secret])
        assert form.strip("'\"b") not in hidden(form, [secret]) or not form.strip("'\"b")
    assert secret not in on_one_line(before + secret, [secret])


def test_the_longer_of_two_secrets_goes_first() -> None:
    """An id that is the beginning of the secret would leave the rest of it."""
    assert hidden("abcdefgh", ["abcd", "abcdefgh"]) == "***"
