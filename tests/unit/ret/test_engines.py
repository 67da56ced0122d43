"""Every engine against the reference, TorchEngine."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from cellular.decoders.ret import RET, RETDecoder, TorchEngine
from cellular.decoders.ret.engines import build, choose_engine
from cellular.decoders.ret.engines.native import NativeEngine
from cellular.decoders.ret.generation import Engine, greedy
from cellular.decoders.ret.weights import Precision
from cellular.errors import CellularError
from cellular.types import FloatArray

Make = Callable[..., Any]
FAST = [("native", "fp32"), ("native", "int8"), ("native", "int4"), ("numba", "fp32"), ("numba", "int8")]
LOGIT_ERROR = {"fp32": 1e-4, "int8": 0.1, "int4": 0.6}  # of logits whose standard deviation is about 1
every_engine = pytest.mark.parametrize(("name", "precision"), FAST)


def runnable_targets() -> list[str]:
    """Kernels that this processor can run."""
    capability = torch.backends.cpu.get_cpu_capability()
    return ["native", "plain"] + ["avx2"] * (capability in ("AVX2", "AVX512"))


@pytest.fixture(scope="module")
def model(make_model: Make) -> RET:
    made: RET = make_model()
    with torch.no_grad():
        made.pieces.mul_(5)  # logits far enough apart for a text to be well defined
    return made


@pytest.fixture(scope="module")
def engine_of(model: RET) -> Callable[[str, Precision], Engine[Any]]:
    made: dict[tuple[str, Precision], Engine[Any]] = {}

    def get(name: str, precision: Precision) -> Engine[Any]:
        if (name, precision) not in made:
            made[name, precision] = choose_engine(name, model, precision)
        return made[name, precision]

    return get


def assert_same_texts(found: list[Any], expected: list[Any]) -> None:
    assert [text.tolist() for text in found] == [text.tolist() for text in expected]


def logits_along(engine: Engine[Any], embeddings: FloatArray, ids: torch.Tensor) -> torch.Tensor:
    """(B, L + 1, V), given every next piece."""
    state, logits = engine.start(embeddings, ids.shape[1])
    return torch.stack([logits, *(engine.step(state, column) for column in ids.T)], 1)


@pytest.mark.parametrize("name", ["native", "numba"])
@pytest.mark.parametrize("dimension", [384, 768])
def test_fp32_writes_the_texts_of_the_reference(
    name: str, dimension: int, make_model: Make, make_embeddings: Make
) -> None:
    model = make_model(dimension, applications=3)
    embeddings = make_embeddings(5, dimension)
    expected = TorchEngine(model).greedy(embeddings, 40)
    assert_same_texts(choose_engine(name, model).greedy(embeddings, 40), expected)


@pytest.mark.parametrize("target", runnable_targets())
@pytest.mark.parametrize("precision", NativeEngine.precisions)
def test_every_kernel_gives_the_same_logits(
    target: str, precision: Precision, model: RET, engine_of: Make, make_embeddings: Make
) -> None:
    embeddings, ids = make_embeddings(9), torch.randint(256, (9, 20))
    expected = logits_along(engine_of("native", precision), embeddings, ids)
    found = logits_along(NativeEngine(model, precision, target=target), embeddings, ids)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


@every_engine
def test_logits_are_those_of_the_reference(
    name: str, precision: Precision, model: RET, engine_of: Make, make_embeddings: Make
) -> None:
    embeddings, ids = make_embeddings(3), torch.randint(256, (3, 24))
    expected = logits_along(TorchEngine(model), embeddings, ids)
    error = (logits_along(engine_of(name, precision), embeddings, ids) - expected).abs().max()
    assert error < LOGIT_ERROR[precision] * expected.std()


@every_engine
def test_rounded_weights_keep_what_is_learned(
    name: str, precision: Precision, memorised: RETDecoder, known_embeddings: FloatArray
) -> None:
    engine = choose_engine(name, memorised.model, precision)
    found = RETDecoder(engine, memorised.model, memorised.vocabulary).decode_batch(known_embeddings)
    agree = np.mean([a == b for a, b in zip(found, memorised.decode_batch(known_embeddings), strict=True)])
    assert agree >= {"fp32": 1.0, "int8": 0.9, "int4": 0.5}[precision]


@every_engine
def test_steps_write_what_greedy_writes(
    name: str, precision: Precision, engine_of: Make, make_embeddings: Make
) -> None:
    engine, embeddings = engine_of(name, precision), make_embeddings(6)
    assert_same_texts(greedy(engine, embeddings, 30), engine.greedy(embeddings, 30))


@every_engine
def test_batch_of_64_answers_as_one_by_one(
    name: str, precision: Precision, engine_of: Make, make_embeddings: Make
) -> None:
    engine, embeddings = engine_of(name, precision), make_embeddings(64)
    alone = [engine.greedy(embeddings[row : row + 1], 12)[0] for row in range(64)]
    assert_same_texts(engine.greedy(embeddings, 12), alone)


@every_engine
def test_selected_rows_go_on_as_before(
    name: str, precision: Precision, engine_of: Make, make_embeddings: Make
) -> None:
    engine, ids = engine_of(name, precision), torch.randint(256, (3, 4))
    state, _ = engine.start(make_embeddings(3), 4)
    again, _ = engine.start(make_embeddings(3), 4)
    for column in ids.T[:3]:
        engine.step(state, column)
        engine.step(again, column)
    rows = torch.tensor([2, 0, 2])
    chosen = engine.step(engine.select(state, rows), ids[rows, 3])
    torch.testing.assert_close(chosen, engine.step(again, ids[:, 3])[rows], atol=1e-5, rtol=0)


@every_engine
def test_text_may_be_empty(name: str, precision: Precision, make_model: Make, make_embeddings: Make) -> None:
    model = make_model()
    with torch.no_grad():
        model.output_bias[0] = 1e4
    assert [len(text) for text in choose_engine(name, model, precision).greedy(make_embeddings(6), 5)] == [
        0
    ] * 6


def test_auto_takes_the_first_engine_that_runs(
    model: RET, monkeypatch: pytest.MonkeyPatch, make_embeddings: Make
) -> None:
    assert choose_engine("auto", model).name == "native"
    assert choose_engine("auto", model, "bf16").name == "torch"
    monkeypatch.setenv("CC", "no-such-compiler")
    build.compile_kernel.cache_clear()
    assert choose_engine("auto", model).name == "numba"


@pytest.mark.parametrize(
    ("compiler", "message"),
    [("no-such-compiler", "needs a C compiler"), ("false", "cannot compile the kernel")],
)
def test_native_without_a_working_compiler_says_so(
    model: RET, monkeypatch: pytest.MonkeyPatch, compiler: str, message: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    build.compile_kernel.cache_clear()
    with pytest.raises(CellularError, match=message) as caught:
        choose_engine("native", model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "precision", "message"),
    [
        ("fortran", "fp32", "choose among auto, .*native, numba, torch"),
        ("numba", "int4", "has no precision 'int4'"),
        ("native", "bf16", "choose among fp32, int8, int4"),
        ("torch", "int4", "fp32 or bf16"),
    ],
)
def test_what_an_engine_lacks_is_said(name: str, precision: Precision, message: str, model: RET) -> None:
    with pytest.raises(CellularError, match=message):
        choose_engine(name, model, precision)
