"""The command line: it reads the clock, puts the parts together, and turns errors into sentences and exit codes."""

from __future__ import annotations

import errno
import getpass
import os
import platform
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from perennial import month, problems, registry, settings, storage
from perennial.settings import SettingsError, Workspace
from perennial.storage import CheckFailed

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from perennial.ingest import Account
    from serving.predictor import Predictor
    from training.promotion import Verdict

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


def _kind(name: str) -> str:
    """A kind of model, as it is typed."""
    try:
        lower = name.strip().lower()
        return registry.as_kind(lower if lower.replace("-", "_") in registry.KINDS else name)
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from problem


_SPELT = "churn|lifetime-value|cross-sell"
OneModel = Annotated[str, typer.Argument(parser=_kind, metavar=_SPELT, help="The model.")]
AnyModel = Annotated[str | None, typer.Argument(parser=_kind, metavar=_SPELT, help="One model; all if absent.")]


class Format(StrEnum):
    csv = "csv"
    xlsx = "xlsx"
    json = "json"


class Band(StrEnum):
    low = "low"
    medium = "medium"
    high = "high"


class Sort(StrEnum):
    value_at_risk = "value_at_risk"
    churn_probability = "churn_probability"
    lifetime_value = "lifetime_value"


class Every(StrEnum):
    day = "day"
    week = "week"
    month = "month"


class Schedule(StrEnum):
    cron = "cron"
    service = "service"
    timer = "timer"


class For(StrEnum):
    """What a key is for."""

    crm = "crm"
    marketing = "marketing"
    admin = "admin"


class Exported(StrEnum):
    scores = "scores"
    offers = "offers"
    features = "features"


BandOption = Annotated[Band | None, typer.Option(case_sensitive=False, help="Only this band: low, medium or high.")]


def main() -> None:
    """Runs a command: exit code 0 done, 1 a check failed, 2 wrong usage."""
    # Libraries warn about themselves and reset the filters; ours are errors with a sentence.
    warnings.showwarning = lambda *_, **__: None
    # LightGBM's threads spin while they wait: beside any other busy process a fit then takes six times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # What a command, or a service, writes is about customers: MLflow, Feast and SQLite make files of their own too.
    os.umask(0o077)
    try:
        app(prog_name="perennial")
    except Exception as problem:
        told = problems.in_words(problem)
        if told is None:
            raise
        typer.secho(f"error: {told[0]}", fg="red", err=True)
        sys.exit(told[1])


def _open(config: Path, overrides: list[str], home: Path | None) -> Workspace:
    return settings.read(config, overrides, home)


def _day(workspace: Workspace, as_of: datetime | None) -> date:
    if as_of is not None:
        return as_of.date()
    today = datetime.now(ZoneInfo(workspace.timezone)).date()
    typer.echo(f"as_of is today, {today}")
    return today


def _day_to_publish(workspace: Workspace, as_of: datetime | None) -> date:
    home, today = workspace.home_path, datetime.now(ZoneInfo(workspace.timezone)).date()
    if as_of is not None or storage.scores_path(home, today).exists() or not storage.scored(home):
        return _day(workspace, as_of)
    latest = storage.latest_scored(home)
    typer.echo(f"today, {today}, has no scores: as_of is the latest day that has, {latest}")
    return latest


@contextmanager
def _alone(workspace: Workspace, command: str = "") -> Iterator[None]:
    """Sole use of the workspace, in the name of `command`, or else of the words that were typed before any option."""
    words = command or " ".join(["perennial", *takewhile(lambda word: not word.startswith("-"), sys.argv[1:])])
    process = f"process {os.getpid()} of {_user()} on {platform.node()}"
    with storage.locked(workspace.home_path, f"`{words}` ({process}) since {_now():%Y-%m-%d %H:%M:%S} UTC"):
        _erase_who_waits(workspace)
        yield


