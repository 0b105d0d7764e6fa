"""A process is known as dead only where that is sure."""

import subprocess
import sys

from wal_pipeline.host.process_identity import identity_of, is_dead, living_process, own_identity

_SAY = "from wal_pipeline.host.process_identity import own_identity; print(own_identity())"


def test_a_process_that_runs_is_not_taken_for_dead() -> None:
    """Our own identity is that of a living process."""
    assert own_identity()
    assert not is_dead(own_identity())


def test_a_process_that_ended_is_known_as_dead() -> None:
    """Another process told its identity and ended."""
    said = subprocess.run([sys.executable, "-c", _SAY], capture_output=True, text=True, check=True).stdout.strip()
    assert is_dead(said)


def test_a_number_that_is_used_again_is_another_process() -> None:
    """The same number with another start is not the same process."""
    space, number, started = own_identity().rsplit(" ", 2)
    assert is_dead(f"{space} {number} {int(started) + 1}")


def test_what_another_machine_or_container_says_is_not_judged() -> None:
    """Another boot, another namespace, and what is no identity at all may be alive."""
    _, number, _ = own_identity().rsplit(" ", 2)
    for identity in (f"other-boot pid:[1] {number} 1", "", "no identity"):
        assert not is_dead(identity)


def test_a_process_that_lives_is_found_by_its_identity() -> None:
    """A number that was given to another process since, or one of another machine, is none."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = identity_of(child.pid)
    assert living_process(identity) == child.pid
    place, _, started = identity.rpartition(" ")
    assert living_process(f"{place} {int(started) + 1}") is None
    assert living_process(f"another-machine {child.pid} {started}") is None
    assert living_process("") is None
    child.communicate(b"\n")
    assert living_process(identity) is None
