"""Broken configurations and the exact lines a user reads about them.

Each case is the text of `x.yaml`, or the --set options over GOOD, and the message. `GOOD` takes two lines, so what is
appended to it stands from line 3 on.
"""

from __future__ import annotations

import pytest

from grpo_dist.config import load_config
from grpo_dist.errors import ConfigError

GOOD = "model: {name_or_path: embedded}\ndata: {name_or_path: embedded}\n"
SECTIONS = "model, lora, data, rewards, warm_start, grpo, rollout, distributed, cluster, evaluation, tracking"
OPTIMIZERS = (
    "adamw_torch, adamw_torch_fused, adamw_torch_xla, adamw_torch_npu_fused, adafactor, adamw_anyprecision, "
    "adamw_torch_4bit, adamw_torch_8bit, ademamix, sgd, …, stable_adamw"
)

FILES = {
    # the file as a whole
    "empty": ("", "x.yaml: the file is empty; it needs at least the sections model: and data:"),
    "only a comment": ("# soon\n", "x.yaml: the file is empty; it needs at least the sections model: and data:"),
    "a list": (
        "- model\n",
        "x.yaml:1: a list where sections belong; write model:, data: and so on, each with a colon and a space",
    ),
    "a word": (
        "\nembedded\n",
        "x.yaml:2: 'embedded' where sections belong; write model:, data: and so on, each with a colon and a space",
    ),
    "latin-1": (
        b"# Stra\xdfe\n" + GOOD.encode(),
        "x.yaml:1: not UTF-8 text (byte 0xdf at offset 6); save the file as UTF-8",
    ),
    "utf-16": (GOOD.encode("utf-16"), "x.yaml:1: not UTF-8 text (byte 0xff at offset 0); save the file as UTF-8"),
    "nul": (GOOD + "x: \0\n", "x.yaml:3: the character U+0000 cannot be part of a configuration; remove it"),
    "escape character": (
        GOOD + "# \x1b\n",
        "x.yaml:3: the character U+001B cannot be part of a configuration; remove it",
    ),
    "escaped nul": (
        GOOD + 'lora: {r: "\\0"}\n',
        "x.yaml:3: lora.r: the character U+0000 cannot be part of a configuration; remove it",
    ),
    "too large": ("# x\n" * 65537, "x.yaml: larger than 256 KiB; is this a configuration?"),
    "two documents": (GOOD + "---\nlora: {r: 8}\n", "x.yaml:3: a second document starts here (`---`); keep one"),
    # YAML
    "tab": (GOOD + "grpo:\n\tseed: 1\n", "x.yaml:4: a tab where the indentation goes; use spaces"),
    "outdented": (
        GOOD + "grpo:\n  seed: 1\n top_k: 1\n",
        "x.yaml:5: indented unlike the lines above; settings of one group start in the same column",
    ),
    "indented": (
        GOOD + "grpo:\n  seed: 1\n   top_k: 1\n",
        "x.yaml:5: a `:` where no setting can start; check the indentation, or quote the text",
    ),
    "colon in text": (
        GOOD + "x: You are: a helper\n",
        "x.yaml:3: a `:` where no setting can start; check the indentation, or quote the text",
    ),
    "no colon": (GOOD + "grpo\nlora: {r: 8}\n", "x.yaml:3: no `:` after the name; write `name: value`"),
    "open bracket": (
        GOOD + "tracking: [trackio\n",
        "x.yaml:4: the `[` in line 3 is not closed; add `]`, or a comma between its entries",
    ),
    "open brace": (
        GOOD + "lora: {r: 8\ngrpo: {seed: 1}\n",
        "x.yaml:4: the `{` in line 3 is not closed; add `}`, or a comma between its entries",
    ),
    "open quote": (
        GOOD + "tracking: 'wandb\n",
        "x.yaml:4: a quote is opened in line 3 and not closed; add the closing quote",
    ),
    "brace too many": (GOOD + "lora: {r: 8}}\n", "x.yaml:3: a `}` that closes nothing; remove it"),
    "text after a quote": (
        GOOD + "x: 'a' b\n",
        "x.yaml:3: text after the end of a value; put all of it in quotes",
    ),
    "percent sign": (GOOD + "x: %a\n", "x.yaml:3: text cannot start with '%'; put it in quotes"),
    "star": (
        GOOD + "x: *a\n",
        "x.yaml:3: an alias (*name) without its anchor (&name); put text that starts with * in quotes",
    ),
    "backslash": (
        GOOD + 'x: "\\d"\n',
        "x.yaml:3: an unknown \\ escape; use single quotes, in which \\ is just \\",
    ),
    "impossible escape": (
        GOOD + 'x: "\\UFFFFFFFF"\n',
        "x.yaml:3: an escape like \\U00110000 that is no character; remove it",
    ),
    "deep": (GOOD + "x: " + "[" * 5000, "x.yaml:3: nested more than 32 levels deep; is this a configuration?"),
    "alias of itself": (
        GOOD + "grpo: &a {x: *a}\n",
        "x.yaml:3: grpo.x: this alias is inside what it refers to; write the settings out",
    ),
    "aliases of aliases": (
        GOOD + "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        "" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
        "x.yaml:3: a3.7.8.8.5: more than 10000 values with all aliases written out; is this a configuration?",
    ),
    "merge key": (
        GOOD + "a: &a {r: 8}\nlora: {<<: *a}\n",
        f"x.yaml:3: a: unknown setting; a configuration has {SECTIONS}\n"
        "x.yaml:4: lora.<<: merge keys are not read; write the settings out",
    ),
    "tag": (
        GOOD + "lora: !!python/object/apply:os.system [ls]\n",
        "x.yaml:3: lora: tags such as !!python/object/apply:os.system are not used here; remove it",
    ),
    "false tag": (GOOD + "lora: {r: !!int x}\n", "x.yaml:3: lora.r: is not of the type its tag names; remove the tag"),
    "set twice": (
        GOOD + "grpo: {seed: 1}\nlora: {r: 8}\ngrpo: {seed: 2}\n",
        "x.yaml:5: grpo: set twice, first in line 3; remove one",
    ),
    "number as name": (
        GOOD + "data:\n  1: a\n",
        "x.yaml:3: data: set twice, first in line 2; remove one",
    ),
    "number as name of a column": (
        "model: {name_or_path: embedded}\ndata: {name_or_path: x, columns: {1: a}}\n",
        "x.yaml:2: data.columns.1: the name of a setting is text, not 1; put it in quotes: '1'",
    ),
    "list as name": (
        GOOD + "[a]: 1\n",
        "x.yaml:3: a list or mapping is used as the name of a setting; write a plain name",
    ),
    "no space after a colon": (
        "model: {name_or_path: embedded}\ndata: {name_or_path: x, columns: {prompt:q}}\n",
        "x.yaml:2: data.columns.prompt:q: put a space after the colon: {prompt: q}",
    ),
    # numbers and words
    "not a number": (
        GOOD + "grpo: {learning_rate: .nan}\n",
        "x.yaml:3: grpo.learning_rate: must be an ordinary number, not .nan",
    ),
    "nan as text": (
        GOOD + "grpo: {learning_rate: nan}\n",
        "x.yaml:3: grpo.learning_rate: must be a number ≥ 0, not 'nan'",
    ),
    "infinite": (
        GOOD + "grpo: {learning_rate: -.inf}\n",
        "x.yaml:3: grpo.learning_rate: must be an ordinary number, not -.inf",
    ),
    "nan deep inside": (
        GOOD + "grpo: {generation_kwargs: {sequence_bias: [.nan]}}\n",
        "x.yaml:3: grpo.generation_kwargs.sequence_bias.0: must be an ordinary number, not .nan",
    ),
    "too large for a float": (
        GOOD + "grpo: {learning_rate: 1e999}\n",
        "x.yaml:3: grpo.learning_rate: must be an ordinary number; 1e999 is too large for a computer's",
    ),
    "too large for a size": (
        GOOD + "grpo:\n  prompts_per_step: 1000000000000000000000000000000\n",
        "x.yaml:4: grpo.prompts_per_step: must be a whole number ≥ 1, not 1000000000000000000000000000000; "
        "the largest is 2147483647",
    ),
    "too many digits": (
        GOOD + f"grpo: {{seed: {'9' * 5000}}}\n",
        "x.yaml:3: grpo.seed: is a number of 5000 digits; no setting takes one that long",
    ),
    "negative": (GOOD + "lora: {r: -8}\n", "x.yaml:3: lora.r: must be a whole number ≥ 1, not -8"),
    "half": (
        GOOD + "grpo: {num_generations: 8.5}\n",
        "x.yaml:3: grpo.num_generations: must be a whole number ≥ 2, not 8.5",
    ),
    "one generation": (
        GOOD + "grpo: {num_generations: 1}\n",
        "x.yaml:3: grpo.num_generations: must be a whole number ≥ 2, not 1",
    ),
    "fraction": (
        GOOD + "evaluation: {confidence: 95}\n",
        "x.yaml:3: evaluation.confidence: must be a number > 0 and < 1, not 95",
    ),
    "time of day": (
        GOOD + "grpo: {learning_rate: 1:30}\n",
        "x.yaml:3: grpo.learning_rate: must be a number ≥ 0, not '1:30'",
    ),
    "boolean for a number": (
        GOOD + "grpo: {seed: true}\n",
        "x.yaml:3: grpo.seed: must be a whole number ≥ 0, not true",
    ),
    "number for a boolean": (
        GOOD + "evaluation: {enabled: 1}\n",
        "x.yaml:3: evaluation.enabled: must be true or false, not 1",
    ),
    "typo in a boolean": (
        GOOD + "evaluation: {enabled: ture}\n",
        "x.yaml:3: evaluation.enabled: must be true or false, not 'ture'; did you mean true?",
    ),
    "number for text": (
        "model: {name_or_path: embedded, revision: 4e5}\ndata: {name_or_path: 1.50}\n",
        "x.yaml:1: model.revision: must be text or null, not 4e5; put it in quotes: '4e5'\n"
        "x.yaml:2: data.name_or_path: must be text, not 1.50; put it in quotes: '1.50'",
    ),
    "no value": (
        GOOD + "grpo:\n  seed:\n",
        "x.yaml:4: grpo.seed: has no value; give a whole number ≥ 0, or leave it out",
    ),
    "empty text": (
        "model: {name_or_path: ''}\n" + GOOD.splitlines()[1],
        "x.yaml:1: model.name_or_path: is empty; write `name_or_path: Qwen/Qwen3-4B-Base`",
    ),
    "list for a number": (GOOD + "lora: {r: [8, 16]}\n", "x.yaml:3: lora.r: must be a whole number ≥ 1, not a list"),
    "group for a number": (
        GOOD + "lora: {r: {x: 1}}\n",
        "x.yaml:3: lora.r: must be a whole number ≥ 1, not a group of settings",
    ),
    "list for a mapping": (
        "model: {name_or_path: embedded}\ndata: {name_or_path: x, columns: [q, a]}\n",
        "x.yaml:2: data.columns: must be a mapping such as {name: value}, not a list",
    ),
    "word not known": (
        GOOD + "grpo: {loss_type: grop}\n",
        "x.yaml:3: grpo.loss_type: must be one of grpo, dr_grpo, dapo, bnpo, cispo, sapo, luspo, vespo, not 'grop'; "
        "did you mean grpo?",
    ),
    "short for a word": (
        "model: {name_or_path: embedded, dtype: bf16}\n" + GOOD.splitlines()[1],
        "x.yaml:1: model.dtype: must be one of bfloat16, float16, float32, not 'bf16'; did you mean bfloat16?",
    ),
    "many words": (
        GOOD + "grpo: {optim: adamw}\n",
        f"x.yaml:3: grpo.optim: must be one of {OPTIMIZERS}, not 'adamw'; did you mean adamw_torch?",
    ),
    "scale_rewards": (
        GOOD + "grpo: {scale_rewards: 3}\n",
        "x.yaml:3: grpo.scale_rewards: must be one of group, batch, none, true, false, not 3",
    ),
    "no nodes": (
        GOOD + "cluster: {nodes: 0}\n",
        "x.yaml:3: cluster.nodes: must be a whole number ≥ 1 and ≤ 10000, not 0",
    ),
    "an engine there is not": (
        GOOD + "rollout: {backend: vlm}\n",
        "x.yaml:3: rollout.backend: must be transformers or vllm, not 'vlm'; did you mean vllm?",
    ),
    "servers without vllm": (
        GOOD + "rollout: {mode: server}\n",
        "x.yaml:3: rollout.mode: the training processes generate themselves; remove it, or set rollout.backend: vllm",
    ),
    "replicas without servers": (
        GOOD + "rollout: {backend: vllm, replicas: 2}\n",
        "x.yaml:3: rollout.replicas: every training GPU generates too in colocate mode; remove it, "
        "or set rollout.mode: server",
    ),
    "ahead without servers": (
        GOOD + "rollout: {max_staleness: 1}\n",
        "x.yaml:3: rollout.max_staleness: the training processes generate themselves and cannot train meanwhile; "
        "set it to 0, or generate on other GPUs: --set rollout.backend=vllm --set rollout.mode=server",
    ),
    "ahead on the training GPUs": (
        GOOD + "rollout: {backend: vllm, max_staleness: 4}\n",
        "x.yaml:3: rollout.max_staleness: an engine on a training GPU cannot generate while the model trains there; "
        "set it to 0, or give generation its own GPUs: --set rollout.mode=server",
    ),
    "ahead with merged weights": (
        GOOD + "rollout: {backend: vllm, mode: server, sync: merged, max_staleness: 2}\n",
        "x.yaml:3: rollout.max_staleness: a server holds merged weights of one policy only; "
        "set it to 0, or --set rollout.sync=adapter",
    ),
    "a figure no GPU has": (
        GOOD + "cluster: {gpu_overrides: {memory_bytes: 3}}\n",
        "x.yaml:3: cluster.gpu_overrides.memory_bytes: unknown setting; did you mean cluster.gpu_overrides.memory?",
    ),
    "no time": (
        GOOD + "cluster: {time: tomorrow}\n",
        "x.yaml:3: cluster.time: 'tomorrow' is not of the form it takes; write for example `time: 24:00:00`",
    ),
    # sections and required settings
    "nothing required": (
        "grpo: {seed: 1}\n",
        "x.yaml:1: model: missing; add `model: {name_or_path: Qwen/Qwen3-4B-Base}`\n"
        "x.yaml:1: data: missing; add `data: {name_or_path: open-r1/DAPO-Math-17k-Processed, config: en}`",
    ),
    "sections without settings": (
        "model:\ndata:\n  split: train\n",
        "x.yaml:1: model.name_or_path: missing; add `name_or_path: Qwen/Qwen3-4B-Base`\n"
        "x.yaml:2: data.name_or_path: missing; add `name_or_path: open-r1/DAPO-Math-17k-Processed`",
    ),
    "text for a section": (
        "model: embedded\ndata: embedded\n",
        "x.yaml:1: model: must be a group of settings, not 'embedded'; set model.name_or_path instead\n"
        "x.yaml:2: data: must be a group of settings, not 'embedded'; set data.name_or_path instead",
    ),
    "no space after a colon in a section": (
        GOOD + "grpo:\n  seed:3\n",
        "x.yaml:3: grpo: must be a group of settings, not 'seed:3'; "
        "put each setting on a line of its own, with a space after its colon",
    ),
    "warm start without data": (
        GOOD + "warm_start:\n  max_steps: 3\n",
        "x.yaml:3: warm_start.data: missing; add `data: {name_or_path: examples.jsonl}`",
    ),
    # unknown settings
    "typo": (
        GOOD + "grpo:\n  learing_rate: 1e-6\n",
        "x.yaml:4: grpo.learing_rate: unknown setting; did you mean grpo.learning_rate?",
    ),
    "what vLLM cannot serve": (
        GOOD + "lora: {use_dora: true, modules_to_save: [lm_head]}\n",
        "x.yaml:3: lora.use_dora: not a setting here: vLLM serves no DoRA adapters; remove it\n"
        "x.yaml:3: lora.modules_to_save: not a setting here: vLLM serves adapters, not whole modules beside them; "
        "remove it",
    ),
    "typo in a section": (GOOD + "reward: {}\n", "x.yaml:3: reward: unknown setting; did you mean rewards?"),
    "typo in a TRL field": (
        GOOD + "grpo: {adam_beta: 0.9}\n",
        "x.yaml:3: grpo.adam_beta: unknown setting; did you mean grpo.adam_beta1?",
    ),
    "wrong section": (
        "model: {name_or_path: embedded, learning_rate: 1e-6}\ndata: {name_or_path: embedded}\nseed: 1\n",
        "x.yaml:1: model.learning_rate: unknown setting; did you mean grpo.learning_rate?\n"
        "x.yaml:3: seed: unknown setting; did you mean grpo.seed?",
    ),
    "TRL's script arguments": (
        GOOD + "model_name_or_path: a\ndataset_name: b\nlora_r: 8\n",
        "x.yaml:3: model_name_or_path: unknown setting; did you mean model.name_or_path?\n"
        "x.yaml:4: dataset_name: unknown setting; did you mean data.name_or_path?\n"
        "x.yaml:5: lora_r: unknown setting; did you mean lora.r?",
    ),
    "dots": (
        GOOD + "grpo.seed: 1\n",
        "x.yaml:3: grpo.seed: a dot in a name; write `grpo:` and indented under it `seed:`",
    ),
    "nothing like it": (
        GOOD + "lora: {quux: 1}\n",
        "x.yaml:3: lora.quux: unknown setting; lora has r, lora_alpha, lora_dropout, target_modules, use_rslora",
    ),
    "nothing like it in TRL": (
        GOOD + "grpo: {quux: 1}\n",
        "x.yaml:3: grpo.quux: neither a setting of grpo-dist nor a field of TRL's GRPOConfig; "
        "check its spelling, or remove it",
    ),
    "line break in a name": (
        GOOD + 'lora: {"r\\nx": 1}\n',
        "x.yaml:3: lora.r\\nx: unknown setting; lora has r, lora_alpha, lora_dropout, target_modules, use_rslora",
    ),
    "hard space in a name": (
        GOOD + "grpo:\n \xa0seed: 1\n",
        "x.yaml:4: grpo.\\xa0seed: unknown setting; did you mean grpo.seed?",
    ),
    # what the run owns
    "batch size": (
        GOOD + "grpo: {per_device_train_batch_size: 4}\n",
        "x.yaml:3: grpo.per_device_train_batch_size: not a setting here: follows from grpo.prompts_per_step × "
        "grpo.num_generations; for less memory set distributed.max_per_device_train_batch_size",
    ),
    "report_to": (
        GOOD + "grpo: {report_to: wandb}\n",
        "x.yaml:3: grpo.report_to: not a setting here: set tracking, for example tracking: [trackio]",
    ),
    "precision": (
        GOOD + "grpo: {bf16: true}\n",
        "x.yaml:3: grpo.bf16: not a setting here: follows from the model; set model.dtype",
    ),
    "output_dir at the top": (
        GOOD + "output_dir: runs/x\n",
        "x.yaml:3: output_dir: not a setting here: the run directory is not part of a configuration; "
        "give --output DIR on the command line",
    ),
    "name of the run": (
        GOOD + "name: first\n",
        "x.yaml:3: name: not a setting here: a run is named after its directory; give --output DIR on the command line",
    ),
    # shorthands
    "rewards without functions": (
        GOOD + "rewards: notebook\n",
        "x.yaml:3: rewards: must be a group of settings, not 'notebook'; set rewards.functions instead",
    ),
    "rewards": (
        GOOD + "rewards:\n  functions:\n    - notebook\n    - {wieght: 2}\n    - 3\n    - ''\n",
        "x.yaml:6: rewards.functions.1.name: missing; add `name: notebook`\n"
        "x.yaml:6: rewards.functions.1.wieght: unknown setting; did you mean rewards.functions.1.weight?\n"
        "x.yaml:7: rewards.functions.2: must be the name of a function or a group of settings, not 3\n"
        "x.yaml:8: rewards.functions.3: is empty; give the name of a function or a group of settings, or leave it out",
    ),
    "no rewards": (
        GOOD + "rewards: {functions: []}\n",
        "x.yaml:3: rewards.functions: is empty; give a list such as [a, b], or leave it out",
    ),
    "scorer": (
        GOOD + "evaluation: {scorer: {name: accuracy, weight: heavy}}\n",
        "x.yaml:3: evaluation.scorer.weight: must be a number, not 'heavy'",
    ),
    "tracker": (
        GOOD + "tracking: mlflow\n",
        "x.yaml:3: tracking: must be one of trackio, tensorboard, wandb, not 'mlflow'",
    ),
    "trackers": (
        GOOD + "tracking:\n- trackio\n- wanbd\n",
        "x.yaml:5: tracking.1: must be one of trackio, tensorboard, wandb, not 'wanbd'; did you mean wandb?",
    ),
    "target modules": (
        GOOD + "lora: {target_modules: [q_proj, 3]}\n",
        "x.yaml:3: lora.target_modules.1: must be text, not 3; put it in quotes: '3'",
    ),
    "one target module": (
        GOOD + "lora: {target_modules: q_proj}\n",
        "x.yaml:3: lora.target_modules: must be a list such as [a, b] or all-linear, not 'q_proj'; "
        "for a list of one write [q_proj]",
    ),
    # TRL's further fields
    "range of a TRL field": (
        GOOD + "grpo: {adam_beta1: 1}\n",
        "x.yaml:3: grpo.adam_beta1: must be a number ≥ 0 and < 1, not 1",
    ),
    "boolean for a TRL number": (
        GOOD + "grpo: {delta: yes, entropy_coef: true}\n",
        "x.yaml:3: grpo.delta: must be a number > 0 or null, not 'yes'\n"
        "x.yaml:3: grpo.entropy_coef: must be a number, not true",
    ),
    "word of a TRL field": (
        GOOD + "grpo: {importance_sampling_level: seq}\n",
        "x.yaml:3: grpo.importance_sampling_level: must be token or sequence, not 'seq'; did you mean sequence?",
    ),
    "inside a TRL field": (
        GOOD + "grpo: {liger_kernel_config: {rope: 3}}\n",
        "x.yaml:3: grpo.liger_kernel_config.rope: must be true or false, not 3",
    ),
    # settings that do not go together
    "held out twice": (
        "model: {name_or_path: embedded}\ndata: {name_or_path: x, eval_split: test, eval_fraction: 0.1}\n",
        "x.yaml:2: data.eval_fraction: problems are held out by eval_split already; remove one of the two",
    ),
    "held out from itself": (
        "model: {name_or_path: embedded}\ndata: {name_or_path: x, eval_split: train}\n",
        "x.yaml:2: data.eval_split: train is the training split; name another, or set eval_fraction: 0.05",
    ),
    "no steps": (
        GOOD + "grpo: {max_steps: 0}\n",
        "x.yaml:3: grpo.max_steps: 0 steps train nothing; state how many, or -1 for as many as num_train_epochs gives",
    ),
    "nearly no temperature": (
        GOOD + "evaluation: {temperature: 1.0e-300}\n",
        "x.yaml:3: evaluation.temperature: must be a number ≥ 0.01 or null, not 1.0e-300",
    ),
    "rewards without weight": (
        GOOD + "rewards: {functions: [{name: check_answer, weight: 0}, {name: check_numbers, weight: 0}]}\n",
        "x.yaml:3: rewards.functions: every function weighs 0, so nothing would be learnt; give one of them a weight",
    ),
    "no GPU has so little": (
        GOOD + "cluster: {gpu_overrides: {memory: 80}}\n",
        "x.yaml:3: cluster.gpu_overrides.memory: must be a number ≥ 1073741824 or null, not 80",
    ),
    "two prompt limits": (
        "model: {name_or_path: embedded}\n"
        "data:\n  name_or_path: x\n  max_prompt_length: 200\n  max_prompt_length_quantile: 0.9\n",
        "x.yaml:5: data.max_prompt_length_quantile: max_prompt_length is set already; remove one of the two",
    ),
    "embedded data with columns": (
        "model: {name_or_path: embedded}\ndata: {name_or_path: embedded, config: en, columns: {prompt: q}}\n",
        "x.yaml:2: data.config: the embedded data has no config; remove it\n"
        "x.yaml:2: data.columns: the embedded data has no columns; remove it",
    ),
    "temperature of no samples": (
        GOOD + "evaluation: {num_samples: 0, temperature: 1}\n",
        "x.yaml:3: evaluation.temperature: nothing is sampled with evaluation.num_samples 0; "
        "remove it, or set num_samples: 8",
    ),
    "no room": (
        "model: {name_or_path: embedded, max_length: 512}\ndata: {name_or_path: x, max_prompt_length: 200}\n",
        "x.yaml:1: model.max_length: 512 tokens do not hold data.max_prompt_length 200 and "
        "grpo.max_completion_length 512; set at least 712",
    ),
    "scheduler without its arguments": (
        GOOD + "grpo: {lr_scheduler_type: cosine_with_min_lr}\n",
        "x.yaml:3: grpo.lr_scheduler_type: cosine_with_min_lr needs min_lr_rate; "
        "add `lr_scheduler_kwargs: {min_lr_rate: 0.1}` beside it",
    ),
    "optimizer without its layers": (
        GOOD + "grpo: {optim: galore_adamw}\n",
        "x.yaml:3: grpo.optim: galore_adamw needs to know its layers; add `optim_target_modules: all-linear` beside it",
    ),
    "delta": (
        GOOD + "grpo: {delta: 1.1}\n",
        "x.yaml:3: grpo.delta: 1.1 clips inside the range epsilon leaves free; set more than 1.2",
    ),
    "groups replaced where a batch is normalized whole": (
        GOOD + "grpo: {max_num_gen_batches: 3, scale_rewards: batch, "
        "multi_objective_aggregation: normalize_then_sum}\n",
        "x.yaml:3: grpo.scale_rewards: cannot be batch with grpo.max_num_gen_batches above 1; set group or none\n"
        "x.yaml:3: grpo.multi_objective_aggregation: normalize_then_sum normalizes over a batch, of which "
        "grpo.max_num_gen_batches above 1 replaces groups; remove one",
    ),
    "importance sampling bounds": (
        GOOD + "grpo:\n  vllm_importance_sampling_mode: token_truncate\n  vllm_importance_sampling_clip_max: null\n",
        "x.yaml:4: grpo.vllm_importance_sampling_mode: token_truncate needs a bound to truncate at; "
        "set vllm_importance_sampling_clip_max: 3.0 beside it",
    ),
    "no bound left for the mode that stands when none is stated": (
        GOOD + "grpo: {vllm_importance_sampling_clip_max: null}\n",
        "x.yaml:3: grpo.vllm_importance_sampling_clip_max: null leaves token_truncate no bound to truncate at; "
        "set it to 3.0",
    ),
    "generation arguments": (
        GOOD + "grpo: {generation_kwargs: {max_new_tokens: 64}}\n",
        "x.yaml:3: grpo.generation_kwargs.max_new_tokens: set grpo.max_completion_length instead",
    ),
    "generation argument of nobody": (
        GOOD + "grpo: {generation_kwargs: {no_repeat_ngram: 3, min_tokens: 2}}\n",
        "x.yaml:3: grpo.generation_kwargs.no_repeat_ngram: Transformers has no such setting; "
        "did you mean no_repeat_ngram_size?\n"
        "x.yaml:3: grpo.generation_kwargs.min_tokens: Transformers, which generates here, calls it min_new_tokens; "
        "write that",
    ),
    "sections of null": (
        GOOD + "grpo: null\nrollout: ~\nevaluation: null\ncluster:\n",
        "x.yaml:3: grpo: a group of settings cannot be null; leave it out for defaults\n"
        "x.yaml:4: rollout: a group of settings cannot be null; leave it out for defaults\n"
        "x.yaml:5: evaluation: a group of settings cannot be null; leave it out for defaults, or switch it off: "
        "--set evaluation.enabled=false",
    ),
    "a setting that was removed": (
        GOOD + "evaluation: {bootstrap_samples: 100}\n",
        "x.yaml:3: evaluation.bootstrap_samples: was removed: intervals are computed by formula; remove it",
    ),
    "the same argument in another form": (
        GOOD + "grpo: {generation_kwargs: {bad_words: [foo]}}\n",
        "x.yaml:3: grpo.generation_kwargs.bad_words: Transformers, which generates here, calls it bad_words_ids and "
        "takes the token ids of each word, such as [[42, 7], [9]]; write that",
    ),
    "full fine-tuning": (
        "lora: null\n" + GOOD,
        "x.yaml:1: lora: null asks for full fine-tuning, and only adapters (LoRA) are trained, never all weights; "
        "leave it out for rank 32, or state another: --set lora.r=64",
    ),
    "full fine-tuning by a rank": (
        GOOD + "lora: {r: 0}\n",
        "x.yaml:3: lora.r: must be a whole number ≥ 1, not 0; only adapters (LoRA) are trained, never all weights",
    ),
    "full fine-tuning as elsewhere": (
        GOOD + "full_finetuning: true\n",
        "x.yaml:3: full_finetuning: not a setting here: only adapters (LoRA) are trained, never all weights; "
        "remove it (for an adapter that learns more set lora.r)",
    ),
    "callbacks": (
        GOOD + "grpo: {callbacks: [mine.py:Watch]}\n",
        "x.yaml:3: grpo.callbacks: not a setting here: callbacks of yours are not called; remove it (a reward function "
        "sees each step's completions, metrics.jsonl grows by a line a step, and tracking sends them on)",
    ),
    "a project without a tracker that has projects": (
        GOOD + "tracking: tensorboard\ngrpo: {project: mine}\n",
        "x.yaml:4: grpo.project: nothing reads it without trackio or wandb; set tracking: [trackio], or remove it",
    ),
    "arguments of a template without any": (
        GOOD + "grpo: {chat_template_kwargs: {enable_thinking: false}}\n",
        "x.yaml:3: grpo.chat_template_kwargs: the template `recipe` reads no arguments; "
        "set data.chat_template: tokenizer, or remove them",
    ),
    "bits as before Transformers 5": (
        "model: {name_or_path: embedded, model_init_kwargs: {load_in_8bit: true}}\n" + GOOD.splitlines()[1],
        "x.yaml:1: model.model_init_kwargs.load_in_8bit: not an argument of from_pretrained; "
        "write model_init_kwargs: {quantization_config: {load_in_4bit: true}}",
    ),
    "another weight for the engine than for training": (
        "model: {name_or_path: a/b, model_init_kwargs: {quantization_config: {load_in_4bit: true}}}\n"
        "data: {name_or_path: a/b}\nrollout: {backend: vllm}\n",
        "x.yaml:1: model.model_init_kwargs: vLLM would sample from the weights as they are stored; "
        "set rollout.backend: transformers, or name a model that is stored that way in model.name_or_path",
    ),
    "an adapter under lora": (
        GOOD + "lora: {adapter: runs/a}\n",
        "x.yaml:3: lora.adapter: unknown setting; did you mean model.adapter?",
    ),
    "no time to train": (
        GOOD + "grpo: {max_time: 0}\n",
        "x.yaml:3: grpo.max_time: must be text or null, not 0; put it in quotes: '0'",
    ),
    "workers": (
        GOOD + "grpo: {dataloader_persistent_workers: true}\n",
        "x.yaml:3: grpo.dataloader_persistent_workers: needs worker processes; "
        "set grpo.dataloader_num_workers, or remove it",
    ),
    "adapter on lm_head": (
        GOOD + "lora: {target_modules: [q_proj, lm_head]}\n",
        "x.yaml:3: lora.target_modules: TRL trains no adapter on lm_head; remove it from the list",
    ),
    "own argument of from_pretrained": (
        "model: {name_or_path: embedded, model_init_kwargs: {torch_dtype: auto}}\n" + GOOD.splitlines()[1],
        "x.yaml:1: model.model_init_kwargs.torch_dtype: set model.dtype instead",
    ),
    # all at once, in the order of the file
    "several": (
        "lora: {r: 0}\nmodel: {dtype: fp16}\ngrpo:\n  top_p: 2\n  bf16: true\n  seed: 1\n  seed: 2\n",
        "x.yaml:1: data: missing; add `data: {name_or_path: open-r1/DAPO-Math-17k-Processed, config: en}`\n"
        "x.yaml:1: lora.r: must be a whole number ≥ 1, not 0; only adapters (LoRA) are trained, never all weights\n"
        "x.yaml:2: model.name_or_path: missing; add `name_or_path: Qwen/Qwen3-4B-Base`\n"
        "x.yaml:2: model.dtype: must be one of bfloat16, float16, float32, not 'fp16'; did you mean float16?\n"
        "x.yaml:4: grpo.top_p: must be a number > 0 and ≤ 1, not 2\n"
        "x.yaml:5: grpo.bf16: not a setting here: follows from the model; set model.dtype\n"
        "x.yaml:7: grpo.seed: set twice, first in line 6; remove one",
    ),
}

