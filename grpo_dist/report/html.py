"""The report as one self-contained HTML page: no script, no font, no picture, no network.

Prepares words and numbers for the template. Long texts are shortened so that the page stays below 2 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from grpo_dist.errors import ReportError
from grpo_dist.report import charts, figures
from grpo_dist.report.numbers import (
    MINUS,
    NOTHING,
    change,
    column,
    data_size,
    duration,
    ends,
    number,
    percent,
    points,
    present,
    smoothing_window,
)
from grpo_dist.report.record import Attempt, Comparison, Flip, Measure, Problem, RunRecord
from grpo_dist.report.samples import JUDGES, Sample, Samples, StepSamples, read_samples, words
from grpo_dist.report.summary import generated_by, hardware_summary, summary
from grpo_dist.run.directory import RunDirectory, write_atomically
from grpo_dist.text import plural

NONE_RIGHT = (
    "No answer of either model was judged right. If they look right to you, evaluation.scorer ({scorer}) cannot read "
    "them: `grpo-dist compare base RUN --set evaluation.scorer=FILE.py:FUNCTION` judges again with another one."
)
LONG, SHORT, LABEL = 1200, 200, 120
"""Most characters of a completion shown in detail, of one in the list of all problems, and of a prompt there."""
PROBLEMS_SHOWN = 300
CONFIG_SHOWN = 20_000


@dataclass(frozen=True)
class Fact:
    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """The headline of the page; `before` is empty when there is only one number."""

    measure: str
    before: str
    after: str
    verdict: str


@dataclass(frozen=True)
class Answer:
    """A completion with its label."""

    label: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Exchange:
    """A prompt with its completions."""

    prompt: str
    note: str
    answers: tuple[Answer, ...]
    about: str = ""


@dataclass(frozen=True)
class ProblemRow:
    """A line of the list of all problems; `outcome` is gained, lost, right or wrong."""

    index: int
    outcome: str
    prompt: str
    answer: str
    marks: tuple[tuple[str, bool, str], ...]
    """(model, whether its greedy answer is correct, correct samples of k or nothing)"""
    answers: tuple[Answer, ...]


def headline(record: RunRecord) -> Headline:
    """Accuracy when the models were compared, else the reward."""
    comparison = record.comparison
    if comparison:
        measure = f"Greedy accuracy on {comparison.counted}"
        before, after = comparison.base.greedy_accuracy.estimate, comparison.trained.greedy_accuracy.estimate
        return Headline(measure, percent(before), percent(after), verdict(comparison))
    logged = column(record.metrics, "reward")
    if len(present(logged)) < 2:
        only = number(ends(logged)[1]) if present(logged) else "none yet"
        return Headline("Reward", "", only, record.without_comparison)
    before, after = ends(logged)
    measure = "Mean reward, first and last tenth of the steps"
    return Headline(measure, number(before), number(after), record.without_comparison)


def verdict(comparison: Comparison) -> str:
    """The paired difference of greedy answers in words, and the samples' result if it differs."""
    greedy, *sampled = comparison.accuracies
    gap, level = comparison.difference, percent(comparison.confidence, 0)
    found = f"{points(gap.estimate)} percentage points, {level} interval {points(gap.low)} to {points(gap.high)}."
    told = [one for one in sampled if one.sign not in (0, greedy.sign)]
    others = " and ".join(f"{one.label} is {'higher' if one.sign > 0 else 'lower'}: {_gap(one)}" for one in told)
    if comparison.none_right:
        return f"{found} {NONE_RIGHT.format(scorer=comparison.scorer)}"
    if greedy.sign:
        said = f"{found} The trained model is {'better' if greedy.sign > 0 else 'worse'}"
        return f"{said}, but {others}." if told else f"{said}."
    if told:
        return f"{found} The interval includes zero, but {others}."
    return f"{found} The interval includes zero: no difference is shown."


