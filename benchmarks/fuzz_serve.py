"""Send malformed bodies to a served application: no answer may be a failure of the server.

    python benchmarks/fuzz_serve.py http://127.0.0.1:8000 --count 10000

Each body is a valid one that was damaged, as a JSON value (a wrong type, an odd text, a number that no float
holds, a lost or unknown key) or as bytes (cut, flipped, repeated, another encoding). The seed repeats a run.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import httpx
import typer
from httpx_retries import Retry, RetryTransport

ROW = [1.0] + [0.0] * 383
SHORT = {"texts": ["two dogs"], "decoder": "ret", "max_length": 4}
VALID: dict[str, list[dict[str, Any]]] = {
    "/v1/embeddings": [{"input": ["two dogs", "a cat"], "encoding_format": "base64", "dimensions": 384}],
    "/v1/process": [{"embeddings": [ROW], "lattice": None}, {"texts": ["two dogs"], "earlier": [[ROW]]}],
    "/v1/lattice/states": [{"texts": ["two dogs"]}],
    "/v1/decode": [
        {"embeddings": [ROW], "top_k": 3, "method": "greedy"},
        {"texts": ["two dogs"], "session_id": "fuzz", "bank": None},
        SHORT | {"temperature": 0.5, "top_p": 0.9, "seed": 3, "n": 2},
        SHORT | {"beam": 2, "stream": False},
        {"texts": ["two dogs"], "decoder": "hybrid", "max_teacher_calls": 0, "explain": True},
    ],
    "/v1/generate": [
        {"texts": ["two dogs"], "mode": "direct", "lattice": None, "method": "greedy"},
        {"texts": "two dogs", "mode": "text_to_text", "max_length": 4},
    ],
}
NUMBERS = [0, -1, 1, 2**63, -(2**63), 10**4000, 1e-320, 1e308, float("nan"), float("inf")]
TEXTS = ["", " ", "\ud800", "\x00", "\u202e", "a" * 9000, "1", "null"]
JUNK: list[Any] = [None, True, False, *NUMBERS, *TEXTS, [], {}, [[]], [[[]]], [None], {"": {}}, ["a", 1]]


def damaged_value(value: Any, chance: random.Random) -> Any:
    """The value with one of its parts replaced, lost, doubled or renamed."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key, changed = chance.choice(list(value)), dict(value)
        match chance.randrange(6):
            case 0:
                del changed[key]
            case 1:
                changed[key + chance.choice(("s", "\ud800", "~/", ""))] = changed.pop(key)
            case 2:
                changed["unknown"] = chance.choice(JUNK)
            case _:
                changed[key] = damaged_value(value[key], chance)
        return changed
    if isinstance(value, list) and value and chance.random() < 0.7:
        place = chance.randrange(len(value))
        return [*value[:place], damaged_value(value[place], chance), *value[place + chance.randrange(2) :]]
    return chance.choice(JUNK)


DAMAGE: list[Callable[[bytes, random.Random], bytes]] = [
    lambda body, chance: body[: chance.randrange(len(body) + 1)],
    lambda body, chance: body[chance.randrange(len(body) + 1) :],
    lambda body, chance: body.replace(chance.randbytes(1), chance.randbytes(2)),
    lambda body, chance: body + body,
    lambda body, chance: b"[" * chance.randrange(1, 3000) + body,
    lambda body, chance: body.decode().encode("utf-16"),
    lambda body, chance: b"\xef\xbb\xbf" + body,
    lambda body, chance: chance.randbytes(chance.randrange(200)),
]


def requests(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Paths and bodies; the same for the same seed."""
    chance = random.Random(seed)
    for _ in range(count):
        path = chance.choice(list(VALID))
        value: Any = chance.choice(VALID[path])
        for _ in range(chance.choice((1, 1, 2, 4))):
            value = damaged_value(value, chance)
        body = json.dumps(value).encode()
        yield path, chance.choice(DAMAGE)(body, chance) if chance.random() < 0.3 else body


def is_failure(response: httpx.Response) -> bool:
    """Whether the server failed, or refused in another form than a problem document."""
    form = response.headers.get("content-type", "")
    return response.status_code >= 500 or (response.is_error and form != "application/problem+json")


async def send_all(url: str, count: int, seed: int, at_once: int, key: str = "") -> tuple[Counter[int], int]:
    """Counts of the statuses, and how many answers were failures, which are printed."""
    statuses: Counter[int] = Counter()
    failures = 0
    bodies = requests(count, seed)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    async def work(client: httpx.AsyncClient) -> None:
        nonlocal failures
        for path, body in bodies:
            response = await client.post(path, content=body, headers=headers)
            statuses[response.status_code] += 1
            if is_failure(response):
                failures += 1
                print(f"{response.status_code} {path} {body[:300]!r}: {response.text[:300]}")

    # A server that is only busy is asked again; 500 is what a fault looks like.
    patient = RetryTransport(retry=Retry(total=4, allowed_methods=("POST",), backoff_factor=0.5))
    async with httpx.AsyncClient(base_url=url, timeout=60, transport=patient) as client:
        await asyncio.gather(*(work(client) for _ in range(at_once)))
    return statuses, failures


def main(
    url: Annotated[str, typer.Argument(help="where the application is served")] = "http://127.0.0.1:8000",
    count: Annotated[int, typer.Option(min=1, help="bodies")] = 10_000,
    seed: Annotated[int, typer.Option(help="of the damage")] = 0,
    at_once: Annotated[int, typer.Option(min=1, help="requests on their way at the same time")] = 4,
    key: Annotated[str, typer.Option(help="an API key, if the application asks for one")] = "",
) -> None:
    """Exit with 1 if an answer was a failure of the server."""
    start = time.perf_counter()
    statuses, failures = asyncio.run(send_all(url, count, seed, at_once, key))
    print(f"{count} bodies in {time.perf_counter() - start:.0f} s: {dict(sorted(statuses.items()))}")
    print(f"failures of the server: {failures}")
    raise typer.Exit(int(failures > 0))


if __name__ == "__main__":
    typer.run(main)
