"""Ways to run the decoder: the same texts at different speeds."""

import pkgutil
from typing import Any

from cellular.decoders.ret.generation import Engine
from cellular.decoders.ret.model import RET
from cellular.decoders.ret.weights import Precision
from cellular.errors import CellularError

# Where each class is, fastest first. An engine is made of a model and a precision.
ENGINES = {
    "cuda": "cellular.decoders.ret.cuda:CudaEngine",
    "native": "cellular.decoders.ret.engines.native:NativeEngine",
    "numba": "cellular.decoders.ret.engines.numba:NumbaEngine",
    "torch": "cellular.decoders.ret.generation:TorchEngine",
}


def choose_engine(name: str, model: RET, precision: Precision | None = None) -> Engine[Any]:
    """An engine for a model.

    Args:
        name: one of ENGINES; auto: the fastest that runs on this machine and has the precision.
        model: its weights are read now: later changes to them have no effect.
        precision: what is computed in; None: fp32, which gives the same texts everywhere.

    Raises:
        CellularError: no such engine, or it cannot run here, or not in that precision.
    """
    precision = precision or "fp32"
    if name != "auto":
        return _create(name, model, precision)
    for candidate in ENGINES:
        try:
            return _create(candidate, model, precision)
        except CellularError as error:
            reason = error
    raise reason


def _create(name: str, model: RET, precision: Precision) -> Engine[Any]:
    if name not in ENGINES:
        raise CellularError(f"no engine {name!r}: choose among auto, {', '.join(ENGINES)}")
    try:
        engine: Engine[Any] = pkgutil.resolve_name(ENGINES[name])(model, precision)
    except ModuleNotFoundError as error:
        raise CellularError(f"engine {name!r} needs {error.name}: pip install 'cellular[fast]'") from error
    return engine
