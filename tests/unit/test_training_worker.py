"""What a worker of a training tells when it fails."""

import pytest
from ray import cloudpickle

from pipelines.training_worker import _sendable

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own


class UnsendableError(Exception):
    def __reduce__(self) -> str:
        raise RuntimeError("cannot be sent")


def test_an_error_that_cannot_be_sent_arrives_as_its_text() -> None:
    try:
        raise UnsendableError("compiling width 16 failed")
    except UnsendableError as error:
        sent = _sendable(error)
    assert "compiling width 16 failed" in str(cloudpickle.loads(cloudpickle.dumps(sent)))
    assert _sendable(plain := ValueError("plain")) is plain
