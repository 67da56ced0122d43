"""The demonstration's bank: this machine's own English, without the sentences that will be asked for."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cellular.bank import PhraseBank
from cellular.config import BuildConfig, CorpusConfig, TeacherConfig
from cellular.decoders import PhraseBankDecoder, default_bank_path
from cellular.teachers import Teacher
from cellular.types import FloatArray
from pipelines import build_phrase_bank
from pipelines.build_phrase_bank import BuildReport
from pipelines.demo_corpus import gather, write_corpus

HELD_OUT = 200


@dataclass(frozen=True)
class Answer:
    """What came back for one sentence."""

    text: str
    ms: float


def build(phrases: int, teacher: TeacherConfig) -> tuple[BuildReport, list[str]]:
    """Build the bank at `default_bank_path`, or find that it is up to date.

    Args:
        phrases: least number of different sentences to gather for it.
        teacher: what embeds them.

    Returns:
        The build's report, and sentences that are not in the bank.
    """
    target = default_bank_path()
    corpus = target.with_name("demo_corpus.parquet")
    paragraphs, held_out = gather(phrases, HELD_OUT)
    write_corpus(paragraphs, corpus)
    config = BuildConfig(corpus=CorpusConfig(inputs=(str(corpus),)), target=target, teacher=teacher)
    return build_phrase_bank.run(config), held_out


def decode(bank: Path, embeddings: FloatArray) -> list[Answer]:
    """Decode (N, D) embeddings one by one in this process, each timed."""
    decoder = PhraseBankDecoder()
    decoder.load_phrase_bank(PhraseBank.open(bank))
    decoder.decode(-embeddings[0])  # warms up, with what nobody asks for
    return [_timed(decoder, embedding) for embedding in embeddings]


def cosines(teacher: Teacher, texts: Sequence[str], embeddings: FloatArray) -> list[float]:
    """Cosine between each text's embedding and the one that it was decoded from."""
    return [float(cosine) for cosine in (teacher.encode(texts) * embeddings).sum(axis=1)]


def _timed(decoder: PhraseBankDecoder, embedding: FloatArray) -> Answer:
    start = time.perf_counter()
    text = decoder.decode(embedding)
    return Answer(text, (time.perf_counter() - start) * 1e3)
