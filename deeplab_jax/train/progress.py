"""Training progress: a bar on a terminal, otherwise an occasional line."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Mapping

import numpy as np
from tqdm import tqdm

from deeplab_jax.types import Metrics

_TIMES = ("images_per_second", "step_seconds", "fetch_seconds", "data_wait", "host_wait")


class Window:
    """Mean metrics and throughput over the steps since the last logged point or checkpoint."""

    def __init__(self, images_per_step: int) -> None:
        self._images_per_step = images_per_step
        self._rows: list[Metrics | Mapping[str, float]] = []
        self._start: float | None = None
        self._num_timed, self._data, self._host, self._fetch = 0, 0.0, 0.0, 0.0

    def add(self, metrics: Metrics | Mapping[str, float]) -> None:
        """Adds the metrics of one step; the first after a pause starts the clock, so compilation does not count."""
        self._rows.append(metrics)
        if self._start is None:
            self._start_clock()
        else:
            self._num_timed += 1

    def add_times(self, *, data: float = 0.0, host: float = 0.0, fetch: float = 0.0) -> None:
        """Adds times of one step, in seconds; reset when the clock starts.

        Args:
          data: the devices waited for a batch.
          host: the devices waited for anything else on the host.
          fetch: the host fetched the metrics of a finished step.
        """
        self._data += data
        self._host += host
        self._fetch += fetch

    def pause(self) -> None:
        """Stops the clock: something other than training comes next."""
        self._start = None

    def restart(self) -> None:
        """Starts over at a checkpoint: a run resumed there knows no earlier steps, so the curve must not use them."""
        self._rows.clear()
        self.pause()

    def times(self) -> dict[str, float]:
        """Timing of the steps since the clock was started; NaN until two steps have been added.

        images_per_second: throughput, all waiting included.
        step_seconds: device time per step; fetch_seconds: time to fetch its metrics.
        data_wait, host_wait: fractions of the time that the devices waited for a batch, or for the host.
        """
        if self._start is None or not self._num_timed:
            return dict.fromkeys(_TIMES, float("nan"))
        elapsed = time.perf_counter() - self._start
        values = (
            self._num_timed * self._images_per_step / elapsed,
            (elapsed - self._data - self._host) / self._num_timed,
            self._fetch / self._num_timed,
            self._data / elapsed,
            self._host / elapsed,
        )
        return dict(zip(_TIMES, values, strict=True))

    def flush(self) -> dict[str, float]:
        """The point to log: means over the updates that were applied, and the number of skipped ones."""
        made = [row for row in self._rows if not row["skipped"]]
        names = [name for name in self._rows[0] if name != "skipped"]
        point = {name: float(np.mean([row[name] for row in made])) if made else float("nan") for name in names}
        # The schedule advances whether or not an update was applied.
        point["learning_rate"] = float(self._rows[-1]["learning_rate"])
        point["skipped"] = float(sum(row["skipped"] for row in self._rows))
        point |= self.times()
        self._rows.clear()
        if self._start is not None:
            self._start_clock()
        return point

    def _start_clock(self) -> None:
        self._start = time.perf_counter()
        self._num_timed, self._data, self._host, self._fetch = 0, 0.0, 0.0, 0.0


class Progress:
    """The progress bar (on a terminal) or log lines (elsewhere) of a run."""

    def __init__(self, num_steps: int, start_step: int, *, images_per_step: int, enabled: bool = True) -> None:
        self._num_steps, self._images_per_step, self._enabled = num_steps, images_per_step, enabled
        on_terminal = enabled and sys.stdout.isatty()
        self._bar = (
            tqdm(total=num_steps, initial=start_step, unit="step", file=sys.stdout, dynamic_ncols=True)
            if on_terminal
            else None
        )

    def advance(self, metrics: Metrics | Mapping[str, float], window: Window) -> None:
        """Advances the bar by one step."""
        if self._bar is not None:
            numbers = {name: float(value) for name, value in metrics.items()}
            self._bar.set_postfix_str(_summary(numbers | window.times()), refresh=False)
            self._bar.update()

    def point(self, step: int, point: Mapping[str, float]) -> None:
        """Prints a logged point, unless there is a bar, which shows it already."""
        if self._bar is None:
            self.say(f"step {step}/{self._num_steps}  {_summary(point)}{self._time_left(step, point)}")

    def say(self, text: str) -> None:
        """Prints a line without disturbing the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        elif self._enabled:
            print(text, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _time_left(self, step: int, point: Mapping[str, float]) -> str:
        seconds = (self._num_steps - step) * self._images_per_step / point["images_per_second"]
        return f"  {datetime.timedelta(seconds=round(seconds))} left" if np.isfinite(seconds) else ""


def _summary(point: Mapping[str, float]) -> str:
    """What is known of a point: its times are NaN until two steps in a row have been timed."""
    known = f"loss {point['loss']:.4f}  lr {point['learning_rate']:.3g}"
    if np.isnan(point["images_per_second"]):
        return known
    return (
        f"{known}  {point['images_per_second']:.1f} images/s  step {1e3 * point['step_seconds']:.1f} ms  "
        f"data {100 * point['data_wait']:.1f} %  fetch {1e3 * point['fetch_seconds']:.1f} ms"
    )
