"""No part of a key is left in a provider's text, whatever the text does with it."""

import html
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.stores.s3.redaction import hidden, on_one_line

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


@given(
    secret=st.text(st.characters(codec="utf-8"), min_size=4, max_size=40).filter(lambda text: text.strip() != ""),
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
