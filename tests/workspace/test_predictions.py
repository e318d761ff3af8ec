"""The prediction log: what is kept of whom, how much of it, and how a customer leaves it."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workspace import predictions, settings
from workspace.settings import Workspace

AS_OF = date(2024, 3, 1)
AT = datetime(2024, 3, 1, 9, tzinfo=UTC)


def make_workspace(home: Path, **monitoring: object) -> Workspace:
    raw = {
        "name": "shop",
        "home": str(home),
        "tables": {"transactions": {"path": "none.csv"}},
        "monitoring": monitoring,
    }
    return settings.parse(raw, "test")


def make_scores(customers: int = 3, as_of: date = AS_OF, churn: float = 0.2, version: int = 1) -> pd.DataFrame:
    return pd.DataFrame({
        "customer_id": [f"c{number}" for number in range(customers)], "as_of": as_of, "churn_probability": churn,
        "churn_band": "low", "p_alive": 0.9, "expected_purchases": 1.5, "lifetime_value": 30.0,
        "lifetime_value_low": 10.0, "lifetime_value_high": 50.0, "not_scored_reason": None,
        "churn_model": f"shop.churn/{version}", "lifetime_value_model": f"shop.lifetime_value/{version}",
    })  # fmt: skip


def days(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "predictions").glob("[0-9]*"))


def test_a_batch_is_logged_once_for_each_pair_of_models(tmp_path: Path) -> None:
    """Scored again by the same models it stands in place of what was; by others, or as a shadow, beside it."""
    workspace = make_workspace(tmp_path)
    for churn in (0.2, 0.3):
        assert predictions.log_batch(workspace, make_scores(churn=churn)) == 3
    predictions.log_batch(workspace, make_scores(version=2))
    predictions.log_batch(workspace, make_scores(version=3), role="shadow")
    logged = predictions.read(workspace)
    by_model = logged.groupby(["role", "churn_model"], observed=True)["churn_probability"]
    assert by_model.agg(["size", "mean"]).values.tolist() == [
        [3, pytest.approx(0.3)], [3, pytest.approx(0.2)], [3, pytest.approx(0.2)],
    ]  # fmt: skip
    assert predictions.read(workspace, "shadow")["churn_model"].unique().tolist() == ["shop.churn/3"]


def test_blocks_of_a_batch_are_one_file(tmp_path: Path) -> None:
    """Of rows that come block after block, some of them without a prediction, all are logged that are one."""
    workspace, scores = make_workspace(tmp_path), make_scores()
    predictions.log_batch(workspace, scores)
    whole = predictions.read(workspace)
    nobody = scores.assign(churn_probability=None, lifetime_value=None)
    blocks = [pa.Table.from_pandas(block) for block in (nobody, scores.iloc[:1], nobody, scores.iloc[1:])]
    assert predictions.log_batch(workspace, blocks) == len(whole)
    pd.testing.assert_frame_equal(predictions.read(workspace), whole)


def test_who_got_no_number_is_no_prediction(tmp_path: Path) -> None:
    """A customer without consent, or without a purchase, is not in the log; nor is an empty batch a file."""
    workspace = make_workspace(tmp_path)
    scores = make_scores()
    scores.loc[0, ["churn_probability", "lifetime_value"]] = None
    scores.loc[1, "churn_probability"] = None
    predictions.log_batch(workspace, scores)
    assert predictions.read(workspace)["customer_id"].tolist() == ["c1", "c2"]
    assert predictions.log_batch(workspace, make_scores(0, date(2024, 4, 1))) == 0
    assert days(tmp_path) == ["2024-03-01"]


def test_a_prediction_says_what_it_answered(tmp_path: Path) -> None:
    """Settings that change later do not change what an earlier prediction is held against."""
    workspace = make_workspace(tmp_path)
    predictions.log_served(workspace, make_scores(1), "scores", AT, horizon=30)
    changed = workspace.model_copy(update={"churn": workspace.churn.model_copy(update={"gap": 7})})
    predictions.log_batch(changed, make_scores(1))
    asked = {row.via: predictions.as_asked(workspace, row.question) for row in predictions.read(workspace).itertuples()}
    assert (asked["scores"].churn.horizon, asked["scores"].lifetime_value.horizon, asked["scores"].churn.gap) == (
        30,
        30,
        0,
    )
    assert (asked["batch"].churn.horizon, asked["batch"].churn.gap) == (90, 7)


def test_the_same_answer_again_is_a_count_not_a_row(tmp_path: Path) -> None:
    """A customer asked for all day takes one row, when it was last and how often; another answer is another row."""
    workspace = make_workspace(tmp_path)
    for minute in range(60):
        answers = make_scores(2, churn=0.2 if minute < 40 else 0.4).assign(as_of=str(AS_OF))
        predictions.log_served(workspace, answers, "card", AT.replace(minute=minute))
    predictions.bound(workspace)
    logged = predictions.read(workspace).sort_values(["customer_id", "churn_probability"])
    assert logged["times"].tolist() == [40, 20, 40, 20]
    assert logged["served_at"].dt.minute.tolist() == [39, 59, 39, 59]
    assert len(list((tmp_path / "predictions" / "2024-03-01").iterdir())) == 1


def test_answers_of_a_later_day_lie_there(tmp_path: Path) -> None:
    """Who had an event since the publication is answered as of the day after it, with its own window."""
    workspace = make_workspace(tmp_path)
    answers = make_scores(2).assign(as_of=["2024-03-01", "2024-03-09"])
    assert predictions.log_served(workspace, answers, "scores", AT) == 2
    assert days(tmp_path) == ["2024-03-01", "2024-03-09"]


def test_the_log_stays_within_its_days_and_its_space(tmp_path: Path) -> None:
    """Old as_ofs go, and where even fewer do not fit, the oldest first; the latest always stays."""
    workspace = make_workspace(tmp_path, keep_predictions=40)
    for month in (1, 2, 3, 4):
        predictions.log_batch(workspace, make_scores(as_of=date(2024, month, 1)))
    assert days(tmp_path) == ["2024-03-01", "2024-04-01"]
    predictions.bound(make_workspace(tmp_path, prediction_space=0.000001))
    assert days(tmp_path) == ["2024-04-01"]


def test_the_log_is_bounded_while_somebody_writes(tmp_path: Path) -> None:
    """A draft may go at any time, or be of a day that goes: it is passed over, and its part still comes in."""
    workspace = make_workspace(tmp_path, keep_predictions=40)
    for month in (1, 3):
        predictions.log_batch(workspace, make_scores(as_of=date(2024, month, 1)))
        day = tmp_path / "predictions" / f"2024-0{month}-01"
        (day / "just-renamed.draft").symlink_to(day / "gone")
    (day.parent / "2024-01-01" / "of-another.draft").touch()
    predictions.bound(workspace)
    assert set(predictions.read(workspace)["as_of"].astype(str)) == {"2024-03-01"}
    assert (day.parent / "2024-01-01" / "of-another.draft").exists()


@pytest.mark.parametrize("block", [1, 50_000])
def test_a_forgotten_customer_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Batches, answers and lists of every as_of; the others stay as they were, also when asked again."""
    monkeypatch.setattr(predictions, "_BLOCK", block)
    workspace = make_workspace(tmp_path)
    predictions.log_batch(workspace, make_scores())
    predictions.log_batch(workspace, make_scores(as_of=date(2024, 4, 1)), role="shadow")
    predictions.log_served(workspace, make_scores(), "list", AT)
    before = predictions.read(workspace)
    assert (before["customer_id"] == "c1").sum() == 3
    for _ in range(2):
        predictions.forget(workspace, ["c1"])
        after = predictions.read(workspace)
        pd.testing.assert_frame_equal(after, before[before["customer_id"] != "c1"].reset_index(drop=True))


