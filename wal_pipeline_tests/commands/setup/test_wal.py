"""What setup says of WAL that is not as usual: its version, its form, the memory that a segment needs."""

from dataclasses import replace
from pathlib import Path

import pytest

from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.commands.setup.wal import WalLook, judge_wal, look_at_wal
from wal_pipeline.host.limits import Memory
from wal_pipeline.postgres.server_facts import ServerFacts
from wal_pipeline_tests.support.segments import segment_bytes
from wal_pipeline_tests.support.server_facts import GOOD

GIB = 2**30
AMPLE = Memory(64 * GIB, 64 * GIB)


def judge(
    facts: ServerFacts, look: WalLook, codec: Codec = Codec.GZIP, *, unreadable: bool = False
) -> tuple[Finding, ...]:
    return judge_wal(facts, look, Encoder(codec), unreadable=unreadable)


def test_usual_wal_is_not_spoken_of() -> None:
    """No line more on the screen of nearly everybody."""
    assert judge(GOOD, WalLook(segment_bytes(1)[:40])) == ()
    assert judge(GOOD, WalLook(bytes(40))) == ()
    assert judge(GOOD, WalLook(None)) == ()


def test_encrypted_wal_does_not_show_only_when_it_is_in_quarantine() -> None:
    """Setup says at once that such a server needs the setting."""
    [finding] = judge(GOOD, WalLook(b"\x4a\x41" + bytes(range(38))))
    assert (finding.name, finding.status) == ("WAL: form", Level.PROBLEM)
    assert "every segment goes to quarantine" in finding.message
    assert finding.lines[0].startswith("set WAL_PIPELINE_UNREADABLE_WAL=archive")
    [finding] = judge(GOOD, WalLook(b"\x4a\x41" + bytes(range(38))), unreadable=True)
    assert (finding.status, finding.changes) == (Level.WARNING, ())
    assert finding.message == "the WAL is encrypted, or not PostgreSQL's own: it is archived unread"


@pytest.mark.parametrize(
    ("waldump", "end"),
    [
        (Path("/opt/19/bin/pg_waldump"), "read with '/opt/19/bin/pg_waldump'"),
        (None, "not known: pg_waldump 19 is not found"),
    ],
)
def test_a_newer_server_is_named(waldump: Path | None, end: str) -> None:
    """One clear note, and whether the moments of commits can be read."""
    facts = replace(GOOD, server_version_num=190000, server_version="19.0")
    [finding] = judge(facts, WalLook(None, waldump=waldump))
    assert finding.status is Level.WARNING
    assert finding.message == (
        "PostgreSQL 19 is newer than this program knows (up to 18): its WAL is archived and restored, and the moments "
        f"of its commits are {end}"
    )
    assert bool(finding.lines) is (waldump is None)


@pytest.mark.parametrize(
    ("codec", "memory", "level", "end"),
    [
        (Codec.GZIP, AMPLE, Level.OK, "3,200 MiB {} gzip, 65,536 MiB are free"),
        (Codec.ZSTD, Memory(3 * GIB, 2 * GIB), Level.WARNING, "2,176 MiB {} zstd, found 2,048 MiB free"),
        (Codec.ZSTD, Memory(GIB, GIB), Level.PROBLEM, "2,176 MiB {} zstd, found 1,024 MiB"),
        (Codec.NONE, Memory(2 * GIB, 2 * GIB), Level.OK, "1,152 MiB {} none, 2,048 MiB are free"),
    ],
)
def test_what_a_large_segment_needs_is_told(codec: Codec, memory: Memory, level: Level, end: str) -> None:
    """Before the first one gets the archiving run killed."""
    facts = replace(GOOD, wal_segment_size=GIB)
    [finding] = judge(facts, WalLook(segment_bytes(1)[:40], memory), codec)
    assert (finding.name, finding.status) == ("memory", level)
    assert finding.message.startswith("each segment of 1,024 MiB needs about ")
    assert finding.message.endswith(end.format("of memory to be archived with"))


class Unreachable:
    """A server whose WAL may not be read."""

    def first_wal_bytes(self) -> bytes | None:
        return None


def test_a_look_without_rights_claims_nothing() -> None:
    """Nothing is known, and nothing is said."""
    look = look_at_wal(Unreachable(), GOOD)  # type: ignore[arg-type]
    assert look == WalLook()
    assert judge(GOOD, look) == ()
