"""The routes of a real server; one engine for all."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections import defaultdict
from contextlib import suppress
from hashlib import sha256
from urllib.parse import urlsplit

import pytest

from grpo_dist.config.cluster import TimeoutSection
from grpo_dist.errors import RolloutError
from grpo_dist.inference.adapters import largest_adapter
from grpo_dist.inference.client import Policy, Prompt
from grpo_dist.inference.pool import Pool
from grpo_dist.inference.wire_format import LENGTH, STOP, FrameDecoder
from grpo_dist.plan.specs import architecture_of

pytestmark = pytest.mark.heavy

PROMPT = [50, 21, 19, 40, 22]
SAMPLING = {"temperature": 1.0, "max_tokens": 12}


class Caller:
    """HTTP to the engine, with its key or another."""

    def __init__(self, engine, key=None):
        where = urlsplit(engine.url)
        self.host, self.port, self.key = where.hostname, where.port, engine.key if key is None else key

    def __call__(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        try:
            sent = body if body is None or isinstance(body, bytes) else json.dumps(body)
            authorization = {"Authorization": f"Bearer {self.key}"} if self.key else {}
            connection.request(method, path, sent, {**authorization, **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def json(self, method, path, body=None, **headers):
        status, text = self(method, path, body, **headers)
        return status, json.loads(text)

    def generate(self, **request):
        """Token ids and log-probabilities of each completion, and how it ended."""
        status, body = self(
            "POST", "/grpo-dist/generate", {"prompt_token_ids": PROMPT, "sampling": SAMPLING, **request}
        )
        assert status == 200, body
        ids, logprobs, finish = defaultdict(list), defaultdict(list), {}
        for frame in FrameDecoder().feed(body):
            ids[frame.index] += frame.token_ids
            logprobs[frame.index] += frame.logprobs
            finish[frame.index] = frame.finish
        return ids, logprobs, finish


@pytest.fixture
def call(engine):
    return Caller(engine)


@pytest.fixture(scope="session")
def adapter(engine_model, tmp_path_factory):
    """An adapter that changes what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(engine_model)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "o_proj", "down_proj"]))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp("adapters") / "trained"
    model.save_pretrained(path)
    return path


def push(call, adapter, name, digest=None):
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        data = (adapter / file).read_bytes()
        given = digest or sha256(data).hexdigest()
        status, answer = call.json("PUT", f"/grpo-dist/adapters/{name}/{file}", data, **{"X-Sha256": given})
        if status != 200:
            break
    return status, answer


@pytest.mark.parametrize("key", ["", "wrong"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/version"),
        ("POST", "/v1/completions"),
        ("POST", "/health"),
        ("GET", "/grpo-dist/status"),
        ("POST", "/grpo-dist/generate"),
        ("PUT", "/grpo-dist/adapters/a/adapter_config.json"),
        ("DELETE", "/grpo-dist/adapters/a"),
    ],
)
def test_nothing_is_told_or_done_without_the_key(engine, key, method, path):
    status, answer = Caller(engine, key).json(method, path)
    assert status == 401
    assert "key" in answer["error"]


def test_health_needs_no_key(engine):
    assert Caller(engine, "")("GET", "/health")[0] == 200


def test_the_status_tells_what_is_served(engine, call):
    status, found = call.json("GET", "/grpo-dist/status")
    assert status == 200
    assert found["model"] == str(engine.model_directory)
    assert (found["dtype"], found["max_lora_rank"], found["max_model_len"]) == ("float32", 32, 64)
    assert (found["logprobs_mode"], found["incarnation"]) == ("processed_logprobs", 0)
    assert (found["in_flight"], found["stalled_seconds"]) == (0, 0)
    call.generate(n=2, seed=1)
    later = call.json("GET", "/grpo-dist/status")[1]
    assert later["busy_seconds"] > found["busy_seconds"]


def test_the_same_seed_gives_the_same_completions_anywhere(call):
    first, _, finish = call.generate(n=4, seed=7)
    assert set(finish) == {0, 1, 2, 3}
    assert set(finish.values()) <= {STOP, LENGTH}
    assert all(len(first[i]) == 12 for i in finish if finish[i] == LENGTH)
    assert call.generate(n=4, seed=7)[0] == first
    assert len({tuple(ids) for ids in first.values()}) > 1
    assert [call.generate(n=1, seed=7 + i)[0][0] for i in range(4)] == [first[i] for i in range(4)]


def test_a_completion_comes_with_the_models_own_log_probabilities(engine, call):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(engine.model_directory, dtype=torch.float32)
    ids, logprobs, _ = call.generate(n=4, seed=3)
    for i in range(4):
        text = torch.tensor([[*PROMPT, *ids[i]]])
        scores = torch.log_softmax(model(text).logits[0, :-1], -1).gather(-1, text[0, 1:, None])[:, 0]
        assert scores[len(PROMPT) - 1 :].tolist() == pytest.approx(logprobs[i], abs=1e-4)


