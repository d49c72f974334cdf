"""How a long run shows what it does: a bar on a terminal, lines in a log, JSON for machines."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .text import complain, or_silence

if TYPE_CHECKING:
    from tqdm import tqdm

# Phase, tensor, weights that are done, of how many; and whether an earlier run did them.
Show = Callable[[str, str, int, int, bool], None]

QUIET_SECONDS = 10.0  # without a line, at the beginning of a run and between two
NAME_SHOWN = 40


@contextlib.contextmanager
def showing(style: str) -> Iterator[Show]:
    """A function to be told of progress, which shows it on standard error.

    *style* is "bar", "lines", "json", "none", or "auto": a bar on a terminal, else lines. Where
    that cannot be written, the work goes on in silence.
    """
    if sys.stderr is None:
        style = "none"
    elif style == "auto":
        style = "bar" if sys.stderr.isatty() else "lines"
    show = {"bar": Bars, "lines": Lines, "json": Json, "none": Nothing}[style]()
    try:
        yield show
    finally:
        show.close()


@contextlib.contextmanager
def bar_on_terminal(phase: str, total: int, unit: str = "weight") -> Iterator[Callable[[str, int], None]]:
    """A function to be told of a tensor and how many *unit*s of it are done: a bar on a terminal only."""
    show = Bars(unit) if sys.stderr and sys.stderr.isatty() else Nothing()
    try:
        yield lambda name, count: show(phase, name, count, total, False)
    finally:
        show.close()


class Nothing:
    """Says nothing."""

    def __call__(self, phase: str, name: str, weights: int, total: int, earlier: bool) -> None:
        """Take no note."""

    def close(self) -> None:
        """Nothing is open."""


class Bars(Nothing):
    """A bar for each phase, with the rate, the time left and the tensor."""

    def __init__(self, unit: str = "weight") -> None:
        self._unit = unit
        self._bar: tqdm[Any] | None = None
        self._phase = ""

    def __call__(self, phase: str, name: str, weights: int, total: int, earlier: bool) -> None:
        """Advance the bar of *phase*."""
        from tqdm import tqdm  # here: it takes a seventh of the time that the command needs to start

        with or_silence():
            if self._bar is None or phase != self._phase:
                self.close()
                self._bar = tqdm(total=total, unit=self._unit, unit_scale=True, desc=phase, leave=False)
                self._phase = phase
            self._bar.set_postfix_str(name[-NAME_SHOWN:], refresh=False)
            self._bar.initial += weights * earlier  # which the rate leaves out
            self._bar.update(weights)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            with or_silence():
                self._bar.close()
        self._bar = None


class Counted(Nothing):
    """Counts the weights of a phase, and times it."""

    def __init__(self) -> None:
        self._phase, self._done, self._earlier = "", 0, 0
        self._began = self._last = self._spoke = time.monotonic()

    def count(self, phase: str, weights: int, earlier: bool) -> tuple[int, float]:
        """The weights that are done of *phase*, and how many this run does a second."""
        if phase != self._phase:  # it began when the last step of the one before was done
            self._phase, self._done, self._earlier, self._began = phase, 0, 0, self._last
        self._done += weights
        self._earlier += weights * earlier
        self._last = time.monotonic()
        return self._done, (self._done - self._earlier) / max(self._last - self._began, 1e-9)


class Lines(Counted):
    """A line every ten seconds, and none for what takes less."""

    def __call__(self, phase: str, name: str, weights: int, total: int, earlier: bool) -> None:
        """Say how far *phase* is, if it is time to."""
        done, rate = self.count(phase, weights, earlier)
        now = time.monotonic()
        if now - self._spoke >= QUIET_SECONDS:
            self._spoke = now
            line = f"{phase}: {done:,} of {total:,} weights, {100 * done / max(total, 1):.1f} %"
            if rate:
                line += f", {rate / 1e6:.1f} M/s, {(total - done) / rate:.0f} s left"
            complain(f"{line}, {name!a}")


class Json(Counted):
    """A JSON object a line for every step: machines want them all."""

    def __call__(self, phase: str, name: str, weights: int, total: int, earlier: bool) -> None:
        """Say what was done."""
        done, rate = self.count(phase, weights, earlier)
        step = {
            "phase": phase,
            "tensor": name,
            "done": done,
            "total": total,
            "rate": round(rate),
        }
        complain(json.dumps(step))
