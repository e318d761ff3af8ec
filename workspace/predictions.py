"""The prediction log: everything that was scored, served or listed, to be held against what then happened.

`home/predictions/<as_of>/` holds Parquet files, a row per prediction: those of batches, a file for each role and pair
of models, and those served or listed, in parts that are put together now and then. Reading, putting together and
forgetting take turns by a lock of their own; writing a part waits for none of them.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workspace import storage
from workspace.settings import Workspace

Role = Literal["champion", "shadow"]
Via = Literal["batch", "scores", "card", "list"]

_FIGURES = (
    "churn_probability", "p_alive", "expected_purchases", "lifetime_value", "lifetime_value_low", "lifetime_value_high",
)  # fmt: skip
_TEXTS = ("churn_band", "churn_model", "lifetime_value_model")
_TRAINED = ("churn_trained", "lifetime_value_trained")
ANSWERED = pa.schema([
    ("customer_id", pa.string()), ("as_of", pa.date32()), *((name, pa.float64()) for name in _FIGURES),
    *((name, pa.date32()) for name in _TRAINED), *((name, pa.string()) for name in _TEXTS),
])  # fmt: skip
"""What an answer says of a prediction."""
SCHEMA = pa.schema([
    *list(ANSWERED)[: -len(_TEXTS)], ("horizon", pa.int32()), *list(ANSWERED)[-len(_TEXTS) :],
    *((name, pa.string()) for name in ("role", "via", "question")),
    ("served_at", pa.timestamp("us", "UTC")), ("times", pa.int64()),
])  # fmt: skip
"""`churn_trained`, `lifetime_value_trained`: the as_of of the models' trainings. `horizon`: the days that were asked
about in place of the workspace's own, null where none were. `question`: the `churn` and `lifetime_value` settings that
were answered, as JSON. `times`: how often the same was served or listed, `served_at` the last time, null for a
batch."""
_DRAFT = ".draft"
_BLOCK = 50_000  # rows in memory at a time
_PUT_TOGETHER = 50  # parts of one as_of, which are then one


def question(workspace: Workspace, horizon: int | None = None) -> str:
    """What a prediction answers: what leaving and value mean, over another horizon if one is named."""
    asked = workspace.model_dump(mode="json", include={"churn", "lifetime_value"})
    for group in asked.values():
        for how_it_is_learnt in ("allow_leaks", "features", "boosting"):
            group.pop(how_it_is_learnt, None)
    if horizon is not None:
        asked["churn"]["horizon"] = asked["lifetime_value"]["horizon"] = horizon
    return json.dumps(asked, sort_keys=True)


def as_asked(workspace: Workspace, question: str) -> Workspace:
    """The workspace with the definitions that a logged prediction was made under."""
    groups = json.loads(question)
    return workspace.model_copy(
        update={name: getattr(workspace, name).model_copy(update=values) for name, values in groups.items()}
    )


def log_batch(workspace: Workspace, scores: pd.DataFrame | Iterable[pa.Table], role: Role = "champion") -> int:
    """Logs `scores` of one as_of by one pair of models, in place of what was logged of the same before.

    All at once or in blocks. Who got neither a probability nor a value is left out. Returns the rows.
    """
    asked, blocks = question(workspace), [scores] if isinstance(scores, pd.DataFrame) else scores
    logged = (_log_rows(block, role=role, via="batch", question=asked) for block in blocks)
    known = (rows for rows in logged if rows.num_rows)
    first = next(known, None)
    if first is None:
        return 0
    models = (str(first[name][0].as_py()).rpartition("/")[2] for name in ("churn_model", "lifetime_value_model"))
    name = f"batch-{'-'.join((role, *models))}.parquet"
    count = _write(chain([first], known), _folder(workspace.home_path) / str(first["as_of"][0]) / name)
    bound(workspace)
    return count


def log_served(
    workspace: Workspace, answers: pd.DataFrame | pa.Table, via: Via, served_at: datetime, horizon: int | None = None
) -> int:
    """Logs answers, or rows of a list, by those columns of `scores` that they have; returns how many are predictions.

    Answers of one call may be of several as_ofs: an event may have come since the published one. Whoever calls keeps
    off erasures (`privacy.keeping`) from reading the answers to here. `horizon` where another than the workspace's own
    was asked about.
    """
    asked = question(workspace, horizon)
    rows = _log_rows(answers, role="champion", via=via, question=asked, served_at=served_at, horizon=horizon)
    folder = _folder(workspace.home_path)
    for as_of in rows["as_of"].unique().to_pylist():
        part = folder / str(as_of) / f"{uuid.uuid4().hex}.parquet"
        _write([rows.filter(pc.equal(rows["as_of"], as_of))], part)
        if len(_served(part.parent)) > _PUT_TOGETHER:
            bound(workspace)
    return int(rows.num_rows)


def _log_rows(predictions: pd.DataFrame | pa.Table, **same: Any) -> pa.Table:
    """By `SCHEMA`; a column that `predictions` lacks is null."""
    if isinstance(predictions, pd.DataFrame):
        predictions = pa.Table.from_pandas(predictions, preserve_index=False)
    known = [predictions[name] for name in ("churn_probability", "lifetime_value") if name in predictions.column_names]
    given = predictions.filter(reduce(pc.or_, map(pc.is_valid, known)))
    said = {"times": 1} | same
    columns = [
        pa.repeat(pa.scalar(said[field.name], field.type), given.num_rows) if field.name in said
        else _as(given[field.name], field.type) if field.name in given.column_names
        else pa.nulls(given.num_rows, field.type)
        for field in SCHEMA
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _as(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Of a day, of what may be written as an instant, the day."""
    if kind == pa.date32() and column.type == pa.string():
        column = pc.utf8_slice_codeunits(column, 0, len("2025-01-01"))
    return column.cast(kind, safe=False)