def test_log_probabilities_are_those_after_temperature(call):
    hot = call.generate(n=1, seed=3, sampling={**SAMPLING, "temperature": 0.05})[1][0]
    assert max(hot) > -0.01


def test_a_completion_that_ends_at_once_has_an_end_all_the_same(call):
    stop = list(range(107))  # every token ends it
    ids, _, finish = call.generate(n=2, seed=1, sampling={**SAMPLING, "stop_token_ids": stop})
    assert finish == {0: STOP, 1: STOP}
    assert all(len(ids[i]) <= 1 for i in finish)


def test_a_regular_expression_is_held_to(call):
    ids, _, finish = call.generate(n=2, seed=1, sampling={**SAMPLING, "structured_outputs": {"regex": "[0-9]{3}"}})
    assert all(len(ids[i]) <= 4 for i in finish)
    assert set(finish.values()) == {STOP}


@pytest.mark.parametrize(
    ("request_body", "status", "words"),
    [
        ({"prompt_token_ids": [5] * 100}, 400, "maximum context length is 64"),
        ({"prompt_token_ids": []}, 400, "empty"),
        ({"prompt_token_ids": [10**6]}, 400, "vocab"),
        ({"prompt_token_ids": PROMPT, "sampling": {"top_p": 7}}, 400, "top_p"),
        ({"prompt_token_ids": PROMPT, "sampling": {"warmth": 1}}, 400, "warmth"),
        ({"prompt_token_ids": [5.5]}, 400, "whole numbers"),
        ({"prompt_token_ids": PROMPT, "seed": "7"}, 400, "seed"),
        ({"prompt_token_ids": PROMPT, "sampling": {"max_tokens": 4.5}}, 400, "max_tokens"),
        ({"prompt_token_ids": PROMPT, "adapter": "never"}, 404, "never"),
        ({}, 400, "prompt_token_ids is missing"),
    ],
)
def test_a_request_that_cannot_be_done_is_refused_in_words(call, request_body, status, words):
    found, answer = call.json("POST", "/grpo-dist/generate", request_body)
    assert found == status
    assert words in answer["error"]
    assert call.generate(n=1, seed=1)  # and the engine goes on


def test_a_pushed_adapter_changes_completions_and_leaves_the_base(call, adapter):
    base = call.generate(n=4, seed=3)
    assert push(call, adapter, "policy-1")[0] == 200
    for _ in range(2):  # the second time nothing is done
        status, loaded = call.json("POST", "/grpo-dist/adapters/policy-1", {"path": None, "wait_seconds": 0})
        assert status == 200, loaded
    assert "policy-1" in call.json("GET", "/grpo-dist/status")[1]["adapters"]
    assert "policy-1" in [model["id"] for model in call.json("GET", "/v1/models")[1]["data"]]
    assert call.generate(n=4, seed=3, adapter="policy-1")[1] != base[1]
    assert call.generate(n=4, seed=3)[0] == base[0]
    for _ in range(2):
        assert call.json("DELETE", "/grpo-dist/adapters/policy-1") == (200, {})
    gone = {"prompt_token_ids": PROMPT, "sampling": SAMPLING, "adapter": "policy-1"}
    assert call.json("POST", "/grpo-dist/generate", gone)[0] == 404
    status, answer = call.json("POST", "/grpo-dist/adapters/policy-1", {"path": None, "wait_seconds": 0})
    assert status == 404
    assert "adapter_model.safetensors" in answer["error"]


def test_an_adapter_is_loaded_from_a_directory_both_sides_see(call, adapter, tmp_path):
    where = {"path": str(adapter), "wait_seconds": 0}
    assert call.json("POST", "/grpo-dist/adapters/policy-2", where)[0] == 200
    other = {"path": str(tmp_path), "wait_seconds": 0}
    assert call.json("POST", "/grpo-dist/adapters/policy-3", other)[0] == 404
    assert call.json("POST", "/grpo-dist/adapters/policy-3", {"path": "not/absolute"})[0] == 400
    (tmp_path / "copy").mkdir()
    for file in adapter.iterdir():
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    elsewhere = {"path": str(tmp_path / "copy"), "wait_seconds": 0}
    assert call.json("POST", "/grpo-dist/adapters/policy-2", elsewhere)[0] == 409
    call.json("DELETE", "/grpo-dist/adapters/policy-2")


def test_bytes_with_another_digest_are_not_kept(call, adapter):
    status, answer = push(call, adapter, "policy-4", digest="0" * 64)
    assert status == 422
    assert "SHA-256" in answer["error"]
    assert call.json("POST", "/grpo-dist/adapters/policy-4", {"path": None})[0] == 404


