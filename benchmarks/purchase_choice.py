"""Which purchase model, and whether the first purchase counts in spend: the figures of docs/decisions/0006.

    python -m benchmarks.purchase_choice

Every model is fitted on the purchases before a cutoff and judged on the window after it; all windows end before a
reported one begins, or inside CDNOW's calibration period. CLVTools' apparel shop stands for slow buyers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import figures, needs
from benchmarks.erlang import CNBD
from benchmarks.peers import Floats
from ingest import intake
from training.backtests import metrics
from training.models.bg_nbd import BGNBD
from training.models.gamma_gamma import GammaGamma
from training.models.mbg_nbd import MBGNBD
from training.models.pareto_nbd import ParetoNBD
from training.models.spend_per_purchase import SpendPerPurchase
from workspace import settings, storage

APPAREL = {
    "name": "apparel",
    "tables": {
        "transactions": {
            "path": "${PERENNIAL_DATASETS}/clvtools/apparel_trans.parquet",
            "columns": {
                "transaction_id": "concat_ws('-', id, date)", "customer_id": "id", "occurred_at": "date",
                "amount": "price",
            },
            "duplicates": "keep",
        }
    },
}  # fmt: skip
CUTOFFS = {
    "online_retail": [("2010-06-01", 92), ("2010-08-01", 92), ("2010-09-01", 92), ("2010-11-29", 92)],
    "complete_journey": [("2017-04-01", 91), ("2017-05-01", 91), ("2017-06-01", 91), ("2017-07-01", 91)],
    "cdnow": [("1997-04-01", 183), ("1997-05-01", 92), ("1997-06-01", 92), ("1997-07-01", 92)],
    "apparel": [("2005-10-01", 365), ("2006-07-01", 182), ("2006-07-01", 730), ("2008-01-01", 182)],
}
_LATER = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Window:
    """Histories at a cutoff, a row per customer, and what each did and spent in the window after it."""

    x: Floats
    t_x: Floats
    T: Floats
    monetary_value: Floats
    spend_first: Floats
    silent: Floats
    value: Floats
    horizon: int

    @property
    def histories(self) -> tuple[Floats, Floats, Floats]:
        return self.x, self.t_x, self.T


def main() -> None:
    needs.refuse_without(shops=["clvtools" if shop == "apparel" else shop for shop in CUTOFFS])
    rows = [
        {"shop": shop, "cutoff": cutoff, **row}
        for shop, dates in CUTOFFS.items()
        for cutoff, window in _windows(shop, dates)
        for row in _judged(window)
    ]
    table = pd.DataFrame(rows)
    counted, names = table[table["spend"] == "first counts"], list(table.columns[4:])
    for title, by, part in (
        ("over all cutoffs", ["model"], counted),
        ("by shop", ["shop", "model"], counted),
        ("spend per purchase, by shop", ["shop", "spend"], table[table["model"] == "MBG/NBD"]),
    ):
        print(f"\n{title}")
        print(part.groupby(by, sort=False)[names].mean().to_string(float_format=lambda figure: f"{figure:.4f}"))
    figures.write("purchase_choice", {"rows": rows})


def _windows(shop: str, dates: list[tuple[str, int]]) -> Iterator[tuple[str, Window]]:
    with tempfile.TemporaryDirectory() as home:
        config = Path(f"configs/{shop}.yaml")
        workspace = (
            settings.read(config, home=Path(home))
            if config.exists()
            else settings.parse(APPAREL | {"home": home}, "benchmark")
        )
        intake.ingest(workspace, _LATER)
        with storage.connect(workspace.home_path, workspace.timezone) as connection:
            days = connection.execute(f"""
                SELECT customer_id, day::TIMESTAMP AS day, sum(amount) AS amount
                FROM {storage.rows_of(workspace.home_path, "transactions")} GROUP BY ALL""").df()
    for cutoff, horizon in dates:
        yield cutoff, _window(days.sort_values("day"), pd.Timestamp(cutoff), horizon)


def _window(days: pd.DataFrame, cutoff: pd.Timestamp, horizon: int) -> Window:
    before = days[days["day"] < cutoff].groupby("customer_id")
    first, last, count = before["day"].min(), before["day"].max(), before.size()
    spend_first = before["amount"].first()
    inside = (days["day"] >= cutoff) & (days["day"] < cutoff + pd.Timedelta(days=horizon))
    value = days[inside].groupby("customer_id")["amount"].sum().reindex(first.index)
    columns = (
        count - 1.0, (last - first).dt.days, (cutoff - first).dt.days,
        ((before["amount"].sum() - spend_first) / (count - 1.0)).where(count > 1), spend_first, value.isna(),
        value.fillna(0.0),
    )  # fmt: skip
    return Window(*(column.to_numpy(dtype=float) for column in columns), horizon)


def _judged(window: Window) -> Iterator[dict[str, object]]:
    spends = _spends(window)
    for model, (purchases, silence) in _outlooks(window).items():
        for spend, amount in spends.items():
            yield {"model": model, "spend": spend, **_figures(window, purchases * amount, np.clip(silence, 0, 1))}


def _outlooks(window: Window) -> dict[str, tuple[Floats, Floats]]:
    """Expected purchases and probability of none, by model."""
    outlooks = {}
    for title, model in (("BG/NBD", BGNBD), ("MBG/NBD", MBGNBD), ("Pareto/NBD", ParetoNBD)):
        fitted, _ = model.fit_regardless(*window.histories)
        asked = (*window.histories, window.horizon)
        outlooks[title] = fitted.expected_purchases(*asked), fitted.probability_of_no_purchase(*asked)
    for title in ("BG/NBD", "MBG/NBD"):
        both = zip(outlooks[title], outlooks["Pareto/NBD"], strict=True)
        outlooks[f"mean of {title} and Pareto/NBD"] = tuple((one + other) / 2 for one, other in both)
    for title, k, first_chance in (("BG/CNBD-2", 2, 0), ("MBG/CNBD-2", 2, 1), ("MBG/CNBD-3", 3, 1)):
        outlooks[title] = CNBD.fit(k, first_chance, *window.histories).outlook(*window.histories, window.horizon)
    return outlooks


def _spends(window: Window) -> dict[str, Floats]:
    x, z, first = window.x, window.monetary_value, window.spend_first
    told = (x > 0) & (z > 0) & (first > 0)
    plain = GammaGamma.fit(x[told], z[told]).expected_spend(np.where(z > 0, x, 0.0), np.where(z > 0, z, np.nan))
    return {
        "Gamma-Gamma": plain,
        "first counts": SpendPerPurchase.fit(x[told], z[told], first[told]).expected(x, z, first),
    }


def _figures(window: Window, value: Floats, silence: Floats) -> dict[str, float]:
    return {
        "ngini": metrics.ngini(window.value, value),
        "spearman": metrics.spearman(window.value, value),
        "dec_wape": metrics.decile_wape(window.value, value),
        "abs_bias": abs(metrics.bias(window.value, value)),
        "auc": metrics.auc(window.silent, silence),
        "brier": metrics.brier(window.silent, silence),
        "log_loss": metrics.log_loss(window.silent, silence),
    }


if __name__ == "__main__":
    main()
