"""API keys: who is let in, and that the file can change while the application runs."""

import asyncio
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from cellular.errors import CellularError
from jobs import cli
from serve.auth import ApiKeys, key_line, new_key
from serve.interface import http_app
from serve.settings import Interface


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def replace(file: Path, *keys: str) -> None:
    """As a secret is rotated: a new file takes the old one's name."""
    new = file.with_suffix(".new")
    new.write_text("# who may come\n\n" + "".join(key_line(key, "someone") for key in keys))
    new.replace(file)


def test_several_keys_are_admitted_and_no_others(file):
    replace(file, "one", "two")
    keys = ApiKeys(file)
    assert all(map(keys.accept, ("one", "two")))
    assert not any(map(keys.accept, ("three", "", "ONE")))


def test_the_file_holds_no_key(file):
    key = new_key()
    replace(file, key)
    assert key not in file.read_text()
    assert len(key) > 43
    assert new_key() != key


def test_a_changed_file_is_read_again(file):
    replace(file, "old")
    keys = ApiKeys(file)
    replace(file, "old", "new")
    assert keys.accept("new") and keys.accept("old")
    replace(file, "new")
    assert keys.accept("new") and not keys.accept("old")


def test_a_file_that_turns_wrong_or_vanishes_changes_nothing(file, caplog):
    replace(file, "old")
    keys = ApiKeys(file)
    file.write_text("a key in the clear\n")
    assert keys.accept("old") and not keys.accept("a key in the clear")
    file.unlink()
    assert keys.accept("old")
    assert caplog.text.count("stay as they were") == 2
    replace(file, "new")
    assert keys.accept("new")


@pytest.mark.parametrize("content", [None, b"plain\n", b"sha256:12\n", b"\xff\n"])
def test_a_wrong_file_is_refused_before_anything_is_served(file, content):
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CellularError, match="keys"):
        ApiKeys(file)


def test_the_command_makes_a_key_that_is_admitted_and_a_file_for_its_owner_alone(file):
    made = [CliRunner().invoke(cli.app, ["api-key", str(file), "--name", "a b"]) for _ in range(2)]
    keys = ApiKeys(file)
    assert all(keys.accept(one.stdout.strip()) for one in made)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().count("  a b\n") == 2


@pytest.fixture
def ask(gateway, file):
    """Requests to an application with the key `right`, which a page of https://here may call."""
    replace(file, "right")
    app = http_app(gateway, Interface(api_keys=file, cors_origins=("https://here",)))

    def request(method, path, **arguments):
        async def run():
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **arguments)

        return asyncio.run(run())

    return request


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic right", "right", "Bearer", "Bearer \xff"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/decode", "/v1/embeddings", "/nowhere"])
def test_without_a_right_key_nothing_is_told_but_that(ask, gateway, header, path):
    headers = {"Authorization": header.encode("latin-1")} if header else {}
    response = ask("POST", path, headers=headers, content=b"{")
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "unauthorized"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_a_right_key_is_let_in(ask, scheme):
    assert ask("GET", "/v1/models", headers={"Authorization": f"{scheme} right"}).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/openapi.json", "/docs", "/docs/assets/swagger-ui.css"])
def test_health_and_documentation_need_no_key(ask, path):
    assert ask("GET", path).status_code == 200


def test_the_document_says_what_needs_a_key(ask):
    document = ask("GET", "/openapi.json").json()
    assert document["components"]["securitySchemes"] == {"api_key": {"type": "http", "scheme": "bearer"}}
    secured = {path for path, item in document["paths"].items() for one in item.values() if "security" in one}
    assert secured == {path for path in document["paths"] if path.startswith("/v1/")}


def test_a_page_of_a_named_origin_may_ask_and_no_other(ask, send):
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    allowed = ask("OPTIONS", "/v1/decode", headers={"Origin": "https://here", **preflight})
    assert allowed.headers["access-control-allow-origin"] == "https://here"
    refused = ask("GET", "/healthz", headers={"Origin": "https://there"})
    assert "access-control-allow-origin" not in refused.headers
    off = send("GET", "/healthz", headers={"Origin": "https://here"})
    assert "access-control-allow-origin" not in off.headers


def test_the_page_needs_no_key_and_opens_nothing_else(ask):
    asked = ("/", "/page/main.js", "/v1/models", "/nowhere")
    assert [ask("GET", path).status_code for path in asked] == [200, 200, 401, 401]
