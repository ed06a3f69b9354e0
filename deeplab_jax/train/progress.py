"""What a run shows while it trains: a bar on a terminal, a line now and then elsewhere."""

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
    """Means over the steps since the last point of the curve or checkpoint, and the pace at which they came."""

    def __init__(self, images_per_step: int) -> None:
        self._images_per_step = images_per_step
        self._rows: list[Metrics | Mapping[str, float]] = []
        self._start: float | None = None
        self._num_timed, self._data, self._host, self._fetch = 0, 0.0, 0.0, 0.0

    def add(self, metrics: Metrics | Mapping[str, float]) -> None:
        """Takes the metrics of one step; the first after a pause starts the clock, so compilation does not count."""
        self._rows.append(metrics)
        if self._start is None:
            self._start_clock()
        else:
            self._num_timed += 1

    def add_times(self, *, data: float = 0.0, host: float = 0.0, fetch: float = 0.0) -> None:
        """Seconds of one step; before the clock runs they do not count.

        Args:
          data: in which the devices waited for a batch.
          host: in which they waited for whatever else the host did.
          fetch: in which the host fetched the metrics of a step that had ended.
        """
        self._data += data
        self._host += host
        self._fetch += fetch

    def pause(self) -> None:
        """Something other than training comes next."""
        self._start = None

    def restart(self) -> None:
        """A checkpoint: whoever resumes there knows nothing of earlier steps, so the curve must not depend on them."""
        self._rows.clear()
        self.pause()

    def times(self) -> dict[str, float]:
        """What the clock says of the steps since it was started; NaN before two of them have been timed.

        images_per_second: the pace, all waiting included.
        step_seconds: in which the devices were at work on a step; fetch_seconds: that fetching its metrics took.
        data_wait, host_wait: shares of the time in which the devices waited for a batch, or for the host.
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
        """The point of the curve: means over the updates that were made, the sum of those skipped."""
        made = [row for row in self._rows if not row["skipped"]]
        names = [name for name in self._rows[0] if name != "skipped"]
        point = {name: float(np.mean([row[name] for row in made])) if made else float("nan") for name in names}
        # The schedule goes on whether or not an update was made.
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
    """The bar (on a terminal) or the lines (elsewhere) of a run."""

    def __init__(self, num_steps: int, start_step: int, *, images_per_step: int, enabled: bool = True) -> None:
        self._num_steps, self._images_per_step, self._enabled = num_steps, images_per_step, enabled
        on_terminal = enabled and sys.stdout.isatty()
        self._bar = (
            tqdm(total=num_steps, initial=start_step, unit="step", file=sys.stdout, dynamic_ncols=True)
            if on_terminal
            else None
        )

    def advance(self, metrics: Metrics | Mapping[str, float], window: Window) -> None:
        """One step further."""
        if self._bar is not None:
            numbers = {name: float(value) for name, value in metrics.items()}
            self._bar.set_postfix_str(_summary(numbers | window.times()), refresh=False)
            self._bar.update()

    def point(self, step: int, point: Mapping[str, float]) -> None:
        """A point of the curve; the bar shows it already."""
        if self._bar is None:
            left = self._time_left(step, point["images_per_second"])
            self.say(f"step {step}/{self._num_steps}  {_summary(point)}  {left} left")

    def say(self, text: str) -> None:
        """A line that does not disturb the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        elif self._enabled:
            print(text, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _time_left(self, step: int, images_per_second: float) -> str:
        seconds = (self._num_steps - step) * self._images_per_step / images_per_second
        return str(datetime.timedelta(seconds=round(seconds))) if np.isfinite(seconds) else "?"


def _summary(point: Mapping[str, float]) -> str:
    return (
        f"loss {point['loss']:.4f}  lr {point['learning_rate']:.3g}  {point['images_per_second']:.1f} images/s  "
        f"step {1e3 * point['step_seconds']:.1f} ms  data {100 * point['data_wait']:.1f} %  "
        f"fetch {1e3 * point['fetch_seconds']:.1f} ms"
    )
