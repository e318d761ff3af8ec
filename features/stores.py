"""Where Feast keeps a workspace's definitions and its online features: what the settings `registry` and `online` say.

Embedded, both are SQLite files in the home; in production PostgreSQL and Redis.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import yaml

from features import on_spark
from workspace import settings, storage
from workspace.settings import SettingsError, Workspace
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from feast import FeatureStore
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

_EMBEDDED = Path(__file__).with_name("repo") / "feature_store.yaml"
_PACKED_REDIS = "features.unpacked.PackedRedisOnlineStore"
_REDIS_PORT = 6379
_LENGTH = struct.Struct("<I")  # of the id, before it
# Seconds. A Redis that is gone is said at once, not after eight seconds of attempts; one that writes a snapshot of
# itself may pause for long.
_REDIS_PATIENCE = {"socket_connect_timeout": 3, "socket_timeout": 30, "retry": None}
_FOR_FEAST = """\
# Feast on this workspace, for Feast's own tools; `perennial` writes it anew and never reads it:
#   PERENNIAL_HOME="{home}" feast -c features/repo -f "{home}/feast/feature_store.yaml" feature-views list
# Passwords are not in it: export PERENNIAL_ONLINE_PASSWORD and PERENNIAL_REGISTRY_PASSWORD where it names them.
"""


def feast_settings(workspace: Workspace, passwords: bool = True, patience: float | None = None) -> dict[str, Any]:
    """Feast's configuration of the workspace; without `passwords`, variables stand in their places.

    `patience` is how many seconds Redis may take, where a caller waits for the answer.

    Raises:
        SettingsError: an address's variable is not set, or holds no such address; its driver is not installed.
    """
    text = Template(_EMBEDDED.read_text()).substitute(
        PERENNIAL_HOME=workspace.home_path, PERENNIAL_WORKSPACE=workspace.name
    )
    config: dict[str, Any] = yaml.safe_load(text)
    if workspace.engine == "spark":
        on_spark.check_installed()
        # ibis, too, has its session in UTC, and both may share one.
        config["offline_store"] = {"type": "spark", "spark_conf": {"spark.sql.session.timeZone": "UTC"}}
    if online := _address("online", workspace.online, ("redis", "rediss")):
        _need("redis", "online")
        config["online_store"] = _redis(online, passwords, patience) | {"home": str(workspace.home_path)}
    if registry := _address("registry", workspace.registry, ("postgresql", "postgres")):
        _need("psycopg", "registry")
        password = registry.password if passwords else "${PERENNIAL_REGISTRY_PASSWORD}"
        config["registry"]["path"] = _with_password(registry, password)
    return config


def write_for_feast(workspace: Workspace) -> None:
    """Puts the same configuration, but for passwords, into the home, where `feast -f` finds it."""
    shown = yaml.safe_dump(feast_settings(workspace, passwords=False), sort_keys=False)
    with storage.replacing(workspace.home_path / "feast" / "feature_store.yaml") as draft:
        draft.write_text(_FOR_FEAST.format(home=workspace.home_path) + shown, encoding="utf-8")


def online_address(workspace: Workspace) -> str:
    """What a publication calls the online store that it lies in: `sqlite`, or the address without its password."""
    online = _address("online", workspace.online, ("redis", "rediss"))
    return f"redis://{_host(online)}/{_database(online)}" if online else "sqlite"


def embedded_path(home: Path) -> Path:
    """Where the online features lie that a server does not keep."""
    return home / "feast" / "online.db"


def entity_key(customer_id: str) -> EntityKey:
    """By which Feast's online stores know a customer."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return EntityKey(join_keys=["customer_id"], entity_values=[Value(string_val=customer_id)])


def entity_names(config: Any, customer_ids: Iterable[str]) -> list[bytes]:
    """The `entity_key` of each customer as Feast serializes it, in a twentieth of the time of a message for each."""
    from feast.infra.key_encoding_utils import serialize_entity_key

    nobody = serialize_entity_key(entity_key(""), config.entity_key_serialization_version)
    before, texts = nobody[: -_LENGTH.size], map(str.encode, customer_ids)
    return [before + _LENGTH.pack(len(text)) + text for text in texts]


def in_redis(store: FeatureStore) -> bool:
    return bool(store.config.online_store.type == _PACKED_REDIS)


def reached(store: FeatureStore) -> AbstractContextManager[None]:
    """`answering` of the online store of `store`."""
    return answering(store.config.online_store)


