"""Turns an S3 server's error answer into one of our errors; it needs no client."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from wal_pipeline.errors import (
    BucketMissingError,
    DamagedCopyError,
    ObjectLockedError,
    ObjectMissingError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
)

# S3 refuses requests that were signed more than 15 minutes off its clock; from 5 minutes an error names the clock.
CLOCK_SKEW_SECONDS: Final = 300
_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchVersion"})
_DAMAGED: Final = frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"})
_UNAVAILABLE: Final = frozenset(
    {
        "SlowDown",
        "RequestTimeout",
        "IncompleteBody",
        "InternalError",
        "ServiceUnavailable",
        "ConditionalRequestConflict",
    }
)
_PAYING: Final = frozenset({429, 507})  # statuses that busy servers and caps share
_SKEWED: Final = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_ACCESS: Final = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Unauthorized", "AuthorizationHeaderMalformed"}
)
_LOCKED: Final = re.compile(r"\block|retention|legal hold|\bworm\b", re.IGNORECASE)


# What a provider may mean by a refusal that has nothing to do with the key, in the order in which it is looked for.
_ACCOUNT: Final = (
    (
        re.compile(r"\bcaps?\b|quota|(?:limit|allowance)\S* (?:was |is |has been )?(?:exceeded|reached)", re.I),
        "A cap of the account is reached: raise it at the provider's page (B2: 'Caps & Alerts'). Where it is the "
        "storage cap, 'wal-pipeline expire' shows what may go.",
    ),
    (
        re.compile(
            r"billing|payment|overdue|past due|suspend|AccountProblem|NotEntitled|not entitled to|NotSignedUp|"
            r"OptInRequired|enable R2|account\S* (?:problem|trouble|is closed|is disabled)",
            re.I,
        ),
        "The provider refuses the account, not the key: look at its billing and at the state of the account.",
    ),
    (
        re.compile(r"\bIP\b|source ?ip|(?:client|source) address|not allowed from|geo\S*block", re.I),
        "The provider refuses this host's address: look at the IP rules of the key and of the bucket, and at the "
        "address from which this host, or its proxy, goes out.",
    ),
    (
        re.compile(r"ExpiredToken|(?:token|key|credential)\S*.{0,30}\bexpired", re.I),
        "The key has expired: make a new one, for {prefix}_ACCESS_KEY_ID and {prefix}_SECRET_ACCESS_KEY.",
    ),
)


class PreconditionFailedError(StoreError):
    """The store answered 412: an object is there already."""


class NotImplementedByStoreError(StoreError):
    """The store answered 501: it does not know the call or one of its headers."""


class UploadMissingError(StoreError):
    """The upload in parts is not known: completed, aborted or expired."""


class PastEndError(StoreError):
    """The store answered 416: the object has no byte at that position."""


class UnprovenAbsenceError(StoreUnavailableError):
    """An answer 404 does not say what is missing: S3's to a HEAD does not, nor does a proxy's or a wrong address's."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as its errors name it: ``action`` follows "cannot", such as ``put object 'a/b'``.

    ``key`` is empty for calls on the bucket.
    """

    store: str
    bucket: str
    endpoint_url: str
    operation: str
    action: str
    key: str = ""

    @property
    def settings_prefix(self) -> str:
        """The prefix of this store's settings."""
        return self.store.upper()


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """A server's error answer. ``code`` is S3's word, or the status where there was no body (HEAD).

    ``message`` holds no secrets. ``dated_at`` is the server's clock.
    """

    status: int
    code: str
    message: str
    dated_at: datetime | None

    def __str__(self) -> str:
        text = str(self.status) if self.code in ("", str(self.status)) else f"{self.status} {self.code}"
        return f"{text}: {self.message}" if self.message else text


