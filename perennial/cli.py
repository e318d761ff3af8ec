"""The command line: its commands in the order of `--help`, and errors as sentences and exit codes."""

from __future__ import annotations

import os
import sys
import warnings

import typer

from perennial import problems
from perennial.commands import answers, data, models, operate, service
from perennial.commands.app import app, churn_app, keys_app, list_app

__all__ = ["app", "main"]

for command in (
    data.check, data.ingest, data.snapshot, models.train, models.backtest, models.promote, models.compare,
    models.reproduce, models.rollback, answers.score, answers.publish, operate.monitor, data.campaigns, operate.run,
    operate.schedule, answers.export, service.serve, service.mcp, service.customer, service.erase, data.simulate,
    operate.demo,
):  # fmt: skip
    app.command()(command)
list_app.command("churn-risk")(answers.list_churn_risk)
list_app.command("win-back")(answers.list_win_back)
list_app.command("cross-sell")(answers.list_cross_sell)
list_app.command("bought-with")(answers.list_bought_with)
churn_app.command("sensitivity")(models.churn_sensitivity)
churn_app.command("segments")(answers.churn_segments)
keys_app.command("add")(service.add_key)
keys_app.command("list")(service.list_keys)
keys_app.command("revoke")(service.revoke_key)
app.add_typer(list_app, name="list")
app.add_typer(churn_app, name="churn")
app.add_typer(keys_app, name="keys")


_ANSWERING = (["list"], ["export"])


def _load_lightgbm_alone() -> None:
    """LightGBM without its interface for scikit-learn, which takes longer to load than a list to be made."""
    sys.modules["sklearn"] = None  # type: ignore[assignment]
    try:
        import lightgbm  # noqa: F401
    finally:
        del sys.modules["sklearn"]


def main() -> None:
    """Runs a command: exit code 0 done, 1 a check failed, 2 wrong usage."""
    # Libraries warn about themselves and reset the filters; ours are errors with a sentence.
    warnings.showwarning = lambda *_, **__: None
    # Nothing here multiplies large matrices; threads woken for small ones spin, and cost what they were to save.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if sys.argv[1:2] in _ANSWERING and "--help" not in sys.argv:
        _load_lightgbm_alone()
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
