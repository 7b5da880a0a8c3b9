"""The vLLM engine of this process, as the routes of `middleware.py` use it.

It reaches vLLM through `app.state.engine_client` (`AsyncLLM`) and `app.state.openai_serving_models`, which also serve
`/v1/models` and `/v1/completions` (vLLM 0.31, `entrypoints/openai/models/serving.py`). `app.state` is not public:
under other names all our routes answer 500, and no server becomes ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
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
from grpo_dist.inference.activity import EngineActivity
from grpo_dist.inference.adapters import FILES, AdapterRefused, check_adapter, largest_adapter
from grpo_dist.inference.wire_format import FINISHES, encode
from grpo_dist.plan.specs import Architecture
from grpo_dist.plan.specs.architecture import from_config

STREAM_INTERVAL = 16
"""Tokens of a completion that are sent together."""
VISIBLE_POLL_SECONDS = 0.2
"""Between two checks for an adapter that a network file system does not show yet."""


class Engine:
    """Generates completions, and loads and unloads adapters.

    `OpenAIServingModels.lora_requests` (vLLM 0.31) maps the names of loaded adapters to `LoRARequest`s.
    `load_lora_adapter` returns an error instead of raising it, so `load` looks into the map afterwards.
    `unload_lora_adapter` forgets the name and keeps the weights, so `remove_lora` follows; without it old adapters stay
    in memory.
    """

    def __init__(self, state: Any, incarnation: int) -> None:
        self.client, self.models, self.incarnation = state.engine_client, state.openai_serving_models, incarnation
        self.activity = EngineActivity()
        self.adapter_lock = asyncio.Lock()
        self.architecture = _architecture(self.client.model_config.hf_config)
        self.largest_adapter = largest_adapter(self.architecture, self._max_lora_rank)
        """Most bytes of a pushed file."""

    @property
    def _max_lora_rank(self) -> int:
        lora = self.client.vllm_config.lora_config
        return lora.max_lora_rank if lora else 0

    def status(self) -> dict[str, Any]:
        """The JSON answer of the status route.

        Raises:
            AdapterRefused: the engine is dead.
        """
        self._check_alive()
        model = self.client.model_config
        return {
            "model": self.models.base_model_paths[
                0
            ].model_path,  # as configured; offline the engine reports another path
            "vllm_version": vllm.__version__,
            "dtype": str(model.dtype).removeprefix("torch."),
            "max_model_len": model.max_model_len,
            "max_lora_rank": self._max_lora_rank,
            "logprobs_mode": model.logprobs_mode,
            "incarnation": self.incarnation,
            "adapters": list(self.models.lora_requests),
            "in_flight": self.activity.in_flight,
            "stalled_seconds": self.activity.stalled_seconds,
            "busy_seconds": self.activity.busy_seconds,
        }

    async def load(self, name: str, path: str, wait_seconds: float) -> None:
        """Serve the adapter in `path` under `name`.

        `load_inplace` is never used: vLLM would read the directory again at each request, and the engine dies if the
        directory is gone by then.

        Raises:
            AdapterRefused: the directory does not appear within `wait_seconds`, the name is taken by another adapter,
                or the adapter does not fit this model.
        """
        self._check_alive()
        if self.client.vllm_config.lora_config is None:
            raise AdapterRefused(409, "this server was started without --enable-lora: it takes whole weights")
        await _wait_until_visible(path, wait_seconds)
        async with self.adapter_lock:
            loaded = self.models.lora_requests.get(name)
            if loaded is not None and loaded.lora_path == path:
                return
            if loaded is not None:
                raise AdapterRefused(409, f"{name} is loaded from {loaded.lora_path}, not from {path}")
            await asyncio.to_thread(check_adapter, Path(path), self.architecture)
            with self.activity.request():
                answer = await self.models.load_lora_adapter(LoadLoRAAdapterRequest(lora_name=name, lora_path=path))
        if name not in self.models.lora_requests:
            self._check_alive()
            raise AdapterRefused(400, f"vLLM does not take the adapter {name}: {answer.error.message}")

    async def unload(self, name: str) -> None:
        """Remove the adapter: its name, and its weights in the engine."""
        async with self.adapter_lock:
            loaded = self.models.lora_requests.get(name)
            if loaded is None:
                return
            await self.models.unload_lora_adapter(
                UnloadLoRAAdapterRequest(lora_name=name, lora_int_id=loaded.lora_int_id)
            )
            self._check_alive()
            with self.activity.request():
                await self.client.remove_lora(loaded.lora_int_id)

    async def generate(
        self, adapter: str | None, prompt: Sequence[int], *, n: int, seed: int | None, sampling: dict[str, Any]
    ) -> AsyncGenerator[bytes, None]:
        """Frames of `n` completions, the i-th sampled with `seed + i` (vLLM 0.31 does so:
        `ParentRequest._get_child_sampling_params`). If it does not, completions depend on who samples them.

        Raises:
            AdapterRefused: before the first frame: the adapter is not loaded, or vLLM refuses the request.
            RuntimeError: after it: a completion ended otherwise than by stopping or at its length limit.
        """
        if not all(isinstance(token, int) for token in prompt):
            raise AdapterRefused(400, "prompt_token_ids must be a list of whole numbers")
        params = _parameters(n=n, seed=seed, sampling=sampling)
        running = set(range(n))
        async with contextlib.aclosing(self._outputs(adapter, prompt, params)) as outputs:
            async for output in outputs:
                for piece in output.outputs:
                    if piece.finish_reason not in FINISHES:
                        raise RuntimeError(f"completion {piece.index} ended by {piece.finish_reason}")
                    finish = FINISHES[piece.finish_reason]
                    ids = list(piece.token_ids)
                    if ids or finish:
                        yield encode(piece.index, ids, _sampled_logprobs(ids, piece.logprobs), finish)
                    if finish:
                        running.discard(piece.index)
        if running:
            raise RuntimeError(f"the engine ended with completions {sorted(running)} unfinished")

    async def _outputs(
        self, adapter: str | None, prompt: Sequence[int], params: SamplingParams
    ) -> AsyncGenerator[Any, None]:
        """vLLM's outputs of one request. Closing this generator early aborts the request in the engine."""
        self._check_alive()
        request, name = {"prompt_token_ids": list(prompt)}, f"grpo-dist-{uuid.uuid4().hex}"
        # `AsyncLLM.generate` (vLLM 0.31) raises EngineDeadError or EngineGenerateError when the engine fails, and
        # anything else when the request is wrong. With other classes a dead engine answers 400, and clients do not ask
        # again.
        outputs = self.client.generate(request, params, name, lora_request=self._adapter(adapter))
        with self.activity.request():
            try:
                async for output in outputs:
                    self.activity.output()
                    yield output
            except EngineDeadError as error:
                raise AdapterRefused(503, "the engine is dead") from error
            except EngineGenerateError as error:
                raise AdapterRefused(500, f"the engine failed: {error.__cause__ or error}") from error
            except Exception as error:  # any other exception is about the request itself
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

    def _check_alive(self) -> None:
        if self.client.errored:  # `AsyncLLM.errored` (vLLM 0.31); without it a dead engine looks slow
            raise AdapterRefused(503, "the engine is dead")


