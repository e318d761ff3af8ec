"""Feast's online stores, SQLite and Redis, which answer for a family's view too: out of the packed vector.

Only the vector of the publication is written online. Asked for `purchases:spend_90d`, or for a service of such names,
these read the vector of the publication that answers and take the column out of it, so Feast's names are the same
online and offline. No on-demand view could do that: Feast allows one view of a name, and offline it is the family's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from feast import FeatureView, Field
from feast.infra.online_stores.helpers import _mmh3
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig, _table_id
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Float32

from features import publications, stores
from features.publications import ANSWER
from features.snapshot import CUSTOMER_FAMILIES, ITEM_FAMILIES
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

_Row = tuple[datetime | None, dict[str, Value] | None]


class _Unpacking(OnlineStore):
    """What both have in common; the setting `home` says where the note of the publication lies."""

    def online_read(
        self,
        config: Any,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[_Row]:
        """As Feast asks it; a null feature is an empty value, who is unknown has no row.

        Raises:
            CheckFailed: the view is of items, nothing is published, or Redis does not answer or refuses.
            StaleFeatures: the store does not hold the publication.
            FeatureMismatch: the publication lacks a feature that is asked for.
        """
        with stores.answering(config.online_store):
            return self._read(config, table, entity_keys, requested_features)

    def answers(self, config: Any, table: FeatureView, customer_ids: Sequence[str]) -> list[bytes]:
        """What a publication has beside the vectors of these customers; nothing of who has none.

        Without the vectors, which Feast's own reading would take in with them.

        Raises:
            CheckFailed: Redis does not answer or refuses.
        """
        with stores.answering(config.online_store):
            values = self._answers(config, table, stores.entity_names(config, customer_ids))
        return [Value.FromString(value).bytes_val if value else b"" for value in values]

    @abstractmethod
    def _answers(self, config: Any, table: FeatureView, names: list[bytes]) -> list[bytes | None]: ...

    def _read(
        self, config: Any, table: FeatureView, entity_keys: list[EntityKey], requested_features: list[str] | None
    ) -> list[_Row]:
        if table.name in ITEM_FAMILIES:
            raise CheckFailed(f"{table.name} is not online: only features of customers are published")
        if table.name not in CUSTOMER_FAMILIES:
            return super().online_read(config, table, entity_keys, requested_features)  # type: ignore[safe-super]
        publication = publications.published(Path(config.online_store.home))
        if publication is None:
            raise CheckFailed("nothing is published yet; run `perennial publish`")
        wanted = requested_features or [field.name for field in table.features]
        return self._unpacked(config, publication, entity_keys, wanted)

    def _unpacked(
        self, config: Any, publication: publications.Publication, keys: list[EntityKey], wanted: Sequence[str]
    ) -> list[_Row]:
        if absent := set(wanted) - set(publication.features):
            raise publications.FeatureMismatch(
                f"{', '.join(sorted(absent))}: not among the published features; run `perennial publish`"
            )
        asked = [*keys, stores.entity_key(publication.last_customer)]
        with publications.without_a_table_gone(publication):
            *rows, there = super().online_read(config, _view(publication.view), asked, ["vector"])  # type: ignore[safe-super]
        if not _vector(there) and not all(map(_vector, rows)):
            raise publications.gone(publication)
        places = {name: publication.features.index(name) for name in wanted}
        return [_taken(row, places) for row in rows]


class PackedSqliteOnlineStore(_Unpacking, SqliteOnlineStore):
    """Feast's SQLite store, and the families' views."""

    def _answers(self, config: Any, table: FeatureView, names: list[bytes]) -> list[bytes | None]:
        query = (
            f'SELECT entity_key, value FROM "{_table_id(config.project, table)}"'
            f" WHERE entity_key IN ({', '.join('?' * len(names))}) AND feature_name = '{ANSWER}'"
        )
        there = dict(self._get_conn(config).execute(query, names).fetchall())
        return [there.get(name) for name in names]


class PackedRedisOnlineStore(_Unpacking, RedisOnlineStore):
    """Feast's Redis store, and the families' views; it would read all views of a question at once, by their names."""

    _read_features_per_fv = OnlineStore._read_features_per_fv

    def _answers(self, config: Any, table: FeatureView, names: list[bytes]) -> list[bytes | None]:
        project, field = config.project.encode(), _mmh3(f"{table.name}:{ANSWER}")
        with self._get_client(config.online_store).pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hget(name + project, field)
            return pipe.execute()

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        return SupportedAsyncMethods()


class PackedSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    type: Literal["features.unpacked.PackedSqliteOnlineStore"] = "features.unpacked.PackedSqliteOnlineStore"  # type: ignore[assignment]
    home: str


class PackedRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    type: Literal["features.unpacked.PackedRedisOnlineStore"] = "features.unpacked.PackedRedisOnlineStore"  # type: ignore[assignment]
    home: str


@lru_cache(maxsize=8)
def _view(name: str) -> FeatureView:
    """As much of a publication's view as a store needs to read it."""
    return FeatureView(name=name, schema=[Field(name="vector", dtype=Array(Float32))])


def _vector(row: _Row) -> Sequence[float]:
    """SQLite says None where there is no row, Redis an empty value."""
    return row[1]["vector"].float_list_val.val if row[1] is not None else ()


def _taken(row: _Row, places: dict[str, int]) -> _Row:
    vector = _vector(row)
    if not vector:
        return None, None
    return row[0], {name: _value(vector[place]) for name, place in places.items()}


def _value(number: float) -> Value:
    return Value() if number != number else Value(float_val=number)
