"""What several unit test files share."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from functools import cache, partial
from itertools import product
from pydoc_data.topics import topics

import faiss
import httpx
import pytest
import uvicorn

from actors.adapted_embedder import AdaptedEmbedder
from actors.embedder import Embedder
from actors.hybrid_decoder import HybridDecoder
from actors.lattice import Lattice
from actors.phrase_bank_decoder import PhraseBankDecoder
from actors.ret_decoder import RETDecoder
from actors.session_store import SessionStore
from actors.text_to_text import TextToText
from cellular.bank import PhraseBank, create_bank
from cellular.config import DecodingConfig, TeacherConfig
from cellular.teachers import HashTeacher
from serve.gateway import Gateway
from serve.interface import http_app
from serve.settings import Interface, Limits, ServeConfig
from serve.stages import LocalStage


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


class CountedStage(LocalStage):
    """A plain object as a stage; counts its calls, and fails when told to."""

    def __init__(self, target):
        super().__init__(target)
        self.calls = []
        self.failure = None

    async def ask(self, method, *arguments):
        self.calls.append(method)
        if self.failure is not None:
            raise self.failure
        if method == "statistics":
            return {"calls": len(self.calls), "batches": 0, "rows": 0}
        return getattr(self.replica, method)(*arguments)

    async def stream(self, method, *arguments):
        self.calls.append(method)
        try:
            if self.failure is not None:
                raise self.failure
            for item in getattr(self.replica, method)(*arguments):
                yield item
                await asyncio.sleep(0)
        finally:
            self.calls.append("ended")


class TwoTeachers(Embedder):
    """The teacher, and another one through an adapter, as their deployment has them."""

    def __init__(self, teacher, adapter):
        super().__init__(teacher)
        self.adapted = AdaptedEmbedder(adapter)

    def encode_adapted(self, texts):
        return self.adapted.encode(texts)

    def describe(self):
        return super().describe() | {"adapter": self.adapted.describe()}


class ByBank:
    """A decoder for each version of a bank, as its deployment has them."""

    def __init__(self, make):
        self.decoder = cache(make)

    def decode(self, rows, on):
        return self.decoder(*on.bank).decode(rows, on.options)

    def describe(self, on=None):
        return self.decoder(*on.bank).describe() if on else {}


class ByName:
    """Lattices by name, as their deployment has them."""

    def __init__(self, *folders):
        self.lattices = {folder.name: Lattice(folder) for folder in folders}

    def process(self, rows, name):
        return self.lattices[name].process(rows)

    def process_turns(self, dialogues, name):
        return self.lattices[name].process_turns(dialogues)

    def states(self, rows, name):
        return self.lattices[name].states(rows)

    def describe(self):
        return {name: lattice.describe() for name, lattice in self.lattices.items()}


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
def workers(
    ret_checkpoint, lattice_checkpoint, reply_checkpoint, text_to_text_checkpoint, adapter_checkpoint
):
    """What the stages but the SessionStore run."""
    ret, teacher = RETDecoder(str(ret_checkpoint), "torch"), HashTeacher(384)
    return {
        "Embedder": TwoTeachers(TeacherConfig(name="hash:384"), str(adapter_checkpoint)),
        "Lattice": ByName(lattice_checkpoint, reply_checkpoint),
        "PhraseBankDecoder": ByBank(partial(PhraseBankDecoder, DecodingConfig(enable_caching=False))),
        "RETDecoder": ret,
        "HybridDecoder": ByBank(partial(HybridDecoder, ret, "low", teacher)),
        "TextToText": TextToText(str(text_to_text_checkpoint)),
    }


@pytest.fixture
def gateway(workers, phrases_bank):
    """A gateway whose stages are in this process."""
    sessions = {"SessionStore": SessionStore(None, 100, 60.0)}
    stages = {name: CountedStage(worker) for name, worker in (workers | sessions).items()}
    limits = Limits(
        max_batch=8, max_text_characters=100, max_body_bytes=64_000, max_sequences=4, max_teacher_calls=8
    )
    gateway = Gateway(stages, ServeConfig(banks=[str(phrases_bank)], limits=limits))
    asyncio.run(gateway.start())
    for stage in stages.values():
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


@pytest.fixture
def url(gateway):
    """Where the gateway's application listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(
            uvicorn.Config(http_app(gateway, Interface()), log_level="warning", lifespan="off")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()
