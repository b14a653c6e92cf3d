"""Is it the same person? Rates over all pairs of query and gallery, and a calibrated probability.

The paper ranks and does not verify. A pair is a query and a gallery image of another camera. It is
genuine if both show one person, else it is an impostor pair. (The ranking also has other people by
the query's own camera; they are no pairs here, so that both kinds cross cameras alike. Where the
query's camera is not known, all its pairs count.) A threshold accepts the pairs up to a distance.
TAR is the share of genuine pairs that it accepts, FAR that of impostor pairs.

Rates are exact: pairs that are equally far are accepted together or not at all. TAR at a FAR is the
highest that a threshold reaches without a higher FAR. The equal error rate (EER) is where FAR is
1 - TAR on the straight lines between the points of all thresholds.

Intervals are of 95 %, by a bootstrap over people. A pair belongs to the query's person, and the
gallery stays as it is: they are for other queries in the same gallery.
"""

from collections.abc import Callable
from dataclasses import replace
from threading import Lock
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, logit

from ..data import Dataset
from ..models.fusionreid import FusionReID
from ..options import expect
from .distances import each_query
from .embedding import device_of
from .evaluate import Retrieval, retrieve
from .ranking import Labels, distances_between, same_camera, valid_queries

FARS = {"TAR at FAR 1e-2": 1e-2, "TAR at FAR 1e-3": 1e-3}
DRAWS = 1000  # of the bootstrap
POINTS = 2000  # of the curve, at most, that the bootstrap draws; the rates themselves use all
COSINES = np.linspace(-1, 1, 20_001)  # to which a calibration rounds
# Cosines differ by whether the camera embedding is used, so each way has its own calibration.
CAMERAS = {True: "with cameras", False: "without cameras"}


class Rate(NamedTuple):
    """A share of pairs (0 to 1), and the ends of its interval; they are NaN for one person."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        value, low, high = (f"{100 * number:.1f}" for number in self)
        return f"{value} ({low} to {high})"


class Verification(NamedTuple):
    """How well distances tell genuine pairs from impostor pairs."""

    far: np.ndarray  # (points,) shares of accepted impostor pairs, 0 to 1, ascending
    tar: np.ndarray  # (points,) shares of accepted genuine pairs, 0 to 1, ascending
    rates: dict[str, Rate]  # by name: those of `FARS`, and "EER"
    draws: pd.DataFrame  # the rates of drawn people; rows of two features are of the same people
    genuine: int  # pairs
    impostors: int
    people: int  # who have queries


class Calibration(NamedTuple):
    """The probability that a pair is of one person, a logistic function of its cosine (Platt)."""

    slope: float
    offset: float

    def probability(self, cosines, prior: float = 0.5) -> np.ndarray:
        """Probabilities of cosine similarities of any shape.

        `prior` is the share of genuine pairs among those asked about: one half says that there are
        as many genuine pairs as impostor pairs. Raises ValueError if it is not 0 to 1.
        """
        prior = expect("prior", prior, float, 0, 1)
        return expit(self.slope * np.asarray(cosines) + self.offset + logit(prior))


def verify(retrieval: Retrieval, feature: str = "all", *, device=None) -> Verification:
    """Verification by one feature, or by "all" side by side. Raises as `verify_by`."""
    distances = distances_between(*retrieval.select(feature), device=device)
    return verify_by(distances, retrieval.query, retrieval.gallery)


def verify_by(distances, query: Labels, gallery: Labels) -> Verification:
    """Verification by any of the distances of `distances` and `reranking`, in bounded memory.

    The genuine distances are held, and the impostor ones counted between them, block by block.
    Queries of a negative identity are left out. Raises ValueError if there is no genuine or no
    impostor pair.
    """
    valid_queries(query, gallery)  # says why, where there is no genuine pair
    held = _pairs_of_each_query(distances, query, gallery, lambda _, genuine, impostor: genuine)
    # The infinite thresholds accept no pair and all pairs. TAR changes at the others alone.
    thresholds = np.unique(np.concatenate([[-np.inf], *held, [np.inf]]))
    points = 2 * len(thresholds)
    drawn = np.linspace(0, points - 1, min(points, POINTS)).astype(int)
    people, person = np.unique(query.ids, return_inverse=True)
    # Accepted pairs by kind, genuine and impostor, of all and of each person.
    accepted = np.zeros((2, points), np.int64)
    of_people = np.zeros((len(people), 2, len(drawn)))
    lock = Lock()

    def count(i: int, *kinds: np.ndarray) -> None:
        counts = np.stack([_accepted(values, thresholds) for values in kinds])
        with lock:
            accepted[:] += counts
            of_people[person[i]] += counts[:, drawn]

    _pairs_of_each_query(distances, query, gallery, count)
    genuine, impostors = map(int, accepted[:, -1])
    _expect_impostors(impostors)
    tar, far = accepted / accepted[:, -1:]
    of_people = of_people[people >= 0]
    draws = _draws(of_people)
    ends = draws.quantile([0.025, 0.975])
    rates = {name: Rate(value, *ends[name]) for name, value in _rates(tar, far).items()}
    return Verification(far, tar, rates, draws, genuine, impostors, len(of_people))


def _expect_impostors(count: int) -> None:
    if not count:
        raise ValueError("expected pairs of two people by different cameras, found none")


def _pairs_of_each_query(distances, query: Labels, gallery: Labels, work: Callable) -> list:
    """What `work(query, genuine, impostor)` returns, called with the distances of a query's pairs.

    It is called by several threads.
    """

    def of_row(i: int, row: np.ndarray):
        allowed = ~same_camera(query.cameras[i], gallery.cameras)
        same = gallery.ids == query.ids[i]
        return work(i, row[same & allowed], row[~same & allowed])

    return each_query(distances, np.flatnonzero(query.ids >= 0), of_row)


def _accepted(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(2 x thresholds,) how many values are below the first threshold, up to it, below the next."""
    ordered = np.sort(values)
    below = np.searchsorted(ordered, thresholds, "left")
    up_to = np.searchsorted(ordered, thresholds, "right")
    return np.stack([below, up_to], axis=1).ravel()