def _gap(measure: Measure) -> str:
    """A difference with its interval; with the intervals of both models if it has none of its own."""
    own = measure.difference
    span = f" ({points(own.low)} to {points(own.high)})" if own else ""
    return f"{points(measure.moved)}{span}"


def facts(record: RunRecord) -> list[Fact]:
    """The figures beside the headline."""
    known = summary(record)
    reward, planned = known["reward"], known["max_steps"]
    seconds, speed = known["training_seconds"], known["tokens_per_second"]
    shown = [
        Fact("Steps", f"{known['steps']:,}", f"of {planned:,}" if planned else ""),
        Fact("Completions/step", *_batch(record)),
        Fact("Reward", change(reward["first"], reward["last"]), "first, last tenth"),
        Fact("Training time", duration(seconds) if seconds is not None else NOTHING, "generation included"),
        Fact("Speed", f"{number(speed)} tok/s" if speed is not None else NOTHING, "median of the steps"),
        Fact("Ran on", *_layout(record)),
        *_rollouts(known),
    ]
    if comparison := record.comparison:
        gained, lost = f"+{comparison.gained:,}", f"{MINUS}{comparison.lost:,}"
        shown.insert(0, Fact("Problems flipped", f"{gained} {lost}", "gained, lost"))
    return shown


def flips(found: tuple[Flip, ...]) -> list[Exchange]:
    """Problems gained or lost, with both completions."""
    return [
        Exchange(
            cut(words(flip.prompt), LONG),
            f"answer {cut(flip.answer, LABEL)}",
            (Answer("base", cut(flip.base, LONG)), Answer("trained", cut(flip.trained, LONG))),
        )
        for flip in found
    ]


def samples(found: Samples) -> list[Exchange]:
    """One exchange per step; each completion's note carries its rewards. Only the best and the worst are shown at
    length."""
    return [
        Exchange(
            cut(words(step.prompt), LONG),
            f"Step {step.step:,}",
            tuple(
                _answer(sample, LONG if place in (0, len(step.samples) - 1) else SHORT)
                for place, sample in enumerate(step.samples)
            ),
            " · ".join(_of_group(step)),
        )
        for step in found.steps
    ]


def _of_group(step: StepSamples) -> Iterator[str]:
    if step.gold:
        yield f"answer {cut(step.gold, LABEL)}"
    if step.right is not None:
        yield f"{step.right} of {step.size} right"
    advantages = present([sample.advantage for sample in step.samples])
    if advantages:
        low, high = number(min(advantages)), number(max(advantages))
        yield f"advantages {low} to {high}" if low != high else "all rewarded alike: nothing is learnt from it"
    if step.size > len(step.samples):
        yield f"{len(step.samples)} of {step.size} completions shown"


def _judges(record: RunRecord) -> dict[str, float]:
    """The scorer of the comparison where it is also a reward, then the rewards that compare answers."""
    name, threshold = record.stated("evaluation.scorer.name"), record.stated("evaluation.threshold")
    if not isinstance(name, str) or not isinstance(threshold, int | float):
        return JUDGES
    return {name.rpartition(":")[2]: threshold, **JUDGES}


WARNING = "warning: "
WARNINGS_SHOWN = 20


def warnings_of(record: RunRecord) -> list[Fact]:
    """What the reward preflight found, what the plan warned of, and what the processes warned of while they ran."""
    shown = [Fact("rewards", f"{one['what']}", str(one.get("hint") or "")) for one in _preflight(record)]
    planned = record.planned("warnings")
    shown += [Fact("plan", str(one)) for one in (planned if isinstance(planned, list) else ())]
    shown += [Fact("training", one) for one in _printed_warnings(record.path)]
    return list(dict.fromkeys(shown))[:WARNINGS_SHOWN]


def _preflight(record: RunRecord) -> Iterator[Mapping[str, Any]]:
    found = record.preflight.get("findings")
    for one in found if isinstance(found, list) else ():
        if isinstance(one, Mapping) and one.get("status") in ("warning", "error") and one.get("what"):
            yield one


