"""The hybrid decoder beside its parts, at equal numbers of teacher calls, on texts that neither has seen.

    python benchmarks/eval_hybrid.py --bank BANK [--data FOLDER] [--checkpoint FOLDER] [--limit 1000]

BANK holds the training texts. "By the rule" is the hybrid decoder's own choice, from one source alone; "by
cosine" takes the nearest. All rows of a seed choose from the same draws, but for "plain draws": greedy and
the first 32 that RET draws at temperature .7 and top-p .9, without a look at which promise most.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tqdm import tqdm

from cellular.bank import PhraseBank
from cellular.config import HybridConfig
from cellular.decoders.hybrid import Candidate, HybridDecoder
from cellular.decoders.ret import DEFAULT_CHECKPOINT, RETDecoder
from cellular.metrics import Estimate, corpus_scores, estimate, over_seeds, text_scores
from cellular.queries import bank_teacher
from cellular.types import FloatArray
from pipelines.evaluation_data import data_folder, held_out_texts, set_names, training_counts

CALLS = 33
BATCH = 32
METRICS = {"bleu": 1, "f1": 3, "exact_match": 3, "cosine": 3}
Row = Callable[["Pool"], str]
NOTHING = Candidate("", "ret", 0.0, False, 0.0)  # where all that RET writes is empty


class Pool:
    """What may be chosen for one target: the bank's phrases, judged proposals, all proposals, plain draws."""

    def __init__(
        self,
        decoder: HybridDecoder,
        stored: list[Candidate],
        judged: list[Candidate],
        proposed: list[Candidate],
        plain: list[Candidate],
    ) -> None:
        self.decoder, self.stored, self.judged, self.plain = decoder, stored, judged, plain
        self.proposed = proposed or [NOTHING]

    def by_rule(self, candidates: Sequence[Candidate]) -> str:
        """The decoder's choice."""
        return self.decoder.choose(candidates, self.decoder.config.likelihood_weight).text

    def without_calls(self) -> str:
        """The decoder's choice where the teacher is not asked."""
        weight = self.decoder.config.likelihood_weight_of_estimates
        return self.decoder.choose([*self.stored, *self.proposed], weight).text

    def written(self) -> list[Candidate]:
        """The judged texts of RET, as many as there are calls."""
        return [one for one in self.judged if one.source == "ret"][:CALLS] or [NOTHING]

    def of_bank(self) -> list[Candidate]:
        """Phrases and what was assembled of them."""
        return [*self.stored, *(one for one in self.judged if one.source == "bank")]


def nearest(candidates: Sequence[Candidate]) -> str:
    """By the cosine alone."""
    return max(candidates, key=lambda one: one.cosine).text


ROWS: dict[str, Row] = {
    "nearest phrase": lambda pool: pool.stored[0].text,
    "RET, greedy": lambda pool: pool.proposed[0].text,
    "hybrid, no teacher calls": Pool.without_calls,
    "hybrid, 9 calls": lambda pool: pool.by_rule([*pool.stored, *pool.judged[:9]]),
    "bank alone by cosine, 33 calls at most": lambda pool: nearest(pool.of_bank()),
    "bank alone by the rule": lambda pool: pool.by_rule(pool.of_bank()),
    "RET alone, plain draws by cosine, 33 calls": lambda pool: nearest(pool.plain),
    "RET alone by cosine, 33 calls": lambda pool: nearest(pool.written()),
    "RET alone by the rule, 33 calls": lambda pool: pool.by_rule(pool.written()),
    "hybrid by cosine, 33 calls": lambda pool: nearest([*pool.stored, *pool.judged[:CALLS]]),
    "**hybrid, 33 calls**": lambda pool: pool.by_rule([*pool.stored, *pool.judged[:CALLS]]),
}


def gather_pools(decoder: HybridDecoder, targets: FloatArray, seed: int) -> list[Pool]:
    """Candidates of each target; two calls more than CALLS are judged, for whoever leaves out the bank."""
    stored = decoder.stored(targets)
    proposed = decoder.propose(targets, [phrases[0] for phrases in stored], seed)
    judged = decoder.judge(targets, [texts[: CALLS + 2] for texts in proposed])
    drawn = decoder.ret.samples(targets, CALLS - 1, temperature=0.7, top_p=0.9, seed=seed)
    greedy = [texts[:1] for texts in proposed]
    others = [[Candidate(one.text, "ret", 0.0, False, 0.0) for one in texts] for texts in drawn]
    plain = decoder.judge(targets, [[*one, *rest] for one, rest in zip(greedy, others, strict=True)])
    return [Pool(decoder, *parts) for parts in zip(stored, judged, proposed, plain, strict=True)]


def evaluate_set(
    decoder: HybridDecoder, texts: list[str], name: str, seeds: int
) -> dict[str, dict[str, Estimate]]:
    """Scores of every row."""
    targets = decoder.teacher.encode(texts)
    scores: dict[str, list[dict[str, Estimate]]] = {row: [] for row in ROWS}
    for seed in range(seeds):
        pools = [
            pool
            for start in tqdm(range(0, len(texts), BATCH), f"{name}, seed {seed}")
            for pool in gather_pools(decoder, targets[start : start + BATCH], seed)
        ]
        for row, choose in ROWS.items():
            outputs = [choose(pool) for pool in pools]
            cosines = (decoder.teacher.encode(outputs) * targets).sum(axis=1)
            single = text_scores(outputs, texts, cosines)
            means = {metric: estimate(getattr(single, metric)) for metric in METRICS if metric != "bleu"}
            scores[row].append(corpus_scores(outputs, texts) | means)
    return {
        row: {metric: over_seeds([one[metric] for one in found]) for metric in METRICS}
        for row, found in scores.items()
    }


def print_table(name: str, count: int, seeds: int, scores: dict[str, dict[str, Estimate]]) -> None:
    """Markdown."""
    print(f"\n## {name}, {count} texts, {seeds} seeds\n")
    print("| | BLEU | F1 | EM | cosine |\n|---|---|---|---|---|")
    for row, found in scores.items():
        cells = [
            f"{found[metric].mean:.{digits}f} ± {found[metric].error:.{digits}f}"
            for metric, digits in METRICS.items()
        ]
        print(f"| {row} | {' | '.join(cells)} |", flush=True)


def main(
    bank: Annotated[Path, typer.Option(help="bank of the training texts")],
    data: Annotated[Path | None, typer.Option(help="folder; default: CELLULAR_DATA")] = None,
    checkpoint: Annotated[str, typer.Option(help="name or folder")] = DEFAULT_CHECKPOINT,
    split: Annotated[str, typer.Option(help="valid or test")] = "test",
    limit: Annotated[int, typer.Option(help="texts a set")] = 1000,
    seeds: Annotated[int, typer.Option(help="runs of what samples")] = 3,
    draws: Annotated[int, typer.Option(help="texts that RET draws")] = HybridConfig().draws,
) -> None:
    """Compare the hybrid decoder with its parts."""
    opened = PhraseBank.open(bank)
    config = HybridConfig(draws=draws, enough=1.0)
    decoder = HybridDecoder(opened, RETDecoder.load(checkpoint), bank_teacher(opened), config)
    folder = data_folder(data)
    training = training_counts(folder)
    for name in set_names(folder, split, ()):
        texts = held_out_texts(folder / f"{name}_{split}.parquet", training, opened, limit)
        print_table(name, len(texts), seeds, evaluate_set(decoder, texts, name, seeds))


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    typer.run(main)