def _architecture(config: Any) -> Architecture | None:
    """Architecture from the model's Transformers configuration; None if the planner does not know its kind."""
    try:
        return from_config(config.to_dict(), config.model_type)
    except PlanError:
        return None


def _parameters(*, n: int, seed: int | None, sampling: dict[str, Any]) -> SamplingParams:
    options = dict(sampling)
    if (structured := options.get("structured_outputs")) is not None:
        options["structured_outputs"] = StructuredOutputsParams(**structured)
    try:
        params = SamplingParams(
            **options,
            n=n,
            seed=seed,
            logprobs=0,
            output_kind=RequestOutputKind.DELTA,
            detokenize=bool(options.get("stop")),  # only stop strings need text
        )
        # As the engine will: there a value of another type ends the thread that reads requests, and nothing says so
        # (vLLM 0.31, `MsgpackEncoder` and `MsgpackDecoder`). Without this, one wrong value hangs the server.
        MsgpackDecoder(SamplingParams).decode(MsgpackEncoder().encode(params))
    except Exception as error:  # vLLM's exception types differ between its versions
        raise AdapterRefused(400, f"sampling: {error}") from error
    if hasattr(params, "stream_interval"):  # newer than the oldest supported vLLM
        params.stream_interval = STREAM_INTERVAL
    return params


def _sampled_logprobs(token_ids: Sequence[int], logprobs: Any) -> list[float]:
    """Log-probability of each sampled token; NaN where vLLM reports none."""
    if logprobs is None or len(logprobs) != len(token_ids):
        return [float("nan")] * len(token_ids)
    return [by_token[token].logprob for token, by_token in zip(token_ids, logprobs, strict=True)]


async def _wait_until_visible(path: str, wait_seconds: float) -> None:
    """Return when both files of the adapter are visible.

    Raises:
        AdapterRefused: they do not appear in time.
    """
    if not os.path.isabs(path):
        raise AdapterRefused(
            400, f"{path}: an adapter's path must be absolute"
        )  # vLLM takes any other for a name on the Hub
    deadline = time.monotonic() + wait_seconds
    while absent := await asyncio.to_thread(_absent, Path(path)):
        if time.monotonic() >= deadline:
            raise AdapterRefused(
                404, f"{path}: {' and '.join(absent)} not to be seen from here within {wait_seconds:g} s"
            )
        await asyncio.sleep(VISIBLE_POLL_SECONDS)


def _absent(directory: Path) -> list[str]:
    with contextlib.suppress(OSError):
        os.listdir(directory.parent)  # NFS refreshes its cache when a directory is opened, not when a name is looked up
    return [name for name in FILES if not (directory / name).is_file()]
