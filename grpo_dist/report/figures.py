"""Which charts the page has, and their captions."""

from __future__ import annotations

from dataclasses import dataclass, replace

from grpo_dist.report import charts, summary
from grpo_dist.report.charts import LineChart, Trace
from grpo_dist.report.numbers import Values, column, number, percent, present
from grpo_dist.report.record import Comparison, Metrics

WIDE = 1020.0
"""Units of a chart across both columns, so that its text is as large as that of the others."""


@dataclass(frozen=True)
class Figure:
    """A chart as the page shows it; `svg` is empty when nothing was logged."""

    title: str
    svg: str = ""
    wide: bool = False
    """Spans both columns in a two-column layout."""
    wide_svg: str = ""
    """The chart for both columns; phones show `svg` instead."""
    note: str = ""
    legend: tuple[str, ...] = ()
    """Labels of the traces, in the order of their colours; empty for a single one."""
    reading: str = ""
    """The most important numbers."""


@dataclass(frozen=True)
class Log:
    """The metrics of a run, column by column."""

    metrics: tuple[Metrics, ...]
    num_iterations: int = 1
    """Optimizer steps per generation."""

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(record["step"] for record in self.metrics)

    def values(self, key: str) -> Values:
        return column(self.metrics, key)

    def trace(self, label: str, key: str) -> Trace:
        return Trace(label, self.values(key))

    def reward_names(self) -> list[str]:
        """Reward functions, in the order they were logged."""
        keys = dict.fromkeys(key for record in self.metrics for key in record)
        return [
            key[len("rewards/") : -len("/mean")] for key in keys if key.startswith("rewards/") and key.endswith("/mean")
        ]


def comparison_figure(comparison: Comparison) -> Figure:
    """Greedy accuracy, mean@k and pass@k of both models."""
    k = comparison.k
    pairs = tuple(charts.Pair(one.label, one.base, one.trained) for one in comparison.measures)
    note = f"Problems answered correctly. Lines: {percent(comparison.confidence, 0)} intervals."
    if len(pairs) > 1:
        note += f" mean@{k}: share of correct samples; pass@{k}: any of {k} samples is correct."
    return Figure("Base and trained model", charts.draw_intervals("Problems answered correctly", pairs), note=note)


def reward_figures(log: Log) -> list[Figure]:
    """The total, then each function when there is more than one."""
    names = log.reward_names()
    only = f"One function: {names[0]}. " if len(names) == 1 else ""
    note = f"{only}Band: ± one standard deviation over the completions of a step."
    total = LineChart("Reward", log.steps, (_with_deviation(log, "total", "reward", "reward_std"),), note=note)
    return _drawn([total, *(_part(log, name) for name in names if len(names) > 1)])


def completion_figures(log: Log) -> list[Figure]:
    """Lengths, completions cut off, groups without a learning signal, and their replacements if there were any."""
    low, high = log.values("completions/min_length"), log.values("completions/max_length")
    length = Trace("mean", log.values("completions/mean_length"), low, high)
    same = "All completions of such a group have the same reward: it gives no gradient."
    return _drawn(
        [
            LineChart("Completion length, tokens", log.steps, (length,), (0.0,), note="Band: shortest to longest."),
            _share(log, "Completions cut at the length limit", "completions/clipped_ratio"),
            replace(_share(log, "Groups without reward deviation", "frac_reward_zero_std"), note=same),
            *_with_values(_dynamic_sampling(log)),
        ]
    )


def speed_figures(log: Log) -> list[Figure]:
    """Where the time went; metrics that depend on version and backend only if they were logged."""
    tokens = (
        log.trace("prompt and completion", "perf/tokens_per_second"),
        log.trace("completion only", "perf/completion_tokens_per_second"),
        *_logged(log.trace("prompt only", "perf/prompt_tokens_per_second")),
    )
    throughput = LineChart("Tokens per second", log.steps, tokens, (0.0,), note="Training time included.")
    return _drawn([*_with_values(_seconds(log)), throughput, *_with_values(_utilisation(log))])


def optimisation_figures(log: Log) -> list[Figure]:
    """Optimizer metrics; those that depend on the configuration only if they were logged."""
    optional = _with_values(
        _single(log, "Loss", "loss"),
        _clipped(log),
        _single(log, "Entropy, nats per token", "entropy", bounds=(0.0,)),
        _single(log, "KL to the reference model, nats per token", "kl"),
        _sampler_difference(log),
        _correction(log),
    )
    rate = _single(log, "Learning rate", "learning_rate", bounds=(0.0,))
    return _drawn(
        [
            *optional,
            replace(rate, noisy=False, note="As logged, not smoothed."),
            _single(log, "Gradient norm", "grad_norm", bounds=(0.0,)),
        ]
    )


def _dynamic_sampling(log: Log) -> LineChart:
    traces = _logged(
        log.trace("groups drawn", "sampling/groups_drawn"),
        log.trace("groups kept", "sampling/groups_kept"),
        log.trace("generation batches", "sampling/generation_batches"),
    )
    note = "Kept: groups whose rewards differ, as many as a step has places for."
    return LineChart("Groups drawn per generation", log.steps, traces, (0.0,), note=note)


