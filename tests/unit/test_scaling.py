"""A stage has replicas for the time that it works."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from ray.serve.config import AutoscalingConfig

from serve import app, scaling


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(time=100.0)
    monkeypatch.setattr(scaling.time, "perf_counter", lambda: now.time)
    return now


def context(loads, calls=0.0, target=2):
    return SimpleNamespace(
        aggregated_metrics={"load": loads} if loads is not None else None,
        total_num_requests=calls,
        config=SimpleNamespace(get_target_ongoing_requests=lambda: target),
    )


def test_load_is_the_mean_number_of_works_since_it_was_last_asked(clock):
    busy = scaling.BusyTime()
    clock.time += 1
    with busy.work():
        clock.time += 2
        with busy.work():
            clock.time += 1
        assert busy.load() == pytest.approx((2 + 2) / 4)
        clock.time += 1
    clock.time += 3
    assert busy.load() == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("loads", "calls", "replicas"),
    [
        ({}, 0, 0),
        (None, 3, 1.5),  # a first report is still to come
        ({"a": 0.35}, 1, 0.5),
        ({"a": 1.0, "b": 0.75}, 2, 2.5),
        ({"a": 0.07}, 6, 3),  # calls wait although there is little to compute
    ],
)
def test_replicas_follow_what_is_done_or_the_calls_in_hand(loads, calls, replicas):
    assert scaling.ByLoad(busy=0.7)(context(loads, calls))[0] == pytest.approx(replicas)


def test_the_policy_runs_where_this_package_is_missing():
    """As on a controller of a cluster whose replicas have the package from a zip."""
    policy = AutoscalingConfig(**app.deployment_options()["Embedder"]["autoscaling_config"]).policy
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)(busy=0.5).busy)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; sys.modules['serve'] = None; " + code],
        input=policy.get_serialized_policy_def(),
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"0.5\n"
