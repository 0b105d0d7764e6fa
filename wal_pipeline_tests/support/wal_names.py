"""Draws names of WAL archive files with Hypothesis."""

from hypothesis import strategies as st

from wal_pipeline.wal.names import require_file_name

hex8 = st.integers(min_value=0, max_value=2**32 - 1).map("{:08X}".format)
timelines = st.integers(min_value=1, max_value=2**32 - 1).map("{:08X}".format)
segments = st.tuples(timelines, hex8, hex8).map("".join)
names = st.one_of(
    segments,
    segments.map("{}.partial".format),
    st.tuples(segments, hex8).map(lambda parts: f"{parts[0]}.{parts[1]}.backup"),
    timelines.map("{}.history".format),
).map(require_file_name)
parts = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
