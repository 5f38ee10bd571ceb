"""Kill a batch at random moments, resume it, and compare its results with those of an undisturbed run.

    python tests/fuzz/kills.py [--kills 300] [--seed 0] [--photographs 200]

A batch is killed (SIGKILL) and resumed until it ends by itself; then every file must exist once, with the bytes of the
undisturbed run, and no other. Until then a finished photograph's record must not be written again, and a kill must not
leave more photographs with results but without a record than there are threads: only these are repeated. The next batch
starts with an empty folder. The exit code is 1 at the first difference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import fvlrp

JOBS = 2


def prepare(folder: Path, count: int) -> list[str]:
    """Photographs and a small model; the command that explains them, without its --out."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (48, 60, 3), dtype=np.uint8) for _ in range(count)]
    for i, image in enumerate(images):
        path = folder / "photographs" / f"{i % 5}" / f"{i // 5:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    clf = fvlrp.FisherVectorClassifier(n_components=4, n_pca=8, random_state=0)
    clf.fit(images[:12], ["a", "b"] * 6).save(folder / "model.fvlrp")
    command = [sys.executable, "-m", "fvlrp", "explain", str(folder / "photographs")]
    return [
        *command,
        "--model",
        str(folder / "model.fvlrp"),
        "--format",
        "png,npz",
        "--quiet",
        "--resume",
        "--jobs",
        str(JOBS),
    ]


def tree(folder: Path) -> dict[str, str]:
    """Every file in and below a folder, temporary ones too, with a digest of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def finished(out: Path) -> dict[Path, int]:
    """When the record of each finished photograph was written, in ns, by its path without suffix."""
    records = [path for path in out.rglob("*.json") if "error" not in json.loads(path.read_bytes())]
    return {path.with_suffix(""): path.stat().st_mtime_ns for path in records}


def unfinished(out: Path) -> set[Path]:
    """Photographs with results but without a record: those that a kill interrupted."""
    results = [path for suffix in ("png", "npz") for path in out.rglob(f"*.{suffix}")]
    return {path.with_name(path.name.partition("_")[0]) for path in results} - set(finished(out))


def start(command: list[str], out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--photographs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name), Path(name) / "out"
        command = prepare(folder, args.photographs)
        begin = time.monotonic()
        if start(command, out).wait():
            return 1
        whole, expected = time.monotonic() - begin, tree(out)
        kills = batches = repeated = 0
        while kills < args.kills:
            shutil.rmtree(out)
            kept: dict[Path, int] = {}
            while True:
                process = start(command, out)
                try:
                    code = process.wait(draw.uniform(0.1, 0.7) * whole)
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()
                    kills += 1
                    now, lost = finished(out), unfinished(out)
                    if not now.items() >= kept.items() or len(lost) > JOBS:
                        again = sorted(str(path) for path, written in kept.items() if now.get(path) != written)
                        print(f"batch {batches + 1}, kill {kills}: repeated {again[:10]}, interrupted {sorted(lost)}")
                        return 1
                    kept, repeated = now, repeated + len(lost)
                    continue
                break
            batches += 1
            print(f"batch {batches} ended after {kills} kills", file=sys.stderr)
            found = tree(out)
            if code or found != expected or not finished(out).items() >= kept.items():
                wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
                print(f"batch {batches}, after {kills} kills: exit code {code}, different: {wrong[:10]}")
                return 1
        print(f"{kills} kills in {batches} batches of {args.photographs}: {len(expected)} files each, the same bytes")
        print(f"{repeated} photographs were interrupted and explained again, no finished one")
    return 0


if __name__ == "__main__":
    sys.exit(main())
