"""Snapshots computed by Spark, from the same expressions: for more customers than one machine holds.

Spark keeps no days on disk: it sums the lines anew for each call and holds the sums while it is at it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir
from ibis.backends import BaseBackend
from ibis.util import gen_name

from features import day_files, days
from features.families.known import Tables
from workspace import storage
from workspace.settings import SettingsError, Workspace
from workspace.tables import CONTRACTS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_PARTITION_ROWS = 500_000


@contextmanager
def opened(workspace: Workspace, progress: Callable[[str], None]) -> Iterator[OnSpark]:
    """Spark over the workspace's tables; what it holds in memory is let go at the end.

    Raises:
        SettingsError: pyspark or Java is not installed.
    """
    spark = session(workspace)
    # Feast 0.67 sets this, and Spark would then take every quoted name for a pattern.
    spark.conf.set("spark.sql.parser.quotedRegexColumnNames", "false")
    # Spark's own default, INT96, has no zone and nanoseconds: Feast on DuckDB could not join it.
    spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    progress(f"summing by customer and day on Spark at {spark.sparkContext.master}")
    engine = OnSpark(spark, workspace)
    try:
        yield engine
    finally:
        engine.close()


def session(workspace: Workspace) -> SparkSession:
    """The Spark session of this process; one is started, for as long as the process lives, where there is none.

    SPARK_MASTER, or else Spark's own configuration, says where it runs: on this machine if neither does.

    Raises:
        SettingsError: pyspark or Java is not installed.
    """
    check_installed()
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    if running := SparkSession.getActiveSession():
        return running
    SparkContext._ensure_initialized()  # only then does SparkConf know what spark-defaults.conf says
    conf = SparkConf()
    if master := os.environ.get("SPARK_MASTER"):
        conf.setMaster(master)
    if (conf.get("spark.master") or "local").startswith("local"):
        conf.set("spark.driver.host", "127.0.0.1").set("spark.driver.bindAddress", "127.0.0.1")
    for key, value in _defaults(workspace).items():
        conf.setIfMissing(key, value)
    # pyspark has already turned it on, for its shell.
    conf.set("spark.ui.showConsoleProgress", "false")
    return SparkSession.builder.config(conf=conf).getOrCreate()


def _defaults(workspace: Workspace) -> dict[str, str]:
    """What Spark's own configuration may say otherwise."""
    scratch = workspace.home_path / "tmp" / "spark"
    manifests = [storage.sources_of(storage.tables_folder(workspace.home_path, name)) for name in CONTRACTS]
    rows = sum(source["accepted"] for sources in manifests for source in sources)
    return {
        "spark.app.name": f"perennial {workspace.name}",
        "spark.log.level": "ERROR",
        "spark.ui.enabled": "false",
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # Spark's own number, 200, takes a minute of scheduling for a shop of a thousand lines.
        "spark.sql.shuffle.partitions": str(max(2 * (os.cpu_count() or 1), rows // _PARTITION_ROWS)),
    }


def check_installed() -> None:
    """Says what is missing for Spark to run.

    Raises:
        SettingsError: pyspark or Java is not installed.
    """
    try:
        import pyspark  # noqa: F401
    except ImportError as problem:
        raise SettingsError("`engine: spark` needs pyspark: pip install 'perennial-crm[spark]'") from problem
    home = os.environ.get("JAVA_HOME")
    if not shutil.which("java", path=f"{home}/bin" if home else None):
        where = f"in JAVA_HOME, which is {home}" if home else "on the PATH"
        raise SettingsError(f"`engine: spark` (the extra perennial-crm[spark]) needs Java 17 or newer; none is {where}")


class OnSpark:
    """What `features.on_duckdb.OnDuckDB` does, on one Spark session."""

    def __init__(self, spark: SparkSession, workspace: Workspace) -> None:
        self.spark = spark
        self.backend: BaseBackend = ibis.pyspark.connect(spark)
        self.held: dict[str, DataFrame] = {}
        self.tables = self._tables(workspace)

    def set_as_of(self, as_of: date) -> ir.DateScalar:
        """The as_of of what is kept and written from now on, as expressions name it."""
        return ibis.literal(as_of)

    def keep(self, name: str, rows: Callable[[], ir.Table]) -> ir.Table:
        """The same rows, computed once; those kept by this name before are let go."""
        return self._hold(name, rows())

    def write(
        self, family: str, rows: Callable[[], ir.Table], keys: tuple[str, ...], as_of: datetime, features: list[str],
        folder: Path,
    ) -> None:  # fmt: skip
        """Writes `keys`, the instant `as_of` and float32 `features` to files, each sorted by key."""
        from pyspark.sql import functions as f

        instant = f.timestamp_micros(f.lit(round(as_of.timestamp() * 1_000_000))).alias("as_of")
        floats = [f.col(name).cast("float").alias(name) for name in features]
        frame = self._frame(rows()).select(*keys, instant, *floats).sortWithinPartitions(*keys)
        # Readers of the folder look for no such file.
        frame.write.option("mapreduce.fileoutputcommitter.marksuccessfuljobs", "false").parquet(str(folder), "append")

    def close(self) -> None:
        """Lets go of what is held."""
        for frame in self.held.values():
            frame.unpersist()

    def _tables(self, workspace: Workspace) -> Tables:
        lines, events, customers, products = (
            day_files.canonical(self._read, workspace, CONTRACTS[name])
            for name in ("transactions", "interactions", "customers", "products")
        )
        item = day_files.item_column(workspace)
        priced = day_files.priced(lines, products, item)
        return Tables(
            item_days=self._hold("item_days", _marked(days.item_days(priced))),
            customer_days=self._hold("customer_days", _marked(days.customer_days(priced))),
            interaction_days=self._hold("interaction_days", days.interaction_days(events)),
            opinions=self._hold("opinions", days.opinions(events)),
            customers=customers,
            categories=day_files.item_categories(products, item),
        )

    def _read(self, files: Sequence[Path]) -> ir.Table:
        return self._view(gen_name("read"), self.spark.read.parquet(*map(str, files)))

    def _hold(self, name: str, rows: ir.Table) -> ir.Table:
        if name in self.held:
            self.held[name].unpersist()
        self.held[name] = self._frame(rows).persist()
        return self._view(name, self.held[name])

    def _frame(self, rows: ir.Table) -> DataFrame:
        name = gen_name("rows")
        self.backend.create_view(name, rows)
        return self.spark.table(name)

    def _view(self, name: str, frame: DataFrame) -> ir.Table:
        frame.createOrReplaceTempView(name)
        return self.backend.table(name)


def _marked(days: ir.Table) -> ir.Table:
    """Rows that may not be their day's only one are `late`: those that were recorded on another day."""
    return days.mutate(late=days.known_day > days.day)
