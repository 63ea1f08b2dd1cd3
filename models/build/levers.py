"""Measures what a linear map, a second network or a cohort would add to the embedder.

    levers.py --data DIR    FNMR at FMR 1e-3, 1e-4 and 1e-5 of each, cross-validated

Statistics come from one half of the people and errors from the other, both ways, over
several random halvings: a map that only knows the people it is measured on gains
nothing. Embeddings are those of the float network, of the face and its mirror image;
they are kept in a scratch folder outside the project. Nothing is written; what it
printed last is in the card.
"""

import argparse
import pathlib

import numpy as np
from ai_edge_litert.interpreter import Interpreter

import catalogue
import dataset
import embedder
import sources

FMRS = (1e-3, 1e-4, 1e-5)
SECOND_WEIGHT = 0.6  # of the second network beside the first
COHORT_NEAREST = 20


class Views:
    """A network on a face and its mirror image; gives the mean embedding."""

    def __init__(self, content, color):
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()
        self._input, = self._interpreter.get_input_details()
        self._output, = self._interpreter.get_output_details()
        self._color = color

    def __call__(self, crop):
        pixels = crop[..., ::-1] if self._color == "BGR" else crop
        values = (pixels.astype(np.float32) - embedder.PIXEL_MEAN) / embedder.PIXEL_STD
        views = [values, values[:, ::-1]]
        both = self._input["shape"][0] == 2
        outputs = [self._run(x) for x in ([np.stack(views)] if both else [v[None] for v in views])]
        return np.concatenate(outputs).mean(axis=0)

    def _run(self, array):
        self._interpreter.set_tensor(self._input["index"], np.ascontiguousarray(array, np.float32))
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"]).copy()


def embeddings(name, content, color, crops):
    cache = dataset.SCRATCH / f"{name}-{len(crops)}.npy"
    if not cache.exists():
        views = Views(content, color)
        np.save(cache, np.array([views(c) for c in crops]))
    return np.load(cache)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class Study:
    """All levers on one set of embeddings, with the people they belong to."""

    def __init__(self, x, people, halvings, seed=0):
        self._x, self._people = x, people
        rng = np.random.default_rng(seed)
        self._halves = [(rng.permutation(people.max() + 1) % 2)[people] for _ in range(halvings)]

    def report(self, name, **lever):
        rates = []
        for half in self._halves:
            missed, total = 0, 0
            for side in (0, 1):
                train, test = np.flatnonzero(half != side), np.flatnonzero(half == side)
                counts, genuine = self._errors(self._scores(train, test, **lever), test)
                missed, total = missed + counts, total + genuine
            rates.append(missed / total)
        print(f"| {name} | " + " | ".join(f"{r:.2%}" for r in np.mean(rates, axis=0)) + " |",
              flush=True)

    def _scores(self, train, test, scatter=None, power=0.0, shrink=0.0, cohort=0.0):
        own = self._firsts(train)
        mean = self._x[own].mean(axis=0)
        matrix = np.eye(self._x.shape[1])
        if scatter:
            matrix = whitening(getattr(self, scatter)(train), power, shrink)
        a, c = (unit((self._x[i] - mean) @ matrix) for i in (test, own))
        cosines = a @ a.T
        if cohort:
            near = np.sort(a @ c.T, axis=1)[:, -COHORT_NEAREST:].mean(axis=1)
            cosines -= cohort * (near[:, None] + near[None]) / 2
        return cosines

    def _firsts(self, indices):
        return indices[np.unique(self._people[indices], return_index=True)[1]]

    def total(self, indices):
        """The scatter of one picture of each person."""
        return np.cov(self._x[self._firsts(indices)].T)

    def within(self, indices):
        """The mean scatter of a person's pictures about their mean."""
        people, sums = 0, 0.0
        for p in np.unique(self._people[indices]):
            own = self._x[indices[self._people[indices] == p]]
            if len(own) > 1:
                people, sums = people + 1, sums + np.cov(own.T)
        return sums / people

    def _errors(self, scores, test):
        first, second = np.triu_indices(len(test), 1)
        same = self._people[test][first] == self._people[test][second]
        values = scores[first, second]
        genuine, impostor = values[same], -np.sort(-values[~same])
        return np.array([(genuine <= impostor[int(f * len(impostor))]).sum()
                         for f in FMRS]), len(genuine)


def whitening(scatter, power, shrink):
    scatter = (1 - shrink) * scatter + shrink * np.trace(scatter) / len(scatter) * np.eye(len(scatter))
    values, vectors = np.linalg.eigh(scatter)
    return (vectors * values ** (-power / 2)) @ vectors.T


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--halvings", type=int, default=3)
    options = parser.parse_args()

    crops, found = dataset.crops(options.data, catalogue.TEMPLATE)
    people = np.unique([p.parent.name for p in dataset.images(options.data)], return_inverse=True)[1]
    content = catalogue.load_network().to_tflite("float")
    one = unit(embeddings("fr-feature", content, "BGR", crops))[found]
    second = sources.EXPO.read(sources.EXPO_MOBILEFACENET)
    two = np.concatenate([one, SECOND_WEIGHT * unit(
        embeddings("mobilefacenet", second, "RGB", crops))[found]], axis=1)
    print("| lever | FNMR at FMR " + " | at ".join(f"{f:.0e}" for f in FMRS) + " |\n|---|---|---|---|")
    for label, x in (("one network", one), ("two networks", two)):
        study = Study(x, people[found], options.halvings)
        study.report(f"{label}, centred")
        for scatter in ("within", "total"):
            for power, shrink in ((0.5, 0.3), (0.5, 0.6), (1.0, 0.3)):
                study.report(f"{label}, {scatter} scatter to the power -{power / 2}, shrunk by {shrink}",
                             scatter=scatter, power=power, shrink=shrink)
        study.report(f"{label}, less the mean of the {COHORT_NEAREST} nearest strangers", cohort=1.0)


if __name__ == "__main__":
    main()
