"""Says a prediction in people's words: how long, at which rates, and how these are known."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from wal_pipeline.archive.restore_time.forecast import PhaseForecast, RateSource, RestoreForecast
from wal_pipeline.archive.restore_time.measure import MeasuredBy, MeasuredRestore
from wal_pipeline.text import counted, length, moment_json, size

NOT_KNOWN: Final = "not known"
_NO_MEASURE: Final = "no restore and no drill was measured yet: 'wal-pipeline drill' measures them"


def forecast_text(forecast: RestoreForecast) -> str:
    """Return the prediction in a few words: ``4 min``, ``at least 4 min (a guess)``, ``not known``."""
    seconds = forecast.seconds
    if seconds is None:
        return NOT_KNOWN
    least = "at least " if forecast.unmeasured else ""
    return f"{least}{length(seconds)}{' (a guess)' if forecast.is_guess else ''}"


def forecast_sentence(forecast: RestoreForecast, now: datetime) -> str:
    """Return the prediction, and how it is known, as one sentence without a full stop.

    ``about 52 s: download 21 s (100.0 MiB/s from r2), ...; by 2 drills on this host, the newest 3 days ago``
    """
    seconds = forecast.seconds
    if seconds is None:
        return f"{NOT_KNOWN}: {forecast.unread or _NO_MEASURE}"
    least = "at least" if forecast.unmeasured else "about"
    parts = ", ".join(_phase_text(one) for one in forecast.phases if one.seconds is not None)
    lacks = [one.value for one in forecast.unmeasured]
    lacking = [f"{', '.join(lacks)} {'was' if len(lacks) == 1 else 'were'} never measured"] if lacks else []
    return "; ".join([f"{least} {length(seconds)}: {parts}", *lacking, *_known_by(forecast, now), *_far(forecast)])


def comparison_text(predicted_seconds: float, took_seconds: float) -> str:
    """Compare a prediction with what came: ``predicted 50 s, took 55 s (+10 %)``."""
    share = f" ({100 * (took_seconds - predicted_seconds) / predicted_seconds:+.0f} %)" if predicted_seconds else ""
    return f"predicted {length(predicted_seconds)}, took {length(took_seconds)}{share}"


def forecast_values(forecast: RestoreForecast) -> dict[str, Any]:
    """Return a prediction for JSON: seconds, bytes, bytes a second; None is not known."""
    seconds = forecast.seconds
    return {
        "seconds": None if seconds is None else round(seconds, 3),
        "is_guess": forecast.is_guess,
        "is_at_least": seconds is not None and bool(forecast.unmeasured),
        "not_known": (forecast.unread or _NO_MEASURE) if seconds is None else None,
        "stores": list(forecast.work.stores),
        "fetched_bytes": forecast.work.fetched_bytes,
        "wal_bytes": forecast.work.wal_bytes,
        "measured": len(forecast.measured),
        "newest_measured_at": moment_json(forecast.newest_at),
        "phases": {one.phase.value: _phase_values(one) for one in forecast.phases},
    }


def _phase_values(one: PhaseForecast) -> dict[str, Any]:
    return {
        "seconds": None if one.seconds is None else round(one.seconds, 3),
        "bytes": one.amount_bytes,
        "bytes_per_second": None if one.rate is None else round(one.rate),
        "stores": list(one.stores) if one.phase.is_of_store else [],
        "hosts": sorted({measured.host for measured in one.measured}),
        "source": None if one.source is None else one.source.name.lower(),
    }


def _phase_text(one: PhaseForecast) -> str:
    """Return ``download 21 s (100.0 MiB/s from r2)``."""
    said = f"{one.phase.value} {length(one.seconds)}"
    if one.rate is None:
        return said
    origin = f" from {' and '.join(one.stores)}" if one.phase.is_of_store else ""
    return f"{said} ({size(one.rate)}/s{origin})"


def _known_by(forecast: RestoreForecast, now: datetime) -> list[str]:
    """Say what was measured and where, and what is a guess because of that."""
    here = [one for one in forecast.measured if one.host == forecast.host]
    others = [one for one in forecast.measured if one.host != forecast.host]
    said = [f"by {_counts(here)} on this host, the newest {length(now - here[0].finished_at)} ago"] if here else []
    if others:
        hosts = ", ".join(sorted({f"'{one.host}'" for one in others}))
        age = length(now - others[0].finished_at)
        lack = "nothing was measured on this host" if not here else "not all was measured on this host"
        said.append(f"a guess, as {lack}: by {_counts(others)} on {hosts}, the newest {age} ago")
    elsewhere = [one for one in forecast.phases if one.source is RateSource.OTHER_STORE]
    if elsewhere:
        stores = " and ".join(forecast.work.stores)
        phases = " and ".join(one.phase.value for one in elsewhere)
        said.append(f"a guess, as no {phases} from {stores} was measured")
    return said


def _counts(measured: Sequence[MeasuredRestore]) -> str:
    counts = ((by, sum(one.by is by for one in measured)) for by in (MeasuredBy.DRILL, MeasuredBy.RESTORE))
    return " and ".join(counted(count, by.value) for by, count in counts if count)


def _far(forecast: RestoreForecast) -> list[str]:
    """Name the phases for which far more bytes are predicted than were ever measured."""
    return [
        f"{one.phase.value} was measured for {size(max(m.work.amount(one.phase) or 0 for m in one.measured))} at most, "
        f"and is {size(one.amount_bytes or 0)} here"
        for one in forecast.phases
        if one.is_far
    ]
