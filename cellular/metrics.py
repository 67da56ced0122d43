"""How near decoded texts are to the texts whose embeddings were decoded; each mean beside its standard error.

Corpus BLEU (Papineni et al. 2002) and chrF (Popović 2015) are sacrebleu's (Post 2018), from 0 to 100, and
their standard errors come from a bootstrap over texts. Every other score has a value for each text, from 0
to 1 (a cosine from -1), and an analytic standard error: the sample's deviation over the root of its size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from cellular.types import FloatArray

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its standard error."""

    mean: float
    error: float


@dataclass(frozen=True)
class TextScores:
    """Scores of each of N texts, (N,) float32."""

    sentence_bleu: FloatArray  # 0 to 100
    f1: FloatArray
    exact_match: FloatArray
    cosine: FloatArray


def corpus_scores(outputs: Sequence[str], references: Sequence[str]) -> dict[str, Estimate]:
    """`bleu` and `chrf` of all texts together.

    Raises:
        ValueError: no texts, or not as many outputs as references.
    """
    check_pairs(outputs, references)
    return {name: _corpus_score(make(), outputs, references) for name, make in CORPUS_METRICS.items()}


def signatures() -> dict[str, str]:
    """What sacrebleu does, in its own words: tokeniser, case, smoothing, version."""
    metrics = {name: make() for name, make in CORPUS_METRICS.items()}
    for metric in metrics.values():
        metric.corpus_score(["a"], [["a"]])  # a signature names the number of references that were met
    return {name: str(metric.get_signature()) for name, metric in metrics.items()}


def text_scores(outputs: Sequence[str], references: Sequence[str], cosines: FloatArray) -> TextScores:
    """Scores of each text.

    Args:
        outputs: N decoded texts.
        references: the N texts that were embedded.
        cosines: (N,) cosine between the teacher's embedding of each output and the decoded embedding.

    Raises:
        ValueError: no texts, or not as many outputs as references.
    """
    check_pairs(outputs, references)
    pairs = list(zip(outputs, references, strict=True))
    bleu = BLEU(effective_order=True)  # texts of fewer than four words have no 4-grams
    return TextScores(
        sentence_bleu=_array([bleu.sentence_score(output, [reference]).score for output, reference in pairs]),
        f1=_array([token_f1(*pair) for pair in pairs]),
        exact_match=_array([output == reference for output, reference in pairs]),
        cosine=_array(cosines),
    )


def token_f1(output: str, reference: str) -> float:
    """F1 between the sets of lower-cased, whitespace-separated tokens; 1 for two texts without any."""
    ours, theirs = set(output.lower().split()), set(reference.lower().split())
    if not ours and not theirs:
        return 1.0
    return 2 * len(ours & theirs) / (len(ours) + len(theirs))


def estimate(values: FloatArray) -> Estimate:
    """Mean and standard error of (N,) values that are independent of each other; one value has no error."""
    error = values.std(ddof=1, dtype=np.float64) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Estimate(float(values.mean(dtype=np.float64)), float(error))


def over_seeds(estimates: Sequence[Estimate]) -> Estimate:
    """One estimate from those of several seeds on the same texts.

    The error adds what the choice of texts leaves open (the seeds' mean variance: they share the texts) and
    what the seeds leave open (the variance of their mean).
    """
    means = np.array([estimate.mean for estimate in estimates])
    errors = np.array([estimate.error for estimate in estimates])
    seeds = means.var(ddof=1) / len(means) if len(means) > 1 else 0.0
    return Estimate(float(means.mean()), float(math.sqrt((errors**2).mean() + seeds)))


def check_pairs(outputs: Sequence[str], references: Sequence[str]) -> None:
    """Refuse what cannot be compared."""
    if not references or len(outputs) != len(references):
        raise ValueError(f"{len(outputs)} outputs cannot be scored against {len(references)} references")


CORPUS_METRICS: dict[str, Callable[[], Metric]] = {
    "bleu": BLEU,
    "chrf": CHRF,
}


def _corpus_score(metric: Metric, outputs: Sequence[str], references: Sequence[str]) -> Estimate:
    """The score, and its deviation over resamples of the texts (Efron 1979); same seed, same resamples.

    sacrebleu's own bootstrap gives an interval instead, and fails where some resamples score 0.
    """
    statistics_NS = np.array(metric._extract_corpus_statistics(outputs, [references]))
    rng, texts = np.random.default_rng(0), len(outputs)
    samples = [statistics_NS[rng.integers(texts, size=texts)].sum(axis=0) for _ in range(RESAMPLES)]
    scores = [metric._compute_score_from_stats(sample.tolist()).score for sample in samples]
    score = metric._compute_score_from_stats(statistics_NS.sum(axis=0).tolist()).score
    return Estimate(float(score), float(np.std(scores, dtype=np.float64)))


def _array(values: Sequence[float] | FloatArray) -> FloatArray:
    return np.asarray(values, np.float32)
