"""Images per CPU second of the input pipeline, at VOC's and Cityscapes' sizes; docs/performance.md.

    python benchmarks/input_pipeline.py [--num_images=192] [--num_rounds=3] [--cases voc cityscapes] [--device] [--dry]

voc: 500x375 JPEG and mask -> random 513x513 crop; cityscapes: 2048x1024 PNG and mask -> random 769x769 crop.
Measures, alternately in one run on the same files, the training loader (including reading, decoding and batching) with
its options, the same steps in plain Pillow, and in tf.data if TensorFlow is installed; medians of the rounds. Images
per CPU second do not depend on the number of cores; wall time is reported too. --device also measures how fast the
available device makes crops from windows, and how long a stream of them waits for the loader.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks import pairs
from benchmarks.tables import PERFORMANCE, markdown_table, read_results, write_between, write_results
from deeplab_jax.config import DataConfig
from deeplab_jax.data.datasets import folder
from deeplab_jax.data.loading.loader import TrainLoader, make_loader
from deeplab_jax.data.sources.raw_copy import with_raw_copies
from deeplab_jax.data.workers import available_cores

BATCH_SIZE = 16
MIN_SCALE, MAX_SCALE = 0.5, 2.0
PAD_PIXEL = (124, 116, 104)
IGNORE_LABEL = 255
JPEG_QUALITY = 90
NUM_CLASSES = 20
NAME = "input_pipeline_cpu"  # in benchmarks/results/ and docs/performance.md
PEER = "Pillow"

Batches = Iterator[tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Case:
    """The file sizes and formats of a data set."""

    image_size: tuple[int, int]  # (height, width)
    crop_size: int
    suffix: str
    num_files: int
    roughness: float  # of the noise: the lower, the finer the noise and the larger the file


CASES = {
    "voc": Case((375, 500), 513, "jpg", 64, 0.1),
    "cityscapes": Case((1024, 2048), 769, "png", 16, 1.2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_images", type=int, default=192, help="images measured per pipeline and round")
    parser.add_argument("--num_rounds", type=int, default=3)
    parser.add_argument("--num_workers", type=int, default=1, help="threads of this project's loader")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--device", action="store_true", help="measure the device's part too")
    parser.add_argument("--dry", action="store_true", help="print the table, write nothing")
    arguments = parser.parse_args()
    results = read_results(NAME)
    for name in arguments.cases:
        results[name] = run_case(CASES[name], name, arguments)
        if not arguments.dry:
            write_results(NAME, results)
    print(table(results))
    if not arguments.dry:
        write_between(PERFORMANCE, NAME, table(results))


def run_case(case: Case, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        mean_bytes = make_files(root, case)
        height, width = case.image_size
        print(
            f"\n{name}: {width}x{height} {case.suffix} of {mean_bytes // 1000} kB -> {case.crop_size}x{case.crop_size}"
            f", {arguments.num_workers} thread(s)"
        )
        options: dict[str, dict[str, object]] = {
            "crops": {},
            "crops, photometric": {"photometric": True},
            "crops, balanced": {"max_class_share": 0.75},
            "crops, copy-paste into half": {"copy_paste": 0.5, "copy_paste_classes": (1, 2)},
            "crops, prepared_form=raw": {"prepared_form": "raw"},
            "windows for the device": {"device_augmentation": True},
            "windows for the device, prepared_form=raw": {"device_augmentation": True, "prepared_form": "raw"},
        }
        pipelines: dict[str, Callable[[], Batches]] = {
            title: functools.partial(ours, root, case, arguments.num_workers, **changes)
            for title, changes in options.items()
        }
        pipelines[PEER] = lambda: with_pillow(root, case)
        if tf_data_version():
            pipelines[f"tf.data ({tf_data_version()})"] = lambda: with_tf_data(root, case)
        else:
            print("tf.data: TensorFlow is not installed, not measured")
        rows = measure_in_turn(pipelines, arguments.num_images, arguments.num_rounds)
        on_device = measure_device(root, case, arguments.num_images) if arguments.device else {}
    packages = ("opencv-python-headless", "imagecodecs", "pillow", "numpy")
    setting = {"device": "cpu", "num_workers": arguments.num_workers, **pairs.machine(packages)}
    return {"mean_file_bytes": mean_bytes, "pipelines": rows, "on_device": on_device, **setting}


def make_files(root: pathlib.Path, case: Case) -> int:
    """Writes a data set of the form `folder`; returns the mean size of its images in bytes."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks", "splits"):
        (root / name).mkdir()
    for index in range(case.num_files):
        # Multi-scale noise compresses about like a photograph.
        pixels = sum(noise(rng, case, cell) * cell**case.roughness for cell in (1, 2, 4, 8, 16, 32, 64))
        pixels = cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if case.suffix == "jpg" else []
        cv2.imwrite(str(root / "images" / f"{index}.{case.suffix}"), pixels, options)
        ids = (noise(rng, case, 64)[..., 0] * NUM_CLASSES).astype(np.uint8)
        cv2.imwrite(str(root / "masks" / f"{index}.png"), ids)
    (root / "splits" / "train.txt").write_text("\n".join(map(str, range(case.num_files))))
    (root / "classes.txt").write_text("\n".join(f"class{index}" for index in range(NUM_CLASSES)))
    return sum(path.stat().st_size for path in (root / "images").iterdir()) // case.num_files


