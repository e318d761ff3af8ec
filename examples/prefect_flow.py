"""Perennial under Prefect: `perennial run` as a flow that is retried, logged and scheduled like any other.

    pip install 'perennial-crm[prefect]'
    python examples/prefect_flow.py shop.yaml               # every month, until it is stopped
    python examples/prefect_flow.py shop.yaml --once

The flow calls the command line, so Prefect may have an environment of its own: name the program in PERENNIAL then.
"""

import os
import subprocess
import sys

from prefect import flow, get_run_logger
from prefect.schedules import Cron
from prefect.states import Completed, Failed, State


@flow(name="perennial-run", log_prints=True)
def monthly(config: str) -> State:
    """One run; what it says is in the flow's log. Failed where a check failed, with the last sentence as the reason."""
    command = [os.environ.get("PERENNIAL", "perennial"), "run", "-c", config]
    said = []
    with subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout or ():
            said.append(line.rstrip())
            get_run_logger().info(said[-1])
    words = said[-1] if said else f"exit code {run.returncode}"
    return Failed(message=words) if run.returncode else Completed(message=words)


if __name__ == "__main__":
    file, *rest = sys.argv[1:]
    if rest == ["--once"]:
        monthly(file)
    else:
        monthly.serve(name=file, parameters={"config": file}, schedule=Cron("0 4 1 * *", timezone="Europe/London"))
