"""What a perfect forecaster would say of a made-up shop, from the latent parameters kept under `OUT/truth/`."""

import json
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simulation.parameters import (
    CATEGORIES,
    CONTACT_DAYS,
    COOLING,
    COUPON,
    COUPON_SHARE,
    ENGAGED,
    FINE,
    GONE,
    LEAVING_NIGHT,
    NEVER,
    OUTCOMES,
    PACE,
    REGULAR_STEPS,
    RETURN_AFTER_FAILURE,
    RETURN_FIRST,
    RETURN_LAST,
    Bools,
    Floats,
    Ints,
)
from simulation.shop import campaign_days, campaign_on, day_number, seasonal_factor


def truth(out: Path, as_of: date, horizon: int) -> pd.DataFrame:
    """What a forecaster who knew everything up to midnight (UTC) of `as_of` would expect of `[as_of, as_of + horizon)`.

    One row per customer who signed up before `as_of`, in the order of customers.parquet:

    - `customer_id`; `p_alive`: 1 if they will still buy, 0 if they have left for good
    - `expected_purchases`: orders, at most one a day
    - `expected_spend`: net of returns; of earlier orders' returns too, so it is negative for some who have left
    - `no_purchase_probability`; `survival_probability`: not left when the window ends
    - `contact_effect_purchases`, `contact_effect_spend`, `contact_effect_no_purchase_probability`: what a contact on
      the day `as_of` would add, compared with none from then on
    - `purchase_probability_<category>`: an order in the window holds it

    Everything else takes the campaigns as they were drawn; none begins after the records end.
    """
    settings = _settings(out)
    start, end = (day_number(date.fromisoformat(settings[key])) for key in ("starts", "ends"))
    if not start < day_number(as_of) <= end:
        raise ValueError(f"as_of is {as_of}; {out} was played from {settings['starts']} to {settings['ends']}, so it "
                         "must be later than the first and no later than the second")  # fmt: skip
    if horizon < 1:
        raise ValueError(f"horizon is {horizon} days; it must be at least 1")
    window = np.arange(day_number(as_of), day_number(as_of) + horizon)
    parts = sorted(path.name for path in (out / "truth/customers").iterdir())
    answers = [_answers(out / "truth", part, window, campaign_days(start, end)) for part in parts]
    return pd.concat(answers, ignore_index=True)


def _settings(out: Path) -> dict[str, Any]:
    path = out / "truth/simulation.json"
    if not path.exists():
        raise ValueError(f"{out} holds no simulation ({path} is missing); write one with `perennial simulate {out}`")
    settings: dict[str, Any] = json.loads(path.read_text())
    return settings


def _answers(folder: Path, part: str, window: Ints, campaigns: Ints) -> pd.DataFrame:
    """The rows of one part."""
    latent = pd.read_parquet(folder / "customers" / part).set_index("customer_id")
    as_of = window[0]
    latent["phase"] = (latent["initial_phase"] + _steps_before(folder, part, latent.index, as_of)) % latent["steps"]
    latent["mood"] = np.where(_day_numbers(latent["cooled"]) <= as_of, COOLING, ENGAGED)
    contacted = _contacted(folder, part, latent.index, len(campaigns))
    known = _day_numbers(latent["joined"]) < as_of
    alive = known & (_day_numbers(latent["left"]) > as_of)
    # One pass per number of steps: the state has as many phases. An empty pass gives the columns.
    groups = [alive & (latent["steps"] == steps).to_numpy() for steps in (1, REGULAR_STEPS)]
    answers = pd.concat([_forecast(latent[group], contacted[group], window, campaigns) for group in groups])
    answers = answers.reindex(latent.index[known], fill_value=0.0)
    answers.insert(0, "p_alive", alive[known].astype(float))
    answers.loc[answers["p_alive"] == 0, "no_purchase_probability"] = 1.0
    answers["expected_spend"] -= _pending_returns(folder, part, latent, window)[known]
    return answers.reset_index()


def _day_numbers(dates: pd.Series) -> Ints:
    """Days since 1970, NEVER for null."""
    days = pd.to_datetime(dates).to_numpy("datetime64[D]")
    return np.where(np.isnat(days), NEVER, days.astype(np.int64))


def _steps_before(folder: Path, part: str, customer_ids: pd.Index, as_of: int) -> Ints:
    before = [("day", "<", date(1970, 1, 1) + timedelta(int(as_of)))]
    steps = pd.read_parquet(folder / "steps" / part, columns=["customer_id"], filters=before)
    return np.bincount(customer_ids.get_indexer(pd.Index(steps["customer_id"])), minlength=len(customer_ids))


def _contacted(folder: Path, part: str, customer_ids: pd.Index, n_campaigns: int) -> Bools:
    """Customer x campaign."""
    contacts = pd.read_parquet(folder / "assignments" / part, filters=[("contacted", "==", True)])
    contacted = np.zeros((len(customer_ids), n_campaigns), dtype=bool)
    campaign = contacts["campaign_id"].str[1:].astype(np.int64)
    contacted[customer_ids.get_indexer(pd.Index(contacts["customer_id"])), campaign] = True
    return contacted


