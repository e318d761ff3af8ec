"""The models' mathematics: no shop and no settings of one."""

import os

_POLICY = "OMP_WAIT_POLICY"


def _load_lightgbm() -> None:
    """LightGBM with threads that do not spin while they wait: beside a busy process a fit then takes six times as long.

    OpenMP reads that once, as it is loaded; other libraries of the process find the environment as it was.
    """
    given = os.environ.get(_POLICY)
    os.environ[_POLICY] = given or "passive"
    try:
        import lightgbm  # noqa: F401
    finally:
        if given is None:
            del os.environ[_POLICY]


_load_lightgbm()
