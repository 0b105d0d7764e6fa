"""Tests the order of the files of tests."""

from wal_pipeline_tests.support.file_order import LONGEST, TESTS, place


def test_each_file_is_there() -> None:
    """A file that was renamed would lose its place unseen."""
    assert [path for path in LONGEST if not path.is_file()] == []
    assert len(set(LONGEST)) == len(LONGEST)


def test_the_quick_ones_come_last() -> None:
    """Servers are started while others still wait for theirs."""
    quick, real = TESTS / "test_text.py", TESTS / "integration" / "test_kill.py"
    files = [(quick, False), (real, True), (LONGEST[1], True), (LONGEST[0], True)]
    ordered = sorted(files, key=lambda one: place(one[0], has_servers=one[1]))
    assert [path for path, _ in ordered] == [LONGEST[0], LONGEST[1], real, quick]
