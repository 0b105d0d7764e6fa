"""Defines the faults that a fault proxy can inject, and the rules that choose requests for them."""

import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer with an S3 error at once; the store never sees the request. Status 200 has an error in its body."""

    status: int
    code: str = "InternalError"
    message: str = "We encountered an internal error. Please try again."
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerAfter:
    """Let the store do the request, then answer with an S3 error."""

    status: int
    code: str = "InternalError"
    message: str = "We encountered an internal error. Please try again."


@dataclass(frozen=True, slots=True)
class ResetBefore:
    """Reset the connection before the request's body is read; the store never sees the request."""


@dataclass(frozen=True, slots=True)
class ResetInBody:
    """Send the store a part of the request's body, then reset both connections."""

    after_bytes: int = 1


@dataclass(frozen=True, slots=True)
class ResetAfter:
    """Let the store do the request, then reset the connection instead of answering."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait before the store gets the request. The wait ends early when the proxy stops."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Swallow:
    """Answer 200 with the right ETag and store nothing."""


@dataclass(frozen=True, slots=True)
class StoreHalf:
    """Answer 200 with the right ETag and store the first half of the body, with the metadata that was sent."""


@dataclass(frozen=True, slots=True)
class StoreFlipped:
    """Answer 200 with the right ETag and store the body with one bit changed in its middle."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """Announce the whole answer, send a share of its body, then close."""

    share: float = 0.5


@dataclass(frozen=True, slots=True)
class Flip:
    """Send the answer's body with one bit changed in its middle."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Accept the request and never answer. The connection is reset when the proxy is up again or stops."""


@dataclass(frozen=True, slots=True)
class DeliverLate:
    """Take a put, reset the connection, and let the store have the put so many seconds later, or with the outage's end.

    A client that tries again in between is overtaken by its own first try: the put arrives twice and out of order.
    """

    seconds: float


Fault = (
    Answer
    | AnswerAfter
    | ResetBefore
    | ResetInBody
    | ResetAfter
    | Delay
    | Swallow
    | StoreHalf
    | StoreFlipped
    | Truncate
    | Flip
    | Hang
    | DeliverLate
)

SLOW_DOWN = Answer(503, "SlowDown", "no tomes available")
TOO_MANY_REQUESTS = Answer(429, "TooManyRequests", "Reduce your concurrent request rate for the same object.")
INTERNAL_ERROR = Answer(500)
ERROR_IN_200 = Answer(200)


@dataclass(slots=True)
class Rule:
    """Inject ``fault`` into matching requests: the ``nth`` (from 1) and those after it, ``times`` in all.

    ``key`` must occur in the path with its query, percent-decoded, as in ``/bucket/key?uploads``.
    ``times`` ``None`` means always. ``hit_at`` has the moment of each fault that was injected, on the clock of
    ``time.monotonic``.
    """

    fault: Fault
    method: str | None = None
    key: str = ""
    nth: int = 1
    times: int | None = 1
    seen: int = field(default=0, init=False)
    hit_at: list[float] = field(default_factory=list, init=False)

    @property
    def hits(self) -> int:
        """The number of faults that were injected."""
        return len(self.hit_at)

    def takes(self, method: str, target: str) -> bool:
        """Whether the fault is due for this request; counts it."""
        if (self.method is not None and method != self.method) or self.key not in target:
            return False
        self.seen += 1
        due = self.seen >= self.nth and (self.times is None or self.hits < self.times)
        if due:
            self.hit_at.append(time.monotonic())
        return due


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request as the client sent it; ``target`` is the percent-decoded path with its query."""

    method: str
    target: str
    headers: dict[str, str]
    fault: Fault | None

    @property
    def is_expecting(self) -> bool:
        """Whether the client waits for 100 Continue."""
        return self.headers.get("expect", "").lower() == "100-continue"
