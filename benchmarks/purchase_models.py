"""Fits of the purchase models beside `lifetimes` and `pymc-marketing`, each package in an environment of its own.

    python -m benchmarks.purchase_models                          # CDNOW, and a million simulated customers
    python -m benchmarks.purchase_models --customers 20000 --patience 60

The same histories, in weeks, go to every package; each fit is a process of its own (`benchmarks/fits.py`). Beside the
parameters stands the largest relative difference to Perennial's. The environments are made under var/environments, by
uv where that is installed, and kept. A fit that takes longer than `--patience` seconds is stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import figures, needs, tables
from benchmarks.fits import PARAMETERS, Columns
from training.models.pareto_nbd import ParetoNBD
from workspace import settings

ENVIRONMENTS = Path("var/environments")
PINNED = {"lifetimes": "lifetimes==0.11.3", "pymc-marketing": "pymc-marketing==0.19.2"}
CDNOW_ENDS = pd.Timestamp("1997-10-01")
WORLD = ParetoNBD(r=0.55, alpha=10.6, s=0.6, beta=11.7, log_likelihood=np.nan)  # weeks; CDNOW's published fit, about
WEEKS = 156.0

Row = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=1_000_000, help="simulated")
    parser.add_argument("--patience", type=float, default=1_800, help="seconds for one fit")
    asked = parser.parse_args()
    needs.refuse_without(shops=["cdnow"])
    pythons = {"perennial": sys.executable} | {package: _environment(package) for package in PINNED}
    measured = {}
    for title, histories in (
        (f"CDNOW before {CDNOW_ENDS.date()}", _cdnow()),
        (f"{asked.customers:,} simulated customers", _simulated(asked.customers)),
    ):
        size = {"customers": len(histories["T"]), "came back": int((histories["frequency"] > 0).sum())}
        measured[title] = size | {"fits": _fits(histories, pythons, asked.patience)}
        print(f"\n{tables.fits(measured, title)}")
    figures.write("purchase_models", measured)


def _environment(package: str) -> str:
    """The Python of an environment that holds the package, made if it is not there."""
    folder = ENVIRONMENTS / PINNED[package]
    python, ready = folder.absolute() / "bin/python", folder / ".ready"
    if not ready.exists():
        print(f"installing {PINNED[package]} in {folder}", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        uv = Path(sys.executable).with_name("uv")
        install = [uv, "pip", "install", "--python", python] if uv.exists() else [python, "-m", "pip", "install"]
        subprocess.run([*install, "-q", PINNED[package]], check=True)
        ready.touch()
    return str(python)


def _fits(histories: Columns, pythons: dict[str, str], patience: float) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "histories.npz"
        np.savez(path, **histories)
        for model in PARAMETERS:
            ours: dict[str, float] = {}
            for package, python in pythons.items():
                row = _fit([python, "benchmarks/fits.py", package, model, str(path)], patience)
                ours = ours or row.get("parameters", {})
                rows.append({"model": model, "package": package, **row, **_apart(row, ours)})
                print(tables.fit(rows[-1]), flush=True)
    return rows


def _fit(command: list[str], patience: float) -> dict:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience)
    except subprocess.TimeoutExpired:
        return {"failed": f"stopped after {patience:g} s"}
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def _apart(row: dict, ours: dict[str, float]) -> Row:
    """The largest relative difference of a parameter from ours, where there is a fit."""
    if "failed" in row:
        return {}
    return {"apart": max(abs(value / ours[name] - 1) for name, value in row["parameters"].items())}


def _cdnow() -> Columns:
    workspace = settings.read(Path("configs/cdnow.yaml"))
    (path,) = workspace.tables.transactions.path or ()
    lines = pd.read_parquet(path)
    days = lines[lines["date"] < CDNOW_ENDS].groupby(["customer_id", "date"])["dollar_value"].sum().reset_index()
    by_customer = days.sort_values("date").groupby("customer_id")
    first, last, spend = by_customer["date"].min(), by_customer["date"].max(), by_customer["dollar_value"]
    frequency = by_customer.size() - 1
    return {
        "frequency": frequency.to_numpy(dtype=float),
        "recency": (last - first).dt.days.to_numpy() / 7,
        "T": (CDNOW_ENDS - first).dt.days.to_numpy() / 7,
        "monetary_value": ((spend.sum() - spend.first()) / frequency.clip(lower=1)).to_numpy(),
    }


def _simulated(customers: int) -> Columns:
    """Pareto/NBD's own story, times in whole days: purchases in (0, end] are as uniform as a Poisson process's are."""
    rng = np.random.default_rng(1)
    T = rng.uniform(1, WEEKS, customers)
    rate, leaving = rng.gamma(WORLD.r, 1 / WORLD.alpha, customers), rng.gamma(WORLD.s, 1 / WORLD.beta, customers)
    end = np.minimum(T, rng.exponential(1 / np.maximum(leaving, 1e-300)))
    frequency = rng.poisson(rate * end).astype(float)
    last = end * rng.random(customers) ** (1 / np.maximum(frequency, 1))
    days = np.ceil(np.where(frequency > 0, last, 0) * 7)
    spend = rng.gamma(6.25 * np.maximum(frequency, 1)) / (rng.gamma(3.74, 1 / 15.44, customers))
    return {
        "frequency": frequency,
        "recency": days / 7,
        "T": np.ceil(T * 7) / 7,
        "monetary_value": np.where(frequency > 0, spend / np.maximum(frequency, 1), 0.0),
    }


if __name__ == "__main__":
    main()
