"""Features out of Feast, point-in-time, for training and scoring."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from itertools import product, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features import on_spark, stores
from features.snapshot import CUSTOMER_FAMILIES, KEYS, families, features_of
from workspace import settings, storage
from workspace.settings import Workspace
from workspace.storage import CheckFailed
from workspace.windows import midnight

if TYPE_CHECKING:
    from feast import FeatureStore

_MOST = 50_000  # customers in a block: more at a time are no quicker
_NOBODY = pa.record_batch({"customer_id": pa.array([], pa.string())})


def open_store(workspace: Workspace, patience: float | None = None) -> FeatureStore:
    """The workspace's Feast store, as its settings and `features/repo/feature_store.yaml` describe it.

    `patience` is how many seconds a read of Redis may take; as long as a batch can wait if absent.
    """
    from feast import FeatureStore, RepoConfig

    storage.make_folder(workspace.home_path / "feast")
    with stores.opened(workspace):
        store = FeatureStore(config=RepoConfig(**stores.feast_settings(workspace, patience=patience)))
        store.refresh_registry()  # Feast would only notice at the first question that it is not there
    return store


def apply(workspace: Workspace) -> FeatureStore:
    """Registers the entities, views and services of the workspace.

    Its settings are kept for Feast's own tools where nothing was published yet; later those that were published with
    stay, since the service answers by them: a training that tries others out changes no answer.
    """
    from features.repo.definitions import definitions

    if not settings.kept(workspace.home_path).exists():
        settings.keep(workspace)
    store = open_store(workspace)
    stores.write_for_feast(workspace)
    store.apply(definitions(workspace, families(workspace)))
    return store


def customers_at(workspace: Workspace, as_of: date, share: float = 1.0) -> pd.Series:
    """The customers known at `as_of`, sorted; their profile part says who they are.

    Below 1, `share` takes those of `in_sample`, and no others are ever in memory together.

    Raises:
        CheckFailed: there is no snapshot at `as_of`.
    """
    part = _part(workspace.home_path, "profile", as_of)
    known = (ids[in_sample(ids, share)] for file in part.glob("*.parquet") for ids in _ids_in_blocks(file))
    return pd.Series(np.sort(np.concatenate([np.empty(0, dtype=object), *known])), name="customer_id")


def _ids_in_blocks(file: Path) -> Iterator[NDArray[np.object_]]:
    with pq.ParquetFile(file) as part:
        for block in part.iter_batches(_MOST, columns=["customer_id"]):
            yield block["customer_id"].to_numpy(zero_copy_only=False)


def customer_rows(
    store: FeatureStore, workspace: Workspace, as_of_dates: Sequence[date], share: float = 1.0
) -> pd.DataFrame:
    """All customer features, one row per (customer_id, as_of) known then; sorted by as_of, then customer_id.

    Below 1, `share` takes about so many of the customers, by a hash of the id: the same ones at every as_of.

    Raises:
        CheckFailed: there is no snapshot at one of the dates, or the point-in-time join lost or doubled a row.
    """
    asked = pd.concat(
        [
            pd.DataFrame({"customer_id": customers_at(workspace, a, share), "as_of": pd.Timestamp(a)})
            for a in as_of_dates
        ],
        ignore_index=True,
    )
    names = [f"{family}:{f.name}" for family in CUSTOMER_FAMILIES for f in features_of(family, workspace)]
    rows = _historical(store, workspace, asked, names, ["customer_id"])
    if lost := int(rows["tenure_days"].isna().sum()):
        raise CheckFailed(
            f"the feature join found no snapshot for {lost:,} of {len(asked):,} rows; run `snapshot` again"
        )
    return rows


def rows_at(workspace: Workspace, as_of: date, names: Collection[str] | None = None) -> pd.DataFrame:
    """`customer_rows` of one as_of without Feast's join: the parts of a snapshot lie row by row beside each other.

    Of the features of these `names` alone where they are given.

    Raises:
        CheckFailed: there is no snapshot at `as_of`, or its parts are not of the same customers.
    """
    parts = {
        family: _by_customer(_part(workspace.home_path, family, as_of), _columns(workspace, family, names))
        for family in CUSTOMER_FAMILIES
    }
    return _beside(parts, as_of)


def at_once(workspace: Workspace, each: int) -> int:
    """So many customers at `each` bytes take a quarter of the setting `memory`; no more than are quick."""
    return max(1, min(_MOST, int(workspace.memory * 1e9 / 4 / each)))


def blocks_at(
    workspace: Workspace, as_of: date, customers: int, names: Collection[str] | None = None
) -> Iterator[pd.DataFrame]:
    """`rows_at` in blocks of so many customers, one after the other: none but the one at hand need be in memory.

    Raises:
        CheckFailed: as for `rows_at`.
    """
    parts = [_in_blocks(workspace, family, as_of, customers, names) for family in CUSTOMER_FAMILIES]
    for blocks in zip_longest(*parts, fillvalue=_NOBODY):
        yield _beside(dict(zip(CUSTOMER_FAMILIES, blocks, strict=True)), as_of)


def count_at(workspace: Workspace, as_of: date) -> int:
    """How many customers are known at `as_of`.

    Raises:
        CheckFailed: there is no snapshot at `as_of`.
    """
    part = _part(workspace.home_path, "profile", as_of)
    return sum(pq.read_metadata(file).num_rows for file in part.glob("*.parquet"))


def _beside(parts: Mapping[str, pa.Table | pa.RecordBatch], as_of: date) -> pd.DataFrame:
    """The rows of the families beside each other: each part is of the same customers, in the same order."""
    for family, part in parts.items():
        if not part["customer_id"].equals(parts["profile"]["customer_id"]):
            raise CheckFailed(f"{family} at {as_of} is not of the customers that profile knows; run `snapshot` again")
    columns = {name: part[name] for part in parts.values() for name in part.schema.names}
    rows = pa.table(columns).to_pandas()
    rows.insert(1, "as_of", pd.Timestamp(as_of))
    return rows


def _by_customer(part: Path, columns: list[str]) -> pa.Table:
    """A family's part, sorted by customer: on Spark it is several files, of which each is."""
    table = pq.read_table(part, columns=columns)
    return table if len(list(part.glob("*.parquet"))) == 1 else table.sort_by("customer_id")


