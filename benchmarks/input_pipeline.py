"""Images per second and CPU core of the input pipeline: 500x375 JPEG and mask -> random 513x513 crop.

    python benchmarks/input_pipeline.py [--num_images=1000] [--output=results.json]

Measures, in one run on the same files, the loader that training uses (reading,
decoding and batching included), the same steps in plain Pillow, and in tf.data
where TensorFlow is installed. Images per CPU second do not depend on how many
cores there are; wall time is given beside them.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from deeplab_jax.config import DataConfig
from deeplab_jax.data.datasets import folder
from deeplab_jax.data.loader import make_loader
from deeplab_jax.data.workers import available_cores

IMAGE_SIZE = (375, 500)
CROP_SIZE = 513
BATCH_SIZE = 16
MIN_SCALE, MAX_SCALE = 0.5, 2.0
PAD_PIXEL = (124, 116, 104)
IGNORE_LABEL = 255
NUM_FILES = 64
JPEG_QUALITY = 90

Batches = Iterator[tuple[np.ndarray, np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_images", type=int, default=1000, help="images measured per pipeline")
    parser.add_argument("--num_workers", type=int, default=1, help="threads of this project's loader")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file for the results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        mean_bytes = make_files(root)
        pipelines: dict[str, Callable[[], Batches]] = {
            f"deeplab_jax, {arguments.num_workers} thread(s)": lambda: ours(root, arguments.num_workers),
            "deeplab_jax, photometric too": lambda: ours(root, arguments.num_workers, photometric=True),
            "Pillow": lambda: with_pillow(root),
        }
        if tf_data_version():
            pipelines[f"tf.data ({tf_data_version()})"] = lambda: with_tf_data(root)
        else:
            print("tf.data: TensorFlow is not installed, not measured")
        rows = {name: measure(make(), arguments.num_images) for name, make in pipelines.items()}
    print_table(rows)
    if arguments.output:
        setting = {
            "image_size": IMAGE_SIZE,
            "mean_jpeg_bytes": mean_bytes,
            "crop_size": CROP_SIZE,
            "cores": available_cores(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "opencv": cv2.__version__,
            "pillow": Image.__version__,
        }
        arguments.output.write_text(json.dumps({"setting": setting, "pipelines": rows}, indent=2) + "\n")


def make_files(root: pathlib.Path) -> int:
    """Writes a data set of the form `folder`; returns the mean size of its JPEGs in bytes."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks", "splits"):
        (root / name).mkdir()
    for index in range(NUM_FILES):
        # Noise of several scales compresses about like a photograph.
        pixels = sum(noise(rng, cell) * cell**0.1 for cell in (1, 2, 4, 8, 16, 32, 64))
        pixels = cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
        cv2.imwrite(str(root / "images" / f"{index}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        cv2.imwrite(str(root / "masks" / f"{index}.png"), (noise(rng, 64)[..., 0] * 20).astype(np.uint8))
    (root / "splits" / "train.txt").write_text("\n".join(map(str, range(NUM_FILES))))
    (root / "classes.txt").write_text("\n".join(f"class{index}" for index in range(21)))
    return sum(path.stat().st_size for path in (root / "images").iterdir()) // NUM_FILES


def noise(rng: np.random.Generator, cell: int) -> np.ndarray:
    height, width = IMAGE_SIZE
    grid = rng.random((height // cell + 2, width // cell + 2, 3), dtype=np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)


def ours(root: pathlib.Path, num_workers: int, photometric: bool = False) -> Batches:
    dataset = folder.open_dataset(str(root), str(root / "prepared"))
    config = DataConfig(
        batch_size=BATCH_SIZE,
        crop_size=(CROP_SIZE, CROP_SIZE),
        min_scale=MIN_SCALE,
        max_scale=MAX_SCALE,
        num_workers=num_workers,
        photometric=photometric,
    )
    with make_loader(config, dataset.open_split("train"), dataset.info, seed=0, pad_pixel=PAD_PIXEL) as batches:
        for batch in batches:
            yield batch.image, batch.label


def with_pillow(root: pathlib.Path) -> Batches:
    """As most training scripts have it: scale the whole image, pad, crop, flip."""
    rng = np.random.default_rng(0)
    while True:
        samples = [pillow_sample(root, rng) for _ in range(BATCH_SIZE)]
        yield np.stack([image for image, _ in samples]), np.stack([label for _, label in samples])


def pillow_sample(root: pathlib.Path, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    name = str(rng.integers(NUM_FILES))
    image = Image.open(root / "images" / f"{name}.jpg").convert("RGB")
    label = Image.open(root / "masks" / f"{name}.png")
    scale = rng.uniform(MIN_SCALE, MAX_SCALE)
    size = (round(image.width * scale), round(image.height * scale))
    image, label = image.resize(size, Image.Resampling.BILINEAR), label.resize(size, Image.Resampling.NEAREST)
    left = int(rng.integers(max(size[0] - CROP_SIZE, 0) + 1))
    top = int(rng.integers(max(size[1] - CROP_SIZE, 0) + 1))
    box = (left, top, min(left + CROP_SIZE, size[0]), min(top + CROP_SIZE, size[1]))
    image_canvas = Image.new("RGB", (CROP_SIZE, CROP_SIZE), PAD_PIXEL)
    label_canvas = Image.new("L", (CROP_SIZE, CROP_SIZE), IGNORE_LABEL)
    image_canvas.paste(image.crop(box))
    label_canvas.paste(label.crop(box))
    if rng.random() < 0.5:
        image_canvas = image_canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        label_canvas = label_canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image_canvas), np.asarray(label_canvas)


def tf_data_version() -> str:
    """TensorFlow's version, or '' where it is not installed."""
    try:
        import tensorflow as tf
    except ImportError:
        return ""
    return tf.__version__


def with_tf_data(root: pathlib.Path) -> Batches:
    """As tensorflow/models has it, with uint8 out."""
    import tensorflow as tf

    def sample(name):
        image = tf.io.decode_jpeg(tf.io.read_file(str(root / "images") + "/" + name + ".jpg"), channels=3)
        label = tf.io.decode_png(tf.io.read_file(str(root / "masks") + "/" + name + ".png"), channels=1)
        scale = tf.random.uniform([], MIN_SCALE, MAX_SCALE)
        size = tf.cast(tf.round(tf.cast(tf.shape(image)[:2], tf.float32) * scale), tf.int32)
        image = tf.cast(tf.round(tf.image.resize(image, size)), tf.uint8)
        label = tf.image.resize(label, size, method="nearest")
        pad = tf.maximum(CROP_SIZE - size, 0)
        paddings = [[0, pad[0]], [0, pad[1]], [0, 0]]
        image = tf.pad(image - tf.constant(PAD_PIXEL, tf.uint8), paddings) + tf.constant(PAD_PIXEL, tf.uint8)
        label = tf.pad(label, paddings, constant_values=IGNORE_LABEL)
        both = tf.image.random_crop(tf.concat([image, label], axis=-1), (CROP_SIZE, CROP_SIZE, 4))
        both = tf.image.random_flip_left_right(both)
        return both[..., :3], both[..., 3]

    names = tf.data.Dataset.from_tensor_slices([str(index) for index in range(NUM_FILES)])
    dataset = names.shuffle(NUM_FILES).repeat().map(sample, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH_SIZE)
    return iter(dataset.prefetch(2).as_numpy_iterator())


def measure(batches: Batches, num_images: int) -> dict[str, float]:
    """Images per second of CPU time (all threads together) and of wall time, after a few batches to warm up."""
    for _ in range(3):
        next(batches)
    wall, cpu = time.perf_counter(), time.process_time()
    num_batches = -(-num_images // BATCH_SIZE)
    for _ in range(num_batches):
        image, label = next(batches)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    expected = (BATCH_SIZE, CROP_SIZE, CROP_SIZE)
    if image.shape != (*expected, 3) or label.shape != expected or image.dtype != np.uint8:
        raise RuntimeError(f"a pipeline made {image.shape} {image.dtype} and {label.shape}, not crops of {CROP_SIZE}")
    number = num_batches * BATCH_SIZE
    return {"images_per_cpu_second": round(number / cpu, 1), "images_per_second": round(number / wall, 1)}


def print_table(rows: dict[str, dict[str, float]]) -> None:
    print("| pipeline | images per CPU second | images per second (wall) |")
    print("|---|---:|---:|")
    for name, row in rows.items():
        print(f"| {name} | {row['images_per_cpu_second']:.0f} | {row['images_per_second']:.0f} |")


if __name__ == "__main__":
    main()