OVERRIDES = {
    "no equals sign": (["grpo.seed"], "--set grpo.seed: no `=`; write --set grpo.seed=VALUE"),
    "no name": (["=3"], "--set =3: no setting is named; write --set grpo.seed=VALUE"),
    "no name between dots": (["grpo..seed=3"], "--set grpo..seed=3: no setting is named; write --set grpo.seed=VALUE"),
    "no value": (["grpo.seed="], "--set grpo.seed=: no value; write null for none, or '' for empty text"),
    "typo": (["grpo.sed=3"], "--set grpo.sed=3: unknown setting; did you mean grpo.seed?"),
    "wrong section": (["model.seed=3"], "--set model.seed=3: unknown setting; did you mean grpo.seed?"),
    "number for text": (
        ["cluster.partition=30"],
        "--set cluster.partition=30: must be text or null, not 30; write --set cluster.partition=\"'30'\"",
    ),
    "wrong value": (["grpo.seed=-3"], "--set grpo.seed=-3: must be a whole number ≥ 0, not -3"),
    "wrong value in a group": (
        ["grpo={top_p: 2, seed: x}"],
        "--set grpo={top_p: 2, seed: x}: grpo.top_p: must be a number > 0 and ≤ 1, not 2\n"
        "--set grpo={top_p: 2, seed: x}: grpo.seed: must be a whole number ≥ 0, not 'x'",
    ),
    "not YAML": (
        ["tracking=[wandb"],
        "--set tracking=[wandb: the `[` in line 1 is not closed; add `]`, or a comma between its entries",
    ),
    "no space after a colon": (
        ["data.columns={prompt:q}"],
        "--set data.columns={prompt:q}: data.columns.prompt:q: put a space after the colon: {prompt: q}",
    ),
    "infinite": (["grpo.beta=.inf"], "--set grpo.beta=.inf: must be an ordinary number, not .inf"),
    "text for a section": (
        ["model=embedded"],
        "--set model=embedded: must be a group of settings, not 'embedded'; set model.name_or_path instead",
    ),
    "through a number": (["lora.r.x=1"], "--set lora.r.x=1: lora.r is 32, and has no settings inside"),
    "through text": (
        ["model.name_or_path.x=1"],
        "--set model.name_or_path.x=1: model.name_or_path is 'embedded', and has no settings inside",
    ),
    "entry there is not": (
        ["rewards.functions.1.weight=2"],
        "--set rewards.functions.1.weight=2: rewards.functions has one entry, 0; "
        "the whole list is set with rewards.functions=[a, b]",
    ),
    "entry with a name": (
        ["lora.target_modules.last=x"],
        "--set lora.target_modules.last=x: lora.target_modules has entries 0 to 6; "
        "the whole list is set with lora.target_modules=[a, b]",
    ),
    "half a section": (
        ["warm_start.max_steps=3"],
        "--set warm_start.max_steps=3: warm_start.data: missing; add `data: {name_or_path: examples.jsonl}`",
    ),
    "control character": (
        ["tracking=\x07"],
        "--set tracking=\\x07: the character U+0007 cannot be part of a configuration; remove it",
    ),
    "several": (
        ["grpo.seed=x", "lora.r=8", "tracking"],
        "--set grpo.seed=x: must be a whole number ≥ 0, not 'x'\n--set tracking: no `=`; write --set tracking=VALUE",
    ),
}


