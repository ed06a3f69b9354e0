"""The output of --mode=benchmark: the figures of a run next to the limits of its devices, with explanations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deeplab_jax.apps.assembly.memory_report import describe_memory
from deeplab_jax.train.step_memory import StepMemory

_EXPLANATION = """\
What this is: the training step, compiled as in training, on one random batch already on the devices; steps are
dispatched one ahead, as in training. Limits are measured in the same run: a matrix product in the network's dtype, and
a copy in place. 'At least' is the longer of the times for operations and bytes at these limits.
What it is not: operations are those of the convolutions, counted from the network's shapes (without recomputation under
model.remat); bytes are XLA's own estimate, operands and results of each kernel, part of which caches serve. The loader
was timed alone: if devices and workers use the same CPU cores, they will share them."""


def benchmark_page(report: Mapping[str, Any]) -> str:
    """The report as a page of text."""
    step, limits = report["step"], report["limits"]
    height, width = report["crop_size"]
    floors = {
        "operations": step["convolution_flops"] / limits["flops"],
        "bytes": step["bytes_moved"] / limits["bandwidth"],
    }
    longer = max(floors, key=lambda name: floors[name])
    lines = [
        f"device      {report['num_devices']} x {report['device_kind']}, {report['num_cores']} cores on the host, "
        f"jax {report['jax']}",
        f"network     {report['network']}, output stride {report['output_stride']}, {report['compute_dtype']}; "
        f"batch {report['batch_size']} x {height}x{width}",
        f"limits      {_rate(limits['flops'], 'FLOP')} in a matrix product, {_rate(limits['bandwidth'], 'B')} in a "
        f"copy; {_on_paper(report)}",
        f"started     initialised in {step['init_seconds']:.1f} s, train step compiled in "
        f"{step['compile_seconds']:.1f} s{' (kept from an earlier run)' if step['compilation_was_kept'] else ''}",
        f"train step  {step['images_per_second']:.4g} images/s, {_times(step)}",
        f"operations  {step['convolution_flops'] / 1e9:.4g} GFLOP a step, "
        f"{_rate(step['convolution_flops'] / step['median'], 'FLOP')}: {_shares(report, 'flops')}",
        f"bytes       {step['bytes_moved'] / 1e9:.4g} GB a step, "
        f"{_rate(step['bytes_moved'] / step['median'], 'B')}: {_shares(report, 'bandwidth')}",
        f"at least    {1e3 * floors[longer]:.4g} ms a step, for its {longer}: "
        f"{100 * floors[longer] / step['median']:.0f} % of the time that it takes",
        describe_memory(StepMemory(**{name: size for name, size in step["memory"].items() if name != "total"})),
        f"evaluation  {_evaluation(report['evaluation'])}",
        f"loader      {_loader(report['loader'], step)}",
    ]
    return "\n".join([*lines, "", _EXPLANATION])


def _times(pace: Mapping[str, Any]) -> str:
    return (
        f"{1e3 * pace['median']:.4g} ms (median of {pace['num_calls']}; "
        f"half of them {1e3 * pace['lower']:.4g} to {1e3 * pace['upper']:.4g})"
    )


def _on_paper(report: Mapping[str, Any]) -> str:
    chip = report["chip"]
    if chip is None:
        return "on paper unknown"
    return (
        f"on paper {_rate(report['num_devices'] * chip['flops'], 'FLOP')} in bfloat16, "
        f"{_rate(report['num_devices'] * chip['memory_bandwidth'], 'B')}"
    )


def _shares(report: Mapping[str, Any], kind: str) -> str:
    """Percentages of the measured limit and, if one is known for this dtype, of the limit on paper."""
    step, chip = report["step"], report["chip"]
    reached = step["convolution_flops" if kind == "flops" else "bytes_moved"] / step["median"]
    text = f"{100 * reached / report['limits'][kind]:.1f} % of the limit measured"
    if chip is None or (kind == "flops" and report["compute_dtype"] != "bfloat16"):
        return text
    peak = report["num_devices"] * chip["flops" if kind == "flops" else "memory_bandwidth"]
    return f"{text}, {100 * reached / peak:.1f} % of that on paper"


def _evaluation(evaluation: Mapping[str, Any]) -> str:
    height, width = evaluation["size"]
    num_passes = len(evaluation["scales"]) * (2 if evaluation["flip"] else 1)
    passes = f", {num_passes} passes over each" if num_passes > 1 else ""
    return (
        f"{evaluation['images_per_second']:.4g} images/s, batch {evaluation['batch_size']} x {height}x{width}{passes}, "
        f"{_times(evaluation)}"
    )


def _loader(loader: Mapping[str, Any], step: Mapping[str, Any]) -> str:
    if "refusal" in loader:
        return f"not measured: {loader['refusal']}"
    pace = loader["images_per_second"] / step["images_per_second"]
    text = f"{loader['images_per_second']:.4g} images/s alone, {pace:.3g} times the train step's"
    if pace < 1:
        text += ": the step would wait for data; see docs/input_pipeline.md"
    if "augment_seconds" in loader:
        text += f"; augmentation on the devices {1e3 * loader['augment_seconds']:.4g} ms a step more"
    return text


def _rate(count: float, unit: str) -> str:
    """'1.25 TFLOP/s'; in G below 1 T."""
    return f"{count / 1e12:.3g} T{unit}/s" if count >= 1e12 else f"{count / 1e9:.3g} G{unit}/s"
