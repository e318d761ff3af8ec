"""The front door in Python: a shop that is open, and the shop as it was known on one day.

What a method answers has the words, columns and numbers of the command of that name; the commands ask the same methods,
or the same functions below them.
"""

from __future__ import annotations

import errno
import getpass
import os
import platform
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perennial import month
from workspace import registry, settings, storage
from workspace.settings import SettingsError, Workspace
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from ingest.intake import Account
    from monitoring.drift import Drift
    from monitoring.outcomes import Outcomes
    from serving.lists.churn_risk import Page
    from serving.lists.list_query import Rules
    from serving.predictor import Predictor
    from training.check.data_check import DataCheck

Say = Callable[[str], None]


def now() -> datetime:
    """The time. It is read here, and nowhere else."""
    return datetime.now(UTC)


def _silent(_: str) -> None:
    pass


def open(
    config: str | Path, overrides: Sequence[str] = (), home: str | Path | None = None, say: Say = _silent
) -> Shop:  # fmt: skip
    """The shop that a workspace file describes.

    `overrides` are `key.path=value` over the file, as of `--set`; `home` is a folder for the shop's state, as of
    `--home`. `say` is told the progress, and what a person should know: `print` shows it.

    >>> perennial.open("shop.yaml", overrides=["churn.horizon=30"]).workspace.churn.horizon
    30

    Raises:
        SettingsError: the file is missing or not YAML, a setting is unknown or of the wrong type.
    """
    path, folder = Path(config), None if home is None else Path(home)
    return Shop(settings.read(path, overrides, folder), options(path, overrides, folder), say)


def options(config: Path, overrides: Sequence[str], home: Path | None) -> str:
    """The options that name a workspace, for the next command; without what may hold the password of a database."""
    words = ["-c", str(config), *(["--home", str(home)] if home else [])]
    words += [word for override in overrides if "://" not in override for word in ("--set", override)]
    return shlex.join(words)


