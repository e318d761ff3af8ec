"""The Redis of this machine, for tests that need a real one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

ADDRESS = "redis://127.0.0.1:6379/7"


@contextmanager
def redis_for(workspace: str) -> Iterator[str]:
    """Its address, and away again with every key of `workspace`; without one the test is skipped, or fails in CI."""
    redis = pytest.importorskip("redis")
    client = redis.Redis.from_url(ADDRESS)
    try:
        client.ping()
    except redis.RedisError as problem:
        message = f"Redis is not at {ADDRESS}: {problem}"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    try:
        yield ADDRESS
    finally:
        for key in client.scan_iter(f"*{workspace}"):
            client.delete(key)
        client.close()
