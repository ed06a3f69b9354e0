"""Forward pass and train step of whole networks against PyTorch, with the memory of both; docs/performance.md.

    python benchmarks/networks.py [--device=cuda] [--dtype=bfloat16] [--compile] [--only=REGEX] [--minutes=6]

Each case is a pair of processes that alternate (benchmarks/pairs.py): the peer with random weights, and the network
imported from its file, so layers, weights and images are the same; parameter counts must be equal and logits must
agree. torchvision's networks get 513x513; segmentation_models.pytorch accepts only multiples of the output stride, so
there both get 512x512. A train step has batch norm in training mode, cross-entropy on full-size logits and SGD with
momentum; ours is the step used in training, with its metrics and its check for non-finite values. PyTorch uses channels
last, eager or (--compile) compiled, and autocast for bfloat16. Ours runs as `python main.py` does, with its allocator
settings; --peer_allocator gives them to the peer too.

Results are stored case by case; existing cases are skipped without --again. No case starts after --minutes: run the
command again. With --size (a quick look) nothing is written.

Needs what the project itself does not: pip install torch torchvision segmentation-models-pytorch
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks import pairs
from benchmarks.tables import PERFORMANCE, markdown_table, read_results, write_between, write_results
from deeplab_jax.hardware.allocator import TUNABLES

_TORCHVISION = "torchvision.models.segmentation:"
_SMP = "segmentation_models_pytorch:"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PACKAGES = ("jax", "jaxlib", "torch", "torchvision", "segmentation_models_pytorch", "timm")
ALLOWED = 1e-2  # float32 error of logits over their standard deviation; a GPU multiplies with fewer bits


@dataclasses.dataclass(frozen=True)
class Peer:
    """A network of another system, and our counterpart: the imported network, or that of a config."""

    title: str
    factory: str
    arguments: Mapping[str, Any]
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = _IMAGENET
    config: str = ""
    size: tuple[int, int] = (512, 512)
    num_classes: int = 21
    train_batch: int = 2


def _torchvision(title: str, name: str) -> Peer:
    arguments = {"weights": None, "weights_backbone": None, "num_classes": 21, "aux_loss": False}
    return Peer(title, _TORCHVISION + name, arguments, size=(513, 513))


def _smp(title: str, encoder: str, **changes: Any) -> Peer:
    arguments = {"encoder_name": encoder, "encoder_weights": None, "classes": 21}
    return Peer(title, f"{_SMP}DeepLabV3Plus", arguments, **changes)


PEERS: Mapping[str, Peer] = {
    "v3_resnet50": _torchvision("v3 ResNet-50, OS 8", "deeplabv3_resnet50"),
    "v3plus_mobilenet_v2": _smp("v3+ MobileNetV2, OS 16", "mobilenet_v2"),
    "v3plus_xception65": _smp("v3+ Xception-65, OS 16", "tu-xception65", normalization=_HALF),
    "v3plus_resnet101": _smp("v3+ ResNet-101, OS 16", "resnet101"),
    "v3_resnet101": _torchvision("v3 ResNet-101, OS 8", "deeplabv3_resnet101"),
    "camvid_cpu": Peer(
        "configs/camvid_cpu.py",
        "benchmarks.plain_torch:V3PlusMobileNetV2",
        {"num_classes": 11, "aspp_channels": 128, "decoder_channels": 128},
        _HALF,
        config="camvid_cpu",
        size=(241, 321),
        num_classes=11,
        train_batch=8,
    ),
}


def main() -> None:
    options = parse(sys.argv[1:])
    name = f"networks_{options.device}"
    results = {} if options.size else read_results(name)
    begun = time.monotonic()
    for case in () if options.table else cases(options):
        missing = [batch for batch in case.batches if options.again or case.key(batch) not in results]
        if not missing:
            continue
        if time.monotonic() - begun > 60 * options.minutes:
            print(f"{options.minutes:g} minutes are over: run the same command again for the rest")
            break
        for key, entry in run_case(case, missing, options).items():
            results[key] = entry
            print(f"{key}: ours / torch {pairs.shown_ratio(entry['ratio'])}", flush=True)
            if not options.size:
                write_results(name, results)
    if options.size:
        print(table(results))
    else:
        write_between(PERFORMANCE, name, table(results))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true", help="apply torch.compile to the peer")
    parser.add_argument("--peer_allocator", action="store_true", help="give the peer our allocator settings too")
    parser.add_argument("--only", default="", help="regular expression of cases, as 'resnet50 train'")
    parser.add_argument("--forward_batches", type=_numbers, default=(1, 2))
    parser.add_argument("--train_batches", type=_numbers, default=(), help="default: 2; of camvid_cpu 8")
    parser.add_argument("--size", type=int, default=0, help="of square images, for a quick look")
    parser.add_argument("--cores", type=int, default=0, help="to which both processes are bound; 0: all")
    parser.add_argument("--seconds", type=float, default=30.0, help="of measuring for each step")
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true", help="only write the table")
    return parser.parse_args(arguments)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


@dataclasses.dataclass(frozen=True)
class Case:
    """What one pair of processes measures."""

    network: str
    mode: str  # 'forward' or 'train'
    dtype: str
    is_compiled: bool
    peer_allocator: bool
    batches: tuple[int, ...]
    size: tuple[int, int]

    def key(self, batch: int) -> str:
        """Its name among the results."""
        words = ["compiled"] * self.is_compiled + ["our allocator"] * self.peer_allocator
        return " ".join([self.network, self.mode, f"batch {batch}", self.dtype, *words])


def cases(options: argparse.Namespace) -> list[Case]:
    """What the options ask for."""
    found = []
    for network, peer in PEERS.items():
        size = (options.size, options.size) if options.size else peer.size
        for mode, batches in (
            ("forward", options.forward_batches),
            ("train", options.train_batches or (peer.train_batch,)),
        ):
            case = Case(network, mode, options.dtype, options.compile, options.peer_allocator, batches, size)
            if any(re.search(options.only, case.key(batch)) for batch in batches):
                found.append(case)
    return found


def run_case(case: Case, batches: list[int], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Measures one pair of processes; returns key -> result."""
    peer = PEERS[case.network]
    entries = {}
    with contextlib.ExitStack() as stack:
        theirs = stack.enter_context(
            pairs.Side(
                "benchmarks.networks_torch:Network",
                TUNABLES if case.peer_allocator else {},
                options.cores,
                factory=peer.factory,
                arguments=dict(peer.arguments),
                mean=peer.normalization[0],
                std=peer.normalization[1],
                device=options.device,
                dtype=case.dtype,
                is_compiled=case.is_compiled,
            )
        )
        ours = stack.enter_context(_our_side(case, theirs, options))
        counts = [side.call("num_parameters") for side in (ours, theirs)]
        if counts[0] != counts[1]:
            raise SystemExit(f"error: {case.network} has {counts[0]} parameters here and {counts[1]} there")
        for batch in batches:
            entry = _measure(case, batch, ours, theirs, options.seconds)
            error = entry.get("logits_error", 0.0)
            if case.dtype == "float32" and options.device == "cpu" and not error < ALLOWED:
                raise SystemExit(f"error: {case.network}: logits differ by {error:.1e} of their deviation")
            entries[case.key(batch)] = entry | {
                "parameters": counts[0],
                "device": ours.call("device"),
                **pairs.machine(PACKAGES, options.cores),
            }
    return entries


