"""More numbers for inference: Holm, the stratified and clustered effect, and the
beta-binomial boundary on both sides. Writes tests/oracles/inference_more.json.

In a virtual environment of CPython 3.10, as confseq needs it:
  pip install numpy==1.26.4 scipy==1.13.1 statsmodels==0.14.4 confseq==0.0.11
  python oracles/inference_more.py > tests/oracles/inference_more.json
"""

import json
import platform

import numpy as np
import scipy
import statsmodels
import statsmodels.api as sm
from confseq.boundaries import beta_binomial_mixture_bound
from statsmodels.stats.multitest import multipletests

ARMS = 2
CLUSTERS = 256


def holm(name, p, alpha):
    reject, adjusted, _, _ = multipletests(p, alpha=alpha, method="holm")
    return {
        "name": f"multiple testing holm {name}",
        "input": {"p": p, "alpha": alpha},
        "expected": {"p_adj": list(map(float, adjusted)), "reject": list(map(bool, reject))},
        "tol": 1e-9,
    }


def effect(name, seed, plan, base, clusters):
    """plan: (units of control, units of treatment, truth) per stratum. Units of one
    cluster share a random offset in all strata, so observations are not independent.
    The reference is a regression on cell means, with the variance between clusters."""
    rng = np.random.default_rng(seed)
    offset = rng.normal(0, 0.05, clusters)
    rows = []
    for stratum, (n_a, n_b, rate_a, rate_b) in enumerate(plan):
        for arm, (n, rate) in enumerate([(n_a, rate_a), (n_b, rate_b)]):
            cluster = np.arange(n) % clusters
            value = (rng.random(n) < np.clip(base + rate + offset[cluster], 0, 1)).astype(int)
            rows += [(arm, stratum, c, v) for c, v in zip(cluster, value)]
    rows = np.array(rows)
    strata = len(plan)
    cell = rows[:, 1] * ARMS + rows[:, 0]
    design = (cell[:, None] == np.arange(strata * ARMS)).astype(float)
    fit = sm.OLS(rows[:, 3].astype(float), design).fit(
        cov_type="cluster", cov_kwds={"groups": rows[:, 2], "use_correction": False}
    )
    n = np.array([[np.sum(cell == s * ARMS + a) for a in range(ARMS)] for s in range(strata)])
    weight = n[:, 0] * n[:, 1] / n.sum(axis=1)
    weight = weight / weight.sum()
    contrast = np.zeros(strata * ARMS)
    contrast[0::2], contrast[1::2] = -weight, weight
    # Every cell holds every cluster, so the correction per cell is one factor.
    correction = clusters / (clusters - 1)
    estimate = float(contrast @ fit.params)
    variance = float(contrast @ fit.cov_params() @ contrast) * correction
    # The weights are those of a regression with one effect for all strata.
    fixed = np.column_stack([rows[:, 0], rows[:, 1][:, None] == np.arange(strata)]).astype(float)
    assert abs(sm.OLS(rows[:, 3].astype(float), fixed).fit().params[0] - estimate) < 1e-12
    cells = []
    for s in range(strata):
        for a in range(ARMS):
            for c in range(clusters):
                mine = rows[(rows[:, 0] == a) & (rows[:, 1] == s) & (rows[:, 2] == c), 3]
                cells.append([a, s, c, len(mine), int(mine.sum()), int((mine**2).sum())])
    pooled = rows[rows[:, 0] == 1, 3].mean() - rows[rows[:, 0] == 0, 3].mean()
    return {
        "name": f"effect stratified {name}",
        "input": {"cells": cells},
        "expected": {
            "effect": estimate,
            "variance_over_1e-6": variance / 1e-6,
            "pooled": float(pooled),
        },
        "tol": 1e-9,
    }


def ranks(p, v_opt, alpha):
    v = [1.0, 9.9, 99.0, 990.0]
    bound = lambda g, h: [
        float(beta_binomial_mixture_bound(x, alpha, v_opt, g, h, 0.05, False)) for x in v
    ]
    return {
        "name": f"beta_binomial quantile p={p} alpha={alpha}",
        "input": {"p": p, "v_opt": v_opt, "alpha": alpha, "v": v},
        "expected": {"above": bound(p, 1 - p), "below": [-b for b in bound(1 - p, p)]},
        "tol": 1e-6,
    }


cases = [
    holm("fifteen", [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216,
                     0.222, 0.251, 0.269, 0.275, 0.34], 0.05),
    holm("unordered", [0.04, 0.001, 0.2, 0.012, 0.012], 0.05),
    holm("one", [0.03], 0.05),
    effect("ramp, no effect", 6, [(950, 50, 0.0, 0.0), (700, 300, 0.2, 0.2),
                                  (500, 500, 0.4, 0.4)], 0.1, 25),
    effect("ramp, effect of 0.1", 7, [(950, 50, 0.0, 0.1), (700, 300, 0.2, 0.3),
                                      (500, 500, 0.4, 0.5)], 0.1, 25),
    effect("one stratum", 8, [(600, 600, 0.0, 0.05)], 0.3, 30),
    ranks(0.99, 9.9, 0.05),
    ranks(0.99, 9.9, 0.0125),
    ranks(0.5, 250.0, 0.05),
]
print(json.dumps({
    "schema": "starling-oracle/1",
    "algorithm": "holm, stratified and clustered effect, two-sided beta-binomial boundary",
    "generator": "oracles/inference_more.py",
    "oracle": {"numpy": np.__version__, "scipy": scipy.__version__,
               "statsmodels": statsmodels.__version__, "confseq": "0.0.11"},
    "python": platform.python_version(),
    "notes": "cells: arm, stratum, cluster, n, sum, sum of squares.",
    "cases": cases,
}))
