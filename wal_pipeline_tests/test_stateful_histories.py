"""Tests that servers which archive side by side never make one history, and that a failover is never held back."""

import shutil

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wal_pipeline.errors import WalPipelineError
from wal_pipeline_tests.support.archive_scene import fail
from wal_pipeline_tests.support.stateful_histories import STORES, Server, Servers
from wal_pipeline_tests.support.stateful_world import fast_folder

_MOST_SERVERS = 4
numbers = st.integers(0, 1000)


class Histories(RuleBasedStateMachine):
    """Draws copies that archive, promotions onto one timeline, and servers that were set back."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = fast_folder()
        self.world = Servers(self.folder)

    def teardown(self) -> None:
        """An ordinary story ends with empty spools; any other one with nothing lost and nothing joined."""
        try:
            for server in self.world.servers * 2:
                server.archive_finished()
                server.scene.settle()
                server.scene.run()
            self.world.check()
            left = [name for server in self.world.servers for name in server.scene.spooled()]
            assert not left or not self.world.is_ordinary, f"{left} are held back after an ordinary failover"
        finally:
            self.world.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def pick(self, number: int) -> Server:
        """Return one of the servers."""
        return self.world.servers[number % len(self.world.servers)]

    @invariant()
    def nothing_is_lost_and_nothing_joined(self) -> None:
        """Each file is on both stores or on its host, and what follows a file on a store followed it in a server."""
        self.world.check()

    @rule(number=numbers, segments=st.integers(1, 2))
    def write(self, number: int, segments: int) -> None:
        """A server finishes segments and archives them."""
        self.pick(number).write(segments)

    @precondition(lambda self: len(self.world.servers) < _MOST_SERVERS)
    @rule(number=numbers, shared=st.booleans())
    def fork(self, number: int, shared: bool) -> None:
        """A standby, a clone, a snapshot that is put back, or a restored copy with its original's settings."""
        self.world.fork(self.pick(number), shared=shared)

    @rule(number=numbers)
    def promote(self, number: int) -> None:
        """A server opens on the next timeline that it knows of."""
        server = self.pick(number)
        if server.archived or server is not self.world.servers[0]:
            server.promote(server.writer.timeline + 1)

    @rule(number=numbers, events=st.none() | st.integers(1, 9), down=st.none() | st.sampled_from(STORES))
    def archive(self, number: int, events: int | None, down: str | None) -> None:
        """Run a host's archiver, with a store down or until it dies."""
        scene = self.pick(number).scene
        scene.settle()
        if down is not None:
            scene.stores[down].before = fail(down)
        try:
            running = scene.archiver().drain()
            for count, _ in enumerate(running, 1):
                if count == events:
                    running.close()  # type: ignore[attr-defined]
                    break
        except WalPipelineError:
            pass
        finally:
            if down is not None:
                scene.stores[down].before = lambda _call, _key: None

    @rule(number=numbers)
    def lose_catalog(self, number: int) -> None:
        """A host's catalog is deleted."""
        self.pick(number).scene.lose_catalog()


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=12 if settings.default.derandomize else 120,  # the latter: make fuzz
    stateful_step_count=16,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