def _erase_who_waits(workspace: Workspace) -> None:
    """Customers whose erasure was asked of the service while another command was at work."""
    from serving.erasure_queue import ErasureQueue

    if not ErasureQueue(workspace.home_path).waiting():
        return
    from serving import erasure

    try:
        if count := erasure.finish(workspace, _now()):
            typer.echo(f"{count:,} customers who waited for it are erased", err=True)
    except (SettingsError, CheckFailed) as problem:
        typer.echo(f"customers wait to be erased, who are in no answer meanwhile: {problem}", err=True)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # of a container, whose user has no name
        return f"user {os.getuid()}"


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
    """What `ingest` would take in, taken into a scratch folder that no message names, with what customers have said."""
    from perennial import consents, privacy
    from perennial.ingest import ingest as take_in

    consents.copy(workspace.home_path, trial.home_path)
    if marks := privacy.erased(workspace.home_path):
        privacy.note_erased(trial.home_path, marks)
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
    workspace = _open(config, overrides, home)
    with _alone(workspace):
        month.ingest(workspace, _now(), typer.echo)


@app.command()
def snapshot(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """Compute the features of one as_of, and of the earlier ones that training needs.

    Example: perennial snapshot -c configs/online_retail.yaml --as-of 2011-06-01
    """
    workspace = _open(config, overrides, home)
    with _alone(workspace):
        month.snapshot(workspace, _day(workspace, as_of), _say())


@app.command()
def train(
    config: Config, kind: AnyModel = None,
    tune: Annotated[int, typer.Option(min=0, help="Try so many ways to learn, and take the best.")] = 0,
    features: Annotated[str | None, typer.Option(help="Show the model only these, or families of them.")] = None,
    overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Fit the models on what was known at as_of, and register them in MLflow; a stopped tuning goes on.

    Example: perennial train churn -c configs/online_retail.yaml --as-of 2011-06-01 --tune 40
    """
    if features is not None:
        if kind is None:
            raise SettingsError("--features are those of one model: perennial train churn --features ...")
        overrides = [*overrides, f"{kind}.features=[{features}]"]
    workspace = _open(config, overrides, home)
    kinds = [kind] if kind else [*registry.KINDS]
    with _alone(workspace):
        month.train(workspace, _day(workspace, as_of), _say(), kinds, tune)


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
    with _alone(workspace):
        day, say = _day(workspace, as_of), _say()
        count = cutoffs or workspace.training.backtest_cutoffs
        report = backtest_report.run(workspace, day, count, say)
        typer.echo(backtest_report.as_text(report))
        data, page = (workspace.home_path / "reports" / f"backtest-{day}{end}" for end in (".json", ".html"))
        storage.write_json(data, backtest_report.as_data(report))
        with storage.replacing(page) as draft:
            draft.write_text(backtest_page.as_html(report), encoding="utf-8")
        backtest_report.record(_tracker(), workspace, report, [data, page])
        typer.echo(f"\nthe page: {page}\nevery figure: {data}")


@app.command()
def promote(
    config: Config, kind: AnyModel = None,
    version: Annotated[str | None, typer.Option(help="The latest if absent.")] = None,
    force: Annotated[str | None, typer.Option(help="Why it is to answer whatever the gate says; recorded.")] = None,
    overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Make a registered version the champion, which answers from then on, if it is better than the one that does.

    Says what speaks for and against it; exit 1 when it stays out.
    Example: perennial promote churn -c configs/online_retail.yaml --version 3
    """
    from training import promotion

    workspace = _open(config, overrides, home)
    if force is not None and not force.strip():
        raise SettingsError('--force needs a reason: --force "the shop asks about 60 days from now on"')
    refused = 0
    with _alone(workspace):
        tracker = registry.client()
        kinds = [kind] if kind else [k for k in registry.KINDS if registry.has_versions(tracker, workspace, k)]
        if not kinds:
            raise CheckFailed(f"{workspace.name} has no registered model; `perennial train` makes one")
        for name in kinds:
            verdict = promotion.judge(tracker, workspace, name, version, _say())
            refused += not _promoted(tracker, workspace, name, verdict, force or "")
    if refused:
        raise typer.Exit(1)


def _promoted(tracker: MlflowClient, workspace: Workspace, kind: str, verdict: Verdict, forced: str) -> bool:
    """Moves the alias where the gate, or a reason, lets the version in; says why or why not."""
    from training import promotion

    enters = verdict.passed or bool(forced)
    if enters:
        promotion.promote(tracker, workspace, kind, verdict.version, "" if verdict.passed else forced)
    ends = "is champion" if enters else "stays out"
    typer.echo(f"{workspace.name}.{kind} version {verdict.version} {ends}")
    if not verdict.passed and forced:
        typer.echo(f"  forced    {forced}")
    for sign, sentences in (("against", verdict.against), ("for", verdict.in_favour)):
        for sentence in sentences:
            typer.echo(f"  {sign:<8}  {sentence}")
    return enters


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A run's id, or a version, such as demo.churn/3.")],
    second: Annotated[str, typer.Argument(help="The other one.")],
) -> None:
    """Hold two runs of one model against each other, on the customers that both were judged on.

    Differences with 95 % intervals, by segment, and whose scores moved most.
    Example: perennial compare demo.churn/2 demo.churn/3
    """
    from training import comparison

    typer.echo(comparison.as_text(comparison.compare(_tracker(), first, second)))


@app.command()
def reproduce(
    run: Annotated[str, typer.Argument(help="A run's id, or a version, such as demo.churn/3.")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Also say which settings differ here.")] = None,
) -> None:
    """Build a run's model again from its commit, settings, data and seed; exit 1 when it predicts anything else.

    Example: perennial reproduce demo.churn/3
    """
    import mlflow

    from training import reproduction

    tracker, say = _tracker(), _say()
    recorded = reproduction.Recorded.of(tracker, run)
    changed = recorded.differences(settings.read(config) if config else None)
    for sentence in changed:
        typer.echo(sentence)
    if recorded.can_be_checked_out:
        say(f"checking out {recorded.commit}")
        raise typer.Exit(reproduction.in_checkout(recorded, mlflow.get_tracking_uri()))
    apart = reproduction.apart(recorded, reproduction.rebuild(recorded, say))
    if apart > reproduction.TOLERANCE:
        why = "" if changed else "; nothing that was recorded has changed: this is a fault of Perennial"
        raise CheckFailed(f"run {recorded.run_id} is not reproduced: predictions are up to {apart:.2g} apart{why}")
    typer.echo(f"run {recorded.run_id} is reproduced: predictions are within {reproduction.TOLERANCE:g} ({apart:.1g})")


@app.command()
def rollback(
    config: Config, kind: OneModel,
    overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Let the version that answered before the champion answer again.

    Example: perennial rollback churn -c configs/online_retail.yaml
    """
    from training.promotion import rollback as take_back

    workspace = _open(config, overrides, home)
    with _alone(workspace):
        champion = take_back(_tracker(), workspace, kind)
    typer.echo(f"{champion.name} version {champion.version} is champion again; `perennial score` lets lists follow")


@app.command()
def score(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """Score every customer known at as_of and rank offers for them, with the champions.

    Example: perennial score -c configs/online_retail.yaml --as-of 2011-06-01
    """
    workspace = _open(config, overrides, home)
    with _alone(workspace):
        month.score(workspace, _day(workspace, as_of), _say())


@app.command()
def publish(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """Put the features of as_of into the online store, where the service reads them.

    Without --as-of it is today, or the latest day that was scored where today was not.
    Example: perennial publish -c configs/online_retail.yaml --as-of 2011-06-01
    """
    workspace = _open(config, overrides, home)
    with _alone(workspace):
        month.publish(workspace, _day_to_publish(workspace, as_of), _say())


@app.command()
def monitor(
    config: Config,
    ui: Annotated[bool, typer.Option("--ui", help="Look around in Evidently's own pages of the latest runs.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of --ui, on this machine alone.")] = 8000,
    overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Hold earlier predictions against what happened, and the world of as_of against the one the champion learnt from.

    Exit 1 when it has moved. Pages and JSON go to the home's `reports` folder.
    Example: perennial monitor -c configs/online_retail.yaml --as-of 2011-06-01
    """
    workspace = _open(config, overrides, home)
    if ui:
        from monitoring import report

        report.serve(workspace, port)
        return
    with _alone(workspace):
        drift, _ = month.monitor(workspace, _day(workspace, as_of), _say())
    if drift.drifted:
        raise typer.Exit(1)


@app.command()
def campaigns(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """What customers did after past campaign contacts, and which features would tell a model of the contacts.

    Needs the ingested tables, no model. Example: perennial campaigns -c configs/demo.yaml --as-of 2025-01-01
    """
    from monitoring.campaigns import as_text, response

    workspace = _open(config, overrides, home)
    typer.echo(as_text(response(workspace, _day(workspace, as_of))))


@app.command()
def run(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """All of it in order: ingest, snapshot, monitor, train, promote, score, publish. Started again, it goes on.

    Trains where there is no champion, the champion is older than retraining.max_age, or drift matters; promotes what
    passes the gate. What it did is on a page in the home's `reports` folder; what needs a look goes to `alerts`. Exit 1
    when it breaks off, the gate refuses, or there is drift and no new champion.

    Example: perennial run -c configs/online_retail.yaml --as-of 2011-06-01
    """
    workspace = _open(config, overrides, home)
    with _alone(workspace):
        if month.run(workspace, _day(workspace, as_of), _typed(config, overrides, home), _now, _say()):
            raise typer.Exit(1)


def _typed(config: Path, overrides: list[str], home: Path | None) -> str:
    """The options that name a workspace, for the next command; without what may hold the password of a database."""
    words = ["-c", str(config), *(["--home", str(home)] if home else [])]
    words += [word for override in overrides if "://" not in override for word in ("--set", override)]
    return shlex.join(words)


@app.command()
def schedule(
    config: Config, every: Annotated[Every, typer.Option(help="How often; a week begins on Monday.")] = Every.month,
    at: Annotated[datetime, typer.Option(formats=["%H:%M"], help="In the workspace's timezone.")] = "04:00",  # type: ignore[assignment]
    only: Annotated[Schedule | None, typer.Option(help="One of the three, to put into a file.")] = None,
    overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Print what makes `perennial run` run by itself: lines for cron, or a service and a timer for systemd.

    Example: perennial schedule -c configs/online_retail.yaml --every month --at 04:00
    """
    from perennial import schedule as schedules

    workspace, folder = _open(config, overrides, home), Path.cwd()
    command = [str(Path(sys.executable).with_name("perennial")), "run", "-c", str(config.resolve())]
    command += [word for override in overrides for word in ("--set", override)]
    command += ["--home", str(home.resolve())] if home else []
    time_of_day = f"{at:%H:%M}"
    texts = {
        Schedule.cron: schedules.crontab(workspace, command, folder, every.value, time_of_day),
        Schedule.service: schedules.service(workspace, command, folder),
        Schedule.timer: schedules.timer(workspace, every.value, time_of_day),
    }
    if only is not None:
        typer.echo(texts[only], nl=False)
        return
    unit = f"/etc/systemd/system/perennial-{workspace.name}"
    typer.echo(f"# Either cron: `crontab -e`, and add\n{texts[Schedule.cron]}")
    typer.echo(f"# or systemd: {unit}.service\n{texts[Schedule.service]}")
    typer.echo(
        f"# {unit}.timer, then `systemctl enable --now perennial-{workspace.name}.timer`\n{texts[Schedule.timer]}"
    )


@list_app.command("churn-risk")
def list_churn_risk(
    config: Config, top: Annotated[int, typer.Option(min=1, help="So many customers at most.")] = 100,
    band: BandOption = None,
    min_value: Annotated[float, typer.Option(help="Only customers worth at least this.")] = 0.0,
    max_value: Annotated[float | None, typer.Option(help="Only customers worth at most this.")] = None,
    attribute: Annotated[list[str], typer.Option(help="Only who has it, as name:value; repeated, all must hold.")] = [],
    category: Annotated[str | None, typer.Option(help="Only who bought of it in the last 365 days.")] = None,
    sort: Annotated[Sort, typer.Option(metavar="<column>", help=f"Highest first: {', '.join(Sort)}.")] = (
        Sort.value_at_risk
    ),
    unproven_offers: Annotated[
        bool, typer.Option("--unproven-offers", help="Also name offers of a model whose grade is none.")
    ] = False,
    format: Annotated[
        Format | None, typer.Option(case_sensitive=False, help="csv, xlsx or json; a table if absent.")
    ] = None,
    contacts: Annotated[bool, typer.Option("--contacts", help="With the contact data under `pii`.")] = False,
    out: Out = None, overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Who is about to leave, why, what they are worth, what to offer; highest value at risk first.

    Never lists who objected. Beside a number stands its grade where that is C or none. Filters take any case, and a
    value that no customer has is refused.
    Example: perennial list churn-risk -c configs/demo.yaml --top 500 --out risk.xlsx
    """
    from perennial import predictions, privacy
    from serving import lists
    from serving.terms import Terms

    workspace = _open(config, overrides, home)
    if format is None and out is not None:
        format = _format_of(out)
    predictor = _that_scored(workspace, as_of)
    day = as_of.date() if as_of else storage.latest_scored(workspace.home_path)
    asked = {
        "top": top, "min_value": min_value, "max_value": max_value, "band": band, "attribute": attribute,
        "category": category, "sort": sort.value, "unproven_offers": unproven_offers, "contacts": contacts,
    }  # fmt: skip
    with privacy.keeping(workspace.home_path):
        rows = lists.churn_risk(predictor, day, **asked)  # type: ignore[arg-type]
        with _if_read_only("what is listed is not in the prediction log"):
            predictions.log_served(workspace, lists.with_models(rows, predictor), "list", _now())
    _note(workspace, "list churn-risk", asked | {"as_of": as_of and as_of.date()}, len(rows), secret=contacts)
    notes = lists.about(Terms.at(predictor, day), day, unproven_offers)
    if format is None:
        typer.echo("\n".join([lists.as_text(rows), "", *notes]))
    elif out is None:
        sys.stdout.buffer.write(lists.encode(rows, format.value, notes))
    else:
        with storage.replacing(out) as draft:
            draft.write_bytes(lists.encode(rows, format.value, notes))
        typer.echo(f"{len(rows):,} customers in {out}")


@list_app.command("bought-with")
def list_bought_with(
    config: Config, item: Annotated[str | None, typer.Option(help="Of this item; of every one if absent.")] = None,
    top: Annotated[int, typer.Option(min=1, max=20, help="So many companions of an item at most.")] = 5,
    out: Out = None, overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """What the buyers of an item buy with it more than by chance, for its product page.

    Of a scored as_of, the latest if absent. Example: perennial list bought-with -c configs/demo.yaml --out rules.csv
    """
    from serving import lists
    from serving.bought_with import bought_with

    workspace = _open(config, overrides, home)
    rules = bought_with(workspace, as_of.date() if as_of else None, item, top)
    if out is None:
        typer.echo(rules.to_string(index=False, float_format=lambda figure: f"{figure:.3f}"))
    else:
        with storage.replacing(out) as draft:
            draft.write_bytes(lists.encode(rules, _format_of(out).value))
        typer.echo(f"{len(rules):,} rules in {out}")


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
        return Format(out.suffix[1:].lower())
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
    config: Config, band: BandOption = None,
    out: Out = None, overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Who the customers at risk are: groups in words, each with its customers, risk and value.

    Of a scored as_of, the latest if absent. Example: perennial churn segments -c configs/demo.yaml
    """
    from serving import lists, risk_groups
    from serving.terms import Terms

    workspace = _open(config, overrides, home)
    predictor = _that_scored(workspace, as_of)
    day = as_of.date() if as_of else storage.latest_scored(workspace.home_path)
    groups = risk_groups.risk_groups(predictor, day, band)
    notes = tuple(Terms.at(predictor, day).sentences(day, offers=False))
    if out is None:
        typer.echo("\n".join([risk_groups.as_text(groups), "", *notes]))
    else:
        with storage.replacing(out) as draft:
            draft.write_bytes(lists.encode(groups, _format_of(out).value, notes))
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
    from serving.predictor import scored_by

    workspace = _open(config, overrides, home)
    if what is not Exported.features:
        scored_by(workspace, _tracker(), as_of.date() if as_of else storage.latest_scored(workspace.home_path))
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


def _customers(given: str | list[str]) -> str | list[str]:
    """The ids that are meant, without the blanks that came with them."""
    from perennial import ids

    try:
        return ids.canonical(given) if isinstance(given, str) else list(map(ids.canonical, given))
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from problem


@app.command()
def customer(
    config: Config, customer_id: Annotated[str, typer.Argument(callback=_customers, help="As the shop calls them.")],
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
    _note(workspace, "customer", {}, sum(map(len, held.values())), [name], secret=True)
    text = json.dumps(found, indent=2, default=str, ensure_ascii=False)
    if out is None:
        typer.echo(text)
    else:
        with storage.replacing(out) as draft:
            draft.write_text(text, encoding="utf-8")


@app.command()
def erase(
    config: Config,
    customer_ids: Annotated[list[str], typer.Argument(callback=_customers, help="As the shop calls them.")],
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
    with _alone(workspace, "perennial erase"):  # whom it erases stands in no file
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


def _note(
    workspace: Workspace, what: str, asked: Mapping[str, object], rows: int, customers: Sequence[str] = (),
    secret: bool = False,
) -> None:  # fmt: skip
    """Leaves a line in the audit log, as every read over HTTP does; without it nothing is shown that is `secret`.

    Raises:
        OSError: it cannot be written, though the home is not read-only.
        CheckFailed: it cannot be written, and contact data would be shown.
    """
    from serving.audit import AuditLog, Read

    read, log = Read(_user(), "command line", what, _now(), asked, rows, customers), AuditLog(workspace.home_path)
    if secret:
        try:
            log.add(read)
        except OSError as problem:
            raise CheckFailed(
                f"{log.path} cannot be written ({problem.strerror}): contact data are not shown without a line there"
            ) from problem
    else:
        with _if_read_only("no line of the audit log says who has read this"):
            log.add(read)


@contextmanager
def _if_read_only(so: str) -> Iterator[None]:
    """In a home that is read-only, what should be noted there is not: that is said, and the command goes on."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        typer.echo(f"the home is read-only, so {so}", err=True)


def _tracker() -> MlflowClient:
    return registry.client()


def _that_scored(workspace: Workspace, as_of: datetime | None) -> Predictor:
    """What made the scores of a day, or the latest ones."""
    from features.publications import FeatureMismatch
    from serving.predictor import Predictor

    day = as_of.date() if as_of else storage.latest_scored(workspace.home_path)
    try:
        return Predictor.that_scored(workspace, _tracker(), day)
    except (FeatureMismatch, FileNotFoundError) as problem:
        raise CheckFailed(str(problem)) from problem
