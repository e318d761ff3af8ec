"""The command line: it reads the clock, puts the parts together, and turns errors into sentences and exit codes."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from perennial import settings, storage
from perennial.settings import SettingsError, Workspace
from perennial.storage import CheckFailed

if TYPE_CHECKING:
    from feast import FeatureStore
    from mlflow import MlflowClient

    from perennial.ingest import Account
    from serving.predictor import Predictor

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Which customers are about to leave, what each will be worth, and what each will buy next.",
)  # fmt: skip
list_app = typer.Typer(no_args_is_help=True, help="Lists to act on.")
app.add_typer(list_app, name="list")
churn_app = typer.Typer(no_args_is_help=True, help="What leaving means, and who is about to.")
app.add_typer(churn_app, name="churn")
keys_app = typer.Typer(no_args_is_help=True, help="The keys of those who may ask the service.")
app.add_typer(keys_app, name="keys")

Config = Annotated[Path, typer.Option("--config", "-c", help="Workspace file, e.g. configs/online_retail.yaml.")]
Set = Annotated[list[str], typer.Option("--set", help="key.path=value over the file; may be repeated.")]
Home = Annotated[Path | None, typer.Option("--home", help="Folder for the workspace's state, over the file's.")]
AsOf = Annotated[
    datetime | None,
    typer.Option("--as-of", formats=["%Y-%m-%d"], help="What was known before this day; today if absent."),
]
Out = Annotated[Path | None, typer.Option("--out", help="File to write; the terminal if absent.")]


class Kind(StrEnum):
    """The three models, as the command line spells them."""

    churn = "churn"
    lifetime_value = "lifetime-value"
    cross_sell = "cross-sell"


class Format(StrEnum):
    csv = "csv"
    xlsx = "xlsx"
    json = "json"


class Band(StrEnum):
    low = "low"
    medium = "medium"
    high = "high"


class For(StrEnum):
    """What a key is for."""

    crm = "crm"
    marketing = "marketing"
    admin = "admin"


class Exported(StrEnum):
    scores = "scores"
    offers = "offers"
    features = "features"


def main() -> None:
    """Runs a command: exit code 0 done, 1 a check failed, 2 wrong usage."""
    # Libraries warn about themselves and reset the filters; ours are errors with a sentence.
    warnings.showwarning = lambda *_, **__: None
    # LightGBM's threads spin while they wait: beside any other busy process a fit then takes six times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app(prog_name="perennial")
    except SettingsError as problem:
        _fail(str(problem), 2)
    except CheckFailed as problem:
        _fail(str(problem), 1)
    except Exception as problem:
        if _is_full_disk(problem):
            _fail(f"the disk is full: {str(problem).splitlines()[0]}; free some space and run again", 1)
        if not isinstance(problem, OSError):
            raise
        where = f": {problem.filename}" if problem.filename else ""
        _fail(f"{problem.strerror or problem}{where}; nothing was left half-written", 1)


def _fail(message: str, code: int) -> None:
    typer.secho(f"error: {message}", fg="red", err=True)
    sys.exit(code)


def _is_full_disk(problem: Exception) -> bool:
    """As the system, DuckDB and Arrow say it, or SQLite."""
    return any(text in str(problem) for text in ("No space left on device", "database or disk is full"))


def _open(config: Path, overrides: list[str], home: Path | None) -> Workspace:
    return settings.read(config, overrides, home)


def _day(workspace: Workspace, as_of: datetime | None) -> date:
    if as_of is not None:
        return as_of.date()
    today = datetime.now(ZoneInfo(workspace.timezone)).date()
    typer.echo(f"as_of is today, {today}")
    return today


def _say() -> Callable[[str], None]:
    """Progress on the terminal, each line with the seconds since the start."""
    start = time.monotonic()
    return lambda message: typer.echo(f"{time.monotonic() - start:7.1f} s  {message}", err=True)


@app.command()
def check(
    config: Config,
    json: Annotated[Path | None, typer.Option("--json", help="File to write every figure to.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="File to write a page with pictures to.")] = None,
    overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Look at the data before anything else: what is in the tables, which models they suffice for, what looks wrong.

    Writes nothing into the workspace; exit 1 when no model can be trained.
    Example: perennial check -c configs/cdnow.yaml --as-of 1997-10-01 --html check.html
    """
    import tempfile

    from training import data_check, data_report

    workspace = _open(config, overrides, home)
    day, say = _day(workspace, as_of), _say()
    with tempfile.TemporaryDirectory() as scratch:
        trial = workspace.model_copy(update={"home": scratch})
        found = data_check.check(trial, _trial_intake(workspace, trial, say), day, say)
    typer.echo(data_report.as_text(found))
    if json is not None:
        storage.write_json(json, data_report.as_data(found))
        typer.echo(f"\nevery figure: {json}")
    if html is not None:
        with storage.replacing(html) as draft:
            draft.write_text(data_report.as_html(found), encoding="utf-8")
        typer.echo(f"\nthe page: {html}")
    if not found.suffices:
        raise typer.Exit(1)


