"""A list is asked of the server and put on every store; a store that fails holds back no other one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.relations.keep import RelationKeeper
from wal_pipeline.commands.relations.read import read_relation_lists
from wal_pipeline.errors import RelationListError
from wal_pipeline.postgres.relation_query import RelationServer
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.archive_scene import WatchedStore, fail, folder_store

pytestmark = pytest.mark.integration
NO_LIST = "no list of relations is kept with this base backup: "
Make = Callable[..., RelationKeeper]


@pytest.fixture
def make(shared_cluster18: PostgresCluster, tmp_path: Path) -> Make:
    """Return what makes keepers for two folders, of which the stores ``down`` refuse everything."""

    def made(
        *down: str, conninfo: str | None = None, system_identifier: int | None = None, archived: bool = True
    ) -> RelationKeeper:
        stores = {name: WatchedStore(folder_store(name, tmp_path / name)) for name in ("r2", "b2")}
        layout = Layout("", "main", int(shared_cluster18.system_identifier))
        for store in stores.values() if archived else ():
            store.inner.put_if_absent(f"{layout.wal_root}a", Body.of(b"some WAL"), {})
        for name in down:
            stores[name].before = fail(name)
        return RelationKeeper(
            RelationServer(conninfo or shared_cluster18.conninfo),
            stores,
            lambda identifier: Layout("", "main", identifier),
            Encoder(Codec.ZSTD),
            system_identifier=system_identifier,
        )

    return made


def test_every_store_gets_the_list(shared_cluster18: PostgresCluster, make: Make) -> None:
    """And it is the one that was counted."""
    keeper = make()
    kept = keeper.keep()
    layout = Layout("", "main", int(shared_cluster18.system_identifier))
    for name, store in keeper.stores.items():
        [found], notes = read_relation_lists({name: ClusterStore(store, layout)})
        assert (len(found.relations), len(found.databases), notes) == (kept.relations, kept.databases, [])
    assert (kept.stored_on, kept.failures, kept.notes) == (("r2", "b2"), {}, ())
    assert kept.describe() == f"{kept.relations} relations of {kept.databases} databases kept on r2, b2"


def test_a_store_that_is_down_is_named(make: Make) -> None:
    """The other one has the list."""
    kept = make("r2").keep()
    assert kept.stored_on == ("b2",)
    assert [note.partition(":")[0] for note in kept.notes] == ["r2"]


def _only_puts(refuse: Callable[[str, str], None]) -> Callable[[str, str], None]:
    def before(call: str, key: str) -> None:
        if call == "put":
            refuse(call, key)

    return before


def test_where_no_store_takes_it_nothing_is_claimed(make: Make) -> None:
    """The error has every store's reason."""
    keeper = make()
    for store in keeper.stores.values():
        assert isinstance(store, WatchedStore)
        store.before = _only_puts(fail(store.name))
    with pytest.raises(RelationListError, match=r"no store took the list of relations: r2: .*; b2: "):
        keeper.keep()


def test_a_list_is_never_the_first_thing_of_a_cluster_on_a_store(make: Make) -> None:
    """A restore would have to be told which of two clusters is meant, after the settings named a wrong server."""
    keeper = make(archived=False)
    with pytest.raises(RelationListError, match=r"no store that answered has anything below 'main/\d+/' yet"):
        keeper.keep()
    assert all(not list(store.list("")) for store in keeper.stores.values())


def test_another_clusters_server_is_refused(make: Make) -> None:
    """Where the settings say which cluster it is."""
    keeper = make(system_identifier=77)
    with pytest.raises(RelationListError, match=r"the server has system identifier \d+, expected 77"):
        keeper.keep()
    assert all(not list(store.list("main/77/")) for store in keeper.stores.values())


def test_a_base_backup_goes_on_without_a_list(make: Make, tmp_path: Path) -> None:
    """A server that does not answer, and stores that do not, are notes."""
    attempt = make(conninfo=f"host={tmp_path} port=1").try_keep()
    assert not attempt.is_kept
    assert attempt.notes[0].startswith(f"{NO_LIST}cannot connect to PostgreSQL: ")
    attempt = make("r2", "b2").try_keep()
    assert not attempt.is_kept
    assert attempt.notes[0].startswith(f"{NO_LIST}r2: ")
    attempt = make("b2").try_keep()
    assert attempt.is_kept
    assert attempt.notes[0].startswith("b2: the list of relations is not kept: b2: ")
