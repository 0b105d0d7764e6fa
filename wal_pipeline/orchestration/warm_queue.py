"""Where an archiving run waits for a warm worker: the queue of its cluster."""

from typing import Final

QUEUE_TAG: Final = "dagster-celery/queue"  # dagster_celery.tags' own: the package need not be installed


def warm_queue(cluster: str) -> str:
    """Return the queue of a cluster, which only the worker beside its spool takes runs from."""
    return f"archive_{cluster}"
