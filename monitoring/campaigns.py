"""How customers responded to past treatment: what a marketer's contacts were followed by, and beside what.

A response is not an effect: whom to contact was chosen. Only where customers were held back by a draw
(`campaign_control` rows) does the difference between the two say what the contact changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import duckdb
import pandas as pd

from features.families.catalogue import Feature
from features.families.engagement import FEATURES, TREATMENT
from workspace import storage
from workspace.settings import Workspace
from workspace.storage import CheckFailed

# What customers do themselves, but only about what was sent to them.
_ANSWERS = ("email_open", "email_click", "coupon_redeemed")
_PAST = 90  # days in which earlier contacts are counted

WITHHELD = tuple(feature.name for feature in TREATMENT)
"""Features that say what the marketer did: they would leak the treatment, and no model is shown them."""


def _is_answer(feature: Feature) -> bool:
    return any(feature.name.startswith(f"n_{kind}_") for kind in _ANSWERS)


ANSWERS = tuple(feature.name for feature in FEATURES if _is_answer(feature))
"""Features of the customer's own doing that need a contact first: models see them, and with them whom one contacted."""


@dataclass(frozen=True)
class Response:
    """Within `days` of a contact, by campaign, and by how much a customer had been contacted before.

    campaigns: a row per campaign with a closed window: `contacted`, `bought` and `spend` (per customer contacted) after
    the first contact, `bought_before` in as many days before it, `redeemed` (share with a coupon of the campaign), and
    of those held back by a draw `control` and `control_bought`.
    history: a row per number of contacts in the 90 days before `since`: `customers` (who had bought in the year before)
    and the share who then `bought`.
    """

    days: int
    since: date
    campaigns: pd.DataFrame
    history: pd.DataFrame


def response(workspace: Workspace, as_of: date) -> Response:
    """Of what is known at `as_of`; windows of `cross_sell.horizon` days that had closed by then.

    Raises:
        CheckFailed: the workspace has no `campaign_contact` with a closed window.
    """
    days = workspace.cross_sell.horizon
    if workspace.tables.interactions is None:
        raise CheckFailed("the response to campaigns needs `tables.interactions` with rows of kind campaign_contact")
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        for name in ("interactions", "transactions"):
            rows = storage.rows_of(workspace.home_path, name)
            connection.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM {rows} WHERE known_day < DATE '{as_of}'")
        connection.execute("""
            CREATE TEMP TABLE purchases AS
            SELECT customer_id, day, sum(amount) AS amount FROM transactions WHERE amount >= 0 GROUP BY ALL""")
        campaigns = _by_campaign(connection, as_of, days)
        if campaigns.empty:
            raise CheckFailed(
                f"no campaign_contact lies {days} days (cross_sell.horizon) or more before {as_of}; choose a later"
                " --as-of, or a shorter horizon"
            )
        since = (pd.Timestamp(as_of) - pd.Timedelta(days=days)).date()
        return Response(days, since, campaigns, _by_history(connection, since, days))


def _by_campaign(connection: duckdb.DuckDBPyConnection, as_of: date, days: int) -> pd.DataFrame:
    """Who was contacted at all in a campaign was not held back in it."""
    return connection.execute(f"""
        WITH treated AS (
            SELECT campaign_id, customer_id, bool_or(kind = 'campaign_contact') AS contacted, min(day) AS started
            FROM interactions WHERE kind IN ('campaign_contact', 'campaign_control') GROUP BY ALL
            HAVING min(day) + {days} <= DATE '{as_of}'),
        bought AS (
            SELECT campaign_id, customer_id, coalesce(sum(amount) FILTER (day >= started), 0) AS spend,
                   bool_or(day >= started) AS bought, bool_or(day < started) AS before
            FROM treated JOIN purchases USING (customer_id) WHERE day BETWEEN started - {days} AND started + {days - 1}
            GROUP BY ALL),
        redeemed AS (SELECT DISTINCT campaign_id, customer_id FROM interactions WHERE kind = 'coupon_redeemed')
        SELECT campaign_id, min(started) AS first, count(*) FILTER (contacted) AS contacted,
               avg(coalesce(bought, false)::INT) FILTER (contacted) AS bought,
               avg(coalesce(before, false)::INT) FILTER (contacted) AS bought_before,
               avg(coalesce(spend, 0)) FILTER (contacted) AS spend,
               avg((redeemed.customer_id IS NOT NULL)::INT) FILTER (contacted) AS redeemed,
               count(*) FILTER (NOT contacted) AS control,
               avg(coalesce(bought, false)::INT) FILTER (NOT contacted) AS control_bought
        FROM treated LEFT JOIN bought USING (campaign_id, customer_id)
        LEFT JOIN redeemed USING (campaign_id, customer_id)
        GROUP BY campaign_id HAVING count(*) FILTER (contacted) > 0 ORDER BY first, campaign_id""").df()


def _by_history(connection: duckdb.DuckDBPyConnection, since: date, days: int) -> pd.DataFrame:
    start = f"DATE '{since}'"
    return connection.execute(f"""
        WITH active AS (
            SELECT customer_id, bool_or(day >= {start}) AS bought FROM purchases
            WHERE day >= {start} - 365 AND day < {start} + {days} GROUP BY customer_id HAVING min(day) < {start}),
        treated AS (
            SELECT customer_id, count(*) AS n FROM interactions
            WHERE kind = 'campaign_contact' AND day >= {start} - {_PAST} AND day < {start} GROUP BY customer_id)
        SELECT CASE WHEN coalesce(n, 0) < 4 THEN coalesce(n, 0)::VARCHAR ELSE '4 or more' END AS contacts,
               count(*) AS customers, avg(bought::INT) AS bought
        FROM active LEFT JOIN treated USING (customer_id) GROUP BY contacts ORDER BY contacts""").df()


def as_text(measured: Response) -> str:
    """Both tables, and which features know of the treatment."""
    campaigns, history = (
        table.to_string(index=False, na_rep="", float_format=lambda figure: f"{figure:.3f}")
        for table in (measured.campaigns.assign(first=measured.campaigns["first"].dt.date), measured.history)
    )
    return f"""response to campaigns: purchases within {measured.days} days of the first contact
{campaigns}

by campaign contacts in the {_PAST} days before {measured.since}: who bought in the {measured.days} days from then
{history}

A response is not an effect: the contacted were chosen. Where a control was drawn, bought less control_bought is one.

withheld from every model, since they tell the treatment: {", ".join(WITHHELD)}
shown to models, though they need a contact first: {", ".join(ANSWERS)}"""
