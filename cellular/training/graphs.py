"""Work on the GPU that is issued as one launch instead of hundreds."""

from collections.abc import Callable
from typing import Any

import torch

WARM_CALLS = 3  # before a capture: kernels are compiled and chosen, workspaces allocated


class _Work:
    """What is held for the inputs of one set of shapes."""

    def __init__(self, tensors: Any) -> None:
        # Copies from the first call on: their strides may differ from the originals', and what was compiled
        # for those would be compiled anew during the capture, which is an error.
        held = tuple(tensor.clone() for tensor in tensors)
        self.inputs = type(tensors)(*held) if hasattr(tensors, "_fields") else held
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None


class Graphed:
    """A function of a tuple of tensors, replayed as a CUDA graph: one for each set of shapes.

    The function must write its results into tensors of its own, wait for nothing, and do the same whenever
    the shapes are the same. The first calls of each shape run as they are.

    Args:
        function: the work.
    """

    def __init__(self, function: Callable[[Any], None]) -> None:
        self._function = function
        self._works: dict[tuple[torch.Size, ...], _Work] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, tensors: Any) -> None:
        """Do the work on a tuple of tensors."""
        shapes = tuple(tensor.shape for tensor in tensors)
        if shapes not in self._works:
            self._works[shapes] = _Work(tensors)
        work = self._works[shapes]
        for held, tensor in zip(work.inputs, tensors, strict=True):
            held.copy_(tensor)
        work.calls += 1
        if work.calls <= WARM_CALLS:
            self._function(work.inputs)
            return
        if work.graph is None:
            work.graph = self._capture(work.inputs)
        work.graph.replay()

    def _capture(self, inputs: Any) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._function(inputs)
        return graph
