"""What a shop's first run costs as the shop grows: seconds and gigabytes of each stage, columns for each size.

    python -m benchmarks.growth                       # 1,000, 10,000 and 100,000 customers: some 10 minutes
    python -m benchmarks.growth 1000 10000 1000000    # of a million customers the last column takes an hour, and 30 GB

The shops are simulated over three years, 47 lines a customer. Each is run as a user would run it, `perennial run` on an
empty home: everything is taken in, thirteen snapshots are computed, three models are trained and judged, everybody is
scored and published. Beside the seconds on the clock stand those of the processor, which other work on the machine
hardly changes; they leave out the processes that publishing starts. The memory is the most that was held during the
stage.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from benchmarks import figures, needs, tables
from benchmarks.month import AS_OF, YEARS, run_by_stage, settings_of, summed
from simulation.world import simulate

SIZES = (1_000, 10_000, 100_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("customers", type=int, nargs="*", default=SIZES, help="the sizes, customers in all")
    asked = parser.parse_args()
    needs.refuse_without(minutes=round(sum(asked.customers) / 15_000))
    parts = {f"{customers:,}": first_run(customers) for customers in asked.customers}
    print(tables.growth(parts))
    figures.write("growth", parts)


def first_run(customers: int) -> list[dict[str, Any]]:
    """Of a shop that is made for it and thrown away: what each stage used, and all of them."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        simulate(folder / "world", customers, YEARS, seed=3, ends=AS_OF)
        (folder / "workspace.yaml").write_text(yaml.safe_dump(settings_of(folder, events=folder / "world")))
        stages = run_by_stage(folder / "workspace.yaml", folder / "home", folder, AS_OF)
    return [asdict(used) for used in (*stages, summed(stages))]


if __name__ == "__main__":
    main()
