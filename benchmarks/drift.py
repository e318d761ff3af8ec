"""How often drift is said of ordinary months, and how often of months with a planted fault; and how long it takes.

    python -m benchmarks.drift                                  # all of it
    python -m benchmarks.drift false-alarms power --shops online_retail world1
    python -m benchmarks.drift false-alarms --chosen            # on the months that the constants were chosen on

Every month is judged by thresholds from the months before it. What is the same for all workspaces (`shifts.MARGIN` and
its neighbours) was chosen on the months before `chosen_before` of each shop; only later ones are reported. Faults are
planted into the lines of the last 30 days, which then go through ingest and snapshot like any others.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from benchmarks import figures, needs, tables
from features import retrieval, snapshot
from ingest import intake
from monitoring import arrivals, drift
from monitoring.drift import Champion, Comparison, Drift
from simulation.world import simulate
from training.learning import churn, datasets, lifetime_value
from workspace import settings, storage
from workspace.settings import Workspace
from workspace.tables import TRANSACTIONS

_FOLDER = Path("var/bench_drift").resolve()
_NOW = datetime(2030, 1, 1, tzinfo=UTC)
STEP = drift.STEP
"""Days between as_ofs, and of a planted month."""
LAG = 3 * STEP
"""Days between the reference and an as_of."""
_EXTRA = 18  # attributes beside the shop's own features, to make 150


@dataclass(frozen=True)
class Shop:
    """A data set with as_ofs every `STEP` days back from `ends`, and the months that faults are planted into.

    `jump`: from when on the data themselves are known to move; those months are no ordinary ones.
    """

    name: str
    chosen_before: date
    ends: date
    planted: tuple[int, ...] = (0,)
    jump: date | None = None

    def as_ofs(self, first_day: date) -> list[date]:
        """With room for the month, the reference and its month before them, oldest first."""
        room = (self.ends - first_day).days // STEP
        return [self.ends - timedelta(days=STEP * back) for back in reversed(range(room))]


SHOPS = {
    shop.name: shop
    for shop in (
        Shop("online_retail", date(2010, 12, 1), date(2011, 8, 31), (0, 3)),
        Shop("complete_journey", date(2017, 8, 1), date(2017, 12, 31)),
        Shop("adventure_works", date(2012, 6, 1), date(2013, 3, 1), (3,), date(2013, 1, 1)),
        *(Shop(f"world{seed}", date(2023, 7, 1), date(2025, 1, 1)) for seed in (1, 2)),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[*_PARTS], help=f"of {', '.join(_PARTS)}")
    parser.add_argument("--shops", nargs="*", default=[*SHOPS], help="all if absent")
    parser.add_argument("--chosen", action="store_true", help="the months that the constants were chosen on")
    asked = parser.parse_args()
    needs.refuse_without(shops=[name for name in asked.shops if not name.startswith("world")])
    made = [Made(SHOPS[name], asked.chosen) for name in asked.shops]
    measured = {part: _PARTS[part](made) for part in asked.parts}
    if not asked.chosen:
        figures.write("drift", figures.read("drift") | measured)


class Made:
    """A shop taken in, month by month of lines, with the snapshots of its as_ofs and a champion of before them."""

    def __init__(self, shop: Shop, chosen: bool = False) -> None:
        self.shop, self.chosen = shop, chosen
        self.folder = _FOLDER / shop.name
        raw = _raw(shop.name)
        every = settings.parse({**raw, "home": str(self.folder / "all")}, shop.name)
        intake.ingest(every, _NOW)
        first = arrivals.first_day(every)
        assert first is not None
        self.as_ofs = shop.as_ofs(first)
        blocks = _blocks(every, self.folder / "lines", self.as_ofs)
        self.raw, self.files = {**raw, "home": str(self.folder / "home")}, [*blocks.values()]
        self.workspace = self.of(self.files)
        intake.ingest(self.workspace, _NOW)
        snapshot.snapshot(self.workspace, self.as_ofs)
        self.champion = None if chosen else _champion(self.workspace, min(self.judged))

    def of(self, files: Sequence[Path], home: Path | None = None) -> Workspace:
        tables = self.raw["tables"] | {"transactions": {"path": [str(file) for file in files], "duplicates": "keep"}}
        return settings.parse({**self.raw, "tables": tables, "home": str(home or self.raw["home"])}, self.shop.name)

    @property
    def judged(self) -> list[date]:
        later = self.as_ofs[LAG // STEP + 1 :]
        return [day for day in later if (day < self.shop.chosen_before) == self.chosen]

    def drift(self, as_of: date) -> Drift:
        return self.comparison(self.workspace, as_of).drift()

    def comparison(self, workspace: Workspace, as_of: date) -> Comparison:
        return Comparison(workspace, as_of, as_of - timedelta(days=LAG), self.champion)


def _raw(name: str) -> dict:
    if not name.startswith("world"):
        return dict(yaml.safe_load(Path(f"configs/{name}.yaml").read_text()))
    world = _FOLDER / f"{name}_tables"
    if not world.exists():
        simulate(world, customers=2000, years=3, seed=int(name.removeprefix("world")))
    raw = yaml.safe_load(Path("configs/demo.yaml").read_text().replace("var/demo_world", str(world)))
    return dict(raw)


def _blocks(workspace: Workspace, folder: Path, as_ofs: Sequence[date]) -> dict[date, Path]:
    """The lines before each as_of and not before the one before it, a file each; a shop on one channel gets a name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = {}
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        rows = storage.rows_of(workspace.home_path, "transactions")
        held = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()}
        columns = [name for name in TRANSACTIONS.names if name in held]
        more = "" if held & {"channel", "location"} else ", 'shop' AS channel"
        for place, as_of in enumerate(as_ofs):
            after = f"AND day >= DATE '{as_ofs[place - 1]}'" if place else ""
            query = f"SELECT {', '.join(columns)}{more} FROM {rows} WHERE day < DATE '{as_of}' {after}"
            files[as_of] = folder / f"{as_of}.parquet"
            storage.copy_to(connection, query, files[as_of])
    return files


