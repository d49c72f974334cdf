"""How a long run shows what it does: a bar on a terminal, lines in a log, JSON for machines."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

Show = Callable[[str, str, int, int], None]  # phase, tensor, weights that are done, of how many

QUIET_SECONDS = 10.0  # without a line, at the beginning of a run and between two
NAME_SHOWN = 40


@contextlib.contextmanager
def showing(style: str) -> Iterator[Show]:
    """A function to be told of progress, which shows it on standard error.

    *style* is "bar", "lines", "json", "none", or "auto": a bar on a terminal, else lines.
    """
    terminal = bool(sys.stderr and sys.stderr.isatty())
    shows = {"bar": Bars, "lines": Lines, "json": Json, "none": Nothing}
    show = shows[style if style != "auto" else "bar" if terminal else "lines"]()
    try:
        yield show
    finally:
        show.close()


class Nothing:
    """Says nothing."""

    def __call__(self, phase: str, name: str, weights: int, total: int) -> None:
        """Take no note."""

    def close(self) -> None:
        """Nothing is open."""


class Bars(Nothing):
    """A bar for each phase, with the rate, the time left and the tensor."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._phase = ""

    def __call__(self, phase: str, name: str, weights: int, total: int) -> None:
        """Advance the bar of *phase*."""
        if self._bar is None or phase != self._phase:
            self.close()
            self._bar = tqdm(total=total, unit="weight", unit_scale=True, desc=phase, leave=False)
            self._phase = phase
        self._bar.set_postfix_str(name[-NAME_SHOWN:], refresh=False)
        self._bar.update(weights)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


class Counted(Nothing):
    """Counts the weights of a phase, and times it."""

    def __init__(self) -> None:
        self._phase, self._done = "", 0
        self._began = self._spoke = time.monotonic()

    def count(self, phase: str, weights: int) -> tuple[int, float]:
        """The weights that are done of *phase*, and how many that is a second."""
        if phase != self._phase:
            self._phase, self._done, self._began = phase, 0, time.monotonic()
        self._done += weights
        return self._done, self._done / max(time.monotonic() - self._began, 1e-9)


class Lines(Counted):
    """A line every ten seconds, and none for what takes less."""

    def __call__(self, phase: str, name: str, weights: int, total: int) -> None:
        """Say how far *phase* is, if it is time to."""
        done, rate = self.count(phase, weights)
        now = time.monotonic()
        if now - self._spoke >= QUIET_SECONDS:
            self._spoke = now
            line = f"{phase}: {done:,} of {total:,} weights, {100 * done / max(total, 1):.1f} %"
            if rate:
                line += f", {rate / 1e6:.1f} M/s, {(total - done) / rate:.0f} s left"
            print(f"{line}, {name!a}", file=sys.stderr, flush=True)


class Json(Counted):
    """A JSON object a line for every step: machines want them all."""

    def __call__(self, phase: str, name: str, weights: int, total: int) -> None:
        """Say what was done."""
        done, rate = self.count(phase, weights)
        step = {
            "phase": phase,
            "tensor": name,
            "done": done,
            "total": total,
            "rate": round(rate),
        }
        print(json.dumps(step), file=sys.stderr, flush=True)