def _printed_warnings(path: Path) -> Iterator[str]:
    for attempt in RunDirectory(path).attempts():
        log = attempt / "train.log"
        try:
            with open(log, encoding="utf-8", errors="replace") as lines:
                yield from (cut(line.strip().removeprefix(WARNING), LONG) for line in lines if line.startswith(WARNING))
        except OSError:
            continue


def problem_rows(comparison: Comparison) -> list[ProblemRow]:
    """The first problems of the comparison."""
    return [_row(problem, comparison.k) for problem in comparison.per_problem[:PROBLEMS_SHOWN]]


def outcomes(comparison: Comparison) -> dict[str, int]:
    """Problems of each outcome, counting all, not just those shown."""
    found = dict.fromkeys(("gained", "lost", "right", "wrong"), 0)
    for problem in comparison.per_problem:
        found[_outcome(problem)] += 1
    return found


def environment_facts(record: RunRecord) -> tuple[list[Fact], list[Fact]]:
    """The hardware of the run, and its packages."""
    packages = record.environment.get("packages")
    found = {key: value for key, value in record.environment.items() if key != "packages"}
    rest = {NAMES.get(key, key.replace("_", " ")): value for key, value in found.items()}
    return _listed(rest), _listed(packages if isinstance(packages, Mapping) else {})


def preparation(record: RunRecord) -> list[Fact]:
    """How the data was used: the numbers and notes of prepared.json."""
    return _listed({NAMES.get(key, key.replace("_", " ")): value for key, value in record.prepared.items()})


def cut(text: str, limit: int) -> str:
    """At most `limit` characters; the middle is omitted, because a completion has its answer at the end."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail]} … {len(text) - limit:,} characters … {text[-tail:]}"


def _batch(record: RunRecord) -> tuple[str, str]:
    prompts, group = record.planned("batch.prompts_per_step"), record.planned("batch.num_generations")
    if not prompts or not group:
        return NOTHING, ""
    return f"{prompts * group:,}", f"{plural(prompts, 'prompt')} × {group}"


def _layout(record: RunRecord) -> tuple[str, str]:
    size, *shared = hardware_summary(record) or (NOTHING,)
    return size, " · ".join(shared)


def _rollouts(known: Mapping[str, Any]) -> Iterator[Fact]:
    found = known["rollouts"]
    seconds, sync, sent = (found[name] for name in ("generation_seconds", "sync_seconds", "sync_bytes"))
    utilization, difference = found["replica_utilization"], found["sampling_logp_difference_max"]
    if seconds is not None:
        yield Fact("Generation", f"{number(seconds)} s", f"median; {generated_by(known)}")
    if found["staleness"]:
        behind = plural(round(found["staleness"]), "step")
        yield Fact("Waiting", f"{number(found['wait_seconds'])} s", f"median; policies at most {behind} old")
    if sync is not None:
        yield Fact("Policy sync", f"{number(sync)} s", f"{data_size(sent)}, medians")
    if utilization is not None:
        yield Fact("Utilisation", percent(utilization, 0), "of the servers, mean")
    if seconds is not None and difference is not None:
        yield Fact("Sampler off by", number(difference), "nats, largest of a token")


def _answer(sample: Sample, limit: int) -> Answer:
    rewards = " · ".join(f"{name} {number(value)}" for name, value in sample.rewards.items())
    policy = "" if sample.policy is None else f" · policy {sample.policy:,.0f}"
    return Answer(f"advantage {number(sample.advantage)}{policy}", cut(words(sample.completion), limit), rewards)


def _row(problem: Problem, k: int) -> ProblemRow:
    attempts = (("base", problem.base), ("trained", problem.trained))
    return ProblemRow(
        index=problem.index,
        outcome=_outcome(problem),
        prompt=cut(words(problem.prompt), LABEL),
        answer=cut(problem.answer, LABEL),
        marks=tuple((who, attempt.greedy_correct, _sampled(attempt, k)) for who, attempt in attempts),
        answers=tuple(Answer(who, cut(attempt.greedy, SHORT)) for who, attempt in attempts),
    )


def _sampled(attempt: Attempt, k: int) -> str:
    return "" if attempt.samples_correct is None else f"{attempt.samples_correct}/{k}"


def _outcome(problem: Problem) -> str:
    before, after = problem.base.greedy_correct, problem.trained.greedy_correct
    if before == after:
        return "right" if after else "wrong"
    return "gained" if after else "lost"


def _listed(mapping: Mapping[str, Any]) -> list[Fact]:
    return [Fact(str(key), cut(_plain(value), LONG)) for key, value in mapping.items()]


def _plain(value: Any) -> str:
    """A JSON value in readable form."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(inner) for inner in value) or "none"
    return NOTHING if value is None else str(value)


