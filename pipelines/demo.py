"""The demonstration: a bank of this machine's own English, and like sentences that it does not hold."""

import time
from dataclasses import dataclass
from pathlib import Path

from cellular.bank import PhraseBank
from cellular.config import BuildConfig, CorpusConfig, TeacherConfig
from cellular.decoders import PhraseBankDecoder, default_bank_path
from cellular.teachers import load_teacher
from cellular.types import FloatArray
from pipelines import build_phrase_bank
from pipelines.build_phrase_bank import BuildReport
from pipelines.demo_corpus import gather, write_corpus

HELD_OUT = 200


@dataclass(frozen=True)
class Answer:
    """What came back for one sentence that the bank does not hold."""

    sentence: str
    embedding: FloatArray  # (D,)
    decoded: str
    cosine: float  # between the embeddings of `sentence` and `decoded`
    ms: float


def build(phrases: int, teacher: TeacherConfig) -> tuple[BuildReport, list[str]]:
    """Build the bank at `default_bank_path`, or find that it is up to date.

    Args:
        phrases: least number of different sentences to gather for it.
        teacher: what embeds them.

    Returns:
        The build's report, and HELD_OUT sentences that are not in the bank.
    """
    target = default_bank_path()
    corpus = target.with_name("demo_corpus.parquet")
    paragraphs, held_out = gather(phrases, HELD_OUT)
    write_corpus(paragraphs, corpus)
    config = BuildConfig(corpus=CorpusConfig(inputs=(str(corpus),)), target=target, teacher=teacher)
    return build_phrase_bank.run(config), held_out


def decode(bank: Path, sentences: list[str], teacher: TeacherConfig) -> list[Answer]:
    """Embed sentences and decode each embedding in this process, one by one."""
    model = load_teacher(teacher)
    embeddings = model.encode(sentences)
    decoder = PhraseBankDecoder()
    decoder.load_phrase_bank(PhraseBank.open(bank), embedding_loader=model)
    decoder.decode(-embeddings[0])  # warms up, with what nobody asks for
    texts, times = zip(*(_decode_timed(decoder, embedding) for embedding in embeddings), strict=True)
    cosines = (model.encode(texts) * embeddings).sum(axis=1).tolist()
    return [Answer(*row) for row in zip(sentences, embeddings, texts, cosines, times, strict=True)]


def _decode_timed(decoder: PhraseBankDecoder, embedding: FloatArray) -> tuple[str, float]:
    start = time.perf_counter()
    text = decoder.decode_batch(embedding)[0].text
    return text, (time.perf_counter() - start) * 1e3
