"""Maps between two spaces in closed form, from sums over pairs that any number of workers can gather.

Shapes: N pairs, S dimension of the source space, T of the target's.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from cellular.files import write_atomically
from cellular.types import FloatArray

Wide = NDArray[np.float64]
PENALTIES = tuple(10.0**power for power in range(-5, 1))  # as shares of the source's mean variance


class Affine(NamedTuple):
    """x ↦ x · weight + bias."""

    weight: FloatArray  # (D_from, D_to)
    bias: FloatArray  # (D_to,)


@dataclass(frozen=True)
class PairSums:
    """What a closed form needs to know of N pairs, however many they are."""

    count: int
    source_S: Wide  # sums of rows
    target_T: Wide
    source_SS: Wide  # sums of outer products
    target_TT: Wide
    cross_ST: Wide

    @classmethod
    def of(cls, source_NS: FloatArray, target_NT: FloatArray) -> "PairSums":
        """The sums of N pairs."""
        source, target = source_NS.astype(np.float64), target_NT.astype(np.float64)
        return cls(
            len(source), source.sum(0), target.sum(0), source.T @ source, target.T @ target, source.T @ target
        )

    @classmethod
    def total(cls, parts: Iterable["PairSums"]) -> "PairSums":
        """The sums of all parts together.

        Raises:
            ValueError: there are none.
        """
        iterator = iter(parts)
        total = next(iterator, None)
        if total is None:
            raise ValueError("no pairs")
        for part in iterator:
            total = total + part
        return total

    def __add__(self, other: "PairSums") -> "PairSums":
        return PairSums(
            self.count + other.count,
            self.source_S + other.source_S,
            self.target_T + other.target_T,
            self.source_SS + other.source_SS,
            self.target_TT + other.target_TT,
            self.cross_ST + other.cross_ST,
        )

    @property
    def reversed(self) -> "PairSums":
        """The same pairs, source and target exchanged."""
        return PairSums(
            self.count, self.target_T, self.source_S, self.target_TT, self.source_SS, self.cross_ST.T
        )

    def save(self, path: Path) -> None:
        """Write them to a safetensors file."""
        write_atomically(path, save({name: np.asarray(value) for name, value in asdict(self).items()}))

    @classmethod
    def load(cls, path: Path) -> "PairSums":
        """Read what `save` wrote."""
        arrays = load_file(path)
        return cls(int(arrays.pop("count")), **arrays)

    def covariances(self) -> tuple[Wide, Wide]:
        """Of the source with itself, (S, S), and with the target, (S, T)."""
        mean_S, mean_T = self.source_S / self.count, self.target_T / self.count
        own_SS = self.source_SS / self.count - np.outer(mean_S, mean_S)
        return own_SS, self.cross_ST / self.count - np.outer(mean_S, mean_T)


def ridge(sums: PairSums, penalty: float) -> Affine:
    """The affine map of least squared error, plus `penalty` times the mean variance times |weight|².

    Hoerl & Kennard 1970, Ridge regression. Mikolov et al. 2013, Exploiting similarities among languages for
    machine translation, map one space to another so.
    """
    own_SS, cross_ST = sums.covariances()
    size = len(own_SS)
    tiny = np.finfo(np.float64).tiny
    damping = max(penalty * np.trace(own_SS) / size, tiny) * np.eye(size)
    weight_ST = np.linalg.solve(own_SS + damping, cross_ST)
    return _affine(sums, weight_ST)


def best_ridge(sums: PairSums, held_out: PairSums) -> Affine:
    """Of PENALTIES, the ridge of least squared error on other pairs."""
    return min((ridge(sums, penalty) for penalty in PENALTIES), key=lambda map: squared_error(map, held_out))


def squared_error(map: Affine, sums: PairSums) -> float:
    """Mean squared distance between mapped sources and targets, from the sums alone."""
    weight_ST, bias_T = map.weight.astype(np.float64), map.bias.astype(np.float64)
    squares = np.trace(sums.target_TT) - 2 * np.sum(weight_ST * sums.cross_ST)
    squares += np.sum(weight_ST * (sums.source_SS @ weight_ST)) + sums.count * bias_T @ bias_T
    squares += 2 * (sums.source_S @ weight_ST - sums.target_T) @ bias_T
    return float(squares) / sums.count


def procrustes(sums: PairSums) -> Affine:
    """The rotation, with a shift between the means, of least squared error (Schönemann 1966).

    Between spaces of different dimensions the smaller goes to a subspace of the larger, which is projected on
    the smaller.
    """
    _, cross_ST = sums.covariances()
    left, _, right = np.linalg.svd(cross_ST, full_matrices=False)
    return _affine(sums, left @ right)


def save_maps(path: Path, there: Affine, back: Affine) -> None:
    """Write a map each way to a safetensors file."""
    maps = {"there": there, "back": back}
    arrays = {f"{way}.{name}": array for way, map in maps.items() for name, array in map._asdict().items()}
    write_atomically(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def load_maps(path: Path) -> tuple[Affine, Affine]:
    """Read what `save_maps` wrote."""
    arrays = load_file(path)
    there, back = (Affine(arrays[f"{way}.weight"], arrays[f"{way}.bias"]) for way in ("there", "back"))
    return there, back


def _affine(sums: PairSums, weight_ST: Wide) -> Affine:
    bias_T = (sums.target_T - sums.source_S @ weight_ST) / sums.count
    return Affine(weight_ST.astype(np.float32), bias_T.astype(np.float32))
