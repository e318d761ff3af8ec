"""The shop with contact data, a copy of its own to change, behind the service of all tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bentoml
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features import retrieval
from ingest import intake
from serving.http.answers import Answers
from serving.http.event_inbox import Inbox
from workspace import settings, storage
from workspace.settings import Service, Workspace

NOW = datetime(2023, 7, 1, 18, tzinfo=UTC)
PII = ("email", "phone")


def private_shop(shop: Workspace, folder: Path) -> Workspace:
    """A copy of the shop in `folder`, its customers' e-mail addresses and telephone numbers taken in."""
    shutil.copytree(shop.home_path.parent, folder)
    customers = pd.read_csv(folder / "customers.csv", dtype=str)
    customers["email"] = [email(customer_id) for customer_id in customers["customer_id"]]
    customers["phone"] = [f"+49 30 {number:07}" for number in range(len(customers))]
    customers.to_csv(folder / "customers.csv", index=False)
    paths = [f"tables.{path.stem}.path={path}" for path in folder.glob("*.csv")]
    paths.append(f"tables.transactions.path={folder / 'transactions.parquet'}")
    workspace = settings.read(folder / "workspace.yaml", [*paths, "pii=[email, phone]"], home=folder / "home")
    intake.ingest(workspace, NOW)
    retrieval.apply(workspace)
    settings.keep(workspace)
    return workspace


def email(customer_id: str) -> str:
    return f"{customer_id.replace(' ', '.')}@example.com"


@contextmanager
def answering_from(home: Path) -> Iterator[Any]:
    """The running service's answers as if it had been started on `home`."""
    running = bentoml.get_current_service()
    before = running.answers, running.inbox
    running.answers = Answers(home, lambda: NOW, Service())
    running.inbox = Inbox(running.answers.workspace, running.answers.known)
    try:
        yield running.answers
    finally:
        running.answers, running.inbox = before


def files_with(folder: Path, text: str) -> set[str]:
    """The files in which a text is to be found: in their bytes, or in a Parquet file's values, which are packed."""
    return {path.relative_to(folder).as_posix() for path in storage.below(folder, "*") if _has(path, text)}


def _has(path: Path, text: str) -> bool:
    """Not what goes meanwhile, such as the draft of a command that was killed, when Python lets go of it."""
    with suppress(FileNotFoundError):
        return path.is_file() and (text.encode() in path.read_bytes() or _holds(path, text))
    return False


def _holds(path: Path, text: str) -> bool:
    if path.suffix != ".parquet":
        return False
    rows = pq.ParquetFile(path).read()
    texts = [column for column in rows.columns if pa.types.is_string(column.type)]
    return any(pc.any(pc.match_substring(column, text)).as_py() for column in texts)


def scores_of(workspace: Workspace) -> pd.DataFrame:
    return pd.read_parquet(storage.scores_path(workspace.home_path, storage.latest_scored(workspace.home_path)))