def _seconds(log: Log) -> LineChart:
    """Empty unless generation was timed. Where it runs beside training, only waiting for it is part of a step."""
    overlaps = any(present(log.values(summary.STALENESS)))
    waiting = summary.WAIT if overlaps else summary.GENERATION
    generation, sync = (
        summary.per_step(log.values(key), log.steps, log.num_iterations) for key in (waiting, summary.SYNC)
    )
    if not present(generation):
        return LineChart("Seconds per step", log.steps, ())
    left = summary.rest(log.values("step_time"), generation, sync)
    label = "waiting for completions" if overlaps else "generation"
    traces = _logged(Trace(label, generation), Trace("policy sync", sync), Trace("rest", left))
    note = "Rest: training, rewards and what else a step does."
    return LineChart("Seconds per step", log.steps, traces, (0.0,), note=note)


def _utilisation(log: Log) -> LineChart:
    traces = _logged(log.trace("servers at work", summary.UTILIZATION), log.trace("training idle", summary.IDLE))
    note = "Shares of the time; training is idle while it waits for completions and policy syncs."
    return LineChart("Utilisation", log.steps, traces, (0.0, 1.0), as_percent=True, note=note)


def _sampler_difference(log: Log) -> LineChart:
    """On a logarithmic axis, because mean and maximum are orders of magnitude apart; linear if any is zero."""
    traces = _logged(
        log.trace("mean", f"{summary.DIFFERENCE}/mean"),
        log.trace("largest", f"{summary.DIFFERENCE}/max"),
        log.trace("canary", summary.CANARY),
    )
    positive = all(value > 0 for trace in traces for value in present(trace.values))
    note = "Log-probabilities of sampled tokens, size of the difference."
    if any(trace.label == "canary" for trace in traces):
        note += " Canary: mean over its few texts, of the engine that is furthest off."
    title = "Sampler against trainer, nats per token"
    return LineChart(title, log.steps, traces, () if positive else (0.0,), log=positive, note=note)


def _correction(log: Log) -> LineChart:
    traces = _logged(
        log.trace("effective sample", summary.EFFECTIVE_SAMPLE),
        log.trace("completions weighed below 0.1", summary.LOW_WEIGHT),
    )
    note = "What importance-sampling correction leaves: 100 % when all weights are equal."
    return LineChart("Effective sample", log.steps, traces, (0.0, 1.0), as_percent=True, note=note)


def _clipped(log: Log) -> LineChart:
    """How often the policy ratio leaves its range; always 0 with one optimizer step per generation."""
    traces = _logged(
        log.trace("above or below", "clip_ratio/region_mean"),
        log.trace("above", "clip_ratio/high_mean"),
        log.trace("below", "clip_ratio/low_mean"),
    )
    note = "Share of tokens whose policy ratio is clipped; 0 with one optimizer step per generation."
    return LineChart("Tokens clipped by the policy ratio", log.steps, traces, (0.0, 0.01), as_percent=True, note=note)


def _logged(*traces: Trace) -> tuple[Trace, ...]:
    return tuple(trace for trace in traces if present(trace.values))


def _with_values(*charts: LineChart) -> list[LineChart]:
    return [chart for chart in charts if chart.has_values]


def _with_deviation(log: Log, label: str, mean: str, deviation: str) -> Trace:
    pairs = list(zip(log.values(mean), log.values(deviation), strict=True))
    low, high = (tuple(None if m is None or s is None else m + sign * s for m, s in pairs) for sign in (-1, 1))
    return Trace(label, log.values(mean), low, high)


def _part(log: Log, name: str) -> LineChart:
    trace = _with_deviation(log, name, f"rewards/{name}/mean", f"rewards/{name}/std")
    return LineChart(name, log.steps, (trace,), note="Before its weight. Band: ± one standard deviation.")


def _share(log: Log, title: str, key: str) -> LineChart:
    return LineChart(title, log.steps, (log.trace("share", key),), (0.0, 0.1), as_percent=True)


def _single(log: Log, title: str, key: str, bounds: tuple[float, ...] = ()) -> LineChart:
    return LineChart(title, log.steps, (log.trace("value", key),), bounds)


def _drawn(charts: list[LineChart]) -> list[Figure]:
    """Figures for two columns; if their number is odd, the first spans both."""
    return [_figure(chart, wide=index == 0 and len(charts) % 2 == 1) for index, chart in enumerate(charts)]


def _figure(chart: LineChart, *, wide: bool) -> Figure:
    if not chart.has_values:
        return Figure(chart.title, note="No value has been logged.", wide=wide)
    return Figure(
        title=chart.title,
        svg=charts.draw(chart),
        wide_svg=charts.draw(chart, WIDE) if wide else "",
        wide=wide,
        note=chart.note,
        legend=tuple(trace.label for trace in chart.traces) if len(chart.traces) > 1 else (),
        reading=_reading(chart),
    )


def _reading(chart: LineChart) -> str:
    """First and last value of the first trace that has any."""
    write = percent if chart.as_percent else number
    values = next(found for trace in chart.traces if (found := present(trace.values)))
    return f"{write(values[0])} → {write(values[-1])}" if len(values) > 1 else write(values[0])
