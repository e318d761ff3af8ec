"""Set before anything imports LightGBM: two test processes on two cores must not spin while they wait."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
