"""Items that nobody has bought in a year: all that is known of one is its category, and who buys from that."""

from __future__ import annotations

import pandas as pd

from features.items.candidates import Shelf
from workspace import storage


def shares(shelf: Shelf, customer_ids: pd.Index, items: pd.Index) -> pd.DataFrame:
    """Columns customer_id, item and share: what part of the customer's item-days in 365 days was of its category.

    Only where it is above 0; no rows at level `category`, or without products to say where an item belongs.
    """
    workspace = shelf.workspace
    if workspace.cross_sell.level == "category" or workspace.tables.products is None or items.empty:
        return pd.DataFrame({"customer_id": [], "item": [], "share": []}, dtype=object).astype({"share": float})
    own = storage.rows_of_part(storage.snapshot_part(workspace.home_path, "product_affinity", shelf.as_of))
    products = storage.rows_of(workspace.home_path, "products")
    with storage.connect(workspace.home_path) as connection:
        connection.register("asked", pd.DataFrame({"customer_id": customer_ids}))
        connection.register("launched", pd.DataFrame({"product_id": items}))
        return connection.execute(f"""
            WITH bought AS (
                SELECT customer_id, category, sum(item_n_purchases_365d) AS days FROM {own} SEMI JOIN asked
                USING (customer_id) JOIN {products} ON product_id = item GROUP BY ALL),
            taste AS (SELECT *, days / sum(days) OVER (PARTITION BY customer_id) AS share FROM bought)
            SELECT customer_id, product_id AS item, share
            FROM taste JOIN {products} USING (category) SEMI JOIN launched USING (product_id) WHERE days > 0""").df()
