"""Tests that a failed run begins with what is wrong and the hint, in one line, and that no op of ours is left out."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from testbed.dagster_instance import clean_environment
from wal_pipeline.definitions import defs
from wal_pipeline.errors import RecoveryTargetError, StoreAccessError, WalPipelineError
from wal_pipeline.orchestration.runs.failures import NOTHING_CHANGED, RunError, with_plain_errors

REFUSED = StoreAccessError("r2", "the key may not list 'wal'", hint="Give it\nread access.")


def failure_of(body: Callable[..., Any]) -> Any:
    """Run an op with this body, and return what Dagster keeps of its failure."""
    op = dg.op(with_plain_errors(body), out=dg.Out(dg.Nothing))

    @dg.job
    def some_job() -> None:
        op()

    with dg.DagsterInstance.ephemeral() as instance:
        done = some_job.execute_in_process(instance=instance, raise_on_error=False)
        [failure] = [event for event in done.all_events if event.is_step_failure]
        return failure.step_failure_data


def raises(error: Exception) -> Callable[[], None]:
    """Return a body that fails at once."""

    def returning() -> None:
        raise error

    return returning


def yields(error: Exception) -> Callable[[], Iterator[dg.AssetMaterialization]]:
    """Return a body that fails after its first event."""

    def yielding() -> Iterator[dg.AssetMaterialization]:
        yield dg.AssetMaterialization("one")
        raise error

    return yielding


@pytest.mark.parametrize("body", [raises, yields])
def test_an_error_that_we_know_is_one_line_without_a_class(body: Callable[[Exception], Any]) -> None:
    """The line is the same as on the command line, and nothing is said to have caused it."""
    data = failure_of(body(REFUSED))
    assert data.error.message == "ERROR: r2: the key may not list 'wal'. HINT: Give it read access.\n"
    assert (data.error.cause, data.error.context) == (None, None)
    assert dict(data.user_failure_data.metadata) == {}


def test_a_failure_of_a_job_is_one_line_too_and_keeps_its_metadata() -> None:
    """Its hint stands in the same line."""
    data = failure_of(raises(dg.Failure("2 problems, first: a\nHINT: b.", {"problems": 2}, allow_retries=False)))
    assert data.error.message == "ERROR: 2 problems, first: a. HINT: b.\n"
    assert data.user_failure_data.metadata["problems"].value == 2


def test_what_nobody_expected_keeps_its_class_and_its_stack() -> None:
    """A report of the defect needs both."""
    data = failure_of(raises(KeyError("size")))
    assert data.error.cause.message == "KeyError: 'size'\n"
    assert "raise error" in "".join(data.error.cause.stack)


def test_what_cannot_be_done_says_that_nothing_was_changed() -> None:
    """Only an error of that kind says so, or a job that knows it."""
    told = [
        NOTHING_CHANGED in RunError.of(error, nothing_changed=known).metadata
        for error, known in ((REFUSED, False), (REFUSED, True), (RecoveryTargetError("too late"), False))
    ]
    assert told == [False, True, True]
    assert NOTHING_CHANGED in RunError.refused("nothing was chosen").metadata


def test_every_op_of_the_code_location_is_wrapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each fails in one line with settings that cannot be used, whatever job or asset it belongs to."""
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    repository = defs().get_repository_def()
    ops = {node.definition.name: node.definition for job in repository.get_all_jobs() for node in job.nodes}
    assert len(ops) > 10
    bare = [name for name, one in ops.items() if not is_wrapped(one)]
    assert bare == []


def is_wrapped(op: Any) -> bool:
    """Whether the function that Dagster calls turns an error of ours into a RunError."""
    code = op.compute_fn.decorated_fn.__code__
    return bool(code.co_filename == with_plain_errors.__code__.co_filename)


def test_every_error_of_ours_has_its_hint_in_the_line() -> None:
    """A message that ends in a full stop has no second one."""
    error = WalPipelineError("say which.", hint="This one.")
    assert RunError.of(error).description == "say which. HINT: This one."
