"""Checks the settings of schedules and runs, says when each schedule runs, and finds names that nothing reads."""

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from hashlib import sha256
from typing import Final

from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.levels import LEVELS
from wal_pipeline.errors import SettingsError
from wal_pipeline.host.libpq_variables import CONNECTION_VARIABLES
from wal_pipeline.settings import ENV_FILE_VARIABLE, Settings, variable_names

OFF: Final = "off"
CRON_HINT: Final = "The fields are minute, hour, day of the month, month and day of the week, in UTC."
_CRONS: Final = tuple(name for name in Settings.model_fields if name.endswith("_cron"))
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final = ((0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, _MONTHS), (0, 7, _DAYS))
_PART: Final = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[0-9]+))?")
# Only for days, after the field's highest number: the last day, any, the last Friday, the second Friday.
_SPECIAL: Final = re.compile(r"31 (?:l|\?)|7 (?:\?|l[0-7]|(?:[0-7]|sun|mon|tue|wed|thu|fri|sat)#[1-5])")
_NEAR: Final = 0.85
_SPREAD_MINUTES: Final = 60
_INSTEAD: Final = (
    (re.compile("(?:HTTP|ALL|FTP|SOCKS)_PROXY"), "set HTTPS_PROXY, and NO_PROXY for what is reached without it"),
    (
        re.compile("AWS_CA_BUNDLE|SSL_CERT_(?:FILE|DIR)|(?:REQUESTS|CURL)_CA_BUNDLE"),
        "set WAL_PIPELINE_CA_BUNDLE, which adds to the usual authorities",
    ),
    (re.compile("AWS_[A-Z0-9_]+"), "each store has its own settings, which begin with R2_ and B2_"),
    (
        re.compile("PG(?:CLIENTENCODING|DATESTYLE|TZ|GEQO)"),
        "the sessions set the form of their values themselves",
    ),
    (re.compile("PG[A-Z]+"), "it is none of libpq's variables for a connection; look for a spelling mistake"),
    (re.compile("[RB]2_[A-Z0-9_]+"), "no setting has this name; look for a spelling mistake"),
)
_NAMED: Final = frozenset({"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"})


def unused_names(names: Iterable[str]) -> list[str]:
    """Return a sentence for each name of a settings file that nothing reads, and that somebody may expect to count.

    The file may also serve other programs, such as docker compose: names that look like none of ours are left alone.
    """
    settings = {alias for aliases in variable_names().values() for alias in aliases}
    known = settings | {ENV_FILE_VARIABLE} | CONNECTION_VARIABLES
    unused = sorted(name for name in names if name.upper() not in known)
    return [f"'{name}' in the settings file is not used: {why}" for name in unused if (why := _why_unused(name, known))]


def _why_unused(name: str, known: Collection[str]) -> str | None:
    for pattern, instead in _INSTEAD:
        if pattern.fullmatch(name.upper()):
            return instead
    near = get_close_matches(name.upper(), known, n=1, cutoff=_NEAR)
    return f"is '{near[0]}' meant?" if near else None


def check_settings(settings: Settings) -> None:
    """Check the setting of each schedule and each codec level. Raises: SettingsError."""
    for name in _CRONS:
        cron, variable = str(getattr(settings, name)).strip(), variable_names()[name][0]
        if cron.lower() != OFF and not is_cron(cron):
            raise cron_error(variable, cron)
    _check_level("WAL_PIPELINE_CODEC", settings.codec, settings.codec_level)
    _check_level("WAL_PIPELINE_BASE_BACKUP_CODEC", settings.base_backup_codec, settings.base_backup_codec_level)


def _check_level(variable: str, codec: Codec, level: int | None) -> None:
    lowest, highest = LEVELS[codec]
    if level is not None and not lowest <= level <= highest:
        raise SettingsError(
            f"{variable}_LEVEL is {level}, expected {lowest} to {highest} for codec '{codec}'",
            hint=f"Without it the codec's usual level is taken; {variable} chooses the codec.",
        )


def minutes_of(cluster: str) -> int:
    """Return by how many minutes, 0 to 59, a cluster's schedules run later: always the same for one name.

    Many clusters share a daemon, and often a line to the stores: their base backups shall not begin in one minute. All
    of a cluster's schedules move by the same minutes, so that expiry still follows verification.
    """
    return int.from_bytes(sha256(cluster.encode()).digest()[:8], "big") % _SPREAD_MINUTES


def cron_of(settings: Settings, field: str) -> str:
    """Return the cron expression of a schedule, by the field of the settings that holds it. One that is set counts."""
    cron = str(getattr(settings, field)).strip()
    return cron if field in settings.model_fields_set else _later(cron, minutes_of(settings.cluster))


def describe_crons(settings: Settings) -> str:
    """Return one line with the cron expression of each schedule that counts."""
    names = [name for name in Settings.model_fields if name.endswith("_cron")]
    texts = [f"{name.removesuffix('_cron').replace('_', ' ')} '{cron_of(settings, name)}'" for name in names]
    return f"cron in UTC: {', '.join(texts)}"


def _later(cron: str, minutes: int) -> str:
    """Move a default, whose minute and hour are numbers and whose hour is early in the day."""
    minute, hour, days = cron.split(" ", 2)
    hours, minute_of_hour = divmod(60 * int(hour) + int(minute) + minutes, 60)
    return f"{minute_of_hour} {hours} {days}"


def cron_error(variable: str, cron: str) -> SettingsError:
    """Return the error for a setting that is no cron expression."""
    message = f"{variable} is '{cron}', expected five fields in cron's form, such as '15 2 * * *', or '{OFF}'"
    return SettingsError(message, hint=CRON_HINT)


def is_cron(text: str) -> bool:
    """Return whether Dagster takes a text for a cron expression, without the seconds that Dagster takes to start."""
    if text.lower() in _NAMED:
        return True
    fields = text.split()
    return len(fields) == len(_FIELDS) and all(
        all(_is_part(part.lower(), *bounds) for part in field.split(","))
        for field, bounds in zip(fields, _FIELDS, strict=True)
    )


def _is_part(part: str, lowest: int, highest: int, names: tuple[str, ...]) -> bool:
    if _SPECIAL.fullmatch(f"{highest} {part}"):
        return True
    match = _PART.fullmatch(part)
    if match is None or (match["step"] is not None and int(match["step"]) == 0):
        return False
    given = [word for word in (match["first"], match["last"]) if word is not None]
    return all(word in names or (word.isdecimal() and lowest <= int(word) <= highest) for word in given)
