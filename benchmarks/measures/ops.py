"""Measures archiving as one op against a graph with an op for each step of each file (docs/adr/0003)."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.figures import Figure, alternately, ratio, timed
from wal_pipeline.codec.encoder import Encoded, describe
from wal_pipeline.commands.archive_push.prepare import Prepared, Preparer
from wal_pipeline.commands.copies.put import store_copy
from wal_pipeline.orchestration.jobs.archive import build_archive_job
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.postgres.waldump import CommitReader
from wal_pipeline.spool import SpoolFile
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wiring.pipeline import Pipeline, open_pipeline

KEYS = ("one_op_vs_graph",)
_KEYS = Keys("main")
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def measure(bench: Bench) -> list[Figure]:
    """Return how many times faster one op archives the same backlog, both in process with the same storage."""
    number = bench.size(40, 20)
    bench.say(f"ops: {number} segments as one op and as a graph of ops")
    samples = alternately(
        {"one op": lambda: _run(bench, number, as_graph=False), "graph": lambda: _run(bench, number, as_graph=True)},
        bench.repeats,
        bench.say,
    )
    note = f"{number} segments of 16 MiB, zstd 3, in process, from the run's start to its end"
    return [
        Figure("one_op_vs_graph", "archiving as one op: a graph of ops", ratio(samples, "graph", "one op"),
               note=note, samples=samples),
    ]  # fmt: skip


def _run(bench: Bench, number: int, *, as_graph: bool) -> float:
    wal = bench.wal()
    with bench.buckets() as buckets, bench.scratch("ops") as folder, dg.DagsterInstance.local_temp() as instance:
        env_file = folder / "env"
        environment = ours.settings(bench.stores, buckets, folder, wal)
        env_file.touch(mode=0o600)
        env_file.write_text("".join(f"{name}='{value}'\n" for name, value in environment.items()))
        wal.take(number, folder / "spool")
        job = graph_job(open_pipeline(env_file)) if as_graph else _one_op_job(env_file)
        config = _QUIET if as_graph else {**_QUIET, "ops": {"archive_spool": {"config": {"linger_seconds": 0}}}}
        seconds = timed(lambda: job.execute_in_process(instance=instance, run_config=config))
        if left := [path.name for path in (folder / "spool").iterdir() if path.name[0] != "."]:
            raise ours.BenchError(f"{len(left)} files were not archived")
        return seconds


def _one_op_job(env_file: Path) -> dg.JobDefinition:
    job = build_archive_job(_KEYS)
    resources = {"wal_pipeline": WalPipelineResource(env_file=str(env_file))}
    found = dg.Definitions(jobs=[job], resources=resources).resolve_job_def(job.name)
    assert isinstance(found, dg.JobDefinition)
    return found


def graph_job(pipeline: Pipeline) -> dg.JobDefinition:
    """Return the graph: for each file the ops compress, checksum, store on r2 and b2, release."""
    preparer, identifier = _StepPreparer(pipeline), pipeline.settings.system_identifier or 0
    layout = pipeline.layout(identifier)

    @dg.op(out=dg.DynamicOut(SpoolFile))
    def waiting_files() -> Iterator[dg.DynamicOutput[SpoolFile]]:
        for spooled in pipeline.spool.scan(pipeline.clock()).ready:
            yield dg.DynamicOutput(spooled, mapping_key=spooled.name.name)

    @dg.op
    def compress(spooled: SpoolFile) -> tuple[SpoolFile, bytes]:
        return spooled, pipeline.encoder.compress((pipeline.spool.folder / spooled.name.name).read_bytes())

    @dg.op
    def checksum(compressed: tuple[SpoolFile, bytes]) -> tuple[Prepared, Encoded]:
        spooled, stored = compressed
        prepared = preparer.prepare(spooled, identifier)
        return prepared, describe(stored, pipeline.encoder.codec, encrypted=False)

    def store_on(name: str) -> dg.OpDefinition:
        @dg.op(name=f"store_on_{name}")
        def store(context: dg.OpExecutionContext, ready: tuple[Prepared, Encoded]) -> SpoolFile:
            prepared, encoded = ready
            store_copy(ClusterStore(pipeline.stores[name], layout), prepared.file, encoded, read_back=True)
            context.log_event(dg.AssetMaterialization(_KEYS.wal_segment(name), partition=prepared.file.name))
            return prepared.spooled

        return store

    @dg.op
    def release(on_r2: SpoolFile, on_b2: SpoolFile) -> None:
        assert on_r2 == on_b2
        pipeline.spool.release(on_r2)

    store_r2, store_b2 = store_on("r2"), store_on("b2")

    def one(spooled: SpoolFile) -> None:
        ready = checksum(compress(spooled))
        release(store_r2(ready), store_b2(ready))

    @dg.job(executor_def=dg.in_process_executor, resource_defs={"io_manager": dg.mem_io_manager})
    def archive_as_graph() -> None:
        waiting_files().map(one)

    return archive_as_graph


class _StepPreparer:
    """Describes a file without compressing it, which another op does."""

    def __init__(self, pipeline: Pipeline) -> None:
        commits: CommitReader = pipeline.commits
        self._preparer = Preparer(pipeline.spool, pipeline.encoder, commits)

    def prepare(self, spooled: SpoolFile, identifier: int) -> Prepared:
        """Return the file's description. Raises: InvalidWalFileError."""
        prepared = self._preparer.prepare(spooled, [identifier], identifier, lambda _file: False)
        assert prepared is not None
        return prepared
