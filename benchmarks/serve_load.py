"""Load on `pointrend serve`: clients that ask again as soon as they are answered.

    python -m benchmarks.serve_load --clients 20 --seconds 60 --batch-size 8

Prints the latency (50% and 95% of the requests are faster), images a second and the server's memory before and after.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from pointrend.data.shapes import Scene


def images(side: int) -> list[bytes]:
    """Generated scenes of two sizes, as PNG."""
    found = []
    for number in range(8):
        buffer = io.BytesIO()
        scene = Scene(number, seed=5, height=side, width=side + 16 * (number % 2))
        Image.fromarray(scene.image).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def memory_mb(pid: int) -> float:
    """Megabytes that a process has in memory now (Linux)."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


class Client(threading.Thread):
    """Asks until the time is over."""

    def __init__(self, port: int, contents: list[bytes], end: float) -> None:
        super().__init__()
        self.port, self.contents, self.end = port, contents, end
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()

    def run(self) -> None:
        """One connection, one request after the other."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        number = self.ident or 0
        while time.monotonic() < self.end:
            number += 1
            begun = time.monotonic()
            connection.request("POST", "/predict", self.contents[number % len(self.contents)])
            answer = connection.getresponse()
            answer.read()
            self.seconds.append(time.monotonic() - begun)
            self.statuses[answer.status] += 1


def main() -> None:
    """Start a server, load it, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="shapes-semantic")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--side", type=int, default=64)
    arguments = parser.parse_args()
    command = [
        *(sys.executable, "-m", "pointrend", "serve", arguments.model, "--port", "0"),
        *("--batch-size", str(arguments.batch_size)),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(re.findall(r":(\d+)/", server.stdout.readline())[0])
            contents = images(arguments.side)
            time.sleep(2)
            for warm_up in (True, False):
                seconds = 5 if warm_up else arguments.seconds
                end = time.monotonic() + seconds
                before = memory_mb(server.pid)
                clients = [Client(port, contents, end) for _ in range(arguments.clients)]
                for client in clients:
                    client.start()
                for client in clients:
                    client.join()
            latencies = np.concatenate([client.seconds for client in clients])
            statuses = sum((client.statuses for client in clients), Counter[int]())
            p50, p95 = np.percentile(latencies, [50, 95]).round(3).tolist()
            print(
                json.dumps(
                    {
                        **vars(arguments),
                        "requests": len(latencies),
                        "statuses": dict(statuses),
                        "p50_s": p50,
                        "p95_s": p95,
                        "images_per_second": round(len(latencies) / seconds, 2),
                        "memory_mb": [round(before, 1), round(memory_mb(server.pid), 1)],
                    }
                )
            )
        finally:
            server.terminate()
            server.wait(70)


if __name__ == "__main__":
    main()
