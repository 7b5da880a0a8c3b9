"""The vLLM engine of this process, as a rollout server's routes need it.

vLLM's own parts are `app.state.engine_client` (`AsyncLLM`) and `app.state.openai_serving_models`, which `/v1/models`
and `/v1/completions` answer from (vLLM 0.31, `entrypoints/openai/models/serving.py`). `app.state` is not public: under
other names all our routes answer 500, and no server becomes ready.

What an engine is asked for, and since when it has brought forth nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

import vllm
from vllm import SamplingParams
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest, UnloadLoRAAdapterRequest
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from grpo_dist.errors import PlanError
from grpo_dist.inference.adapters import FILES, AdapterRefused, check_adapter, largest_adapter
from grpo_dist.inference.wire_format import FINISHES, encode
from grpo_dist.plan.specs import Architecture
from grpo_dist.plan.specs.architecture import from_config


class EngineActivity:
    """The requests of one engine.

    A caller that loses patience takes its request away, and asks again later; the engine has been silent all the same.
    So silence adds up over such requests, and only a sign ends it.
    """

    def __init__(self) -> None:
        self.in_flight = 0
        self._busy_before = 0.0
        self._busy_since = 0.0
        self._silent_before = 0.0
        self._silent_since = 0.0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """For the time of one request; its end is a sign, being taken away is none."""
        if not self.in_flight:
            self._busy_since = self._silent_since = time.monotonic()
        self.in_flight += 1
        try:
            yield
            self.sign()
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                now = time.monotonic()
                self._busy_before += now - self._busy_since
                self._silent_before += now - self._silent_since

    def sign(self) -> None:
        """The engine has put something out."""
        self._silent_before, self._silent_since = 0.0, time.monotonic()

    @property
    def stalled_seconds(self) -> float:
        """With work and without a sign since the last one; 0 where there is no work."""
        return self._silent_before + time.monotonic() - self._silent_since if self.in_flight else 0.0

    @property
    def busy_seconds(self) -> float:
        """In all, with at least one request."""
        return self._busy_before + (time.monotonic() - self._busy_since if self.in_flight else 0.0)


STREAM_INTERVAL = 16
"""Tokens of a completion that go out together."""
LOOK_SECONDS = 0.2
"""Between two looks for an adapter that a lagging file system does not show yet."""


class Engine:
    """Generating, scoring, and the adapters it knows.

    `OpenAIServingModels.lora_requests` (vLLM 0.31) maps the names of loaded adapters to `LoRARequest`s.
    `load_lora_adapter` returns an error instead of raising it, so `load` looks into the map afterwards.
    `unload_lora_adapter` forgets the name and keeps the weights, so `remove_lora` follows; without it old adapters stay
    in memory.
    """

    def __init__(self, state: Any, incarnation: int) -> None:
        self.client, self.models, self.incarnation = state.engine_client, state.openai_serving_models, incarnation
        self.work = EngineActivity()
        self.changing = asyncio.Lock()
        self.architecture = _architecture(self.client.model_config.hf_config)
        self.largest_adapter = largest_adapter(self.architecture, self._max_lora_rank)
        """Bytes that a pushed file may have."""

    @property
    def _max_lora_rank(self) -> int:
        lora = self.client.vllm_config.lora_config
        return lora.max_lora_rank if lora else 0

    def status(self) -> dict[str, Any]:
        """Ready for JSON.

        Raises:
            Refused: the engine is dead.
        """
        self._alive()
        model = self.client.model_config
        return {
            "model": self.models.base_model_paths[0].model_path,  # as stated; offline the engine has another
            "vllm_version": vllm.__version__,
            "dtype": str(model.dtype).removeprefix("torch."),
            "max_model_len": model.max_model_len,
            "max_lora_rank": self._max_lora_rank,
            "logprobs_mode": model.logprobs_mode,
            "incarnation": self.incarnation,
            "adapters": list(self.models.lora_requests),
            "in_flight": self.work.in_flight,
            "stalled_seconds": self.work.stalled_seconds,
            "busy_seconds": self.work.busy_seconds,
        }

    async def load(self, name: str, path: str, wait_seconds: float) -> None:
        """Serve the adapter in `path` under `name`.

        `load_inplace` is never asked for: vLLM would read the directory again at each request, and a directory that is
        gone by then ends the engine.

        Raises:
            Refused: the directory is not to be seen within `wait_seconds`, the name stands for another one, or the
                adapter is not one for this model.
        """
        self._alive()
        if self.client.vllm_config.lora_config is None:
            raise AdapterRefused(409, "this server was started without --enable-lora: it takes whole weights")
        await _seen(path, wait_seconds)
        async with self.changing:
            loaded = self.models.lora_requests.get(name)
            if loaded is not None and loaded.lora_path == path:
                return
            if loaded is not None:
                raise AdapterRefused(409, f"{name} is loaded from {loaded.lora_path}, not from {path}")
            await asyncio.to_thread(check_adapter, Path(path), self.architecture)
            with self.work.one():
                answer = await self.models.load_lora_adapter(LoadLoRAAdapterRequest(lora_name=name, lora_path=path))
        if name not in self.models.lora_requests:
            self._alive()
            raise AdapterRefused(400, f"vLLM does not take the adapter {name}: {answer.error.message}")

    async def unload(self, name: str) -> None:
        """Forget the adapter: its name, and its weights in the engine."""
        async with self.changing:
            loaded = self.models.lora_requests.get(name)
            if loaded is None:
                return
            await self.models.unload_lora_adapter(
                UnloadLoRAAdapterRequest(lora_name=name, lora_int_id=loaded.lora_int_id)
            )
            self._alive()
            with self.work.one():
                await self.client.remove_lora(loaded.lora_int_id)

    async def generate(
        self, adapter: str | None, prompt: Sequence[int], *, n: int, seed: int | None, sampling: dict[str, Any]
    ) -> AsyncGenerator[bytes, None]:
        """Frames of `n` completions, the i-th sampled with `seed + i` (vLLM 0.31 does so:
        `ParentRequest._get_child_sampling_params`). If it does not, completions depend on who samples them.

        Raises:
            Refused: before the first frame: the adapter is not known, or vLLM does not take the request.
            RuntimeError: after it: a completion ended in another way than by stopping or at its length.
        """
        if not all(isinstance(token, int) for token in prompt):
            raise AdapterRefused(400, "prompt_token_ids must be a list of whole numbers")
        params = _parameters(n=n, seed=seed, sampling=sampling)
        running = set(range(n))
        async with contextlib.aclosing(self._outputs(adapter, prompt, params)) as outputs:
            async for output in outputs:
                for part in output.outputs:
                    if part.finish_reason not in FINISHES:
                        raise RuntimeError(f"completion {part.index} ended by {part.finish_reason}")
                    finish = FINISHES[part.finish_reason]
                    ids = list(part.token_ids)
                    if ids or finish:
                        yield encode(part.index, ids, _sampled_logprobs(ids, part.logprobs), finish)
                    if finish:
                        running.discard(part.index)
        if running:
            raise RuntimeError(f"the engine ended with completions {sorted(running)} unfinished")

    async def _outputs(
        self, adapter: str | None, prompt: Sequence[int], params: SamplingParams
    ) -> AsyncGenerator[Any, None]:
        """vLLM's outputs of one request; closed early, the request is aborted in the engine."""
        self._alive()
        request, name = {"prompt_token_ids": list(prompt)}, f"grpo-dist-{uuid.uuid4().hex}"
        # `AsyncLLM.generate` (vLLM 0.31) raises EngineDeadError or EngineGenerateError when the engine fails, and
        # anything else when the request is wrong. With other classes a dead engine answers 400, and clients do not ask
        # again.
        outputs = self.client.generate(request, params, name, lora_request=self._adapter(adapter))
        with self.work.one():
            try:
                async for output in outputs:
                    self.work.sign()
                    yield output
            except EngineDeadError as error:
                raise AdapterRefused(503, "the engine is dead") from error
            except EngineGenerateError as error:
                raise AdapterRefused(500, f"the engine failed: {error.__cause__ or error}") from error
            except Exception as error:  # what is wrong with the request comes as it is; the engine's own was above
                raise AdapterRefused(400, str(error)) from error
            finally:
                await outputs.aclose()

    def _adapter(self, name: str | None) -> LoRARequest | None:
        if name is None:
            return None
        if (adapter := self.models.lora_requests.get(name)) is None:
            raise AdapterRefused(
                404, f"no adapter {name} is loaded; loaded: {', '.join(self.models.lora_requests) or 'none'}"
            )
        return adapter

    def _alive(self) -> None:
        if self.client.errored:  # `AsyncLLM.errored` (vLLM 0.31); without it a dead engine looks slow
            raise AdapterRefused(503, "the engine is dead")


