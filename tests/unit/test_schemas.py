"""The bodies that the application accepts, and those that it refuses before any stage is called."""

import base64

import numpy as np
import pytest
from pydantic import ValidationError

from serve.schemas import DecodeRequest, EmbeddingsRequest, embedding_fields
from serve.settings import ServeConfig


def test_one_text_is_a_list_of_one():
    assert EmbeddingsRequest(input="a", model="hash").input == ["a"]


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2], [3]]])
def test_token_arrays_are_refused_by_name(tokens):
    with pytest.raises(ValidationError, match="token arrays are not accepted"):
        EmbeddingsRequest(input=tokens, model="hash")


@pytest.mark.parametrize("texts", [[], [""], "", ["a", ""], [None], ["\ud800"], [True], 3])
def test_what_is_no_text_is_refused(texts):
    with pytest.raises(ValidationError):
        EmbeddingsRequest(input=texts, model="hash")


def test_the_schema_shows_both_forms_of_input():
    schema = EmbeddingsRequest.model_json_schema()["properties"]["input"]
    assert [form["type"] for form in schema["anyOf"]] == ["string", "array"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400, "1", True, None, [1.0]])
def test_a_wrong_number_is_named_by_row_and_column(number):
    with pytest.raises(ValidationError) as caught:
        DecodeRequest(embeddings=[[1.0, 2.0], [1.0, number]])
    assert caught.value.errors()[0]["loc"] == ("embeddings", 1, 1)


@pytest.mark.parametrize("body", [{}, {"texts": ["a"], "embeddings": [[1.0]]}])
def test_exactly_one_of_embeddings_and_texts(body):
    with pytest.raises(ValidationError, match="exactly one"):
        DecodeRequest.model_validate(body)


def test_unknown_keys_are_refused():
    with pytest.raises(ValidationError, match="topk"):
        DecodeRequest.model_validate({"texts": ["a"], "topk": 3})


def test_base64_holds_the_same_numbers():
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    fields = embedding_fields(vectors, "base64")
    decoded = [np.frombuffer(base64.b64decode(field["embedding"]), "<f4") for field in fields]
    assert np.array_equal(np.stack(decoded), vectors)
    assert [field["index"] for field in fields] == [0, 1, 2]


def test_a_teacher_is_named_on_the_command_line(tmp_path):
    assert ServeConfig(teacher="hash").teacher.name == "hash"


def test_fallbacks_stay_on_where_requests_share_batches(tmp_path):
    with pytest.raises(ValidationError, match="enable_fallbacks"):
        ServeConfig.model_validate({"decoding": {"enable_fallbacks": False}})