def _trial_intake(workspace: Workspace, trial: Workspace, say: Callable[[str], None]) -> list[Account]:
    """What `ingest` would take in, taken into a scratch folder that no message names."""
    from perennial.ingest import ingest as take_in

    try:
        return take_in(trial, _now(), say)
    except CheckFailed as problem:
        kept = f"`perennial ingest` puts them in {workspace.home_path}"
        raise CheckFailed(str(problem).replace(f"They are in {trial.home_path}", kept)) from problem


@app.command()
def ingest(config: Config, overrides: Set = [], home: Home = None) -> None:
    """Bring the canonical tables up to date with their sources; bad rows go to quarantine with a reason.

    Example: perennial ingest -c configs/online_retail.yaml
    """
    from perennial.ingest import ingest as take_in

    workspace = _open(config, overrides, home)
    with storage.locked(workspace.home_path):
        take_in(workspace, _now(), typer.echo)
        _catch_up(workspace, typer.echo)


@app.command()
def snapshot(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """Compute the features of one as_of, and of the earlier ones that training needs.

    Example: perennial snapshot -c configs/online_retail.yaml --as-of 2011-06-01
    """
    workspace = _open(config, overrides, home)
    with storage.locked(workspace.home_path):
        _snapshot(workspace, _day(workspace, as_of), _say())


@app.command()
def train(
    config: Config, kind: Annotated[Kind | None, typer.Argument(help="One model; all of them if absent.")] = None,
    overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Fit the models on what was known at as_of, and register them in MLflow.

    Example: perennial train churn -c configs/online_retail.yaml --as-of 2011-06-01
    """
    workspace = _open(config, overrides, home)
    with storage.locked(workspace.home_path):
        day, say = _day(workspace, as_of), _say()
        _snapshot(workspace, day, say)
        _train(workspace, day, say, [_model(kind)] if kind else None)


@app.command()
def backtest(
    config: Config, cutoffs: Annotated[int | None, typer.Option(min=1, help="Earlier dates to judge the models at;"
    " training.backtest_cutoffs if absent.")] = None,
    overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Train the models as at earlier dates, on what was known then, and hold them against what followed.

    Naive rules and the field's models stand beside ours; a page and a JSON file go to the home's `reports` folder.
    Example: perennial backtest -c configs/online_retail.yaml --as-of 2011-03-01 --cutoffs 3
    """
    from training import backtest_page, backtest_report

    workspace = _open(config, overrides, home)
    with storage.locked(workspace.home_path):
        day, say = _day(workspace, as_of), _say()
        count = cutoffs or workspace.training.backtest_cutoffs
        report = backtest_report.run(workspace, day, count, say)
        typer.echo(backtest_report.as_text(report))
        data, page = (workspace.home_path / "reports" / f"backtest-{day}{end}" for end in (".json", ".html"))
        storage.write_json(data, backtest_report.as_data(report))
        with storage.replacing(page) as draft:
            draft.write_text(backtest_page.as_html(report), encoding="utf-8")
        _tracker()
        backtest_report.record(workspace, report, [data, page])
        typer.echo(f"\nthe page: {page}\nevery figure: {data}")


@app.command()
def promote(
    config: Config, kind: Annotated[Kind | None, typer.Argument(help="One model; all of them if absent.")] = None,
    version: Annotated[str | None, typer.Option(help="The latest if absent.")] = None,
    overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Make a registered version the champion, which answers from then on.

    Example: perennial promote churn -c configs/online_retail.yaml --version 3
    """
    from perennial import registry
    from training.promotion import promote as make_champion

    workspace = _open(config, overrides, home)
    tracker = registry.client()
    kinds = [_model(kind)] if kind else [k for k in registry.KINDS if registry.has_versions(tracker, workspace, k)]
    if not kinds:
        raise CheckFailed(f"{workspace.name} has no registered model; `perennial train` makes one")
    for name in kinds:
        champion = make_champion(tracker, workspace, name, version)
        typer.echo(f"{champion.name} version {champion.version} is champion")


@app.command()
def score(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """Score every customer known at as_of and rank offers for them, with the champions.

    Example: perennial score -c configs/online_retail.yaml --as-of 2011-06-01
    """
    from features.snapshot import snapshot as compute

    workspace = _open(config, overrides, home)
    with storage.locked(workspace.home_path):
        day, say = _day(workspace, as_of), _say()
        predictor = _predictor(workspace)
        compute(workspace, [day], say)
        _score(predictor, day, say)


@app.command()
def publish(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """Put the features of as_of into the online store, where the service reads them.

    Example: perennial publish -c configs/online_retail.yaml --as-of 2011-06-01
    """
    workspace = _open(config, overrides, home)
    with storage.locked(workspace.home_path):
        _publish(workspace, _day(workspace, as_of), _say())


@app.command()
def monitor(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """Compare the customers of as_of with those the champion learnt from; exit 1 when the world has moved.

    Example: perennial monitor -c configs/online_retail.yaml --as-of 2011-06-01
    """
    workspace = _open(config, overrides, home)
    with storage.locked(workspace.home_path):
        if _monitor(workspace, _day(workspace, as_of), _say()):
            raise typer.Exit(1)


@app.command()
def run(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """All of it in order: ingest, snapshot, train, promote, score, publish, monitor. Started again, it goes on.

    Example: perennial run -c configs/online_retail.yaml --as-of 2011-06-01
    """
    workspace = _open(config, overrides, home)
    with storage.locked(workspace.home_path):
        _run(workspace, _day(workspace, as_of))


@list_app.command("churn-risk")
def list_churn_risk(
    config: Config, top: Annotated[int, typer.Option(min=1, help="So many customers at most.")] = 100,
    band: Annotated[Band | None, typer.Option(help="Only this band.")] = None,
    min_value: Annotated[float, typer.Option(help="Only customers worth at least this.")] = 0.0,
    format: Annotated[Format | None, typer.Option(help="csv, xlsx or json; a table if absent.")] = None,
    contacts: Annotated[bool, typer.Option("--contacts", help="With the contact data under `pii`.")] = False,
    out: Out = None, overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Who is about to leave, why, what they are worth, what to offer; highest value at risk first.

    Never lists who objected. Example: perennial list churn-risk -c configs/demo.yaml --top 500 --out risk.xlsx
    """
    from serving import lists

    workspace = _open(config, overrides, home)
    if format is None and out is not None:
        format = _format_of(out)
    rows = lists.churn_risk(
        _predictor(workspace), as_of.date() if as_of else None, top=top, min_value=min_value, band=band,
        contacts=contacts,
    )  # fmt: skip
    asked = {"top": top, "band": band, "min_value": min_value, "as_of": as_of and as_of.date(), "contacts": contacts}
    _note(workspace, "list churn-risk", asked, len(rows))
    if format is None:
        typer.echo(lists.as_text(rows))
    elif out is None:
        sys.stdout.buffer.write(lists.encode(rows, format.value))
    else:
        with storage.replacing(out) as draft:
            draft.write_bytes(lists.encode(rows, format.value))
        typer.echo(f"{len(rows):,} customers in {out}")


def _check_readiness(workspace: Workspace) -> None:
    from serving import readiness

    missing = 0
    for name, is_there, told in readiness.check(workspace):
        typer.echo(f"{'ok     ' if is_there else 'MISSING'}  {name:<26} {told}")
        missing += not is_there
    if missing:
        raise CheckFailed(f"{missing} of what the service needs is not there")


def _now() -> datetime:
    return datetime.now(UTC)


def _format_of(out: Path) -> Format:
    try:
        return Format(out.suffix[1:])
    except ValueError:
        raise SettingsError(f"--out {out}: end the name in .csv, .xlsx or .json, or name a --format") from None


@churn_app.command("sensitivity")
def churn_sensitivity(
    config: Config, plot: Annotated[Path | None, typer.Option(help="PNG file for the picture.")] = None,
    overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """What 30, 60, 90, 120 or 180 days without a purchase would mean, before anyone commits to a horizon.

    Needs the ingested tables, no model. Example: perennial churn sensitivity -c configs/demo.yaml --plot horizons.png
    """
    from training import plots
    from training.sensitivity import as_text, sensitivity

    workspace = _open(config, overrides, home)
    found = sensitivity(workspace, _day(workspace, as_of))
    typer.echo(as_text(found))
    if plot is not None:
        with storage.replacing(plot) as draft:
            plots.sensitivity(found).savefig(draft, format="png", dpi=120)
        typer.echo(f"\nthe picture: {plot}")


@churn_app.command("segments")
def churn_segments(
    config: Config, band: Annotated[Band | None, typer.Option(help="Only this band.")] = None,
    out: Out = None, overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Who the customers at risk are: groups in words, each with its customers, risk and value.

    Of a scored as_of, the latest if absent. Example: perennial churn segments -c configs/demo.yaml
    """
    from serving import lists, risk_groups

    workspace = _open(config, overrides, home)
    groups = risk_groups.risk_groups(_predictor(workspace), as_of.date() if as_of else None, band)
    if out is None:
        typer.echo(risk_groups.as_text(groups))
    else:
        with storage.replacing(out) as draft:
            draft.write_bytes(lists.encode(groups, _format_of(out).value))
        typer.echo(f"{len(groups):,} groups in {out}")


@app.command()
def export(
    config: Config, what: Annotated[Exported, typer.Argument(help="scores, offers or features.")],
    out: Annotated[Path, typer.Option("--out", help="A .parquet or .csv file.")],
    overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Write the scores, offers or features of a scored as_of (the latest if absent) to a file.

    Example: perennial export scores -c configs/online_retail.yaml --out scores.csv
    """
    from serving import exports

    workspace = _open(config, overrides, home)
    rows = exports.export(workspace, what.value, as_of.date() if as_of else None, out)
    _note(workspace, f"export {what.value}", {"as_of": as_of and as_of.date()}, rows)
    typer.echo(f"{rows:,} rows in {out}")


@app.command()
def serve(
    config: Config, port: Annotated[int | None, typer.Option(help="Over the file's.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what is missing, and start nothing.")] = False,
    overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Answer over HTTP until stopped; the bearer key is in PERENNIAL_API_KEY, others come from `perennial keys`.

    Example: PERENNIAL_API_KEY=secret perennial serve -c configs/demo.yaml --port 3000
    """
    workspace = _open(config, overrides, home)
    if port is not None:
        changed = workspace.service.model_copy(update={"port": port})
        workspace = workspace.model_copy(update={"service": changed})
    if check:
        _check_readiness(workspace)
        return
    from serving import processes

    processes.serve(workspace.home_path, workspace.service, _now)


@keys_app.command("add")
def add_key(
    config: Config, role: Annotated[For, typer.Option(help="crm, marketing or admin.")],
    contacts: Annotated[bool, typer.Option("--contacts", help="Lists show it the contact data under `pii`.")] = False,
    name: Annotated[str, typer.Option(help="Whose it is, for `keys list`.")] = "",
    overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Make a key and show it, once: only a hash of it is kept.

    crm: scores, cards and consents. marketing: lists. admin: everything.
    Example: perennial keys add --role marketing --contacts --name "spring campaign" -c configs/demo.yaml
    """
    from serving.keys import Keys

    workspace = _open(config, overrides, home)
    typer.echo(Keys(workspace.home_path).add(role.value, _now(), contacts, name))


@keys_app.command("list")
def list_keys(config: Config, overrides: Set = [], home: Home = None) -> None:
    """Show the keys' ids, what each is for, and which were revoked.

    Example: perennial keys list -c configs/demo.yaml
    """
    from serving.keys import Keys

    for key in Keys(_open(config, overrides, home).home_path).listed():
        role = f"{key.role}{', contacts' if key.contacts else ''}"
        state = f"revoked {key.revoked_at}" if key.revoked_at else f"added {key.added_at}"
        typer.echo(f"{key.id}  {role:<20}{state}  {key.name}")


@keys_app.command("revoke")
def revoke_key(
    config: Config, key_id: Annotated[str, typer.Argument(help="As `keys list` shows it.")],
    overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Let a key in no more, from now on, in services that are running too.

    Example: perennial keys revoke 1f0c93ab -c configs/demo.yaml
    """
    from serving.keys import Keys

    Keys(_open(config, overrides, home).home_path).revoke(key_id, _now())
    typer.echo(f"{key_id} is revoked")


@app.command()
def customer(
    config: Config, customer_id: Annotated[str, typer.Argument(help="As the shop calls them.")],
    out: Out = None, overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Show everything that is held of one customer, as JSON: rows by the file they lie in, and who has read them.

    Example: perennial customer C00012645 -c configs/demo.yaml --out held.json
    """
    import json

    from features import retrieval
    from perennial import privacy
    from serving import erasure
    from serving.audit import AuditLog

    workspace = _open(config, overrides, home)
    name = privacy.naming(workspace)(customer_id)
    try:
        held = erasure.held(workspace, retrieval.open_store(workspace), name)
    except erasure.UnknownCustomer:
        raise CheckFailed(f"nothing is held of {customer_id} in {workspace.home_path}") from None
    found = {"customer_id": name, "held": held, "audit": AuditLog(workspace.home_path).mentions(name)}
    _note(workspace, "customer", {}, sum(map(len, held.values())), [name])
    text = json.dumps(found, indent=2, default=str, ensure_ascii=False)
    if out is None:
        typer.echo(text)
    else:
        with storage.replacing(out) as draft:
            draft.write_text(text, encoding="utf-8")


@app.command()
def erase(
    config: Config, customer_ids: Annotated[list[str], typer.Argument(help="As the shop calls them.")],
    overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Erase customers from everything that is held, for good, and say where each was found. Killed, it goes on.

    Marks of who was erased stay, made with the key in PERENNIAL_PRIVACY_KEY: no ingest takes them in again.
    Example: perennial erase C00012645 -c configs/demo.yaml
    """
    from features import retrieval
    from perennial import privacy
    from serving import erasure

    workspace = _open(config, overrides, home)
    names = list(map(privacy.naming(workspace), customer_ids))
    with storage.locked(workspace.home_path):
        try:
            found = erasure.erase(workspace, retrieval.open_store(workspace), names, _say())
        except erasure.UnknownCustomer as problem:
            raise CheckFailed(f"nothing is held of {problem} in {workspace.home_path}; nobody was erased") from None
    for name, places in found.items():
        typer.echo(f"{name}: {sum(places.values()):,} rows in {len(places)} places are erased")
        for place, rows in places.items():
            typer.echo(f"  {rows:>8,}  {place}")
    _note(workspace, "erase", {}, sum(sum(places.values()) for places in found.values()), names)


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write the tables to.")],
    customers: Annotated[int, typer.Option(min=1)] = 20_000,
    years: Annotated[float, typer.Option(min=0.1)] = 3.0,
    seed: Annotated[int, typer.Option(min=0)] = 7,
) -> None:
    """Write the five tables of a made-up shop whose truth is known.

    Example: perennial simulate var/world --customers 20000 --years 3 --seed 7
    """
    from perennial.simulate import simulate as make_world

    make_world(out, customers=customers, years=years, seed=seed, progress=_say())


@app.command()
def demo(
    customers: Annotated[int, typer.Option(min=1000)] = 20_000,
    port: Annotated[int, typer.Option(help="For the service; a free one if absent.")] = 0,
) -> None:
    """See it all on a made-up shop: simulate, run, list, serve, ask, stop.

    Example: perennial demo --customers 20000
    """
    from perennial.demo import demo as show

    show(customers, port)


def _model(kind: Kind) -> str:
    return kind.value.replace("-", "_")


def _note(
    workspace: Workspace, what: str, asked: Mapping[str, object], rows: int, customers: Sequence[str] = ()
) -> None:
    """Leaves a line in the audit log, as every read over HTTP does."""
    import getpass

    from serving.audit import AuditLog, Read

    read = Read(getpass.getuser(), "command line", what, _now(), asked, rows, customers)
    AuditLog(workspace.home_path).add(read)


def _catch_up(workspace: Workspace, say: Callable[[str], None]) -> None:
    from serving.consent import Consents

    if changed := Consents(workspace.home_path).catch_up(workspace):
        say(f"customers: {changed:,} consents are later than what was said over HTTP")


def _snapshot(workspace: Workspace, day: date, say: Callable[[str], None]) -> None:
    from features.snapshot import snapshot as compute
    from training import pipelines

    compute(workspace, pipelines.cutoffs(workspace, day), say)


def _store(workspace: Workspace) -> FeatureStore:
    from features import retrieval

    return retrieval.apply(workspace)


def _tracker() -> MlflowClient:
    from perennial import registry

    return registry.client()


def _predictor(workspace: Workspace) -> Predictor:
    from features.online import FeatureMismatch
    from serving.predictor import NoChampion, Predictor

    try:
        return Predictor.load(workspace, _tracker())
    except (NoChampion, FeatureMismatch) as problem:
        raise CheckFailed(str(problem)) from problem


def _train(
    workspace: Workspace, day: date, say: Callable[[str], None], kinds: list[str] | None = None
) -> dict[str, str]:
    from perennial.registry import KINDS
    from training import pipelines

    versions = pipelines.train(_store(workspace), workspace, _tracker(), day, kinds or KINDS, say)
    return {kind: str(version.version) for kind, version in versions.items()}


def _score(predictor: Predictor, day: date, say: Callable[[str], None]) -> None:
    from serving import scoring

    if scoring.is_current(predictor, day):
        say(f"scores of {day} are there already")
    else:
        scoring.score(predictor, _store(predictor.workspace), day, say)


def _publish(workspace: Workspace, day: date, say: Callable[[str], None]) -> None:
    from features import online

    online.publish(_store(workspace), workspace, day, say)


def _monitor(workspace: Workspace, day: date, say: Callable[[str], None]) -> bool:
    from features.snapshot import snapshot as compute
    from monitoring import drift

    reference = drift.reference_of(_tracker(), workspace)
    compute(workspace, [reference, day], say)
    found = drift.watch(workspace, day, reference)
    say(str(found))
    return found.drifted


def _run(workspace: Workspace, day: date) -> None:
    from perennial.ingest import ingest as take_in
    from training.promotion import promote as make_champion

    say = _say()
    say(f"[1/7] ingest into {workspace.home_path}")
    take_in(workspace, _now(), say)
    _catch_up(workspace, say)
    say("[2/7] snapshot")
    _snapshot(workspace, day, say)
    say("[3/7] train")
    versions = _train(workspace, day, say)
    say("[4/7] promote")
    for kind, version in versions.items():
        make_champion(_tracker(), workspace, kind, version)
    say("[5/7] score")
    _score(_predictor(workspace), day, say)
    say("[6/7] publish")
    _publish(workspace, day, say)
    say("[7/7] monitor")
    _monitor(workspace, day, say)
    say(f"done: {storage.scores_path(workspace.home_path, day)}")
