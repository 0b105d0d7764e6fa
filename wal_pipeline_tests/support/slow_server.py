"""Makes one of PostgreSQL's functions slow for a while, as a large folder or a slow disk would."""

from collections.abc import Iterator
from contextlib import contextmanager

from testbed.postgres import PostgresCluster


@contextmanager
def slow_function(cluster: PostgresCluster, name: str, arguments: str, returns: str, seconds: int) -> Iterator[None]:
    """Let each call of ``pg_catalog.name(arguments)`` take ``seconds`` longer inside the block."""
    if returns == "SETOF record":
        head = f"pg_catalog.{name}(OUT name text, OUT size bigint, OUT modification timestamptz)"
        body = f"SELECT r.* FROM pg_sleep({seconds}), pg_catalog.real_{name}() AS r"  # noqa: S608 - a test's constants
    else:
        head = f"pg_catalog.{name}({arguments})"
        body = f"SELECT pg_catalog.real_{name}($1) FROM pg_sleep({seconds})"  # noqa: S608
    _run(
        cluster,
        f"UPDATE pg_proc SET proname = 'real_{name}' WHERE proname = '{name}' AND {_of(arguments)}",  # noqa: S608
        f"CREATE FUNCTION {head} RETURNS {returns} LANGUAGE sql AS $$ {body} $$",
    )
    try:
        yield
    finally:
        _run(
            cluster,
            f"DROP FUNCTION pg_catalog.{name}({arguments})",
            f"UPDATE pg_proc SET proname = '{name}' WHERE proname = 'real_{name}'",  # noqa: S608
        )


def _of(arguments: str) -> str:
    return f"proargtypes = ('{arguments}'::regtype::oid::text)::oidvector" if arguments else "pronargs = 0"


def _run(cluster: PostgresCluster, *statements: str) -> None:
    cluster.psql(";\n".join(("SET allow_system_table_mods = on", *statements)))