def _write(blocks: Iterable[pa.Table], path: Path) -> int:
    """Beside its place and then renamed: a crash loses it whole. Not as `storage.replacing`, whose drafts go when a
    command takes the workspace, while the service writes on. Returns the rows."""
    storage.make_folder(path.parent)
    draft, count = path.with_suffix(_DRAFT), 0
    try:
        with pq.ParquetWriter(draft, SCHEMA, compression="zstd") as written:
            for rows in blocks:
                written.write_table(rows)
                count += rows.num_rows
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def read(workspace: Workspace, role: Role | None = None) -> pd.DataFrame:
    """Everything that is logged, a row per prediction, in the columns of `SCHEMA`; of one role if it is named.

    Texts other than the ids, of which there are few, are categories.
    """
    coded = [field.name for field in SCHEMA if field.type == pa.string() and field.name != "customer_id"]
    filters = None if role is None else [("role", "=", role)]
    with _alone(workspace.home_path) as folder:
        files = sorted(folder.glob("*/*.parquet"))
        parts = [
            _whole(pq.read_table(file, read_dictionary=coded, filters=filters, partitioning=None)) for file in files
        ]
    rows: pd.DataFrame = pa.concat_tables(parts or [SCHEMA.empty_table()]).unify_dictionaries().to_pandas()
    return rows.assign(**{name: pd.to_datetime(rows[name]) for name in ("as_of", *_TRAINED)})


def _whole(rows: pa.Table) -> pa.Table:
    """With the columns that an earlier version of this code did not log, null."""
    for field in SCHEMA:
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows.select(SCHEMA.names)


def bound(workspace: Workspace) -> None:
    """Keeps the log within `monitoring.keep_predictions` and `monitoring.prediction_space`.

    What was served of an as_of in many parts becomes one, where equal answers are a row that says how often. Whole
    as_ofs go, the oldest first; the latest stays.
    """
    with _alone(workspace.home_path) as folder:
        days = sorted(folder.glob("[0-9]*"))
        for day in days:
            _put_together(workspace.home_path, day)
        space = sum(map(_size, days)) - workspace.monitoring.prediction_space * 1_000_000
        for day in days[:-1]:
            age = date.fromisoformat(days[-1].name) - date.fromisoformat(day.name)
            if age.days > workspace.monitoring.keep_predictions or space > 0:
                space -= _size(day)
                for path in day.glob("*.parquet"):
                    path.unlink()
                with suppress(OSError):  # somebody is just writing a part into it
                    day.rmdir()


def _put_together(home: Path, day: Path) -> None:
    parts = _served(day)
    if len(parts) < 2:
        return
    same = ", ".join(name for name in SCHEMA.names if name not in ("served_at", "times"))
    together = pa.concat_tables([_whole(pq.read_table(part, partitioning=None)) for part in parts])
    with storage.connect(home) as connection:
        connection.register("parts", together)
        rows: pa.Table = connection.sql(f"""
            SELECT {same}, max(served_at) AS served_at, sum(times)::BIGINT AS times
            FROM parts GROUP BY ALL ORDER BY customer_id, served_at""").to_arrow_table()
    _write([rows.select(SCHEMA.names).cast(SCHEMA)], day / f"{uuid.uuid4().hex}.parquet")
    for part in parts:
        part.unlink()


def forget(workspace: Workspace, customer_ids: Sequence[str]) -> None:
    """Removes customers from the log; while they are marked as erased, nothing of them comes into it again."""
    gone = pa.array(customer_ids, pa.string())
    with _alone(workspace.home_path) as folder:
        for path in folder.glob("*/*.parquet"):
            if any(pc.any(pc.is_in(rows["customer_id"], gone)).as_py() for rows in _blocks(path, ["customer_id"])):
                others = (rows.filter(pc.invert(pc.is_in(rows["customer_id"], gone))) for rows in _blocks(path))
                _write(map(_whole, others), path)


def _blocks(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        for block in file.iter_batches(_BLOCK, columns=columns):
            yield pa.Table.from_batches([block])


def is_part(home: Path, path: Path) -> bool:
    """Whether a file is of the log."""
    return path.is_relative_to(_folder(home))


def sweep(workspace: Workspace) -> None:
    """Removes the drafts of processes that were killed. Nobody may be writing into the log."""
    for draft in _folder(workspace.home_path).glob(f"*/*{_DRAFT}"):
        draft.unlink()


def _folder(home: Path) -> Path:
    return home / "predictions"


def _served(day: Path) -> list[Path]:
    return sorted(path for path in day.glob("*.parquet") if not path.name.startswith("batch-"))


def _size(day: Path) -> int:
    """Bytes, without drafts: those come and go while others have the lock."""
    return sum(path.stat().st_size for path in day.glob("*.parquet"))


@contextmanager
def _alone(home: Path) -> Iterator[Path]:
    """The log's folder, while nobody else reads, puts together or forgets."""
    folder = _folder(home)
    storage.make_folder(folder)
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
