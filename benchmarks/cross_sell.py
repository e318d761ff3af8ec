"""Offers beside the peers in the same run: next baskets, two shops by category, and a million customers.

    python -m benchmarks.cross_sell                     # all four parts
    python -m benchmarks.cross_sell tafeng              # or online_retail, complete_journey, scale

Ta-Feng follows "A Next Basket Recommendation Reality Check" (Li and others, TORS 2023): five folds of users, of whom
the training users' last baskets teach, and the test users' last baskets are the answer. Its baskets have an order and
no dates, so everybody's last basket is put on the as_of, and each earlier one a week before the next. The shops are
judged at cutoffs, by models that saw nothing after them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from benchmarks import figures, needs, tables
from benchmarks.fits import peak_gigabytes
from features import retrieval, snapshot
from ingest import intake
from serving import offers
from training.backtests import metrics
from training.backtests.offer_backtest import JudgedOffers
from training.learning import cross_sell
from training.learning.cross_sell import Backtest, Lesson
from training.models.offer_model import OfferModel
from workspace import settings, storage
from workspace.settings import Workspace

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

SHOPS = {"online_retail": ("2011-03-01", "2011-06-01"), "complete_journey": ("2017-10-01",)}
_LONG_AFTER = date(2100, 1, 1)
_SEED = 7


def main() -> None:
    parts = {"tafeng": _tafeng, "online_retail": _shop, "complete_journey": _shop, "scale": _scale}
    measured: dict[str, object] = {}
    wanted = sys.argv[1:] or [*parts]
    needs.refuse_without(shops=[_BASKETS if name == "tafeng" else name for name in wanted if name != "scale"])
    for name in wanted:
        with tempfile.TemporaryDirectory() as home:
            measured |= parts[name](name, Path(home))
    figures.write("cross_sell", measured)


_BASKETS = "nbr_tafeng_reality_check"
_AS_OF, _STEP = date(2001, 3, 1), timedelta(days=7)
_DEPTH = 20
# As tuned on Ta-Feng for TIFU-KNN: Hu, He, Gao, Zhang, SIGIR 2020.
_GROUPS, _WITHIN, _BETWEEN, _NEIGHBOURS, _OWN = 7, 0.9, 0.7, 300, 0.7
_POPULAR = 500
_ITEM_NEIGHBOURS = 100


@dataclass(frozen=True)
class _Baskets:
    """Users and items by position; `age` 0 is a user's last basket, the answer. A method is a matrix users x items."""

    lines: pd.DataFrame
    users: pd.Index
    n_items: int

    @classmethod
    def read(cls, folder: Path) -> Self:
        lines = pd.read_parquet(folder / "baskets.parquet").drop_duplicates(["user_id", "basket_index", "item_id"])
        age = lines.groupby("user_id")["basket_index"].transform("max") - lines["basket_index"]
        users = pd.Index(sorted(lines["user_id"].astype(str).unique()))
        user = users.get_indexer(pd.Index(lines["user_id"].astype(str)))
        return cls(lines.assign(age=age, user=user), users, int(lines["item_id"].max()) + 1)

    @property
    def history(self) -> pd.DataFrame:
        return self.lines[self.lines["age"] > 0]

    def matrix(self, user: Ints, item: Ints, value: Floats) -> csr_array:
        return csr_array((value.astype(np.float32), (user, item)), (len(self.users), self.n_items))

    def of_lines(self, lines: pd.DataFrame, value: Floats | float) -> csr_array:
        return self.matrix(lines["user"].to_numpy(), lines["item_id"].to_numpy(), np.full(len(lines), value))

    def workspace(self, home: Path) -> Workspace:
        noon = pd.Timestamp(_AS_OF) + pd.Timedelta(hours=12)
        user = self.lines["user_id"].astype(str)
        rows = pd.DataFrame({
            "transaction_id": user + "-" + self.lines["age"].astype(str), "customer_id": user, "amount": 1.0,
            "product_id": self.lines["item_id"].astype(str),
            "occurred_at": noon - self.lines["age"] * pd.Timedelta(_STEP),
        })  # fmt: skip
        path = home / "lines.parquet"
        rows.to_parquet(path)
        wanted = {
            "name": "tafeng", "home": str(home / "home"), "tables": {"transactions": {"path": str(path)}},
            "cross_sell": {"level": "item", "horizon": _STEP.days, "top": _DEPTH},
        }  # fmt: skip
        return settings.parse(wanted, "the benchmark")


