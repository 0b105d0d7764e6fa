"""Reading many records does not start Python's cycle collector."""

import gc

from wal_pipeline.host.gc_pause import many_objects


def test_many_objects_count_as_old_afterwards() -> None:
    """The next small collection walks none of them, and a full one finds the cycles among them."""
    gc.collect()
    with many_objects():
        assert not gc.isenabled()
        made = [[number] for number in range(100_000)]
    assert gc.isenabled()
    assert gc.get_count()[0] < len(made)
    made.append(made)  # a cycle
    del made
    assert gc.collect() >= 1
    assert gc.get_freeze_count() == 0
