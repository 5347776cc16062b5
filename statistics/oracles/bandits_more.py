"""More probabilities of being best, and expected losses: ten arms, very unequal
counts, priors with singularities, Student's t. Writes tests/oracles/bandits_more.json.

From the folder `statistics/`:

    pip install --target .cache/scipy scipy==1.17.1 numpy==2.4.6
    PYTHONPATH=.cache/scipy python oracles/bandits_more.py > tests/oracles/bandits_more.json

The integrals are others than the crate's: probabilities over an arm's own quantiles,
losses of rates as E[max] less the mean over the scale of the rate itself.
"""

import json
import platform

import numpy as np
import scipy
from scipy import stats

NODES, WEIGHTS = np.polynomial.legendre.leggauss(60)
TAILS = [10.0 ** -k for k in range(14, 2, -1)]
GRID = np.array(TAILS + list(np.linspace(0.002, 0.5, 40)))


def quantiles(arm):
    """From the lower tail to the upper, both exact far out."""
    return np.concatenate([arm.ppf(GRID), arm.isf(GRID[::-1])])


def integral(function, points):
    points = np.unique(points)
    low, high = points[:-1, None], points[1:, None]
    x = low + (high - low) * (NODES + 1) / 2
    return float(np.sum(function(x) * WEIGHTS * (high - low) / 2))


def product(arms, x):
    return np.prod([arm.cdf(x) for arm in arms], axis=0)


def case(name, key, parameters, arms, bounded):
    ends = np.concatenate([quantiles(arm) for arm in arms])
    best, loss = [], []
    for a, arm in enumerate(arms):
        others = arms[:a] + arms[a + 1:]
        points = np.concatenate([[0.0, 1.0], GRID, 1 - GRID, arm.cdf(ends)])
        best.append(integral(lambda u: product(others, arm.ppf(u)), points))
    if bounded:
        highest = integral(lambda x: 1 - product(arms, x), np.concatenate([[0.0, 1.0], ends]))
        loss = [highest - float(arm.mean()) for arm in arms]
    else:
        for a, arm in enumerate(arms):
            others = arms[:a] + arms[a + 1:]
            loss.append(integral(lambda x: arm.cdf(x) * (1 - product(others, x)), ends))
    assert abs(sum(best) - 1) < 1e-9, (name, sum(best))
    return {
        "name": name,
        "input": {key: parameters},
        "expected": {"p_best": best, "expected_loss": loss},
        "tol": 1e-8,
    }


def rates(name, shapes):
    return case(name, "alpha_beta", shapes, [stats.beta(a, b) for a, b in shapes], True)


def means(name, parameters):
    arms = [stats.t(df, loc=loc, scale=scale) for loc, scale, df in parameters]
    return case(name, "location_scale_degrees", parameters, arms, False)


CASES = [
    rates("a million beside three", [[600000.5, 400000.5], [2.5, 1.5]]),
    rates("a million beside three, three arms",
          [[600000.5, 400000.5], [600900.5, 399100.5], [1.5, 2.5]]),
    rates("ten arms at jeffreys", [[0.5, 0.5]] * 10),
    rates("ten arms of growing counts",
          [[0.5 + 3.0 ** k, 0.5 + 2.0 * 3.0 ** k] for k in range(10)]),
    rates("ten arms, rare successes",
          [[0.5 + k, 1000.5 + 100 * k] for k in range(10)]),
    rates("ten large arms close together",
          [[100000.5 + 60 * k, 900000.5 - 60 * k] for k in range(10)]),
    means("three unknown noises", [[0.0, 0.3, 6.0], [0.2, 0.1, 40.0], [0.1, 1.0, 5.0]]),
    means("far apart and a wide one", [[0.0, 0.01, 100.0], [5.0, 0.01, 100.0], [0.0, 2.0, 8.0]]),
]

print(json.dumps({
    "schema": "starling-oracle/1",
    "algorithm": "probability of being best and expected loss",
    "generator": "statistics/oracles/bandits_more.py",
    "oracle": {"scipy": scipy.__version__, "numpy": np.__version__},
    "python": platform.python_version(),
    "notes": "every integral by composite Gauss-Legendre with 60 nodes between quantiles.",
    "cases": CASES,
}, indent=1))
