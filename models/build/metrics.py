"""Verification error from embeddings: pairs accuracy, FNMR at FMR, intervals."""

import numpy as np
from scipy.stats import beta


class Scores:
    """Cosines of all genuine and all impostor pairs of a labelled set."""

    def __init__(self, embeddings, people):
        cosines = embeddings.astype(np.float32) @ embeddings.T.astype(np.float32)
        upper = np.triu(np.ones(cosines.shape, bool), 1)
        same = people[:, None] == people[None]
        self.first, self.second = np.nonzero(upper & same)
        self.genuine = cosines[self.first, self.second]
        self.impostor = np.sort(cosines[upper & ~same])[::-1]

    def threshold(self, fmr):
        """The cosine at which at most a share fmr of impostors is accepted."""
        return float(self.impostor[int(fmr * len(self.impostor))])

    def fnmr(self, fmr):
        return float((self.genuine <= self.threshold(fmr)).mean())

    def fnmr_interval(self, fmr, people, rounds=1000, seed=1):
        """A 95 % bootstrap interval that draws people, not pairs.

        Genuine pairs of one person are not independent, so whole people are
        drawn with replacement; the threshold stays where it is.
        """
        miss = (self.genuine <= self.threshold(fmr)).astype(np.float64)
        owner = people[self.first]
        misses = np.bincount(owner, miss, minlength=people.max() + 1)
        totals = np.bincount(owner, minlength=people.max() + 1)
        have = np.flatnonzero(totals)
        rng = np.random.default_rng(seed)
        drawn = rng.choice(have, (rounds, len(have)))
        rates = misses[drawn].sum(axis=1) / totals[drawn].sum(axis=1)
        return tuple(float(v) for v in np.quantile(rates, [0.025, 0.975]))


def clopper_pearson(count, total, level=0.95):
    """The exact interval of a share of independent trials."""
    tail = (1 - level) / 2
    low = 0.0 if count == 0 else float(beta.ppf(tail, count, total - count + 1))
    high = 1.0 if count == total else float(beta.ppf(1 - tail, count + 1, total - count))
    return low, high


def pairs_accuracy(embeddings, pairs, folds=5):
    """Share of pairs decided rightly, each fold at the best threshold of the others.

    Returns (right, total).
    """
    first, second, same = (np.array(c) for c in zip(*pairs))
    cosines = (embeddings[first] * embeddings[second]).sum(axis=1)
    fold = np.arange(len(same)) * folds // len(same)
    right = 0
    for k in range(folds):
        threshold = _best_threshold(cosines[fold != k], same[fold != k])
        right += int(((cosines[fold == k] > threshold) == same[fold == k]).sum())
    return right, len(same)


def _best_threshold(cosines, same):
    order = np.sort(cosines)
    candidates = (order[1:] + order[:-1]) / 2
    genuine, impostor = np.sort(cosines[same]), np.sort(cosines[~same])
    missed = np.searchsorted(genuine, candidates, side="right")
    accepted = len(impostor) - np.searchsorted(impostor, candidates, side="right")
    return candidates[np.argmin(missed + accepted)]
