"""RET as a worker: one checkpoint, and the ways of decoding that a request may ask for."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from actors.decoding import Alternative, RETOptions, RETResult
from cellular.checkpoint_files import find_checkpoint, weights_fingerprint
from cellular.decoders import ret
from cellular.decoders.ret.weights import Precision
from cellular.types import FloatArray


class RETDecoder:
    """Holds one checkpoint and the engine that computes it.

    Args:
        checkpoint: name or folder.
        engine: a name in ENGINES; "auto" is the fastest on this machine.
        precision: what it computes in; None: fp32.

    Raises:
        CellularError: the checkpoint is missing or damaged, or the engine cannot run here.
    """

    def __init__(self, checkpoint: str, engine: str = "auto", precision: Precision | None = None) -> None:
        self.decoder = ret.RETDecoder.load(checkpoint, engine=engine, precision=precision)
        self.checkpoint = checkpoint
        self._warm_up()

    def decode(self, embeddings: FloatArray, options: RETOptions) -> list[RETResult]:
        """Turn (N, E) float32 embeddings into texts."""
        temperature, top_p, seed, beam, n, asked_length = options
        max_length = asked_length or ret.MAX_PIECES
        if temperature:
            found = self.decoder.samples(
                embeddings, n, max_length=max_length, temperature=temperature, top_p=top_p, seed=seed
            )
        elif beam or n > 1:
            found = self.decoder.n_best(embeddings, n, max_length=max_length, beam_width=beam or max(n, 8))
        else:
            return [RETResult(text) for text in self.decoder.decode_batch(embeddings, max_length=max_length)]
        return [likeliest(hypotheses) for hypotheses in found]

    def stream(self, embeddings: FloatArray, options: RETOptions) -> Iterator[tuple[int, str]]:
        """Write the texts of (N, E) embeddings one after the other: number of the row, increment."""
        for number, embedding in enumerate(embeddings):
            for increment in self.decoder.stream(
                embedding,
                max_length=options.max_length or ret.MAX_PIECES,
                method="sample" if options.temperature else "greedy",
                temperature=options.temperature or 1.0,
                top_p=options.top_p,
                seed=options.seed,
            ):
                yield number, increment

    def _warm_up(self) -> None:
        """Compile what an engine compiles at its first use: no request waits for that."""
        one = np.eye(1, self.decoder.model.config.embedding_dimension, dtype=np.float32)
        self.decode(one, RETOptions(max_length=2))
        for _ in self.stream(one, RETOptions(max_length=2)):
            pass

    def describe(self) -> dict[str, Any]:
        """What this worker answers from."""
        return describe_ret(self.checkpoint, self.decoder)


def likeliest(hypotheses: list[ret.Hypothesis]) -> RETResult:
    """The result that alternatives make."""
    alternatives = [Alternative(one.text, one.log_probability) for one in hypotheses]
    alternatives.sort(key=lambda one: -one.log_probability)
    return RETResult(alternatives[0].text, tuple(alternatives))


def describe_ret(checkpoint: str, decoder: ret.RETDecoder) -> dict[str, Any]:
    """A checkpoint and its teacher, as the workers that hold it describe it."""
    folder, teacher = find_checkpoint(checkpoint), decoder.teacher
    assert teacher is not None, "every saved checkpoint has a teacher"
    return {
        "teacher": {"name": teacher.name, "fingerprint": teacher.fingerprint},
        "checkpoint": {
            "name": folder.name,
            "fingerprint": weights_fingerprint(folder),
            "dimension": teacher.dimension,
            "teacher": teacher.name,
            "engine": decoder.engine.name,
        },
    }