def _champion(workspace: Workspace, as_of: date) -> Champion | None:
    """Learnt at `as_of`, without the backtest; none where the shop's customers come back too seldom."""
    try:
        dates = datasets.cutoffs(workspace, as_of)
        snapshot.snapshot(workspace, [*dates, as_of])
        data = datasets.load(retrieval.apply(workspace), workspace, as_of)
        value = lifetime_value.fit(data, workspace, data.closed, data.current)
        return Champion(as_of, churn.train(data, workspace), value)
    except storage.CheckFailed as problem:
        print(f"{workspace.name}: no champion, features weigh alike: {problem}"[:160], flush=True)
        return None


def false_alarms(made: Sequence[Made]) -> dict[str, dict]:
    """A line for every shop: months, and those of them that were called drift, or drift that matters."""
    told: dict[str, dict] = {}
    for one in made:
        ordinary = [day for day in one.judged if one.shop.jump is None or day <= one.shop.jump]
        said = {day: one.drift(day) for day in ordinary}
        alarms = [day for day, of in said.items() if of.drifted]
        told[one.shop.name] = {
            "months": len(said), "drift": len(alarms), "matters": sum(of.matters for of in said.values()),
            "moved": "; ".join(f"{day}: {_what(said[day])}" for day in alarms),
        }  # fmt: skip
    told["all"] = {what: sum(shop[what] for shop in told.values()) for what in ("months", "drift", "matters")}
    print(tables.false_alarms(told), flush=True)
    return told


def jump(made: Sequence[Made]) -> dict[str, str]:
    """What was said of the months of a shop that moved by itself."""
    told = {}
    for one in made:
        for day in one.judged if one.shop.jump else ():
            if one.shop.jump and day > one.shop.jump:
                of = one.drift(day)
                told[f"{one.shop.name} at {day}"] = f"{'drift' if of.drifted else 'QUIET'}: {_what(of)}"
    print(tables.moved(told), flush=True)
    return told


def _what(of: Drift) -> str:
    shown = [shift.feature for shift in (*of.sources, *of.predictions)][:4]
    return ", ".join([*shown, *([f"{len(of.features)} features"] if of.features else [])]) or "nothing"


Lines = pd.DataFrame
Fault = Callable[[Lines, np.random.Generator], Lines]


def _scaled(factor: float, share: float = 1.0) -> Fault:
    def fault(lines: Lines, random: np.random.Generator) -> Lines:
        hit = random.random(len(lines)) < share
        return lines.assign(amount=np.where(hit, lines["amount"] * factor, lines["amount"]))

    return fault


def _new_category(lines: Lines, random: np.random.Generator) -> Lines:
    name = "channel" if "channel" in lines else "location"
    values = lines[name].astype(str)
    return lines.assign(**{name: values.where(random.random(len(lines)) >= 0.2, "new")})


def _missing_branch(lines: Lines, random: np.random.Generator) -> Lines:
    """Every third customer's lines: a branch whose file did not come."""
    return lines[pd.util.hash_array(lines["customer_id"].to_numpy(dtype=object)) % 3 != 0]


def _missing_days(lines: Lines, random: np.random.Generator) -> Lines:
    return lines[lines["occurred_at"] < lines["occurred_at"].max() - pd.Timedelta(days=10)]


def _doubled(lines: Lines, random: np.random.Generator) -> Lines:
    return pd.concat([lines, lines], ignore_index=True)


