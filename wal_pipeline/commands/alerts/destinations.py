"""Sends notifications to any service that Apprise knows, by URL. A URL holds secrets and is never shown."""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from wal_pipeline.archive.alerts import Notification, Severity
from wal_pipeline.errors import SettingsError

_URL_HINT: Final = (
    "WAL_PIPELINE_NOTIFICATION_URLS holds URLs that Apprise knows, such as slack://…, parted by spaces; "
    "a space in a URL is written as %20."
)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,30}(?=://)", re.IGNORECASE)
_STATUS: Final = re.compile(r"error=([0-9]{3})\b")
# Their messages can hold a URL or a path, which is the secret of a webhook.
_TALKATIVE_LOGGERS: Final = ("apprise", "urllib3.connectionpool", "requests_oauthlib", "paho")


class Destination(ABC):
    """One receiver of notifications. ``name`` may be shown."""

    name: str

    @abstractmethod
    def send(self, notification: Notification) -> str | None:
        """Send one message. Return None where it was taken, else the reason without any secret."""


class AppriseDestination(Destination):
    """A service by its Apprise URL."""

    def __init__(self, name: str, service: Any) -> None:
        """``service``: an Apprise object with one service."""
        self.name = name
        self._service = service

    def send(self, notification: Notification) -> str | None:
        """Send one message through the service."""
        from apprise import NotifyType  # noqa: PLC0415 - Apprise takes half a second to import

        types = {Severity.CRITICAL: NotifyType.FAILURE, Severity.WARNING: NotifyType.WARNING}
        kind = NotifyType.SUCCESS if notification.resolved else types.get(notification.severity, NotifyType.INFO)
        with _quiet() as said:
            try:
                taken = bool(self._service.notify(body=notification.body, title=notification.title, notify_type=kind))
            except Exception as error:  # noqa: BLE001 - a service's fault must never stop what watches the archive
                return f"{self.name}: {type(error).__name__}"
        return None if taken else f"{self.name}: {_reason(said)}"


class UnreadableDestination(Destination):
    """A URL that Apprise cannot read. Each message to it fails, with the URL's number."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reason = f"notification URL {name} cannot be read"

    def send(self, notification: Notification) -> str | None:  # noqa: ARG002 - nothing is sent
        """Return the reason."""
        return self.reason


def apprise_destinations(urls: Sequence[str]) -> list[Destination]:
    """Return the destinations of Apprise URLs, named by position and scheme, such as ``1 (slack)``.

    A URL that cannot be read is one that takes no message: it must not silence the others.
    """
    return [_destination(position, url) for position, url in enumerate(urls, 1)]


def check_destination(destination: Destination) -> str:
    """Say that a destination can be used, and send nothing. Raises: SettingsError, which never shows the URL."""
    if isinstance(destination, UnreadableDestination):
        raise SettingsError(destination.reason, hint=_URL_HINT)
    return "it can be read; 'wal-pipeline alerts test' sends a message"


def _destination(position: int, url: str) -> Destination:
    from apprise import Apprise, AppriseAsset  # noqa: PLC0415 - see above

    scheme = _SCHEME.match(url)
    name = f"{position} ({scheme[0].lower()})" if scheme else str(position)
    service = Apprise(asset=AppriseAsset(async_mode=False, secure_logging=True))
    with _quiet():
        try:
            known = bool(service.add(url)) and len(service) == 1
        except Exception:  # noqa: BLE001 - whatever a service's reader raises: its text may hold the URL
            known = False
    return AppriseDestination(name, service) if known else UnreadableDestination(name)


class _Collector(logging.Handler):
    """Keeps a logger's messages, to find the reason of a failure in them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Keep the messages of Apprise and its libraries out of every log, and yield Apprise's warnings."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE_LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    collector = _Collector()
    loggers[0].addHandler(collector)
    for logger in loggers:
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    try:
        yield collector.lines
    finally:
        loggers[0].removeHandler(collector)
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.propagate = propagate


def _reason(said: Sequence[str]) -> str:
    """Return the reason of a failure in words that hold no secret: a status, or that nothing answered."""
    text = " ".join(said)
    status = _STATUS.search(text)
    if status is not None:
        return f"refused with status {status[1]}"
    return "no connection" if "onnection" in text else "not taken"