def _architecture(config: Any) -> Architecture | None:
    """Of the model as Transformers configures it; None where its kind is not known."""
    try:
        return from_config(config.to_dict(), config.model_type)
    except PlanError:
        return None


def _parameters(*, n: int, seed: int | None, sampling: dict[str, Any]) -> SamplingParams:
    stated = dict(sampling)
    if (structured := stated.get("structured_outputs")) is not None:
        stated["structured_outputs"] = StructuredOutputsParams(**structured)
    try:
        params = SamplingParams(
            **stated,
            n=n,
            seed=seed,
            logprobs=0,
            output_kind=RequestOutputKind.DELTA,
            detokenize=bool(stated.get("stop")),  # only texts to stop at need text
        )
        # As the engine will: there a value of another type ends the thread that reads requests, and nothing says so
        # (vLLM 0.31, `MsgpackEncoder` and `MsgpackDecoder`). Without this, one wrong value hangs the server.
        MsgpackDecoder(SamplingParams).decode(MsgpackEncoder().encode(params))
    except Exception as error:  # vLLM's own kind of it has no base in common with Python's over its versions
        raise AdapterRefused(400, f"sampling: {error}") from error
    if hasattr(params, "stream_interval"):  # newer than the oldest vLLM there is support for
        params.stream_interval = STREAM_INTERVAL
    return params


def _sampled_logprobs(token_ids: Sequence[int], logprobs: Any) -> list[float]:
    """Of each sampled token; NaN where vLLM has none."""
    if logprobs is None or len(logprobs) != len(token_ids):
        return [float("nan")] * len(token_ids)
    return [place[token].logprob for token, place in zip(token_ids, logprobs, strict=True)]


async def _seen(path: str, wait_seconds: float) -> None:
    """Return when both files of the adapter can be seen.

    Raises:
        Refused: they are not in time.
    """
    if not os.path.isabs(path):
        raise AdapterRefused(
            400, f"{path}: an adapter's path must be absolute"
        )  # vLLM takes any other for one of the Hub's
    deadline = time.monotonic() + wait_seconds
    while absent := await asyncio.to_thread(_absent, Path(path)):
        if time.monotonic() >= deadline:
            raise AdapterRefused(
                404, f"{path}: {' and '.join(absent)} not to be seen from here within {wait_seconds:g} s"
            )
        await asyncio.sleep(LOOK_SECONDS)


def _absent(directory: Path) -> list[str]:
    with contextlib.suppress(OSError):
        os.listdir(
            directory.parent
        )  # NFS asks the server again when a directory is opened, not when a name is looked up
    return [name for name in FILES if not (directory / name).is_file()]
