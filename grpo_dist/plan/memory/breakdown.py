"""The result: named components in bytes, each with where its number comes from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Component(NamedTuple):
    name: str
    bytes: int
    source: str
    """The formula, with its numbers, or where an estimate was measured."""


@dataclass(frozen=True)
class Phase:
    """A part of a step and what it adds to what is always there."""

    name: str
    components: tuple[Component, ...]

    @property
    def total(self) -> int:
        return sum(component.bytes for component in self.components)


@dataclass(frozen=True)
class MemoryBreakdown:
    """Memory of one GPU in one role, in bytes."""

    role: str
    resident: tuple[Component, ...]
    """Held from start to end."""
    phases: tuple[Phase, ...]
    """Only one of them is there at a time."""

    @property
    def peak_phase(self) -> Phase:
        return max(self.phases, key=lambda phase: phase.total)

    @property
    def components(self) -> tuple[Component, ...]:
        """What is held at the peak."""
        return self.resident + self.peak_phase.components

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(component.bytes for component in self.components)

    def fits(self, gpu_bytes: int) -> bool:
        return self.total <= gpu_bytes

    def largest(self) -> Component:
        """The component to look at first when it does not fit."""
        return max(self.components, key=lambda component: component.bytes)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        resident = sum(component.bytes for component in self.resident)
        return {
            "role": self.role,
            "total_bytes": self.total,
            "peak_phase": self.peak_phase.name,
            "phase_bytes": {phase.name: resident + phase.total for phase in self.phases},
            "components": [component._asdict() for component in self.components],
        }


def without_zeros(components: Iterable[Component]) -> tuple[Component, ...]:
    return tuple(component for component in components if component.bytes)
