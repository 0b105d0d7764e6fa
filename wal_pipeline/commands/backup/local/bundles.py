"""Plans which files of a data directory are stored together: large ones alone, small ones of a database in bundles."""

from collections.abc import Container, Iterable, Sequence

from wal_pipeline.postgres.data_files import DataFile

Bundle = tuple[DataFile, ...]


def plan_bundles(
    files: Iterable[DataFile], volume_size_bytes: int, maybe_unchanged: Container[str] = ()
) -> list[Bundle]:
    """Return the files in bundles of up to ``volume_size_bytes``, the largest first; folders are left out.

    A bundle holds relations' files of one database only, so that a restore of some databases fetches little, or files
    that are no relation's, such as each ``pg_filenode.map``: a restore that keeps what is right always fetches these,
    and one in each database's volume would bring all of them. A file that is larger than a volume is a bundle of its
    own. Large ones come first, so that no worker is left alone with one at the end. Those that may turn out
    ``maybe_unchanged`` have bundles of their own.
    """
    by_database: dict[tuple[int | None, bool], list[DataFile]] = {}
    for file in files:
        if not file.is_folder:
            database = file.database if file.relation else None
            by_database.setdefault((database, file.path in maybe_unchanged), []).append(file)
    bundles = [bundle for found in by_database.values() for bundle in _bundles(found, volume_size_bytes)]
    return sorted(bundles, key=lambda bundle: -sum(file.size_bytes for file in bundle))


def _bundles(files: Sequence[DataFile], volume_size_bytes: int) -> Iterable[Bundle]:
    gathered: list[DataFile] = []
    size_bytes = 0
    for file in sorted(files, key=lambda one: -one.size_bytes):
        if gathered and size_bytes + file.size_bytes > volume_size_bytes:
            yield tuple(gathered)
            gathered, size_bytes = [], 0
        gathered.append(file)
        size_bytes += file.size_bytes
    if gathered:
        yield tuple(gathered)