def _our_side(case: Case, theirs: pairs.Side, options: argparse.Namespace) -> pairs.Side:
    """With the peer's weights, where they can be imported."""
    environment = {"JAX_PLATFORMS": options.device, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | TUNABLES
    peer = PEERS[case.network]
    with tempfile.TemporaryDirectory() as folder:
        weights = "" if peer.config else str(pathlib.Path(folder) / "weights.npz")
        if weights:
            theirs.call("save_weights", weights)
        return pairs.Side(
            "benchmarks.networks_ours:Network",
            environment,
            options.cores,
            weights=weights,
            config=peer.config,
            num_classes=peer.num_classes,
            dtype=case.dtype,
        )


def _measure(case: Case, batch: int, ours: pairs.Side, theirs: pairs.Side, seconds: float) -> dict[str, Any]:
    sides, peer = {"ours": ours, "peer": theirs}, PEERS[case.network]
    shape = (batch, *case.size)
    first = {name: side.call("prepare", case.mode, shape, peer.num_classes) for name, side in sides.items()}
    agreement = {}
    if case.mode == "forward" and not peer.config:
        agreement["logits_error"] = _error(ours.call("logits"), theirs.call("logits"))
    times = pairs.take_turns([lambda: ours.call("turn"), lambda: theirs.call("turn")], max_seconds=seconds)
    return {
        "network": case.network,
        "mode": case.mode,
        "shape": list(shape),
        "dtype": case.dtype,
        "peer": ("compiled" if case.is_compiled else "eager") + (", our allocator" if case.peer_allocator else ""),
        **pairs.comparison(*times),
        "memory_bytes": {name: side.call("memory")["running"] for name, side in sides.items()},
        "first_call_seconds": first,
        **agreement,
    }


def _error(ours: Any, theirs: Any) -> float:
    """The largest difference, over the standard deviation of theirs."""
    return float(abs(ours - theirs).max() / theirs.std())


def table(results: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    if not results:
        return "Not measured yet."
    order = list(PEERS)
    entries = sorted(results.values(), key=lambda each: order.index(each["network"]))
    header = ("network", "step", "images", "precision", "against", "ours, ms:", "PyTorch, ms:")
    rows = [
        (
            PEERS[each["network"]].title,
            each["mode"],
            "{} x {}x{}".format(*each["shape"]),
            each["dtype"],
            each["peer"],
            f"{1000 * each['seconds']['ours']:,.0f}",
            f"{1000 * each['seconds']['peer']:,.0f}",
            pairs.shown_ratio(each["ratio"]),
            f"{each['memory_bytes']['ours'] / 1e9:.2f}",
            f"{each['memory_bytes']['peer'] / 1e9:.2f}",
        )
        for each in entries
    ]
    lines = markdown_table((*header, "ours / PyTorch:", "ours, GB:", "PyTorch's, GB:"), rows)
    return "\n".join([lines, "", *pairs.settings(entries)])


if __name__ == "__main__":
    main()