def noise(rng: np.random.Generator, case: Case, cell: int) -> np.ndarray:
    height, width = case.image_size
    grid = rng.random((height // cell + 2, width // cell + 2, 3), dtype=np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)


def make_config(case: Case, num_workers: int, **changes: object) -> DataConfig:
    return DataConfig(
        batch_size=BATCH_SIZE,
        crop_size=(case.crop_size, case.crop_size),
        min_scale=MIN_SCALE,
        max_scale=MAX_SCALE,
        num_workers=num_workers,
        **changes,
    )


def open_loader(root: pathlib.Path, config: DataConfig) -> TrainLoader:
    dataset = folder.open_dataset(str(root), str(root / "prepared"))
    if config.prepared_form == "raw":
        dataset = with_raw_copies(dataset)
    return make_loader(config, dataset.open_split("train"), dataset.info, seed=0, pad_pixel=PAD_PIXEL)


def ours(root: pathlib.Path, case: Case, num_workers: int, **changes: object) -> Batches:
    with open_loader(root, make_config(case, num_workers, **changes)) as batches:
        for batch in batches:
            yield batch.image, batch.label


def measure_device(root: pathlib.Path, case: Case, num_images: int) -> dict[str, float | str]:
    """Crops per second on the device, from one batch repeatedly and from the loader's stream."""
    import jax

    from deeplab_jax.ops.mesh import make_mesh, shard_batch
    from deeplab_jax.train.device_augment import make_augment
    from deeplab_jax.train.idle import IdleTime

    mesh = make_mesh(1)
    augment = make_augment(
        mesh,
        crop_size=(case.crop_size, case.crop_size),
        pad_pixel=PAD_PIXEL,
        ignore_label=IGNORE_LABEL,
        photometric=False,
    )
    with open_loader(root, make_config(case, 0, device_augmentation=True)) as batches:
        batch = shard_batch(next(batches), mesh)
        jax.block_until_ready(augment(batch))
        num_batches = max(1, num_images // BATCH_SIZE)
        start = time.perf_counter()
        for _ in range(num_batches):
            crops = augment(batch)
        jax.block_until_ready(crops)
        alone = time.perf_counter() - start
        idle, waited, start = IdleTime(), 0.0, time.perf_counter()
        for _ in range(num_batches):
            asked = time.perf_counter()
            batch = shard_batch(next(batches), mesh)
            waited += idle.since(asked)
            crops = augment(batch)
            idle.watch(crops)
        jax.block_until_ready(crops)
        streamed = time.perf_counter() - start
    number, kind = num_batches * BATCH_SIZE, jax.devices()[0].device_kind
    row: dict[str, float | str] = {
        "device": kind,
        "crops_per_second": round(number / alone, 1),
        "streamed_images_per_second": round(number / streamed, 1),
        "stream_waits_for_data": round(waited / streamed, 3),
    }
    print(
        f"{kind}: {row['crops_per_second']} crops/s from ready windows; fed by {available_cores()} cores "
        f"{row['streamed_images_per_second']} images/s, waiting {100 * waited / streamed:.1f} % of the time"
    )
    return row


def with_pillow(root: pathlib.Path, case: Case) -> Batches:
    """As in most training scripts: scale the whole image, pad, crop, flip."""
    rng = np.random.default_rng(0)
    while True:
        samples = [pillow_sample(root, case, rng) for _ in range(BATCH_SIZE)]
        yield np.stack([image for image, _ in samples]), np.stack([label for _, label in samples])


def pillow_sample(root: pathlib.Path, case: Case, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    name, crop_size = str(rng.integers(case.num_files)), case.crop_size
    image = Image.open(root / "images" / f"{name}.{case.suffix}").convert("RGB")
    label = Image.open(root / "masks" / f"{name}.png")
    scale = rng.uniform(MIN_SCALE, MAX_SCALE)
    size = (round(image.width * scale), round(image.height * scale))
    image, label = image.resize(size, Image.Resampling.BILINEAR), label.resize(size, Image.Resampling.NEAREST)
    left = int(rng.integers(max(size[0] - crop_size, 0) + 1))
    top = int(rng.integers(max(size[1] - crop_size, 0) + 1))
    box = (left, top, min(left + crop_size, size[0]), min(top + crop_size, size[1]))
    image_canvas = Image.new("RGB", (crop_size, crop_size), PAD_PIXEL)
    label_canvas = Image.new("L", (crop_size, crop_size), IGNORE_LABEL)
    image_canvas.paste(image.crop(box))
    label_canvas.paste(label.crop(box))
    if rng.random() < 0.5:
        image_canvas = image_canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        label_canvas = label_canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image_canvas), np.asarray(label_canvas)


def tf_data_version() -> str:
    """TensorFlow's version, or '' if it is not installed."""
    try:
        import tensorflow as tf
    except ImportError:
        return ""
    return tf.__version__


def with_tf_data(root: pathlib.Path, case: Case) -> Batches:
    """As in tensorflow/models, with uint8 output."""
    import tensorflow as tf

    def sample(name):
        data = tf.io.read_file(str(root / "images") + "/" + name + f".{case.suffix}")
        image = tf.io.decode_image(data, channels=3, expand_animations=False)
        label = tf.io.decode_png(tf.io.read_file(str(root / "masks") + "/" + name + ".png"), channels=1)
        scale = tf.random.uniform([], MIN_SCALE, MAX_SCALE)
        size = tf.cast(tf.round(tf.cast(tf.shape(image)[:2], tf.float32) * scale), tf.int32)
        image = tf.cast(tf.round(tf.image.resize(image, size)), tf.uint8)
        label = tf.image.resize(label, size, method="nearest")
        pad = tf.maximum(case.crop_size - size, 0)
        paddings = [[0, pad[0]], [0, pad[1]], [0, 0]]
        image = tf.pad(image - tf.constant(PAD_PIXEL, tf.uint8), paddings) + tf.constant(PAD_PIXEL, tf.uint8)
        label = tf.pad(label, paddings, constant_values=IGNORE_LABEL)
        both = tf.image.random_crop(tf.concat([image, label], axis=-1), (case.crop_size, case.crop_size, 4))
        both = tf.image.random_flip_left_right(both)
        return both[..., :3], both[..., 3]

    names = tf.data.Dataset.from_tensor_slices([str(index) for index in range(case.num_files)])
    dataset = names.shuffle(case.num_files).repeat().map(sample, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH_SIZE)
    return iter(dataset.prefetch(2).as_numpy_iterator())


def measure_in_turn(
    pipelines: Mapping[str, Callable[[], Batches]], num_images: int, num_rounds: int
) -> dict[str, dict[str, Any]]:
    """Medians of the rounds; `ratio` is that of CPU times to the peer's in the same round."""
    rounds = [{title: measure(make(), num_images) for title, make in pipelines.items()} for _ in range(num_rounds)]
    cpu, wall = ({title: [each[title][k] for each in rounds] for title in pipelines} for k in (0, 1))
    return {
        title: {
            "images_per_cpu_second": round(1 / statistics.median(cpu[title]), 1),
            "images_per_second": round(1 / statistics.median(wall[title]), 1),
            "ratio": pairs.paired_ratio(cpu[title], cpu[PEER])._asdict(),
        }
        for title in pipelines
    }


def measure(batches: Batches, num_images: int) -> tuple[float, float]:
    """Seconds of CPU time (all threads together) and of wall time per image, after a few warm-up batches."""
    for _ in range(3):
        next(batches)
    wall, cpu = time.perf_counter(), time.process_time()
    num_batches = -(-num_images // BATCH_SIZE)
    for _ in range(num_batches):
        image, label = next(batches)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if image.shape != (*label.shape, 3) or len(image) != BATCH_SIZE or image.dtype != np.uint8:
        raise RuntimeError(f"a pipeline made {image.shape} {image.dtype} and {label.shape}, not images and labels")
    return cpu / (num_batches * BATCH_SIZE), wall / (num_batches * BATCH_SIZE)


def table(results: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    rows = []
    for name, result in results.items():
        case = CASES[name]
        files = f"{case.image_size[1]}x{case.image_size[0]} {case.suffix} of {result['mean_file_bytes'] // 1000} kB"
        rows += [
            (
                f"{files} to {case.crop_size}",
                title,
                f"{row['images_per_cpu_second']:.0f}",
                pairs.shown_ratio(row["ratio"]),
                f"{row['images_per_second']:.0f}",
            )
            for title, row in result["pipelines"].items()
        ]
    header = ("files", "pipeline", "images per CPU second:", f"CPU time over {PEER}'s:", "images per second (wall):")
    return "\n".join([markdown_table(header, rows), "", *pairs.settings(results.values())])


if __name__ == "__main__":
    main()