def _in_blocks(
    workspace: Workspace, family: str, as_of: date, customers: int, names: Collection[str] | None
) -> Iterator[pa.RecordBatch]:
    """The same rows, so many at a time."""
    files = [*_part(workspace.home_path, family, as_of).glob("*.parquet")]
    columns = _columns(workspace, family, names)
    if len(files) == 1:
        with pq.ParquetFile(files[0], pre_buffer=False) as file:  # else it keeps what it has read
            yield from file.iter_batches(customers, columns=columns)
        return
    selected = ", ".join(f'"{name}"' for name in columns)
    with storage.connect(workspace.home_path, memory=workspace.memory) as connection:
        ordered = connection.sql(f"SELECT {selected} FROM {storage.reader(files)} ORDER BY customer_id")
        yield from ordered.to_arrow_reader(customers)


def _columns(workspace: Workspace, family: str, names: Collection[str] | None) -> list[str]:
    features = [feature.name for feature in features_of(family, workspace)]
    return ["customer_id", *(name for name in features if names is None or name in names)]


def in_sample(customer_ids: NDArray[np.object_], share: float) -> NDArray[np.bool_]:
    """Who is of a sample of about this share, by a hash of the id: the same at every as_of, and in every larger one."""
    if share >= 1:
        return np.ones(len(customer_ids), dtype=bool)
    return pd.util.hash_array(customer_ids, categorize=False) < np.uint64(share * 2**64)


def item_rows(store: FeatureStore, workspace: Workspace, asked: pd.DataFrame, family: str) -> pd.DataFrame:
    """A family's features for each row of `asked` (its keys and `as_of`), sorted by as_of, then key.

    Null for a pair that the family does not have: what was never bought.

    Raises:
        CheckFailed: there is no snapshot at one of the dates, or the point-in-time join lost or doubled a row.
    """
    names = [f"{family}:{feature.name}" for feature in features_of(family, workspace)]
    return _historical(store, workspace, asked, names, list(KEYS[family]))


def _historical(
    store: FeatureStore, workspace: Workspace, asked: pd.DataFrame, names: list[str], keys: list[str]
) -> pd.DataFrame:
    for family, as_of in product(dict.fromkeys(name.split(":")[0] for name in names), asked["as_of"].unique()):
        _part(workspace.home_path, family, as_of.date())
    instants = {a: pd.Timestamp(midnight(a.date(), workspace.timezone)) for a in asked["as_of"].unique()}
    entities = asked[keys].assign(event_timestamp=asked["as_of"].map(instants).astype("datetime64[us, UTC]"))
    if workspace.engine == "spark":
        on_spark.session(workspace)  # which Feast then joins on
    joined = store.get_historical_features(entity_df=entities, features=names).to_df()
    if len(joined) != len(asked):
        raise CheckFailed(
            f"the feature join returned {len(joined):,} rows for {len(asked):,} asked; nothing was trained"
        )
    # Spark leaves the zone out.
    joined["event_timestamp"] = pd.to_datetime(joined["event_timestamp"], utc=True).astype("datetime64[us, UTC]")
    joined = joined.sort_values(["event_timestamp", *keys], ignore_index=True)
    order = asked.sort_values(["as_of", *keys], ignore_index=True)
    if not (joined[keys].to_numpy() == order[keys].to_numpy()).all():
        raise CheckFailed("the feature join returned other customers than it was asked for; nothing was trained")
    return pd.concat([order[[*keys, "as_of"]], joined.drop(columns=[*keys, "event_timestamp"])], axis=1)


def _part(home: Path, family: str, as_of: date) -> Path:
    part = storage.snapshot_part(home, family, as_of)
    if not part.exists():
        raise CheckFailed(f"{family} has no snapshot at {as_of}; run `perennial snapshot -c FILE --as-of {as_of}`")
    return part


def matrix(rows: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float32]:
    """The named columns as float32, null as nan."""
    return np.stack([rows[name].to_numpy(dtype=np.float32, na_value=np.nan) for name in names]).T
