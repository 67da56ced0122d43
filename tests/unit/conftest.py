"""What several unit test files share."""

import asyncio
from collections.abc import Iterator
from itertools import product
from pydoc_data.topics import topics

import faiss
import httpx
import pytest

from actors.embedder import Embedder
from actors.hybrid_decoder import HybridDecoder
from actors.phrase_bank_decoder import PhraseBankDecoder
from actors.ret_decoder import RETDecoder
from cellular.bank import PhraseBank, create_bank
from cellular.config import DecodingConfig, TeacherConfig
from cellular.teachers import HashTeacher
from serve.gateway import Gateway
from serve.interface import http_app
from serve.settings import Interface, Limits


@pytest.fixture(scope="session")
def topic_sentences() -> list[str]:
    lines = (" ".join(line.split()) for text in topics.values() for line in text.split(". "))
    return list(dict.fromkeys(line for line in lines if 20 < len(line) < 160))[:700]


@pytest.fixture(scope="session")
def topic_bank(tmp_path_factory: pytest.TempPathFactory, topic_sentences: list[str]) -> PhraseBank:
    path = tmp_path_factory.mktemp("topics") / "bank"
    counts = [1 + number % 7 for number in range(len(topic_sentences))]
    create_bank(path, topic_sentences, HashTeacher(), counts=counts)
    return PhraseBank.open(path)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small trainings lose more to waiting for threads than they gain."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


class LocalStage:
    """A plain object as a stage; counts its calls, and fails when told to."""

    def __init__(self, target):
        self.target = target
        self.calls = []
        self.failure = None

    async def call(self, method, *arguments):
        self.calls.append(method)
        if self.failure is not None:
            raise self.failure
        return getattr(self.target, method)(*arguments)

    async def stream(self, method, *arguments):
        self.calls.append(method)
        try:
            if self.failure is not None:
                raise self.failure
            for item in getattr(self.target, method)(*arguments):
                yield item
                await asyncio.sleep(0)
        finally:
            self.calls.append("ended")


class DescribedEmbedder(Embedder):
    """Embedder with the description that its deployment adds."""

    def describe(self):
        return {name: getattr(self.teacher, name) for name in ("name", "dimension", "fingerprint")}


@pytest.fixture(scope="session")
def phrases():
    animals, verbs = ("a cat", "two dogs", "the owl", "some bees"), ("sleeps", "waits", "sings")
    places = ("river", "old gate", "fire", "sea")
    return [f"{animal} {verb} by the {place}" for animal, verb, place in product(animals, verbs, places)]


@pytest.fixture(scope="session")
def phrases_bank(tmp_path_factory, phrases):
    path = tmp_path_factory.mktemp("phrases")
    create_bank(path, phrases, HashTeacher(384))
    return path


@pytest.fixture(scope="session")
def workers(phrases_bank, ret_checkpoint):
    """A worker of each decoder."""
    checkpoint, engine, teacher = str(ret_checkpoint), "torch", HashTeacher(384)
    return {
        "hybrid": HybridDecoder(phrases_bank, None, checkpoint, engine, None, "low", teacher),
        "ret": RETDecoder(checkpoint, engine),
        "phrase_bank": PhraseBankDecoder(phrases_bank, None, DecodingConfig(enable_caching=False)),
    }


@pytest.fixture
def gateway(workers):
    """A gateway whose stages are in this process."""
    embedder = LocalStage(DescribedEmbedder(TeacherConfig(name="hash:384")))
    decoders = {name: LocalStage(worker) for name, worker in workers.items()}
    limits = Limits(
        max_batch=8, max_text_characters=100, max_body_bytes=64_000, max_sequences=4, max_teacher_calls=8
    )
    gateway = Gateway(embedder, decoders, limits)
    asyncio.run(gateway.start())
    for stage in (embedder, *decoders.values()):
        stage.calls.clear()
    return gateway


@pytest.fixture
def send(gateway):
    """One request through the ASGI interface."""

    def request(method, path, **arguments):
        async def run():
            transport = httpx.ASGITransport(http_app(gateway, Interface()), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **arguments)

        return asyncio.run(run())

    return request