def _forecast(latent: pd.DataFrame, contacted: Bools, window: Ints, campaigns: Ints) -> pd.DataFrame:
    """Customers who are alive and share a number of steps."""
    earlier = _exposed(contacted & (campaigns < window[0]), window, campaigns)
    under_contact = (window > window[0]) & (window <= window[0] + CONTACT_DAYS)
    effect = _expected(latent, earlier | under_contact[:, None], window) - _expected(latent, earlier, window)
    exposed = _exposed(contacted, window, campaigns)
    answers = _expected(latent, exposed, window)
    answers = answers.join(effect.drop(columns="survival_probability").rename(columns=_CONTACT_EFFECTS))
    steps = _step_probabilities(latent, exposed, window)
    in_basket = np.array(latent["in_basket"].to_list()).reshape(len(latent), len(CATEGORIES))
    for category, name in enumerate(CATEGORIES):
        answers[f"purchase_probability_{name}"] = 1 - _outlook(latent, steps, 1 - in_basket[:, category]).missed
    return answers


_CONTACT_EFFECTS = {
    "expected_purchases": "contact_effect_purchases",
    "expected_spend": "contact_effect_spend",
    "no_purchase_probability": "contact_effect_no_purchase_probability",
}


def _exposed(contacted: Bools, window: Ints, campaigns: Ints) -> Bools:
    """Day x customer: is a contact in effect?"""
    campaign = campaign_on(window, campaigns)
    return np.array([contacted[:, c] if c >= 0 else np.zeros(len(contacted), dtype=bool) for c in campaign])


def _expected(latent: pd.DataFrame, exposed: Bools, window: Ints) -> pd.DataFrame:
    steps = _step_probabilities(latent, exposed, window)
    outlook = _outlook(latent, steps, 1.0)
    returned = np.outer(_returned_by(window[-1] - window), latent["return_probability"])
    spend = outlook.orders * (1 - COUPON_SHARE * COUPON * exposed) * (1 - returned)
    return pd.DataFrame({
        "expected_purchases": outlook.orders.sum(axis=0),
        "expected_spend": spend.sum(axis=0) * latent["spend_per_order"],
        "no_purchase_probability": _outlook(latent, steps, 0.0).missed,
        "survival_probability": outlook.survival,
    }, index=latent.index)  # fmt: skip


def _returned_by(days: Ints) -> Floats:
    """Share of the lines that come back which have done so within this many days."""
    return np.clip((days - RETURN_FIRST + 1.0) / (RETURN_LAST - RETURN_FIRST + 1), 0.0, 1.0)


def _step_probabilities(latent: pd.DataFrame, exposed: Bools, window: Ints) -> Floats:
    """Day x mood (engaged, cooling) x customer."""
    rate = (latent["purchase_rate"] * latent["steps"]).to_numpy()
    rate = rate * np.where(exposed, 1 + latent["contact_effect"].to_numpy(), 1.0) * seasonal_factor(window)[:, None]
    return -np.expm1(-rate[:, None, :] * PACE[:GONE, None])


@dataclass(frozen=True)
class _Outlook:
    orders: Floats  # day x customer: expected
    survival: Floats
    missed: Floats  # probability that no order was noticed


def _outlook(latent: pd.DataFrame, step_probabilities: Floats, unnoticed: Floats | float) -> _Outlook:
    """Carry the distribution over (mood, phase) through the window, as `lives.play` carries one customer.

    An order is noticed with probability 1 - `unnoticed`, and then drops out: what remains is E[unnoticed ** orders].
    """
    phases = int(latent["steps"].max()) if len(latent) else 1
    state = np.zeros((GONE, phases, len(latent)))
    state[latent["mood"], latent["phase"], np.arange(len(latent))] = 1.0
    gone = np.zeros(len(latent))
    orders = np.empty((len(step_probabilities), len(latent)))
    leaving, cooling = latent["leaving"].to_numpy(), latent["cooling"].to_numpy()
    for day, probability in enumerate(step_probabilities):
        stepped = state * probability[:, None]
        state -= stepped
        state[:, 1:] += stepped[:, :-1]
        ordered = stepped[:, -1]
        orders[day] = ordered.sum(axis=0)
        ordered = ordered * unnoticed
        state[:, 0] += ordered * (1 - leaving)
        cooled, left = state[ENGAGED] * cooling, state[COOLING] * LEAVING_NIGHT
        state[ENGAGED] -= cooled
        state[COOLING] += cooled - left
        gone += (ordered * leaving).sum(axis=0) + left.sum(axis=0)
    survival = state.sum(axis=(0, 1))
    return _Outlook(orders, survival, np.minimum(survival + gone, 1.0))  # rounding may exceed 1 by an ulp


def _pending_returns(folder: Path, part: str, latent: pd.DataFrame, window: Ints) -> Floats:
    """Expected amount that earlier orders bring back in the window, whatever came back of them before."""
    since = date(1970, 1, 1) + timedelta(int(window[0]) - RETURN_LAST)
    until = date(1970, 1, 1) + timedelta(int(window[0]))
    orders = pd.read_parquet(folder / "orders" / part, filters=[("day", ">=", since), ("day", "<", until)])
    customer, day = latent.index.get_indexer(pd.Index(orders["customer_id"])), _day_numbers(orders["day"])
    fine = (orders["outcome"] == OUTCOMES[FINE]).to_numpy()
    comes_back = np.where(fine, latent["returning"].to_numpy()[customer], RETURN_AFTER_FAILURE)
    in_window = _returned_by(window[-1] - day) - _returned_by(window[0] - 1 - day)
    expected = orders["amount"].to_numpy() * comes_back * in_window
    return np.bincount(customer, expected, minlength=len(latent)).astype(float)
