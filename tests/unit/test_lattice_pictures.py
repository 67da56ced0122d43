"""Pictures of a lattice: nothing is lit before the wave arrives, and every file is a picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cellular.lattice import Lattice3D, LatticeConfig
from cellular.types import FloatArray
from pipelines.lattice_pictures import draw, trace

EMBEDDING: FloatArray = np.eye(1, 24, dtype=np.float32)[0]


def make(sweeps: tuple[str, ...], rule: str | None = "nca") -> Lattice3D:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        size = (4, 2, 2)
        return Lattice3D(
            LatticeConfig(
                embedding_dimension=24,
                size=size,
                channels=16,
                face_channels=4,
                steps=4,
                sweeps=sweeps,
                rule=rule,
            )
        ).eval()


def test_a_rule_alone_lights_one_layer_a_step() -> None:
    runs = trace(make(("raster",)), EMBEDDING)
    lit = (runs["rule alone"] > 0).all(axis=(2, 3))
    np.testing.assert_array_equal(lit, np.tri(5, 4, dtype=bool))
    assert runs["rule and Mamba"][2, -1].any(), "a sweep follows the second step"


@pytest.mark.parametrize(("sweeps", "rule"), [((), "nca"), (("raster",), None)])
def test_a_lattice_of_one_kind_has_one_run(sweeps: tuple[str, ...], rule: str | None) -> None:
    (bright,) = trace(make(sweeps, rule), EMBEDDING).values()
    assert bright.shape == (5, 4, 2, 2)


def test_there_is_a_picture_of_every_step_and_an_animation_of_all(tmp_path: Path) -> None:
    overview, animation, *steps = draw(make(()), EMBEDDING, "a “text”\nof two lines " * 9, tmp_path / "new")
    assert [path.name for path in steps] == [f"step_{step:02d}.png" for step in range(5)]
    with Image.open(animation) as image:
        assert (image.format, image.n_frames) == ("GIF", 5)  # type: ignore[attr-defined]
    for path in (overview, *steps):
        with Image.open(path) as image:
            assert np.asarray(image).std() > 1