def _tafeng(name: str, home: Path) -> dict[str, object]:
    folder = Path(os.environ["PERENNIAL_DATASETS"]) / _BASKETS
    baskets, folds = (
        _Baskets.read(folder),
        pd.read_parquet(folder / "folds.parquet", columns=["fold", "split", "user_id"]),
    )
    workspace = baskets.workspace(home)
    seconds = _end_to_end(workspace)
    methods = _peers(baskets)
    per_fold = [_fold(baskets, methods, *ours) for ours in _ours(workspace, baskets, folds)]
    means = {what: _mean([fold[what] for fold in per_fold]) for what in per_fold[0]}
    part = {name: {"tables": means, "seconds": seconds, "gigabytes": peak_gigabytes()}}
    print(f"\n{tables.baskets(part, name)}", flush=True)
    return part


def _end_to_end(workspace: Workspace) -> float:
    """Seconds from the lines to everybody's offers, as a shop's batch goes."""
    start = time.monotonic()
    intake.ingest(workspace, datetime.now(UTC))
    snapshot.snapshot(workspace, [*cross_sell.cutoffs(workspace, _AS_OF), _AS_OF])
    model = cross_sell.train(workspace, _AS_OF)
    rows = retrieval.rows_at(workspace, _AS_OF)
    offers.rank(workspace, model, _AS_OF, rows, rows["T"].notna().to_numpy())
    return time.monotonic() - start


def _ours(workspace: Workspace, baskets: _Baskets, folds: pd.DataFrame) -> Iterator[tuple[NDArray[np.intp], csr_array]]:
    """Of each fold the test users' places, and our matrix.

    Everybody's last basket but one teaches, and the training users' last basket calibrates, then teaches as well.
    """
    before = cross_sell.lesson(workspace, _AS_OF - _STEP, _AS_OF)
    last = cross_sell.lesson(workspace, _AS_OF, _LONG_AFTER, most_pairs=10**9)
    for _, fold in folds.groupby("fold"):
        of = {split: pd.Index(rows["user_id"].astype(str)) for split, rows in fold.groupby("split")}
        model = cross_sell.learnt(workspace, [before, _among(last, of["train"])])
        pairs = _among(last, of["test"]).pairs
        user = baskets.users.get_indexer(pairs.customer_ids)[pairs.customer]
        item = pairs.items.to_numpy(dtype=np.int64)[pairs.item]
        yield baskets.users.get_indexer(of["test"]), baskets.matrix(user, item, model.probability(pairs.rows))


def _among(lesson: Lesson, users: pd.Index) -> Lesson:
    pairs = lesson.pairs
    kept = pairs.customer_ids.isin(users)[pairs.customer]
    part = {name: getattr(pairs, name)[kept] for name in ("customer", "item", "rows", "owned")}
    return replace(lesson, pairs=replace(pairs, **part), bought=lesson.bought[kept])


def _peers(baskets: _Baskets) -> dict[str, csr_array]:
    history = baskets.history
    count = np.bincount(history["item_id"], minlength=baskets.n_items)
    best = np.argsort(-count, kind="stable")[:_POPULAR]
    everybody = np.arange(len(baskets.users))
    popular = baskets.matrix(
        np.repeat(everybody, len(best)),
        np.tile(best, len(everybody)),
        np.tile(count[best], len(everybody)) / count.sum(),
    )
    times = baskets.of_lines(history, 1.0)
    latest = history.groupby(["user", "item_id"], as_index=False)["age"].min()
    recency = baskets.of_lines(latest, 0.5 / (1 + latest["age"].to_numpy()))
    return {
        "most popular": popular,
        "personal frequency, recency, popular": times + recency + 1e-3 * popular,
        "item-kNN": _item_knn(times),
        "TIFU-KNN": _tifu_knn(baskets),
    }


def _item_knn(times: csr_array) -> csr_array:
    """The cosines of items by their buyers, summed over what the user has bought; of each item the nearest 100."""
    bought = csr_array(times > 0, dtype=np.float32)
    size = np.sqrt(bought.sum(axis=0))
    unit = csr_array(bought.multiply(1 / np.where(size > 0, size, 1)))
    alike = csr_array(unit.T @ unit)
    alike.setdiag(0)
    return csr_array(bought @ _largest(alike, _ITEM_NEIGHBOURS))


