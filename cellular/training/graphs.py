"""Work on the GPU that is issued as one launch instead of hundreds."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

WARM_CALLS = 3  # before a capture: kernels are compiled and chosen, workspaces allocated


class Graphed:
    """A function of a tuple of tensors, replayed as a CUDA graph: one for each set of shapes.

    The function must write its results into tensors of its own, wait for nothing, and do the same whenever
    the shapes are the same. The first calls of each shape run as they are.

    Args:
        function: the work.
    """

    def __init__(self, function: Callable[[Any], None]) -> None:
        self._function = function
        self._calls: Counter[tuple[torch.Size, ...]] = Counter()
        self._graphs: dict[tuple[torch.Size, ...], tuple[torch.cuda.CUDAGraph, Any]] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, tensors: Any) -> None:
        """Do the work on a tuple of tensors."""
        shapes = tuple(tensor.shape for tensor in tensors)
        self._calls[shapes] += 1
        if self._calls[shapes] <= WARM_CALLS:
            self._function(tensors)
            return
        if shapes not in self._graphs:
            self._graphs[shapes] = self._capture(tensors)
        graph, inputs = self._graphs[shapes]
        for held, tensor in zip(inputs, tensors, strict=True):
            held.copy_(tensor)
        graph.replay()

    def _capture(self, tensors: Any) -> tuple[torch.cuda.CUDAGraph, Any]:
        held = tuple(tensor.clone() for tensor in tensors)
        inputs = type(tensors)(*held) if hasattr(tensors, "_fields") else held
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._function(inputs)
        return graph, inputs
