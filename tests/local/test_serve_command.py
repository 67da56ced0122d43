"""The command that serves: with a Ray of its own, while no other application is served."""

import os
import signal
import subprocess
import sys

import httpx
import pytest

TEXTS = ["a cat sleeps by the river", "two dogs wait by the old gate"]


def test_the_command_serves_in_one_process_and_ctrl_c_ends_all_it_started(ret_checkpoint):
    command = [sys.executable, "-m", "jobs.serve", "--checkpoint", str(ret_checkpoint), "--port", "0"]
    command += ["--fused", "--stage", "RETDecoder"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        line = next(line for line in process.stdout if line.startswith("serving"))
        url = line.split()[-3]
        health = httpx.get(f"{url}/readyz").json()
        assert health["stages"] == {"Embedder": "ready", "RETDecoder": "ready"}
        answer = httpx.post(f"{url}/v1/decode", json={"texts": TEXTS, "max_length": 4}, timeout=60)
        assert len(answer.json()["results"]) == 2
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest) == (130, "")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