def _largest(matrix: csr_array, k: int) -> csr_array:
    """Of each row the `k` largest entries."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((-matrix.data, row))
    kept = order[np.arange(len(order)) - matrix.indptr[row] < k]
    return csr_array((matrix.data[kept], (row[kept], matrix.indices[kept])), matrix.shape)


def _tifu_knn(baskets: _Baskets) -> csr_array:
    history = baskets.history
    n = history.groupby("user")["age"].transform("max")
    size = np.ceil(n / _GROUPS)
    group, place = np.divmod(history["age"] - 1, size)
    groups = np.ceil(n / size)
    filled = np.where(group == groups - 1, n - (groups - 1) * size, size)
    own = baskets.of_lines(history, (_WITHIN**place * _BETWEEN**group / filled / groups).to_numpy())
    square = own.multiply(own).sum(axis=1)
    blocks = []
    for start in range(0, own.shape[0], 1000):
        near = 2 * (own[start : start + 1000] @ own.T).toarray() - square
        near[np.arange(len(near)), start + np.arange(len(near))] = -np.inf
        chosen = np.argpartition(-near, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
        row = np.repeat(np.arange(len(near)), _NEIGHBOURS)
        weights = np.full(len(row), 1 / _NEIGHBOURS, dtype=np.float32)
        blocks.append(csr_array((weights, (row, chosen.ravel())), near.shape) @ own)
    return csr_array(_OWN * own + (1 - _OWN) * vstack(blocks))


def _fold(
    baskets: _Baskets, peers: Mapping[str, csr_array], users: NDArray[np.intp], ours: csr_array
) -> dict[str, dict[str, dict[str, float]]]:
    """Each method's figures over the test users: of the whole basket, and of what is repeated and new in it alone."""
    owned = csr_array(baskets.of_lines(baskets.history, 1.0) > 0, dtype=np.float32)[users]
    answer = baskets.of_lines(baskets.lines[baskets.lines["age"] == 0], 1.0)[users]
    kinds = {
        "all items": lambda m: m,
        "repeats alone": lambda m: m.multiply(owned),
        "new items alone": lambda m: m - m.multiply(owned),
    }
    methods = {name: matrix[users] for name, matrix in peers.items()} | {"Perennial": ours[users]}
    return {
        what: {name: _figures(_ranked(kind(answer)), _ranked(kind(matrix))) for name, matrix in methods.items()}
        for what, kind in kinds.items()
    }


def _ranked(matrix: csr_array) -> list[list[int]]:
    """Of each row the columns above 0, the largest first; of equal ones the first."""
    matrix = csr_array(matrix)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    bounds = zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
    return [list(matrix.indices[a:b][np.argsort(-matrix.data[a:b], kind="stable")]) for a, b in bounds]


def _figures(answers: list[list[int]], ranked: list[list[int]]) -> dict[str, float]:
    asked = [place for place, answer in enumerate(answers) if answer]
    pair = [answers[place] for place in asked], [ranked[place] for place in asked]
    of = {"recall": metrics.recall_at, "ndcg": metrics.ndcg_at, "hit": metrics.hit_at}
    return {f"{name}{k}": metric(*pair, k) for k in (10, 20) for name, metric in of.items()}