@contextmanager
def answering(online_store: Any) -> Iterator[None]:
    """Says it in a sentence when the online store of this configuration cannot be reached, or refuses.

    Raises:
        CheckFailed: Redis is down, lacks memory, wants another password, or has something else under our keys.
    """
    if online_store.type != _PACKED_REDIS:
        yield
        return
    import redis

    try:
        yield
    except redis.RedisError as problem:
        where = online_store.connection_string.split(",")[0]
        # Not `from problem`: its text, which a traceback would show, quotes keys, and so customers' ids.
        raise CheckFailed(f"the online store, Redis at {where}, {_in_words(problem)}") from None


def _in_words(problem: Exception) -> str:
    """What Redis said, without the command, which names customers, and what to do."""
    import redis

    # The client puts the command in front of what Redis said, and Redis the arguments of what it does not know behind.
    said = str(problem).rpartition(") of pipeline caused error: ")[2].partition(", with args beginning with")[0]
    if isinstance(problem, redis.exceptions.OutOfMemoryError):
        return "is full: it takes nothing in; raise its `maxmemory`, or make room in it"
    if isinstance(problem, (redis.ConnectionError, redis.TimeoutError)):
        return f"does not answer: {said}; start it, or mend the setting `online`"
    kind = type(problem).__name__
    return f"refuses: {said} ({kind}); put right what is in it, or mend the setting `online`"


@contextmanager
def opened(workspace: Workspace) -> Iterator[None]:
    """The same for a registry in PostgreSQL."""
    if workspace.registry == "sqlite":
        yield
        return
    import sqlalchemy

    try:
        yield
    except sqlalchemy.exc.OperationalError as problem:
        reason = str(problem.orig).splitlines()[0]
        raise CheckFailed(
            f"Feast's registry in PostgreSQL does not answer: {reason}; start it, or mend the setting `registry`"
        ) from problem


def _address(key: str, written: str, schemes: tuple[str, ...]) -> SplitResult | None:
    """The parts of an address, variables filled in; None for `sqlite`. No message shows it: it may hold a password."""
    text = settings.filled(written, f"the setting `{key}`")
    if text == "sqlite":
        return None
    try:
        address = urlsplit(text)
        usable = address.scheme in schemes and bool(address.hostname) and address.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(f"`{key}` is neither `sqlite` nor an address such as {schemes[0]}://host:port/0")
    return address


def _need(driver: str, key: str) -> None:
    extra = {"redis": "redis", "psycopg": "postgres"}[driver]
    try:
        __import__(driver)
    except ImportError as problem:
        raise SettingsError(
            f"`{key}` needs a driver that is not installed: pip install 'perennial-crm[{extra}]'"
        ) from problem


def _redis(address: SplitResult, passwords: bool, patience: float | None) -> dict[str, Any]:
    """Feast's Redis store. Its options are JSON texts between commas, hence a comma within one is escaped."""
    options: dict[str, Any] = {"db": _database(address), **_REDIS_PATIENCE}
    if patience is not None:
        options |= {"socket_connect_timeout": patience, "socket_timeout": patience}
    if address.scheme == "rediss":
        options["ssl"] = True
    if address.username:
        options["username"] = unquote(address.username)
    if address.password:
        options["password"] = unquote(address.password) if passwords else "${PERENNIAL_ONLINE_PASSWORD}"
    texts = [f"{name}={json.dumps(value)}".replace(",", "\\u002c") for name, value in options.items()]
    return {
        "type": _PACKED_REDIS,
        "connection_string": ",".join([_host(address), *texts]),
        "skip_dedup": True,  # one round trip a block, not two: the rows of a view never change
        "full_scan_for_deletion": False,  # all keys of all workspaces; `online` removes what it wrote itself
    }


def _host(address: SplitResult) -> str:
    return f"{address.hostname}:{address.port or _REDIS_PORT}"


def _database(address: SplitResult) -> int:
    number = address.path.strip("/") or "0"
    if not number.isdecimal():
        raise SettingsError(f"`online` ends in /{number}: Redis numbers its databases, as in redis://host:6379/0")
    return int(number)


def _with_password(address: SplitResult, password: str | None) -> str:
    user = f"{address.username or ''}{f':{password}' if address.password else ''}"
    place = address.netloc.rpartition("@")[2]
    return address._replace(scheme="postgresql+psycopg", netloc=f"{user}@{place}" if user else place).geturl()
