"""A rollout server without an engine: it sends recorded completions, in both protocols, byte for byte as vLLM would.

`POST /grpo-dist/generate` streams frames as `grpo_dist/inference/middleware.py` does. `POST /v1/completions` answers as
vLLM does to `return_token_ids`, `return_tokens_as_token_ids` and `logprobs=0`. A prompt's first token is its number in
the recording.
"""

from __future__ import annotations

import asyncio
import json
import random
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing.sharedctypes import Synchronized

from vllm.entrypoints.openai.completion.protocol import (
    CompletionLogProbs,
    CompletionResponse,
    CompletionResponseChoice,
)
from vllm.entrypoints.serve.engine.protocol import UsageInfo

from grpo_dist.inference.engine import STREAM_INTERVAL
from grpo_dist.inference.wire_format import LENGTH, RUNNING, encode
from grpo_dist.procs.tree import die_with_parent

VOCABULARY = 151_936
"""Qwen3's."""
PROMPT_TOKENS = 100
HEAD = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: %s\r\n%s\r\n\r\n"


@dataclass(frozen=True)
class Recording:
    """Completions of some prompts, and both wire forms of them."""

    prompts: list[list[int]]
    completions: list[list[list[int]]]
    """Token ids, by prompt and place in its group."""
    logprobs: list[list[list[float]]]
    rounds: list[list[list[bytes]]]
    """By prompt: what goes out each time the engine has STREAM_INTERVAL more tokens of every completion, as chunks."""
    choices: list[list[bytes]]
    """By prompt and place in its group: the choice as JSON."""
    around: tuple[bytes, bytes]
    """What stands before and after the choices."""

    @property
    def tokens(self) -> int:
        return sum(len(ids) for group in self.completions for ids in group)


def record(prompts: int, group: int, tokens: int) -> Recording:
    """Random completions of `tokens` on average, the shortest of half that length, the longest of one and a half."""
    rng = random.Random(0)
    texts = [[number, *_ids(rng, PROMPT_TOKENS - 1)] for number in range(prompts)]
    lengths = [[rng.randint(tokens // 2, tokens * 3 // 2) for _ in range(group)] for _ in texts]
    completions = [[_ids(rng, length) for length in row] for row in lengths]
    logprobs = [[_float32(-rng.expovariate(2.0) for _ in ids) for ids in row] for row in completions]
    pairs = list(zip(completions, logprobs, strict=True))
    return Recording(
        texts,
        completions,
        logprobs,
        [_rounds(ids, values) for ids, values in pairs],
        [_choices(number, texts[number], ids, values) for number, (ids, values) in enumerate(pairs)],
        _around(),
    )


def serve(recording: Recording, round_seconds: float, listening: Callable[[int], None], sent: Synchronized) -> None:
    """Answer until the process ends.

    Args:
        round_seconds: pause after each round of a stream; the answer to `/v1/completions` comes at once.
        listening: told the port.
        sent: counts the bytes of all answers, HTTP's own included.
    """

    async def run() -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _Connection(recording, round_seconds, sent, reader, writer).answer_all()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        listening(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    die_with_parent()
    asyncio.run(run())


@dataclass
class _Connection:
    recording: Recording
    round_seconds: float
    sent: Synchronized
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer_all(self) -> None:
        try:
            while True:
                await self._answer(*await self._request())
        except (asyncio.IncompleteReadError, ConnectionError):
            self.writer.close()

    async def _request(self) -> tuple[str, Mapping]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(fields.get("content-length", 0)))
        return head[0].split()[1], json.loads(body) if body else {}

    async def _answer(self, path: str, body: Mapping) -> None:
        if path == "/grpo-dist/generate":
            await self._stream(self.recording.rounds[body["prompt_token_ids"][0]])
        elif path == "/v1/completions":
            choices = [choice for ids in body["prompt"] for choice in self.recording.choices[ids[0]]]
            before, after = self.recording.around
            self._json(before + b",".join(choices) + after)
        else:
            self._json(_json({"data": [{"id": "recorded"}], "stalled_seconds": 0, "incarnation": 0, "busy_seconds": 0}))
        await self.writer.drain()

    async def _stream(self, rounds: list[list[bytes]]) -> None:
        self._write(HEAD % (b"application/octet-stream", b"transfer-encoding: chunked"))
        for chunks in rounds:
            for chunk in chunks:
                self._write(chunk)
            await self.writer.drain()
            await asyncio.sleep(self.round_seconds)
        self._write(b"0\r\n\r\n")

    def _json(self, body: bytes) -> None:
        self._write(HEAD % (b"application/json", b"content-length: %d" % len(body)) + body)

    def _write(self, data: bytes) -> None:
        self.writer.write(data)
        self.sent.value += len(data)


def _ids(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(VOCABULARY) for _ in range(count)]


def _float32(values: Iterator[float]) -> list[float]:
    """As an engine has them: printed, they take all digits of a double."""
    return array("f", values).tolist()


def _rounds(completions: list[list[int]], logprobs: list[list[float]]) -> list[list[bytes]]:
    """The first token by itself, as vLLM sends it, then STREAM_INTERVAL at a time."""
    longest = max(map(len, completions))
    ends = range(1, longest + STREAM_INTERVAL, STREAM_INTERVAL)
    return [
        [
            _chunk(encode(index, ids[begin:end], values[begin:end], LENGTH if end >= len(ids) else RUNNING))
            for index, (ids, values) in enumerate(zip(completions, logprobs, strict=True))
            if begin < len(ids)
        ]
        for begin, end in ((max(0, end - STREAM_INTERVAL), end) for end in ends)
    ]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _choices(number: int, prompt: list[int], completions: list[list[int]], logprobs: list[list[float]]) -> list[bytes]:
    return [
        _json(_choice(number * len(completions) + place, prompt, ids, values).model_dump())
        for place, (ids, values) in enumerate(zip(completions, logprobs, strict=True))
    ]


def _choice(index: int, prompt: list[int], ids: list[int], values: list[float]) -> CompletionResponseChoice:
    names = [f"token_id:{token}" for token in ids]
    return CompletionResponseChoice(
        index=index,
        text="text" * len(ids),  # a token of English is about four letters
        logprobs=CompletionLogProbs(
            text_offset=list(accumulate(map(len, names[:-1]), initial=0)),  # vLLM counts the names, not the text
            token_logprobs=values,
            tokens=names,
            top_logprobs=[{name: value} for name, value in zip(names, values, strict=True)],
        ),
        finish_reason="length",
        token_ids=ids,
        prompt_token_ids=prompt,
    )


def _around() -> tuple[bytes, bytes]:
    whole = CompletionResponse(model="recorded", choices=[], usage=UsageInfo())
    before, after = _json(whole.model_dump()).split(b'"choices":[]')
    return before + b'"choices":[', b"]" + after


def _json(value: object) -> bytes:
    """As Starlette's JSONResponse writes it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