def error_of(call: Call, answer: ErrorAnswer, *, now: datetime) -> StoreError:  # noqa: PLR0911 - a table of answers
    """Return the error for the answer to a call. ``now`` is this machine's clock."""
    if answer.code in _ABSENT and call.key:
        return ObjectMissingError(call.store, f"object '{call.key}' does not exist")
    if answer.code == "NoSuchBucket":
        return _bucket_missing(call)
    if answer.code == "NoSuchUpload":
        return UploadMissingError(call.store, f"cannot {call.action}: the upload is not known any more")
    if answer.code in _DAMAGED:
        return _damaged(call, answer)
    if answer.status == 412:
        return PreconditionFailedError(call.store, f"object '{call.key}' exists already")
    if answer.status == 416:
        return PastEndError(call.store, f"cannot {call.action}: the object ends before that byte")
    if answer.status == 501:
        return NotImplementedByStoreError(call.store, f"cannot {call.action}: the store answered {answer}")
    if answer.code in _UNAVAILABLE or answer.status in (408, 429) or answer.status >= 500 or answer.status < 400:
        return _unavailable(call, answer)
    if answer.code in _SKEWED or answer.code in _ACCESS or answer.status in (401, 403):
        return _refused(call, answer, now)
    if answer.status == 404:
        return _not_s3(call, answer)
    return StoreError(call.store, f"cannot {call.action}: the store answered {answer}", hint=account_hint(call, answer))


def account_hint(call: Call, answer: ErrorAnswer) -> str | None:
    """Return what to do where the provider says that the account or the address is refused; None where it does not."""
    said = f"{answer.code} {answer.message}"
    found = (hint for pattern, hint in _ACCOUNT if pattern.search(said))
    hint = next(found, None)
    return None if hint is None else hint.format(prefix=call.settings_prefix)


def locked_error(store: str, key: str, reason: str) -> ObjectLockedError:
    """Return the error for a deletion that the bucket's rules forbid."""
    return ObjectLockedError(
        store,
        f"object '{key}' is locked and may not be deleted ({reason})",
        hint="The bucket's retention rules hold it; it can be deleted when they end.",
    )


def _bucket_missing(call: Call) -> StoreError:
    return BucketMissingError(
        call.store,
        f"bucket '{call.bucket}' does not exist at '{call.endpoint_url}'",
        hint=f"Create it, or correct {call.settings_prefix}_BUCKET_NAME and {call.settings_prefix}_ENDPOINT_URL.",
    )


def _damaged(call: Call, answer: ErrorAnswer) -> StoreError:
    return DamagedCopyError(
        call.store,
        f"cannot {call.action}: the bytes that arrived do not have the digest that was sent ({answer})",
        hint="The bytes changed between hashing and the store: if it happens again, test this machine's memory.",
    )


def _unavailable(call: Call, answer: ErrorAnswer) -> StoreError:
    return StoreUnavailableError(
        call.store,
        f"cannot {call.action}: the store answered {answer}",
        hint=(account_hint(call, answer) if answer.status in _PAYING else None)
        or "The store is busy or failing; the call is tried again later. If it lasts, see the provider's status.",
    )


def _not_s3(call: Call, answer: ErrorAnswer) -> StoreError:
    return UnprovenAbsenceError(
        call.store,
        f"cannot {call.action}: '{call.endpoint_url}' answered {answer}, which does not say what is missing",
        hint=f"Check that {call.settings_prefix}_ENDPOINT_URL is the address of an S3 server.",
    )


def _refused(call: Call, answer: ErrorAnswer, now: datetime) -> StoreError:
    skew_seconds = abs((now - answer.dated_at).total_seconds()) if answer.dated_at else 0.0
    if answer.code in _SKEWED or skew_seconds > CLOCK_SKEW_SECONDS:
        return StoreAccessError(
            call.store,
            f"cannot {call.action}: this machine's clock differs from the store's by {skew_seconds:.0f} seconds"
            f" ({answer})",
            hint="Set this machine's clock (NTP): a request signed more than 15 minutes off is refused.",
        )
    if call.operation == "delete_object" and _LOCKED.search(answer.message + answer.code):
        return locked_error(call.store, call.key, str(answer))
    prefix = call.settings_prefix
    return StoreAccessError(
        call.store,
        f"cannot {call.action} in bucket '{call.bucket}': access denied ({answer})",
        hint=account_hint(call, answer)
        or f"Check {prefix}_ACCESS_KEY_ID and {prefix}_SECRET_ACCESS_KEY, and that the key may list, read, write and "
        f"delete in {prefix}_BUCKET_NAME. Where it is right, the provider's page shows caps, billing and IP rules.",
    )
