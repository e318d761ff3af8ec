"""One made-up shop for all tests of the simulation, and its tables as a reader would clean them."""

from datetime import date
from pathlib import Path

import duckdb
import pytest

from simulation.world import simulate
from workspace.tables import ABSURD_AMOUNT

CUSTOMERS = 10_000
ENDS = date(2025, 1, 1)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three years of 10,000 customers."""
    out = tmp_path_factory.mktemp("simulated") / "shop"
    simulate(out, customers=CUSTOMERS, years=3, seed=20)
    return out


@pytest.fixture(scope="session")
def database(shop: Path) -> duckdb.DuckDBPyConnection:
    """Its tables, cleaned by the rules of the contract alone: nothing here knows which rows were added as dirt."""
    connection = duckdb.connect()
    connection.execute("SET timezone = 'UTC'")
    for table in ("customers", "products", "campaigns"):
        connection.execute(f"CREATE VIEW {table} AS FROM '{shop}/{table}.parquet'")
    for table in ("transactions", "interactions"):
        connection.execute(f"CREATE VIEW all_{table} AS FROM '{shop}/{table}/*.parquet'")
        connection.execute(
            f"CREATE TABLE {table} AS SELECT DISTINCT * FROM all_{table} "
            f"WHERE customer_id IN (SELECT customer_id FROM customers) AND occurred_at < '{ENDS}'"
            + (f" AND abs(amount) < {ABSURD_AMOUNT}" if table == "transactions" else "")
        )
    return connection
