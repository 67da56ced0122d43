"""What a command prints is its own, whatever Ray has to say meanwhile."""

import os
import subprocess
import sys

from tests.local.conftest import ROOT

WARNED = """
import io, sys, threading
import ray
from ray._private.utils import publish_error_to_driver
from pipelines.cluster import connected

said = threading.Event()

class Errors(io.TextIOWrapper):
    def write(self, text):
        if "a warning of Ray's" in text:
            said.set()
        return super().write(text)

sys.stderr = Errors(sys.stderr.buffer, line_buffering=True)
with connected():
    node = ray._private.worker.global_worker
    publish_error_to_driver("test", "a warning of Ray's", node.gcs_client, node.current_job_id)
    assert said.wait(30)
print("the result")
"""


def test_of_ray_a_command_shows_its_warnings_alone_and_never_among_results(cluster: str) -> None:
    environment = {**os.environ, "RAY_ADDRESS": cluster}
    done = subprocess.run(
        [sys.executable, "-c", WARNED], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the result\n"
    (line,) = done.stderr.splitlines()
    assert line.endswith("a warning of Ray's")