def _rates(tar: np.ndarray, far: np.ndarray) -> dict[str, float]:
    """Rates by name, of a curve (points,) that begins at 0 and ends at 1."""
    rates = {name: float(tar[far <= limit].max()) for name, limit in FARS.items()}
    excess = far - (1 - tar)  # from -1 to 1, ascending
    rates["EER"] = float(np.interp(0, excess, far))
    return rates


def _draws(of_people: np.ndarray) -> pd.DataFrame:
    """The rates of the bootstrap's draws, of accepted pairs (people, 2, points).

    They are NaN for one person.
    """
    count = len(of_people)
    rng = np.random.default_rng(0)
    times = rng.multinomial(count, np.full(count, 1 / count), DRAWS).astype(float)
    accepted = np.tensordot(times, of_people, 1)
    accepted = accepted[(accepted[..., -1] > 0).all(axis=1)]  # with pairs of both kinds
    shares = accepted / accepted[..., -1:]
    draws = pd.DataFrame([_rates(*curve) for curve in shares])
    return draws if count > 1 else draws * np.nan


def pairs_by_cosine(retrieval: Retrieval, *, device=None) -> np.ndarray:
    """(2, 20,001) how many genuine and impostor pairs have each of `COSINES`, by all features.

    Raises ValueError if there is no genuine or no impostor pair.
    """
    valid_queries(retrieval.query, retrieval.gallery)
    counts = np.zeros((2, len(COSINES)), np.int64)
    lock = Lock()

    def count(_, *kinds: np.ndarray) -> None:
        for row, squares in enumerate(kinds):
            # Of vectors of length 1: |q - g|^2 = 2 - 2 q g, so that 0 to 4 are the cosines 1 to -1.
            places = ((4 - squares) / 4 * (len(COSINES) - 1)).round().astype(int)
            found = np.bincount(places.clip(0, len(COSINES) - 1), minlength=len(COSINES))
            with lock:
                counts[row] += found

    distances = distances_between(*retrieval.select(), device=device)
    _pairs_of_each_query(distances, retrieval.query, retrieval.gallery, count)
    _expect_impostors(counts[1].sum())
    return counts


def fit(counts: np.ndarray) -> Calibration:
    """The logistic function of highest likelihood, both kinds of `pairs_by_cosine` weighing alike.

    Its targets are not 1 and 0, but Platt's (n + 1) / (n + 2) of n genuine pairs and 1 / (n + 2) of
    n impostor pairs, so that it stays finite where no cosine is of both kinds.
    """
    totals = counts.sum(axis=1, keepdims=True)
    weights = counts / totals
    targets = (np.array([[1], [0]]) * totals + 1) / (totals + 2)
    both = weights.sum(axis=0) / 2
    mean = both @ COSINES
    spread = max(np.sqrt(both @ (COSINES - mean) ** 2), 1e-4)
    scaled = (COSINES - mean) / spread

    def loss(line: np.ndarray) -> float:
        logits = line[0] * scaled + line[1]
        return (weights * (np.logaddexp(0, logits) - targets * logits)).sum()

    slope, offset = minimize(loss, [1.0, 0.0]).x
    return Calibration(float(slope / spread), float(offset - slope * mean / spread))


def training_pairs(dataset: Dataset) -> Dataset:
    """The people of training in place of the test's: every second image is a query."""
    return replace(dataset, query=dataset.train[::2], gallery=dataset.train[1::2])


def calibrate(model: FusionReID, dataset: Dataset, **options) -> Calibration:
    """Calibrates a model on people of training; `options` are of `retrieve`.

    The model has seen these people and tells them apart too well. So look at the `reliability` on
    others: notebook 15 measures it.
    """
    retrieval = retrieve(model, training_pairs(dataset), **options)
    return fit(pairs_by_cosine(retrieval, device=device_of(model)))


def reliability(calibration: Calibration, counts: np.ndarray, prior: float = 0.5) -> pd.DataFrame:
    """What comes true of the probabilities of pairs (`pairs_by_cosine`), in ten bins.

    Pairs are weighted so that `prior` is the share of genuine ones. Returns a row for each bin with
    pairs: `predicted`, their mean probability; `observed`, the share of genuine ones; `weight`,
    their share of all pairs; and the numbers of `genuine` and `impostor` pairs.
    """
    probabilities = calibration.probability(COSINES, prior)
    weights = counts / counts.sum(axis=1, keepdims=True) * [[prior], [1 - prior]]
    columns = {
        "bin": (probabilities * 10).astype(int).clip(0, 9),
        "predicted": probabilities * weights.sum(axis=0),
        "observed": weights[0],
        "weight": weights.sum(axis=0),
        "genuine": counts[0],
        "impostor": counts[1],
    }
    table = pd.DataFrame(columns).groupby("bin").sum()
    table = table[table["weight"] > 0].reset_index(drop=True)
    for name in ("predicted", "observed"):
        table[name] /= table["weight"]
    return table


def calibration_error(table: pd.DataFrame) -> float:
    """The expected calibration error of `reliability`, 0 to 1: the mean of what bins are off by."""
    return float(((table["predicted"] - table["observed"]).abs() * table["weight"]).sum())
