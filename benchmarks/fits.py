"""One fit of one package to histories in a file, run by the Python of that package's own environment.

    ENVIRONMENT/bin/python benchmarks/fits.py PACKAGE MODEL HISTORIES.npz

Prints JSON: the parameters, seconds, peak gigabytes of this process. Imports are not timed; what a package compiles for
a fit is. Nothing of Perennial is imported but by its own fit.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

Columns = dict[str, np.ndarray]
Fit = Callable[[], dict[str, float]]

PARAMETERS = {
    "BG/NBD": ("r", "alpha", "a", "b"),
    "MBG/NBD": ("r", "alpha", "a", "b"),
    "Pareto/NBD": ("r", "alpha", "s", "beta"),
    "Gamma-Gamma": ("p", "q", "v"),
}


def main() -> None:
    package, model, path = sys.argv[1:]
    warnings.simplefilter("ignore")
    columns = dict(np.load(path))
    if model == "Gamma-Gamma":
        repeat = (columns["frequency"] > 0) & (columns["monetary_value"] > 0)
        columns = {name: columns[name][repeat] for name in ("frequency", "monetary_value")}
    else:
        columns = {name: columns[name] for name in ("frequency", "recency", "T")}
    fit = {"perennial": perennial, "lifetimes": lifetimes, "pymc-marketing": pymc_marketing}[package](model, columns)
    start = time.monotonic()
    parameters = fit()
    seconds = time.monotonic() - start
    print(json.dumps({"parameters": parameters, "seconds": seconds, "gigabytes": peak_gigabytes()}))


def peak_gigabytes() -> float:
    """Of this program alone: Linux' ru_maxrss goes on from that of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def perennial(model: str, columns: Columns) -> Fit:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from training.models.bg_nbd import BGNBD
    from training.models.gamma_gamma import GammaGamma
    from training.models.mbg_nbd import MBGNBD
    from training.models.pareto_nbd import ParetoNBD

    kind = {"BG/NBD": BGNBD, "MBG/NBD": MBGNBD, "Pareto/NBD": ParetoNBD, "Gamma-Gamma": GammaGamma}[model]
    return lambda: _chosen(model, vars(kind.fit(*columns.values())))


def lifetimes(model: str, columns: Columns) -> Fit:
    import lifetimes as package

    kind = {
        "BG/NBD": package.BetaGeoFitter,
        "MBG/NBD": package.ModifiedBetaGeoFitter,
        "Pareto/NBD": package.ParetoNBDFitter,
        "Gamma-Gamma": package.GammaGammaFitter,
    }[model]
    return lambda: _chosen(model, kind().fit(*columns.values()).params_)


def pymc_marketing(model: str, columns: Columns) -> Fit:
    """`find_MAP` with flat priors, where the maximum a posteriori is that of the likelihood."""
    import pandas as pd
    from pymc_extras.prior import Prior
    from pymc_marketing import clv

    kind = {
        "BG/NBD": clv.BetaGeoModel,
        "MBG/NBD": clv.ModifiedBetaGeoModel,
        "Pareto/NBD": clv.ParetoNBDModel,
        "Gamma-Gamma": clv.GammaGammaModel,
    }[model]
    histories = pd.DataFrame({"customer_id": np.arange(len(columns["frequency"])), **columns})
    flat = {name: Prior("HalfFlat") for name in PARAMETERS[model]}

    def fit() -> dict[str, float]:
        fitted = kind(data=histories, model_config=flat)
        fitted.fit(method="map", progressbar=False)
        return _chosen(model, fitted.fit_result)

    return fit


def _chosen(model: str, fitted: Columns) -> dict[str, float]:
    return {name: float(np.ravel(fitted[name])[0]) for name in PARAMETERS[model]}


if __name__ == "__main__":
    main()
