"""What a command prints is its own, whatever Ray has to say meanwhile."""

import json
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

SEEN = """
import json, os
import ray
from cellular.config import ResourceConfig, TeacherConfig
from pipelines import cluster
from pipelines.progress import silent
from pipelines.stages import Stage, run_stage, teacher_pool

class Look:
    def __call__(self, item):
        return {"sees": os.environ.get("CUDA_VISIBLE_DEVICES", "all")}

items = [{"output": "none"}] * 4
for asked, teacher in ((None, "all-MiniLM-L6-v2"), (None, "hash"), (0, "all-MiniLM-L6-v2")):
    options = teacher_pool(ResourceConfig(embedder_gpus=asked), TeacherConfig(name=teacher), len(items))
    rows = run_stage(Stage("look", Look, items, options), silent)
    print(json.dumps([options["compute"].max_size, sorted({row["sees"] for row in rows})]))

@ray.remote(num_gpus=2)
class Holder:
    def held(self):
        return True

holder = Holder.remote()
assert ray.get(holder.held.remote())
cluster.GPU_PATIENCE_S = 1.0
print(json.dumps(teacher_pool(ResourceConfig(), TeacherConfig(), 4)["num_gpus"]))
"""


def test_teachers_share_the_gpus_that_there_are_and_others_see_none() -> None:
    """The GPUs are Ray's belief alone: nothing here computes on one."""
    start = (
        "import ray; ray.init('local', num_cpus=3, num_gpus=2, include_dashboard=False, log_to_driver=False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + SEEN], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *seen, where_none_is_free = map(json.loads, done.stdout.splitlines()[-4:])
    (teachers, of_teachers), (hashers, of_hashers), (asked, of_asked) = seen
    assert (teachers, hashers, asked) == (2, 3, 3)
    assert of_teachers and set(of_teachers) <= {"0", "1"}
    assert of_hashers == of_asked == [""]
    assert where_none_is_free == 0


def test_of_ray_a_command_shows_its_warnings_alone_and_never_among_results(cluster: str) -> None:
    environment = {**os.environ, "RAY_ADDRESS": cluster}
    done = subprocess.run(
        [sys.executable, "-c", WARNED], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the result\n"
    (line,) = done.stderr.splitlines()
    assert line.endswith("a warning of Ray's")
