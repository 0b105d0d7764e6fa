"""Lets a failed run begin with one line, what is wrong and the hint, in Dagster's event and in the alert alike."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import isgeneratorfunction
from typing import Any, Final, Self, TypeVar, cast

import dagster as dg

from wal_pipeline.errors import WalPipelineError

# The row of a failure's metadata that tells the run failure sensor, and a person, that nothing needs to be mended.
NOTHING_CHANGED: Final = "nothing_was_changed"
# The row of a run that failed because of a store alone: the alert about the store tells it.
ALERT_OF_STORE: Final = "alert"
_CORRECT: Final = "do what the error says, and start the run again"
_HINT: Final = re.compile(r"\.?\s*\n\s*HINT:")
_Body = TypeVar("_Body", bound=Callable[..., Any])


class RunError(dg.Failure):
    """A failure whose first line in the UI is ``ERROR:``, the message and its hint.

    Dagster prints an exception as Python does: module, class, message. Python leaves out the module of its built-in
    names, and what stands for the class here is the word that the command line prints.
    """

    __module__ = "builtins"
    __qualname__ = "ERROR"

    @classmethod
    def of(cls, error: WalPipelineError, *, nothing_changed: bool = False) -> Self:
        """Return the failure of a run that ended with one of our errors. ``nothing_changed``: before it did anything.

        A run also did nothing where the error itself says that something was asked for that cannot be done.
        """
        text = {NOTHING_CHANGED: dg.MetadataValue.text(_CORRECT)}
        return cls(one_line(str(error)), text if nothing_changed or error.is_refusal else None, allow_retries=False)

    @classmethod
    def refused(cls, description: str) -> Self:
        """Return the failure of a run that was started with something that cannot be done."""
        return cls(description, {NOTHING_CHANGED: dg.MetadataValue.text(_CORRECT)}, allow_retries=False)


def with_plain_errors(body: _Body) -> _Body:
    """Let the body of an op or an asset fail with a RunError where we know what is wrong.

    An error that nobody expected keeps its class and its stack: they are for a report of the defect.
    """
    if isgeneratorfunction(body):

        @wraps(body)
        def yielding(*args: object, **kwargs: object) -> Iterator[Any]:
            with _plain_errors():
                yield from body(*args, **kwargs)

        return cast(_Body, yielding)

    @wraps(body)
    def returning(*args: object, **kwargs: object) -> Any:
        with _plain_errors():
            return body(*args, **kwargs)

    return cast(_Body, returning)


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except WalPipelineError as error:
        raise RunError.of(error) from None
    except RunError:
        raise
    except dg.Failure as failure:
        text = one_line(failure.description or "no reason was given")
        raise RunError(text, failure.metadata, allow_retries=failure.allow_retries) from None


def one_line(text: str) -> str:
    """Return an error's text on one line, with its hint as the last sentence."""
    return " ".join(_HINT.sub(". HINT:", text.strip()).split())
