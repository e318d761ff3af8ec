"""Where the real data sets are, and the purchase histories tests make of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest


def dataset(name: str) -> Path:
    """The folder of a data set. Without it the test is skipped by the set's name, or fails where CI=true."""
    folder = Path(os.environ["PERENNIAL_DATASETS"]) / name
    if folder.is_dir():
        return folder
    message = f"data set {name} is not at {folder}; set PERENNIAL_DATASETS"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


class Histories(NamedTuple):
    """One row per customer in order of the id; times in weeks."""

    frequency: np.ndarray
    recency: np.ndarray
    T: np.ndarray


def weekly_histories(purchases: pd.DataFrame, last_day: str) -> Histories:
    """Histories of `purchases` (customer_id, date) up to and including `last_day`, which is also where T ends.

    The published fits count T to the last day of calibration, one day less than to `as_of`.
    """
    until = pd.Timestamp(last_day)
    days = purchases.loc[purchases["date"] <= until, ["customer_id", "date"]].drop_duplicates()
    by_customer = days.groupby("customer_id")["date"].agg(["min", "max", "count"])
    recency = (by_customer["max"] - by_customer["min"]).dt.days.to_numpy() / 7
    T = (until - by_customer["min"]).dt.days.to_numpy() / 7
    return Histories(by_customer["count"].to_numpy() - 1.0, recency, T)


def cdnow_sample() -> pd.DataFrame:
    """Purchase days (customer_id, date, amount) of the tenth of CDNOW's customers that the papers use."""
    lines = pd.read_parquet(dataset("cdnow") / "sample_one_tenth.parquet")
    return _purchase_days(lines.rename(columns={"sample_customer_id": "customer_id"}))


def cdnow_master() -> pd.DataFrame:
    """Purchase days (customer_id, date, amount) of all CDNOW customers."""
    return _purchase_days(pd.read_parquet(dataset("cdnow") / "master.parquet"))


def _purchase_days(lines: pd.DataFrame) -> pd.DataFrame:
    days = lines.groupby(["customer_id", "date"], as_index=False)["dollar_value"].sum()
    return days.rename(columns={"dollar_value": "amount"})
