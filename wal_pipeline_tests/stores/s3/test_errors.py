"""What to do about a refusal follows the reason that the provider gave."""

from datetime import UTC, datetime

import pytest

from wal_pipeline.errors import StoreAccessError, StoreError, StoreUnavailableError
from wal_pipeline.stores.s3.errors import Call, ErrorAnswer, error_of

NOW = datetime(2026, 11, 28, tzinfo=UTC)
CALL = Call("b2", "ours", "https://s3.example", "put_object", "put object 'a'", "a")
KEYS = "Check B2_ACCESS_KEY_ID and B2_SECRET_ACCESS_KEY"


def error(status: int, code: str, message: str) -> StoreError:
    return error_of(CALL, ErrorAnswer(status, code, message, NOW), now=NOW)


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        (
            "Cannot upload files, storage cap exceeded. See the Caps & Alerts page to increase your cap.",
            "A cap of the account is reached",
        ),
        ("Transaction cap exceeded. See the Caps & Alerts page.", "A cap of the account is reached"),
        ("Cannot download file, download bandwidth or transaction (Class B) cap exceeded.", "A cap of the account"),
        ("The storage quota of the project is used up", "A cap of the account"),
        ("Your account is suspended", "The provider refuses the account"),
        ("account_trouble: billing information is missing", "The provider refuses the account"),
        ("Payment required: invoice past due", "The provider refuses the account"),
        ("Please enable R2 through the Cloudflare Dashboard", "The provider refuses the account"),
        ("Request from IP 192.0.2.1 is not allowed by the token", "The provider refuses this host's address"),
        ("explicit deny by aws:SourceIp", "The provider refuses this host's address"),
        ("The security token included in the request is expired", "The key has expired"),
        ("Access Denied", KEYS),
        ("not authorized to perform this operation", KEYS),
        ("", KEYS),
    ],
)
def test_a_refusal_for_another_reason_is_not_called_a_wrong_key(message: str, hint: str) -> None:
    """The provider's text stays in the message, and the hint is about it."""
    found = error(403, "AccessDenied", message)
    assert isinstance(found, StoreAccessError)
    assert (found.hint or "").startswith(hint)
    assert message in found.message


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(402, "PaymentRequired", StoreError), (507, "QuotaExceeded", StoreUnavailableError)],
)
def test_a_cap_under_another_status_is_told_too(status: int, code: str, kind: type[StoreError]) -> None:
    """Providers differ in the status that they choose."""
    found = error(status, code, "storage cap exceeded")
    assert isinstance(found, kind)
    assert (found.hint or "").startswith("A cap of the account is reached")


def test_a_busy_store_is_still_a_busy_store() -> None:
    """SlowDown says 'reduce your request rate', which is no cap of the account."""
    found = error(503, "SlowDown", "Please reduce your request rate.")
    assert (found.hint or "").startswith("The store is busy or failing")
