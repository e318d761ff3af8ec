"""Commands about models: train, judge, compare, promote, take back, build again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perennial import month
from perennial.commands.app import AnyModel, AsOf, Config, Home, OneModel, Set, alone, day_of, opened, timed
from workspace import registry, settings, storage
from workspace.settings import SettingsError, Workspace
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from training.gate.promotion import Verdict


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
    workspace = opened(config, overrides, home)
    kinds = [kind] if kind else [*registry.KINDS]
    with alone(workspace):
        month.train(workspace, day_of(workspace.timezone, as_of), timed(), kinds, tune)


def backtest(
    config: Config, cutoffs: Annotated[int | None, typer.Option(min=1, help="Earlier dates to judge the models at;"
    " training.backtest_cutoffs if absent.")] = None,
    overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Train the models as at earlier dates, on what was known then, and hold them against what followed.

    Naive rules and the field's models stand beside ours; a page and a JSON file go to the home's `reports` folder.
    Example: perennial backtest -c configs/online_retail.yaml --as-of 2011-03-01 --cutoffs 3
    """
    from training import kinds
    from training.backtests import backtest_page, backtest_report
    from training.records import backtest_run

    workspace = opened(config, overrides, home)
    with alone(workspace):
        day, say = day_of(workspace.timezone, as_of), timed()
        count = cutoffs or workspace.training.backtest_cutoffs
        report = backtest_report.run(workspace, day, count, [*kinds.ALL.values()], say)
        typer.echo(backtest_report.as_text(report))
        data, page = (workspace.home_path / "reports" / f"backtest-{day}{end}" for end in (".json", ".html"))
        storage.write_json(data, backtest_report.as_data(report))
        with storage.replacing(page) as draft:
            draft.write_text(backtest_page.as_html(report), encoding="utf-8")
        backtest_run.record(registry.client(), workspace, report, [data, page])
        typer.echo(f"\nthe page: {page}\nevery figure: {data}")


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
    from training.gate import promotion

    workspace = opened(config, overrides, home)
    if force is not None and not force.strip():
        raise SettingsError('--force needs a reason: --force "the shop asks about 60 days from now on"')
    refused = 0
    with alone(workspace):
        tracker = registry.client()
        kinds = [kind] if kind else [k for k in registry.KINDS if registry.has_versions(tracker, workspace, k)]
        if not kinds:
            raise CheckFailed(f"{workspace.name} has no registered model; `perennial train` makes one")
        for name in kinds:
            verdict = promotion.judge(tracker, workspace, name, version, timed())
            refused += not _promoted(tracker, workspace, name, verdict, force or "")
    if refused:
        raise typer.Exit(1)


def _promoted(tracker: MlflowClient, workspace: Workspace, kind: str, verdict: Verdict, forced: str) -> bool:
    """Lets the version in where the gate, or a reason, does; says as what, and why or why not."""
    from training.gate import promotion

    enters, ends = verdict.passed or bool(forced), "stays out"
    if enters:
        let_in = promotion.admit if verdict.stays else promotion.promote
        let_in(tracker, workspace, kind, verdict.version, "" if verdict.passed else forced)
        before = f"answers about days before the champion's (version {verdict.stays} stays champion)"
        ends = before if verdict.stays else "is champion"
    typer.echo(f"{workspace.name}.{kind} version {verdict.version} {ends}")
    if not verdict.passed and forced:
        typer.echo(f"  forced    {forced}")
    for sign, sentences in (("against", verdict.against), ("for", verdict.in_favour)):
        for sentence in sentences:
            typer.echo(f"  {sign:<8}  {sentence}")
    return enters


def compare(
    first: Annotated[str, typer.Argument(help="A run's id, or a version, such as demo.churn/3.")],
    second: Annotated[str, typer.Argument(help="The other one.")],
) -> None:
    """Hold two runs of one model against each other, on the customers that both were judged on.

    Differences with 95 % intervals, by segment, and whose scores moved most.
    Example: perennial compare demo.churn/2 demo.churn/3
    """
    from training.gate import comparison

    typer.echo(comparison.as_text(comparison.compare(registry.client(), first, second)))


def reproduce(
    run: Annotated[str, typer.Argument(help="A run's id, or a version, such as demo.churn/3.")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Also say which settings differ here.")] = None,
) -> None:
    """Build a run's model again from its commit, settings, data and seed; exit 1 when it predicts anything else.

    Example: perennial reproduce demo.churn/3
    """
    import mlflow

    from training.gate import reproduction

    tracker, say = registry.client(), timed()
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


def rollback(
    config: Config, kind: OneModel,
    overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Let the version that answered before the champion answer again.

    Example: perennial rollback churn -c configs/online_retail.yaml
    """
    from training.gate.promotion import rollback as take_back

    workspace = opened(config, overrides, home)
    with alone(workspace):
        champion = take_back(registry.client(), workspace, kind)
    typer.echo(f"{champion.name} version {champion.version} is champion again; `perennial score` lets lists follow")


def churn_sensitivity(
    config: Config, plot: Annotated[Path | None, typer.Option(help="PNG file for the picture.")] = None,
    overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """What 30, 60, 90, 120 or 180 days without a purchase would mean, before anyone commits to a horizon.

    Needs the ingested tables, no model. Example: perennial churn sensitivity -c configs/demo.yaml --plot horizons.png
    """
    from training.backtests import plots
    from training.check.sensitivity import as_text, sensitivity

    workspace = opened(config, overrides, home)
    definitions = sensitivity(workspace, day_of(workspace.timezone, as_of))
    typer.echo(as_text(definitions))
    if plot is not None:
        with storage.replacing(plot) as draft:
            plots.sensitivity(definitions).savefig(draft, format="png", dpi=120)
        typer.echo(f"\nthe picture: {plot}")
