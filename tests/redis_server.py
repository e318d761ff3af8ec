"""The Redis of this machine, for tests that need a real one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class OwnRedis:
    """A Redis that is killed and started at will, and keeps what it held."""

    def __init__(self, port: int, folder: Path) -> None:
        self.command = ["redis-server", "--port", str(port), "--appendonly", "yes", "--dir", str(folder)]
        self.port = port
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        import redis

        with redis.Redis(port=self.port) as client:
            for _ in range(200):
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    time.sleep(0.05)
        pytest.fail(f"Redis did not start on port {self.port}")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def redis_of_its_own(address: str, folder: Path) -> Iterator[OwnRedis]:
    """A server at `address`; without the program the test is skipped, or fails in CI."""
    if shutil.which("redis-server") is None:
        message = "redis-server is not installed"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    own = OwnRedis(int(address.rpartition(":")[2].partition("/")[0]), folder)
    try:
        yield own
    finally:
        own.stop()
