"""Load test of the server: thousands of requests, a third of them malformed; statuses, rate and the server's memory.

python benchmarks/serve_load.py --config=configs/NAME.py --workdir=DIR [--requests=1000] [--clients=8] [--output=FILE]
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import http.client
import io
import json
import pathlib
import re
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from deeplab_jax.data.sources.rendering import render_scene

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
_SIZES = ((240, 320), (300, 200), (257, 257), (200, 380))  # (height, width) of the whole images
_ADDRESS = re.compile(r"http://([\d.]+):(\d+)/")


def make_bodies() -> tuple[list[bytes], list[bytes]]:
    """(valid image files, malformed ones)."""
    whole = []
    for seed, size in enumerate(_SIZES):
        picture = Image.fromarray(render_scene(np.random.default_rng(seed), size)[0])
        for file_format in ("JPEG", "PNG"):
            buffer = io.BytesIO()
            picture.save(buffer, file_format)
            whole.append(buffer.getvalue())
    noise = np.random.default_rng(0).bytes(20_000)
    cut = [body[: len(body) // 2] for body in whole]
    wide = io.BytesIO()
    Image.new("L", (9_000, 9_000)).save(wide, "PNG")  # a bomb: 81 million pixels in 80 kB
    return whole, [b"", noise, b"<html></html>", wide.getvalue(), bytes(17_000_000), *cut]


def ask(address: tuple[str, int], body: bytes) -> tuple[int, bool]:
    """(status, whether the answer is JSON); a request that is refused for load is repeated."""
    while True:
        connection = http.client.HTTPConnection(*address, timeout=900)
        try:
            connection.request("POST", "/api/segment", body)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 503:
            return response.status, isinstance(answer, dict)
        time.sleep(0.05)


def run(address: tuple[str, int], num_requests: int, num_clients: int) -> collections.Counter[int]:
    """Statuses of `num_requests` requests, every third malformed."""
    whole, malformed = make_bodies()

    def one(index: int) -> int:
        body = malformed[index // 3 % len(malformed)] if index % 3 == 0 else whole[index % len(whole)]
        status, is_json = ask(address, body)
        assert is_json
        return status

    with concurrent.futures.ThreadPoolExecutor(num_clients) as clients:
        return collections.Counter(clients.map(one, range(num_requests)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--output", help="JSON file")
    arguments = parser.parse_args()

    command = [sys.executable, "main.py", f"--config={arguments.config}", f"--workdir={arguments.workdir}"]
    server = subprocess.Popen(
        [*command, "--mode=serve", "--port=0"], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        found = next(match for line in server.stdout or () if (match := _ADDRESS.search(line)))
        address = (found[1], int(found[2]))
        process = psutil.Process(server.pid)
        run(address, 60, arguments.clients)  # all sizes are compiled
        peak, before, done = 0, process.memory_info().rss, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.2):
                peak = max(peak, process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        statuses = run(address, arguments.requests, arguments.clients)
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
        result = {
            "requests": arguments.requests,
            "statuses": {str(status): count for status, count in sorted(statuses.items())},
            "requests_per_second": round(arguments.requests / seconds, 1),
            "memory_mb": {
                "before": round(before / 1e6),
                "peak": round(peak / 1e6),
                "after": round(process.memory_info().rss / 1e6),
            },
            "server_alive": server.poll() is None,
        }
        print(json.dumps(result, indent=1))
        if arguments.output:
            pathlib.Path(arguments.output).write_text(json.dumps(result, indent=1) + "\n")
    finally:
        server.terminate()
        server.wait(20)


if __name__ == "__main__":
    main()