def test_an_unfit_adapter_is_refused_by_either_transport(engine, call, adapter, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    name = next(name for name in tensors if "layers.1" in name and "o_proj.lora_A" in name)
    wrong = {
        "is missing": {other: tensor for other, tensor in tensors.items() if other != name},
        "has the shape 4 × 64 and must have 4 × 128": {**tensors, name: torch.zeros(4, 64)},
        "holds NaN or infinity": {**tensors, name: torch.full_like(tensors[name], float("nan"))},
    }
    for number, (words, changed) in enumerate(wrong.items()):
        save_file(changed, tmp_path / "adapter_model.safetensors")
        assert push(call, tmp_path, f"wrong-{number}")[0] == 200
        for path in (None, str(tmp_path)):
            status, answer = call.json("POST", f"/grpo-dist/adapters/wrong-{number}", {"path": path})
            assert status == 400
            assert answer["error"].startswith(f"{name} {words}")
    assert not any(one.startswith("wrong") for one in call.json("GET", "/grpo-dist/status")[1]["adapters"])
    assert call.generate(n=1, seed=1)


def test_more_bytes_than_an_adapter_of_the_model_can_have_are_not_kept(engine, call, tmp_path):
    largest = largest_adapter(architecture_of(str(engine.model_directory)), engine.settings.max_lora_rank)
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(bytes(largest + 1))
    status, answer = push(call, tmp_path, "large")
    assert status == 413
    assert f"longer than {largest:,} bytes" in answer["error"]
    pool = Pool(engine.registry, TimeoutSection(), rank=0, completions_per_replica=1, push=True)
    with pytest.raises(RolloutError, match="longer than"):
        pool.load(Policy("large", 1, tmp_path, largest + 1))
    assert call.json("POST", "/grpo-dist/generate", bytes(2**25))[0] == 413
    assert call.generate(n=1, seed=1)


@pytest.mark.parametrize("path", ["..%2f..%2fetc/adapter_config.json", ".hidden/adapter_config.json", "a/other.txt"])
def test_nothing_is_written_elsewhere(call, path):
    assert call.json("PUT", f"/grpo-dist/adapters/{path}", b"x")[0] in (400, 404)


def test_a_client_that_goes_away_frees_the_engine(engine, call):
    request = {"prompt_token_ids": PROMPT, "n": 8, "seed": 1, "sampling": {"max_tokens": 55, "ignore_eos": True}}
    body = json.dumps(request).encode()
    where = urlsplit(engine.url)
    with socket.create_connection((where.hostname, where.port)) as connection:
        head = f"POST /grpo-dist/generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {engine.key}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert connection.recv(1)
    deadline = time.monotonic() + 30
    while call.json("GET", "/grpo-dist/status")[1]["in_flight"]:
        assert time.monotonic() < deadline
    assert call.generate(n=1, seed=1)[2][0] in (STOP, LENGTH)


STRANGERS = {
    "silent": b"",
    "half a request": b"GET / HTTP/1.1\r\nHost: x\r\n",
    "an endless header": b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000,
    "no HTTP": b"\x00\xff" * 50_000,
    "a body never sent": b"POST /grpo-dist/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n",
    "a body without end": b"POST /grpo-dist/generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"1\r\nx\r\n" * 9999,
    "a wrong key": b"GET /grpo-dist/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n" * 500,
    "deep JSON": b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100_000,
}


def test_a_flood_of_strangers_holds_up_no_request(engine, call):
    where, held, longest = urlsplit(engine.url), [], 0.0
    try:
        for number in range(160):
            held.append(socket.create_connection((where.hostname, where.port), 5))
            held[-1].setblocking(False)
            with suppress(OSError):  # refused already
                held[-1].send(list(STRANGERS.values())[number % len(STRANGERS)])
            if number % 20 == 0:
                began = time.monotonic()
                assert call.json("GET", "/grpo-dist/status")[0] == 200
                longest = max(longest, time.monotonic() - began)
        assert call.generate(n=1, seed=1)[2][0] in (STOP, LENGTH)
    finally:
        for one in held:
            one.close()
    assert longest < 5


@pytest.mark.parametrize("path", ["/grpo-dist/generate", "/grpo-dist/adapters/x", "/v1/completions"])
def test_deep_json_with_the_key_is_one_refusal(call, path):
    for text in (b"[" * 100_000, b'{"a":' * 100_000, b'{"prompt_token_ids": ' + b"[" * 100_000):
        assert 400 <= call("POST", path, text, **{"Content-Type": "application/json"})[0] < 500
    assert call.json("GET", "/grpo-dist/status")[0] == 200


def test_more_prompts_than_a_step_of_the_engine_takes_do_not_end_it(engine):
    """With seeds, a prompt computed in pieces would: 300 × 40 tokens are more than any step takes."""
    prompts = [Prompt(tuple(range(10, 50)), 1, seed) for seed in range(300)]
    pool = Pool(engine.registry, TimeoutSection(), rank=0, completions_per_replica=300, push=False)
    groups = pool.generate(prompts, None, {"max_tokens": 2, "temperature": 1.0})
    assert [len(group) for group in groups] == [1] * 300
    assert not pool.replicas[0].down


def test_unknown_routes_are_told(call):
    assert call.json("GET", "/grpo-dist/nothing")[0] == 404
    assert call.json("POST", "/grpo-dist/generate", b"no json")[0] == 400
