"""The PostgreSQL server of this machine, for tests that need a real one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy

ADDRESS = "postgresql://postgres:hush@127.0.0.1:5432/test"


@contextmanager
def schema_for(what: str) -> Iterator[sqlalchemy.Engine]:
    """Its engine, with a schema of the test's own; without a server the test is skipped, or fails in CI."""
    engine = sqlalchemy.create_engine(ADDRESS.replace("://", "+psycopg://"))
    schema = f"{what}_{os.getpid()}"
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text(f"CREATE SCHEMA {schema}"))
    except sqlalchemy.exc.OperationalError as problem:
        engine.dispose()
        message = f"PostgreSQL is not at 127.0.0.1:5432: {problem}"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    try:
        yield engine.execution_options(schema=schema)
    finally:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text(f"DROP SCHEMA {schema} CASCADE"))
        engine.dispose()