def _mean(tables: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {name: pd.DataFrame([table[name] for table in tables]).mean().to_dict() for name in tables[0]}


def _shop(name: str, home: Path) -> dict[str, object]:
    """One shop by category: ours and the rule at each cutoff, the difference with its 95 % interval over customers."""
    workspace = settings.read(Path(f"configs/{name}.yaml"), home=home)
    intake.ingest(workspace, datetime.now(UTC))
    parts: dict[str, object] = {}
    for as_of in map(date.fromisoformat, SHOPS[name]):
        learnt_from = cross_sell.cutoffs(workspace, as_of)
        snapshot.snapshot(workspace, [*learnt_from, as_of])
        backtest = cross_sell.judged_at(workspace, as_of, learnt_from, _LONG_AFTER)
        judged = JudgedOffers.of(backtest, learnt_from, as_of, workspace.cross_sell.top)
        parts[window := f"{name} at {as_of}"] = {
            "bought": len(judged.customer_ids), "cutoffs": len(learnt_from), "figures": _compared(judged),
            "top": workspace.cross_sell.top, "first offers": _said(workspace, backtest, as_of),
        }  # fmt: skip
        print(f"\n{tables.offers(parts, window)}", flush=True)
    return parts


def _compared(judged: JudgedOffers) -> dict[str, dict[str, float]]:
    """By kind of item: ndcg@5 of ours and of the rule, and the interval of the mean difference."""
    rows = {}
    for kind in ("", "_repeat", "_new"):
        ours, naive = (judged.by_customer[answer.name][f"ndcg5{kind}"] for answer in judged.answers[:2])
        known = ~np.isnan(ours)
        gain = ours[known] - naive[known]
        low, high = metrics.bootstrap_interval(lambda drawn: float(np.mean(drawn)), gain, seed=_SEED)
        rows[f"ndcg5{kind}"] = {
            "Perennial": float(ours[known].mean()), "personal frequency, recency, popular": float(naive[known].mean()),
            "ahead by": float(gain.mean()), "from": low, "to": high, "customers": float(known.sum()),
        }  # fmt: skip
    return rows


def _said(workspace: Workspace, backtest: Backtest, as_of: date) -> dict[str, float]:
    """Of everybody's first five offers: what was said beside what came, also in money at the item's usual spend."""
    own = pd.read_parquet(storage.snapshot_part(workspace.home_path, "product_affinity", as_of))
    sums = own.groupby("item")[["item_spend_365d", "item_n_purchases_365d"]].sum()
    spend = sums["item_spend_365d"] / sums["item_n_purchases_365d"]
    rows = backtest.keys.assign(said=backtest.predicted, came=backtest.bought)
    rows = rows.sort_values(["customer_id", "said", "item"], ascending=[True, False, True])
    rows = rows.groupby("customer_id").head(workspace.cross_sell.top)
    worth = rows["item"].map(spend)
    return {
        "probability": float(rows["said"].mean()), "bought": float(rows["came"].mean()),
        "ece": metrics.ece(rows["came"], rows["said"]),
        "expected revenue": float((rows["said"] * worth).sum()), "revenue": float((rows["came"] * worth).sum()),
    }  # fmt: skip


_CUSTOMERS, _CATEGORIES, _DAYS = 1_000_000, 50, 300


def _scale(name: str, home: Path) -> dict[str, object]:
    """Seconds and gigabytes of ranking a million customers x 50 categories, in a process of its own."""
    workspace = _large(home)
    as_of = date(2025, 1, 1)
    intake.ingest(workspace, datetime.now(UTC))
    snapshot.snapshot(workspace, [*cross_sell.cutoffs(workspace, as_of), as_of])
    cross_sell.train(workspace, as_of).save(home / "model")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, gigabytes, rows = pool.apply(_rank, (workspace, home / "model", as_of))
    size = {"customers": _CUSTOMERS, "categories": _CATEGORIES}
    part = {name: size | {"seconds": seconds, "gigabytes": gigabytes, "offers": rows}}
    print(f"\n{tables.ranked(part, name)}")
    return part


def _rank(workspace: Workspace, model: Path, as_of: date) -> tuple[float, float, int]:
    """From the snapshot to the offers, read as `perennial score` does."""
    start = time.monotonic()
    rows = retrieval.rows_at(workspace, as_of)
    offered = offers.rank(workspace, OfferModel.load(model), as_of, rows, rows["T"].notna().to_numpy())
    return time.monotonic() - start, peak_gigabytes(), offered.num_rows


def _large(home: Path) -> Workspace:
    """A shop without meaning: some five purchase days each, of one or two lines, popular categories more often."""
    random = np.random.default_rng(_SEED)
    n = random.geometric(0.2, _CUSTOMERS)
    customer = np.repeat(np.arange(_CUSTOMERS), n + n // 2)
    popular = 1 / np.arange(1, _CATEGORIES + 1)
    ago = pd.to_timedelta(random.integers(_DAYS, size=len(customer)), unit="D")
    lines = pd.DataFrame({
        "transaction_id": np.arange(len(customer)).astype(str), "customer_id": customer.astype(str),
        "occurred_at": pd.Timestamp("2024-12-31") - ago,
        "product_id": random.choice(_CATEGORIES, len(customer), p=popular / popular.sum()).astype(str), "amount": 9.0,
    })  # fmt: skip
    lines.to_parquet(home / "lines.parquet")
    numbers = [str(number) for number in range(_CATEGORIES)]
    pd.DataFrame({"product_id": numbers, "category": numbers}).to_parquet(home / "products.parquet")
    tables = {
        "transactions": {"path": str(home / "lines.parquet")},
        "products": {"path": str(home / "products.parquet")},
    }
    raw = {"name": "large", "home": str(home / "home"), "tables": tables, "cross_sell": {"horizon": _DAYS // 2}}
    return settings.parse(raw, "the benchmark")


if __name__ == "__main__":
    main()
