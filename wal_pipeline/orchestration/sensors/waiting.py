"""Says whether a spool sensor may wait inside its tick: each that waits holds one of the daemon's threads."""

import os
from dataclasses import dataclass
from typing import Final

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorState, SensorInstigatorData

SPOOL_SENSOR: Final = "spool_sensor"
_ALIVE_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Threads:
    """How many spool sensors tick in this instance, and how many threads evaluate all sensors.

    One thread must be left: it evaluates the sensors that do not wait. A cluster alone may always wait.
    """

    waiting: int
    threads: int

    @property
    def suffice(self) -> bool:
        """Whether every spool sensor may wait in its tick."""
        return self.waiting <= 1 or self.waiting < self.threads

    def describe(self) -> str:
        """Return what a person does about too few, as a part of a tick's text."""
        return (
            f"did not wait for files: {self.waiting} spool sensors share {self.threads} threads; set 'sensors: "
            f"use_threads: true, num_workers: {self.waiting + 1}' or more in dagster.yaml"
        )


def count_threads(instance: dg.DagsterInstance, now: float) -> Threads:
    """Count the spool sensors that ticked in the last minutes. ``now`` is in seconds since 1970."""
    states = instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    waiting = sum(one.instigator_name == SPOOL_SENSOR and _ticks(one, now) for one in states)
    settings = instance.get_settings("sensors") or {}
    # Without a number Dagster leaves it to Python, which takes so many.
    usual = min(32, (os.cpu_count() or 1) + 4)
    return Threads(waiting, int(settings.get("num_workers") or usual) if settings.get("use_threads") else 1)


def _ticks(state: InstigatorState, now: float) -> bool:
    data = state.instigator_data
    if not state.is_running or not isinstance(data, SensorInstigatorData):
        return False
    return now - (data.last_tick_start_timestamp or data.last_tick_timestamp or 0.0) < _ALIVE_SECONDS