def test_writing_while_others_read_and_put_together(tmp_path: Path) -> None:
    """Three writers and a reader at once lose no answer and meet no half of a file."""
    workspace = make_workspace(tmp_path)

    def write(writer: int) -> None:
        for number in range(40):
            answers = make_scores(1).assign(customer_id=f"c{writer}-{number}")
            predictions.log_served(workspace, answers, "scores", AT)

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        predictions.read(workspace)
        predictions.bound(workspace)
    assert predictions.read(workspace)["customer_id"].nunique() == 120


def test_what_was_logged_before_is_read_with_what_is_logged_now(tmp_path: Path) -> None:
    """Parts of an earlier version lack some columns: they are null, alone, beside new parts and put together."""
    workspace = make_workspace(tmp_path)
    for minute in (1, 2):
        predictions.log_served(workspace, make_scores(1), "card", AT.replace(minute=minute))
    for part in (tmp_path / "predictions" / "2024-03-01").glob("*.parquet"):
        rows = pq.read_table(part, partitioning=None)
        pq.write_table(rows.drop_columns(["churn_trained", "lifetime_value_trained", "horizon"]), part)
    assert predictions.read(workspace)["churn_trained"].isna().tolist() == [True, True]
    now = make_scores(1).assign(churn_trained="2024-02-01", lifetime_value_trained=AS_OF)
    predictions.log_served(workspace, now, "scores", AT, horizon=30)
    predictions.bound(workspace)
    logged = predictions.read(workspace).set_index("via")
    assert logged["times"].to_dict() == {"card": 2, "scores": 1}
    assert logged.loc["scores", ["churn_trained", "lifetime_value_trained", "horizon"]].tolist() == [
        pd.Timestamp("2024-02-01"), pd.Timestamp(AS_OF), 30,
    ]  # fmt: skip
    assert logged.loc["card", ["churn_trained", "horizon"]].isna().all()
