"""Runs one command into a job's folder, and notes there how it ended: `python -m serving.desk.job_keeper FOLDER WORDS`.

It inherits the lock of the jobs, and so does the command: as long as one of them lives, the job is at work.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from workspace import storage


def keep(folder: Path, words: list[str]) -> None:
    with (folder / "output.txt").open("wb") as output:
        (folder / "output.txt").chmod(0o600)
        code = subprocess.call(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, close_fds=False)
    storage.write_json(folder / "ended.json", {"code": code})


if __name__ == "__main__":
    keep(Path(sys.argv[1]), sys.argv[2:])