_FAULTS: dict[str, Fault] = {
    "none": lambda lines, _: lines,
    "mean shift, amount x 1.1": _scaled(1.1),
    "mean shift, amount x 1.25": _scaled(1.25),
    "mean shift, amount x 1.5": _scaled(1.5),
    "new category in a fifth of the lines": _new_category,
    "amount x 100": _scaled(100),
    "amount x 100 in a fifth of the lines": _scaled(100, 0.2),
    "a third of the customers missing": _missing_branch,
    "the last ten days missing": _missing_days,
    "every line twice": _doubled,
}


def power(made: Sequence[Made]) -> dict[str, object]:
    """A line for every fault: of how many planted months it was called drift, and drift that matters, by shop."""
    answers: dict[str, dict[str, list[tuple[bool, bool]]]] = {fault: {} for fault in _FAULTS}
    for one in made:
        for fault, said in _planted(one):
            answers[fault].setdefault(one.shop.name, []).append((said.drifted, said.matters))
            if not said.drifted and fault != "none":
                print(f"    missed: {one.shop.name} {said.as_of} {fault}", flush=True)
    shown = {
        "months": {one.shop.name: len(one.shop.planted) for one in made},
        "faults": {fault: _counted(by_shop) for fault, by_shop in answers.items()},
    }
    print(tables.power(shown), flush=True)
    return shown


def _counted(by_shop: Mapping[str, list[tuple[bool, bool]]]) -> dict[str, object]:
    """Of a fault: the months called drift by shop, and those called drift that matters."""
    caught = {shop: sum(drifted for drifted, _ in said) for shop, said in by_shop.items()}
    return {"caught": caught, "matters": sum(matters for said in by_shop.values() for _, matters in said)}


def _planted(one: Made) -> Iterator[tuple[str, Drift]]:
    for back in one.shop.planted:
        place = len(one.as_ofs) - 1 - back
        as_of, last = one.as_ofs[place], one.files[place]
        home, file = one.folder / "planted", one.folder / "planted_lines" / last.name
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(one.workspace.home_path, home)
        workspace, lines = one.of([*one.files[:place], file], home), pd.read_parquet(last)
        file.parent.mkdir(exist_ok=True)
        sound: Comparison | None = None
        for fault, plant in _FAULTS.items():
            plant(lines, np.random.default_rng(7)).to_parquet(file, index=False)
            intake.ingest(workspace, _NOW)
            snapshot.snapshot(workspace, [as_of])
            comparison = one.comparison(workspace, as_of)
            if sound is not None:  # what was usual before the fault is what it was without it
                comparison.past, comparison.rows.past = sound.past, sound.rows.past
            sound = sound or comparison
            yield fault, comparison.drift()


def speed(made: Sequence[Made]) -> dict[str, object]:
    """Seconds of one `watch` with thresholds from a year of months, of 150 features and full samples.

    `quiet` without Evidently's pages, as in a month without drift; `seconds` with all four of them.
    """
    world, home = _FOLDER / "speed_tables", _FOLDER / "speed"
    if not world.exists():
        simulate(world, customers=20_000, years=3, seed=7)
    random = np.random.default_rng(7)
    customers = pd.read_parquet(world / "customers.parquet")
    extra = {f"extra_{number}": random.lognormal(size=len(customers)) for number in range(_EXTRA)}
    customers.assign(**extra).to_parquet(_FOLDER / "speed_customers.parquet")
    raw = yaml.safe_load(Path("configs/demo.yaml").read_text().replace("var/demo_world", str(world)))
    raw["tables"]["customers"]["path"] = str(_FOLDER / "speed_customers.parquet")
    raw |= {"home": str(home), "attributes": [*raw["attributes"], *extra]}
    workspace, as_of = settings.parse(raw, "speed"), date(2025, 1, 1)
    intake.ingest(workspace, _NOW)
    champion = _champion(workspace, as_of)
    assert champion is not None
    reference = max(datasets.cutoffs(workspace, as_of))
    snapshot.snapshot(workspace, drift.needed(workspace, as_of, reference))
    features = len(snapshot.customer_features(workspace))
    took = {}
    for name, draws in (("quiet", False), ("seconds", True)):
        start, busy = time.perf_counter(), time.process_time()
        compared = drift.watch(workspace, as_of, reference, champion, draws)
        took[name], busy = time.perf_counter() - start, time.process_time() - busy
        print(
            f"{features} features, {compared.current_rows:,} and {compared.reference_rows:,} customers,"
            f" {compared.past} past months, {len(compared.pages)} pages: {took[name]:.1f} s, {busy:.1f} of processor"
            " (8 s are asked for 152 features)",
            flush=True,
        )  # fmt: skip
    return {"features": features, **took}


_PARTS: Mapping[str, Callable[[Sequence[Made]], Mapping[str, object]]] = {
    "false-alarms": false_alarms, "jump": jump, "power": power, "speed": speed,
}  # fmt: skip


if __name__ == "__main__":
    main()
