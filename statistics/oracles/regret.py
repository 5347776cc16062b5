"""Cumulative regret of MABWiser's bandits, to compare this crate's with.

Run from the folder `statistics/` (a minute or two):

    pip install --target .cache/mabwiser mabwiser==2.7.4
    PYTHONPATH=.cache/mabwiser python oracles/regret.py > tests/oracles/regret.json

Every environment is played 200 times, with seeds 0 to 199, in batches: a policy
learns of the rewards of a batch only when it is over. The first batch goes round
all arms. Regret is what the means of the chosen arms fell short of the best mean.
MABWiser has no Gaussian Thompson sampling of its own; its linear one with the
constant 1 as only feature is that: prior N(0, 1), noise 1.
"""

import json
import math
import platform

import numpy as np
from mabwiser.mab import MAB, LearningPolicy

SEEDS = 200
BATCH = 100
BATCHES = 30

ENVIRONMENTS = [
    {"name": "three arms far apart", "kind": "bernoulli", "means": [0.1, 0.2, 0.3]},
    {"name": "two arms close together", "kind": "bernoulli", "means": [0.5, 0.55]},
    {"name": "five arms close together", "kind": "bernoulli",
     "means": [0.30, 0.33, 0.36, 0.39, 0.42]},
    {"name": "four gaussian arms", "kind": "gaussian", "means": [0.0, 0.2, 0.4, 0.6]},
]

POLICIES = {
    "epsilon-greedy 0.1": lambda kind: LearningPolicy.EpsilonGreedy(epsilon=0.1),
    "ucb1 alpha 1": lambda kind: LearningPolicy.UCB1(alpha=1),
    "thompson": lambda kind: (
        LearningPolicy.ThompsonSampling() if kind == "bernoulli"
        else LearningPolicy.LinTS(alpha=1.0, l2_lambda=1.0)
    ),
}


def play(environment, learning_policy, seed):
    means = np.array(environment["means"])
    arms = list(range(len(means)))
    rng = np.random.default_rng(seed)
    contextual = isinstance(learning_policy, LearningPolicy.LinTS)
    mab = MAB(arms=arms, learning_policy=learning_policy, seed=seed)
    regret = 0.0
    for batch in range(BATCHES):
        if batch == 0:
            decisions = [i % len(arms) for i in range(BATCH)]
        elif contextual:
            decisions = mab.predict([[1.0]] * BATCH)
        else:
            decisions = [mab.predict() for _ in range(BATCH)]
        chosen = means[decisions]
        if environment["kind"] == "bernoulli":
            rewards = (rng.random(BATCH) < chosen).astype(int)
        else:
            rewards = chosen + rng.standard_normal(BATCH)
        regret += float(np.sum(means.max() - chosen))
        context = {"contexts": [[1.0]] * BATCH} if contextual else {}
        learn = mab.fit if batch == 0 else mab.partial_fit
        learn(decisions, rewards.tolist(), **context)
    return regret


def main():
    cases = []
    for environment in ENVIRONMENTS:
        for name, policy in POLICIES.items():
            regrets = np.array(
                [play(environment, policy(environment["kind"]), seed) for seed in range(SEEDS)]
            )
            cases.append({
                "name": f"{name}: {environment['name']}",
                "input": {
                    "policy": name,
                    "kind": environment["kind"],
                    "means": environment["means"],
                    "batch": BATCH,
                    "batches": BATCHES,
                    "seeds": SEEDS,
                },
                "expected": {
                    "mean_regret": round(float(regrets.mean()), 6),
                    "standard_error": round(float(regrets.std(ddof=1) / math.sqrt(SEEDS)), 6),
                },
                "tol": 0.15,
            })
    print(json.dumps({
        "schema": "starling-oracle/1",
        "algorithm": "cumulative regret of batched bandits",
        "generator": "statistics/oracles/regret.py",
        "oracle": {"mabwiser": "2.7.4"},
        "python": platform.python_version(),
        "notes": "tol is how far above the reference's mean regret another may lie.",
        "cases": cases,
    }, indent=1))


if __name__ == "__main__":
    main()