@pytest.fixture(autouse=True)
def inside_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def message(*arguments) -> str:
    with pytest.raises(ConfigError) as raised:
        load_config(*arguments)
    assert raised.value.exit_code == 2
    return str(raised.value)


@pytest.mark.parametrize(("text", "lines"), FILES.values(), ids=FILES)
def test_broken_file(text, lines, tmp_path):
    (tmp_path / "x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message("x.yaml") == lines


@pytest.mark.parametrize(("overrides", "lines"), OVERRIDES.values(), ids=OVERRIDES)
def test_broken_override(overrides, lines, tmp_path):
    (tmp_path / "x.yaml").write_text(GOOD)
    assert message("x.yaml", overrides) == lines


def test_override_of_what_is_wrong_in_the_file_mends_it(tmp_path):
    (tmp_path / "x.yaml").write_text(GOOD + "grpo: {seed: x}\nlora: {r: x}\n")
    assert message("x.yaml", ["grpo.seed=1"]) == "x.yaml:4: lora.r: must be a whole number ≥ 1, not 'x'"


class TestPath:
    def test_missing(self):
        assert message("x.yaml") == "x.yaml: there is no such file; write the path of a YAML file"

    def test_missing_beside_others(self, tmp_path):
        for name in ("tiny-cpu.yaml", "gsm8k.yaml"):
            (tmp_path / name).touch()
        assert message("tiny-gpu.yaml") == "tiny-gpu.yaml: there is no such file; did you mean tiny-cpu.yaml?"
        assert message("x.yaml") == "x.yaml: there is no such file; there is gsm8k.yaml, tiny-cpu.yaml"

    def test_missing_but_in_configs(self, tmp_path):
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / "tiny-cpu.yaml").touch()
        assert message("tiny-cpu") == "tiny-cpu: there is no such file; did you mean configs/tiny-cpu.yaml?"

    def test_directory(self, tmp_path):
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / "a.yaml").touch()
        assert message("configs") == "configs: a directory, not a file; there is configs/a.yaml"

    def test_nothing(self):
        assert message("") == ".: a directory, not a file; write the path of a YAML file"

    def test_inside_a_file(self, tmp_path):
        (tmp_path / "a").touch()
        assert message("a/x.yaml") == "a/x.yaml: the file cannot be read: not a directory"

    def test_impossible_name(self):
        assert message("a\0b") == "a\\x00b: no file has such a name"

    def test_unreadable(self, tmp_path):
        (tmp_path / "x.yaml").symlink_to("x.yaml")
        assert message("x.yaml") == "x.yaml: the file cannot be read: too many levels of symbolic links"
