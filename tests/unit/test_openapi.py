"""The interface is what its OpenAPI document says, whatever is sent; the document needs no other host."""

import asyncio
import re
import runpy
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

ROOT = Path(__file__).parents[2]
FUZZ = runpy.run_path(str(ROOT / "benchmarks" / "fuzz_serve.py"))
THOROUGH = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_whatever_is_sent_is_answered_as_the_document_says(url, mode):
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for found in document.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.method == "get":
            continue  # nothing that is sent can be wrong

        @THOROUGH
        @given(operation.as_strategy(generation_mode=mode))
        def ask(case):
            # What a schema cannot say, such as the number of dimensions, is refused too.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        ask()


def test_a_damaged_body_is_never_a_failure_of_the_server(url):
    statuses, failures = asyncio.run(FUZZ["send_all"](url, count=400, seed=1, at_once=2))
    assert failures == 0
    assert set(statuses) <= {200, 400, 404, 413, 422}
    assert statuses[422] > statuses[200] > 0


def test_every_route_declares_its_refusals_as_problem_documents(send):
    document = send("GET", "/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            refusals = {
                int(status) for status, one in operation["responses"].items()
                if "application/problem+json" in one["content"]
            }  # fmt: skip
            assert {400, 500} <= refusals, path
            assert not path.startswith("/v1/") or 401 in refusals, path
            assert method != "post" or {408, 413, 415, 422, 503, 504} <= refusals, path
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_documentation_asks_no_other_host(send):
    page = send("GET", "/docs").text
    addresses = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)""", page)
    assert {"/openapi.json", "/docs/assets/swagger-ui-bundle.js"} <= set(addresses)
    assert all(address.startswith("/") for address in addresses)
    assert "://" not in page.replace("https://fastapi.tiangolo.com", "")
    for address in addresses:
        assert send("GET", address).status_code == 200