def render_html(record: RunRecord) -> str:
    """The whole page. The same run directory gives the same bytes; completions are read from it here."""
    return _environment().get_template("report.html").render(**_holes(record))


def write_html(record: RunRecord) -> Path:
    """Write `report.html` into the run directory; a reader sees either the old page or the new one.

    Raises:
        ReportError: the directory cannot be written.
    """
    path = RunDirectory(record.path).report
    try:
        # Text from a model can contain a lone surrogate, which UTF-8 cannot encode.
        write_atomically(path, render_html(record).encode("utf-8", "replace").decode("utf-8"))
    except OSError as error:
        raise ReportError(
            f"{path}: cannot be written ({error.strerror})", hint=f"make {record.path} writable, or copy the run"
        ) from error
    return path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("grpo_dist.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, percent=percent, points=points)
    return environment


def _holes(record: RunRecord) -> dict[str, Any]:
    """The variables of the template."""
    environment, packages = environment_facts(record)
    found = read_samples(record.path, _judges(record))
    shown = facts(record)
    return {
        "record": record,
        "state": record.progress,
        "headline": headline(record),
        "facts": shown,
        "columns": _columns(len(shown)),
        "warnings": warnings_of(record),
        **_comparison(record),
        **_training(record),
        "samples": samples(found),
        "no_samples": found.missing,
        "config": cut(record.config_text, CONFIG_SHOWN),
        "environment": environment,
        "packages": packages,
        "preparation": preparation(record),
    }


def _columns(tiles: int) -> tuple[int, int]:
    """Columns on a wide and on a medium page, so that the last row is as full as it can be."""

    def fullest(*counts: int) -> int:
        return min(counts, key=lambda count: -tiles % count)

    return fullest(6, 5, 4), fullest(4, 3)


NAMES = {
    "cpu_count": "CPU cores",
    "git": "Git commit",
    "gpus": "GPUs",
    "grpo_dist": "grpo-dist",
    "python": "Python",
    "backend": "trained by",
    "train": "problems to train on",
    "heldout": "held-out problems",
    "leaked": "left out, as they are held out",
}
"""Key of environment.json or prepared.json → what the page calls it."""


def _comparison(record: RunRecord) -> dict[str, Any]:
    found = record.comparison
    if not found:
        return {"comparison": None}
    return {
        "comparison": found,
        "comparison_figure": figures.comparison_figure(found),
        "gained": flips(found.gained_examples),
        "lost": flips(found.lost_examples),
        "problems": problem_rows(found),
        "outcomes": outcomes(found),
    }


def _training(record: RunRecord) -> dict[str, Any]:
    log = figures.Log(record.metrics, record.num_iterations)
    if not record.metrics:
        return {"figures": {}, "window": 1, "thinned": False}
    return {
        "figures": {
            "Reward": figures.reward_figures(log),
            "Completions": figures.completion_figures(log),
            "Speed": figures.speed_figures(log),
            "Optimisation": figures.optimisation_figures(log),
        },
        "window": smoothing_window(len(record.metrics)),
        "thinned": len(record.metrics) > charts.DOTS,
    }