@dataclass(frozen=True)
class Shop:
    """A shop that is open. `at` says as of which day it is asked.

    `options` name it on the command line, for alerts, which end in the command to type. `words` is in whose name it is
    held while something is written, and `role` how the audit log calls who reads.

    >>> shop = perennial.open("shop.yaml")
    >>> shop.at("2023-07-01").as_of
    datetime.date(2023, 7, 1)
    >>> shop.latest() == shop.at("2023-07-01")  # the same day, but nobody has named it
    False
    >>> [*shop.customer("c0300")]
    ['customer_id', 'held', 'audit']
    """

    workspace: Workspace
    options: str = ""
    say: Say = _silent
    words: str = "perennial.open"
    role: str = "Python"
    now: Callable[[], datetime] = now

    def at(self, as_of: date | str) -> ShopAt:
        """The shop as it was known before a day, given as a date or as `2025-01-01`.

        Raises:
            ValueError: the text is no day.
        """
        if isinstance(as_of, str):
            return ShopAt(self, date.fromisoformat(as_of))
        return ShopAt(self, as_of.date() if isinstance(as_of, datetime) else as_of)

    def latest(self) -> ShopAt:
        """The shop on the latest day that was scored.

        Raises:
            CheckFailed: nothing is scored yet.
        """
        return ShopAt(self, storage.latest_scored(self.workspace.home_path), is_named=False)

    def ingest(self) -> list[Account]:
        """Brings the tables up to date with their sources; returns an account of each: read, accepted, quarantined."""
        with self.alone():
            return month.ingest(self.workspace, self.now(), self.say)

    def customer(self, customer_id: str) -> dict[str, Any]:
        """Everything that is held of a customer: `held` has the rows by file, `audit` who has read them.

        Contact data are readable, so a line in the audit log says who has asked.

        Raises:
            ValueError: the text is no id.
            CheckFailed: nothing is held of the customer, their erasure waits, or the audit log cannot be written.
            SettingsError: contact data are held, and the privacy key is not there to read them.
        """
        from features import retrieval
        from serving import erasure
        from serving.erasure_queue import ErasureQueue
        from serving.http.audit import AuditLog
        from workspace import ids, privacy

        home, asked = self.workspace.home_path, ids.canonical(customer_id)
        name = privacy.naming(self.workspace)(asked)
        if name in ErasureQueue(home).waiting():
            raise CheckFailed(
                f"{asked} was asked to be erased, and the erasure waits until the command that is at work has ended:"
                " nothing is shown any more"
            )
        try:
            held = erasure.held(self.workspace, retrieval.open_store(self.workspace), name)
        except erasure.UnknownCustomer:
            raise CheckFailed(f"nothing is held of {asked} in {home}") from None
        answer = {"customer_id": name, "held": held, "audit": AuditLog(home).mentions(name)}
        self.note("customer", {}, sum(map(len, held.values())), [name], secret=True)
        return answer

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Sole use of the workspace, whose files are the owner's alone; erases who waits for it first.

        Raises:
            InUse: another process is using it.
        """
        process = f"process {os.getpid()} of {_user()} on {platform.node()}"
        holder = f"`{self.words}` ({process}) since {self.now():%Y-%m-%d %H:%M:%S} UTC"
        before = os.umask(0o077)  # MLflow, Feast and SQLite make files of their own
        try:
            with storage.locked(self.workspace.home_path, holder):
                self._erase_who_waits()
                yield
        finally:
            os.umask(before)

    def _erase_who_waits(self) -> None:
        """Customers whose erasure was asked of the service while another command was at work."""
        from serving.erasure_queue import ErasureQueue

        if not ErasureQueue(self.workspace.home_path).waiting():
            return
        from serving import erasure

        try:
            if count := erasure.finish(self.workspace, self.now()):
                self.say(f"{count:,} customers who waited for it are erased")
        except (SettingsError, CheckFailed) as problem:
            self.say(f"customers wait to be erased, who are in no answer meanwhile: {problem}")

    def note(
        self, what: str, asked: Mapping[str, object], rows: int, customers: Sequence[str] = (), secret: bool = False
    ) -> None:  # fmt: skip
        """Leaves a line in the audit log, as every read over HTTP does; without it nothing is shown that is `secret`.

        Raises:
            OSError: it cannot be written, though the home is not read-only.
            CheckFailed: it cannot be written, and contact data would be shown.
        """
        from serving.http.audit import AuditLog, Read

        read = Read(_user(), self.role, what, self.now(), asked, rows, customers)
        log = AuditLog(self.workspace.home_path)
        if secret:
            try:
                log.add(read)
            except OSError as problem:
                told = f"{log.path} cannot be written ({problem.strerror})"
                raise CheckFailed(f"{told}: contact data are not shown without a line there") from problem
        else:
            with self.if_read_only("no line of the audit log says who has read this"):
                log.add(read)

    @contextmanager
    def if_read_only(self, so: str) -> Iterator[None]:
        """In a home that is read-only, what should be noted there is not: that is said, and the answer is given."""
        try:
            yield
        except OSError as problem:
            if problem.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            self.say(f"the home is read-only, so {so}")


@dataclass(frozen=True)
class ShopAt:
    """The shop as it was known before `as_of`; `is_named` where the caller named the day.

    Whatever is refused is a `CheckFailed` of one sentence: nothing is scored, no champion may answer, a source lacks
    rows. What writes needs sole use of the workspace (`InUse` while another process has it).

    >>> today = perennial.open("shop.yaml").latest()
    >>> risk = today.list("churn-risk", top=3, band="high")
    >>> risk["churn_band"].tolist()
    ['high', 'high', 'high']
    >>> scores = today.scores()
    >>> {*risk["customer_id"]} <= {*scores["customer_id"]}
    True
    >>> today.list("churn-risk", top=0)
    Traceback (most recent call last):
    ValueError: top 0: a list has at least one row
    """

    shop: Shop
    as_of: date
    is_named: bool = True

    def check(self) -> DataCheck:
        """What is in the tables, which models they suffice for, what looks wrong. Writes nothing into the workspace."""
        import tempfile

        from training.check import data_check

        workspace, say = self.shop.workspace, self.shop.say
        with tempfile.TemporaryDirectory() as scratch:
            trial = workspace.model_copy(update={"home": scratch})
            return data_check.check(trial, self._trial_intake(trial), self.as_of, say)

    def _trial_intake(self, trial: Workspace) -> Sequence[Account]:
        """What `ingest` would take in, into a scratch folder that no message names, with what customers have said."""
        from ingest.intake import ingest as take_in
        from workspace import consents, privacy

        home = self.shop.workspace.home_path
        consents.copy(home, trial.home_path)
        if marks := privacy.erased(home):
            privacy.key_of(home)
            privacy.note_erased(trial.home_path, marks)
        try:
            return take_in(trial, self.shop.now(), self.shop.say)
        except CheckFailed as problem:
            kept = f"`perennial ingest` puts them in {home}"
            raise CheckFailed(str(problem).replace(f"They are in {trial.home_path}", kept)) from problem

    def features(self) -> pd.DataFrame:
        """A row per customer known, of every feature; null where unknown. As `perennial export features` writes it."""
        return self._exported("features")

    def scores(self) -> pd.DataFrame:
        """A row per customer known, of risk, value and who said so. As `perennial export scores` writes it."""
        return self._exported("scores")

    def offers(self, unproven_offers: bool = False) -> pd.DataFrame:
        """A row per customer and rank: what to offer. As `perennial export offers` writes it.

        Offers that are not proven (grade none) are left out unless asked for.
        """
        return self._exported("offers", unproven_offers)

    def _exported(self, what: str, unproven_offers: bool = False) -> pd.DataFrame:
        import tempfile

        import pyarrow.parquet as pq

        from serving import champions
        from serving.lists import exports

        workspace = self.shop.workspace
        if what != "features":
            champions.that_scored(workspace, registry.client, self.as_of)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{what}.parquet"
            rows = exports.export(workspace, what, self.as_of, file, unproven_offers, self.shop.say)
            exported = pq.read_table(file).to_pandas(date_as_object=False)
        zoned = exported.select_dtypes("datetimetz").columns
        exported = exported.assign(**{name: exported[name].dt.tz_convert(workspace.timezone) for name in zoned})
        asked = {"as_of": self._asked, "unproven_offers": unproven_offers}
        self.shop.note(f"export {what}", asked, rows)
        return exported

    def list(self, name: Literal["churn-risk", "win-back", "cross-sell", "bought-with"], **asked: Any) -> pd.DataFrame:
        """A list to act on, as `perennial list NAME`: the method of that name, whose arguments it takes.

        Raises:
            ValueError: there is no list of that name.
        """
        lists: dict[str, Callable[..., pd.DataFrame]] = {
            "churn-risk": self.churn_risk, "win-back": self.win_back, "cross-sell": self.cross_sell,
            "bought-with": self.bought_with,
        }  # fmt: skip
        return lists[_one_of("list", name, lists)](**asked)

    def churn_risk(
        self, *, top: int = 100, min_value: float = 0.0, max_value: float | None = None, band: str | None = None,
        attribute: Sequence[str] = (), category: str | None = None, search: str | None = None,
        sort: str = "value_at_risk", unproven_offers: bool = False, contacts: bool = False, saved: str | None = None,
    ) -> pd.DataFrame:  # fmt: skip
        """Who is about to leave, why, what they are worth, what to offer; highest `sort` first.

        Never lists who objected. `attrs["about"]` of the frame has the sentences that a reader of the numbers needs.
        The rules of a list `saved` on the desk come in the place of those named here; attributes must hold of both.
        `contacts` adds the contact data that `pii` names, and needs a line in the audit log.

        Raises:
            ValueError: `top` is below 1, or there is no such band or order.
            NoSuchFilter: a filter that no customer can pass.
            CheckFailed: the day is not scored, or contact data are asked for and the audit log cannot be written.
            SettingsError: contact data are asked for, and the privacy key is not there to read them.
        """
        from serving.lists import churn_risk
        from serving.lists.saved import SavedLists
        from serving.terms import Terms
        from workspace import predictions, privacy

        asked: dict[str, Any] = {
            "top": _at_least_one(top), "min_value": min_value, "max_value": max_value,
            "band": band and _one_of("band", band, ("low", "medium", "high")), "attribute": [*attribute],
            "category": category, "search": search,
            "sort": _one_of("sort", sort, ("value_at_risk", "churn_probability", "lifetime_value")),
            "unproven_offers": unproven_offers, "contacts": contacts,
        }  # fmt: skip
        workspace, predictor = self.shop.workspace, self.predictor()
        if saved is not None:
            asked = SavedLists(workspace.home_path).applied(saved, "churn-risk", asked)
        with privacy.keeping(workspace.home_path):
            rows = churn_risk.churn_risk(predictor, self.as_of, **asked)
            with self.shop.if_read_only("what is listed is not in the prediction log"):
                predictions.log_served(workspace, churn_risk.with_models(rows, predictor), "list", self.shop.now())
        self.shop.note("list churn-risk", asked | {"as_of": self._asked}, len(rows), secret=contacts)
        rows.attrs["about"] = churn_risk.about(Terms.at(predictor, self.as_of), self.as_of, asked["unproven_offers"])
        return rows

    def win_back(
        self, *, top: int = 100, min_value: float = 0.0, max_value: float | None = None, attribute: Sequence[str] = (),
        search: str | None = None, sort: str = "lifetime_value", contacts: bool = False,
    ) -> pd.DataFrame:  # fmt: skip
        """Who left and what may still be expected of each, highest `sort` first; never who objected.

        Raises: as `churn_risk`.
        """
        from serving.lists import win_back
        from serving.lists.list_query import WinBackQuery

        asked: dict[str, Any] = {
            "top": _at_least_one(top), "min_value": min_value, "max_value": max_value, "attribute": [*attribute],
            "search": search,
            "sort": _one_of("sort", sort, ("lifetime_value", "spend", "last_purchase")),
        }  # fmt: skip
        return self._listed("win-back", win_back.page, WinBackQuery.model_construct(**asked), contacts)

    def cross_sell(
        self, *, item: str | None = None, kind: str | None = None, top: int = 100, min_value: float = 0.0,
        max_value: float | None = None, band: str | None = None, attribute: Sequence[str] = (),
        category: str | None = None, search: str | None = None, sort: str = "probability",
        unproven_offers: bool = False, contacts: bool = False,
    ) -> pd.DataFrame:  # fmt: skip
        """To whom `item` can be offered, or each customer's best offer of a `kind`; highest `sort` first.

        Raises: as `churn_risk`.
        """
        from serving.lists import cross_selling
        from serving.lists.list_query import CrossSellQuery

        asked: dict[str, Any] = {
            "top": _at_least_one(top), "min_value": min_value, "max_value": max_value, "attribute": [*attribute],
            "category": category, "search": search, "item": item,
            "kind": kind and _one_of("kind", kind, ("repeat", "new")),
            "band": band and _one_of("band", band, ("low", "medium", "high")),
            "sort": _one_of("sort", sort, ("probability", "lifetime_value", "value_at_risk")),
            "unproven_offers": unproven_offers,
        }  # fmt: skip
        return self._listed("cross-sell", cross_selling.page, CrossSellQuery.model_construct(**asked), contacts)

    def _listed(self, name: str, page_of: Callable[..., Page], asked: Rules, contacts: bool) -> pd.DataFrame:
        import pandas as pd

        from serving.terms import Terms
        from workspace import privacy

        workspace = self.shop.workspace
        with privacy.keeping(workspace.home_path):
            page = page_of(workspace, self.as_of, asked, Terms.of_scores(workspace, self.as_of), contacts)
            rows = pd.concat([*page.blocks])
        self.shop.note(f"list {name}", asked.model_dump() | {"as_of": self._asked}, len(rows), secret=contacts)
        rows.attrs["about"] = page.about
        return rows

    def bought_with(self, *, item: str | None = None, top: int = 5) -> pd.DataFrame:
        """What the buyers of an item, or of every one, buy with it more than by chance.

        Raises:
            NoSuchFilter: nobody bought such an item in the year before.
            CheckFailed: the day is not scored, or nothing is known to go with the item.
        """
        from serving.lists.bought_with import bought_with

        return bought_with(self.shop.workspace, self.as_of, item, _at_least_one(top))

    def segments(self, band: str | None = None) -> pd.DataFrame:
        """Who the customers at risk are: groups in words, each with its customers, risk and value.

        `attrs["about"]` of the frame has the sentences that a reader of the numbers needs.
        """
        from serving.lists import risk_groups
        from serving.terms import Terms

        predictor = self.predictor()
        groups = risk_groups.risk_groups(predictor, self.as_of, band)
        groups.attrs["about"] = tuple(Terms.at(predictor, self.as_of).sentences(self.as_of, offers=False))
        return groups

    def customer(self, customer_id: str) -> dict[str, Any]:
        """`Shop.customer`: everything that is held of a customer, whatever the day."""
        return self.shop.customer(customer_id)

    def predictor(self) -> Predictor:
        """What made the scores of this day.

        Raises:
            CheckFailed: there are no such scores, or they were made by what may not answer about the day.
        """
        from features.publications import FeatureMismatch
        from serving.predictor import Predictor

        try:
            return Predictor.that_scored(self.shop.workspace, registry.client, self.as_of)
        except (FeatureMismatch, FileNotFoundError) as problem:
            raise CheckFailed(str(problem)) from problem

    def training_set(self, kind: str) -> pd.DataFrame:
        """What a kind of model learns from at this day: a row per example, its features and what happened next.

        Columns: `customer_id`, `as_of` and, for cross-sell, `item`; the features; `churned`, `value` or `bought`. Only
        windows that have closed, and nobody who refuses profiling. Makes the snapshots that are missing.

        Raises:
            CheckFailed: no window has closed, or the kind cannot be learnt here.
        """
        from features import retrieval
        from training.learning import training_set

        kind, workspace = registry.as_kind(kind), self.shop.workspace
        with self.shop.alone():
            month.snapshot(workspace, self.as_of, self.shop.say, [kind])
            return training_set.training_set(retrieval.apply(workspace), workspace, kind, self.as_of)

    def backtest(self, kind: str | None = None, cutoffs: int | None = None) -> pd.DataFrame:
        """A row per kind, contender and figure: its mean, spread and worst over earlier dates that have closed.

        One kind, or all; at `cutoffs` dates, `training.backtest_cutoffs` if absent. These are the figures of
        `perennial backtest`, without its page and its MLflow run. `attrs["grades"]` has the letter of each kind.
        """
        from training import kinds
        from training.backtests import backtest_report

        workspace = self.shop.workspace
        subjects = [kinds.ALL[registry.as_kind(kind)]] if kind else [*kinds.ALL.values()]
        count = cutoffs or workspace.training.backtest_cutoffs
        with self.shop.alone():
            report = backtest_report.run(workspace, self.as_of, count, subjects, self.shop.say)
        return backtest_report.as_frame(report)

    def snapshot(self, *kinds: str) -> None:
        """Computes the features of this day, and of the earlier ones that these kinds, or all, learn from."""
        with self.shop.alone():
            month.snapshot(self.shop.workspace, self.as_of, self.shop.say, _kinds(kinds))

    def train(self, *kinds: str, tune: int = 0) -> dict[str, str]:
        """Fits these kinds, or all, on what was known; returns the registered version of each, for `promote`."""
        with self.shop.alone():
            return month.train(self.shop.workspace, self.as_of, self.shop.say, _kinds(kinds), tune)

    def promote(self, versions: Mapping[str, str]) -> pd.DataFrame:
        """Lets versions answer where the gate, and `retraining.promote`, let them, as a run does.

        `versions` by kind, as `train` returns them. A row each: kind, version, outcome, reasons. For what the gate
        refuses, `perennial promote` has `--force`.
        """
        import pandas as pd

        from perennial.month_page import Summary

        shop = self.shop
        reports = shop.workspace.home_path / "reports"
        summary = Summary(shop.workspace.name, self.as_of, shop.now(), reports, shop.say, 1)
        with shop.alone():
            for kind, version in versions.items():
                month.decide(
                    shop.workspace, registry.as_kind(kind), str(version), "it was asked for", shop.say, summary,
                    shop.options,
                )  # fmt: skip
        columns = ["kind", "version", "outcome", "reasons"]
        return pd.DataFrame([asdict(decision) for decision in summary.decisions], columns=columns)

    def score(self) -> None:
        """Scores every customer known and ranks offers for them, with the champions."""
        with self.shop.alone():
            month.score(self.shop.workspace, self.as_of, self.shop.say)

    def publish(self) -> None:
        """Puts the features of this day into the online store, where the service reads them."""
        with self.shop.alone():
            month.publish(self.shop.workspace, self.as_of, self.shop.say)

    def monitor(self) -> tuple[Drift, Outcomes]:
        """What has moved since the champion learnt, and how earlier predictions came true."""
        with self.shop.alone():
            return month.monitor(self.shop.workspace, self.as_of, self.shop.say)

    def run(self) -> bool:
        """The month: ingest, snapshot, monitor, train, promote, score, publish. False where something needs a look.

        Started again, it goes on. What it did is on a page in the home's `reports` folder.
        """
        shop = self.shop
        with shop.alone():
            return not month.run(shop.workspace, self.as_of, shop.options, shop.now, shop.say)

    @property
    def _asked(self) -> date | None:
        return self.as_of if self.is_named else None


def encode(rows: pd.DataFrame, format: Literal["csv", "xlsx", "json"]) -> bytes:
    """A frame of this module as the file that the command writes, byte by byte; safe to open in a spreadsheet.

    >>> rows = pd.DataFrame({"customer_id": ["c1"], "churn_probability": [0.25]})
    >>> perennial.encode(rows, "json")
    b'[{"customer_id":"c1","churn_probability":0.25}]'
    """
    from serving.lists import files

    return files.encode(rows, format, rows.attrs.get("about", ()))


def to_arrow(rows: pd.DataFrame) -> pa.Table:
    """A frame of this module as an Arrow table: texts are strings, days are days, moments are in UTC.

    >>> rows = pd.DataFrame({"customer_id": ["c1"], "as_of": [pd.Timestamp("2025-01-01")]})
    >>> perennial.to_arrow(rows).schema
    customer_id: string
    as_of: date32[day]
    """
    import pandas as pd
    import pyarrow as pa

    def typed(column: pd.Series) -> pa.Array:
        if pd.api.types.is_datetime64_dtype(column):
            return pa.array(column.dt.date, pa.date32())
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            return pa.array(column.dt.tz_convert("UTC"))
        return pa.array(column, pa.string() if column.dtype == object else None, from_pandas=True)

    return pa.table({name: typed(rows[name]) for name in rows.columns})


def _kinds(asked: Sequence[str]) -> Sequence[str]:
    return [registry.as_kind(kind) for kind in asked] or registry.KINDS


def _at_least_one(top: int) -> int:
    if top < 1:
        raise ValueError(f"top {top}: a list has at least one row")
    return int(top)


def _one_of(what: str, asked: str, among: Iterable[str]) -> str:
    if asked not in among:
        raise ValueError(f"{what} {asked!r}: there are {', '.join(among)}")
    return asked


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # of a container, whose user has no name
        return f"user {os.getuid()}"
