"""The controls of an explorer: each has finitely many positions, so that all can be tested."""

from collections.abc import Sequence
from dataclasses import dataclass

import ipywidgets as widgets

Number = int | float  # the type checker of the tests tells them apart


@dataclass(frozen=True)
class Slider:
    """A control over low, low + step, ..., high; `meaning` tells the reader what it changes."""

    low: Number
    high: Number
    step: Number
    start: Number
    meaning: str = ""

    def __post_init__(self):
        if not (self.step > 0 and self.low < self.high):
            raise ValueError(f"a slider needs low < high and step > 0, got {self}")
        if not self.low <= self.start <= self.high:
            raise ValueError(f"a slider's start must lie in [low, high], got {self}")

    @property
    def positions(self) -> list[Number]:
        count = round((self.high - self.low) / self.step)
        return [round(self.low + k * self.step, 10) for k in range(count + 1)]

    @property
    def span(self) -> str:
        return f"from {self.low:g} to {self.high:g} in steps of {self.step:g}"

    def nearest(self, value) -> Number:
        if not self.low - 1e-9 <= value <= self.high + 1e-9:
            raise ValueError(f"must lie in [{self.low:g}, {self.high:g}], got {value}")
        return min(self.positions, key=lambda position: abs(position - value))

    @property
    def decimals(self) -> int:
        return len(f"{self.step:.2g}".partition(".")[2])

    def label(self, value: Number) -> str:
        return f"{value:.{self.decimals}f}"

    def widget(self, name: str) -> widgets.FloatSlider:
        return widgets.FloatSlider(
            self.nearest(self.start),
            min=self.low,
            max=self.high,
            step=self.step,
            readout_format=f".{self.decimals}f",
            description=name,
            tooltip=self.meaning or name,
        )


@dataclass(frozen=True)
class Choice:
    """A control over given options: buttons when they are words, a slider when they are numbers."""

    options: Sequence
    start: object = None  # the first option
    meaning: str = ""

    def __post_init__(self):
        if len(self.options) < 2:
            raise ValueError(f"a choice needs two options or more, got {list(self.options)}")
        if self.start is not None and self.start not in self.options:
            raise ValueError(f"a choice's start must be {self.span}, got {self.start!r}")

    @property
    def positions(self) -> list:
        return list(self.options)

    @property
    def span(self) -> str:
        return "one of " + ", ".join(map(str, self.options))

    def nearest(self, value):
        if value not in self.options:
            raise ValueError(f"must be {self.span}, got {value!r}")
        return value

    def label(self, value) -> str:
        return str(value)

    def widget(self, name: str) -> widgets.ToggleButtons | widgets.SelectionSlider:
        words = all(isinstance(option, str) for option in self.options)
        kind = widgets.ToggleButtons if words else widgets.SelectionSlider
        start = self.options[0] if self.start is None else self.start
        tooltip = self.meaning or name
        return kind(options=self.positions, value=start, description=name, tooltip=tooltip)


def as_control(key: str, spec) -> Slider | Choice:
    """Read the short forms (low, high, step, start) and [options]; ValueError for anything else."""
    if isinstance(spec, Slider | Choice):
        return spec
    if isinstance(spec, tuple) and len(spec) == 4:
        return Slider(*spec)
    if isinstance(spec, list):
        return Choice(spec)
    raise ValueError(
        f"control {key!r} must be a Slider, a Choice, (low, high, step, start) or [options], "
        f"got {spec!r}"
    )
