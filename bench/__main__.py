"""`python -m bench`: every comparison as alternating pairs in one process, as Markdown. See bench/README.md."""

import argparse
import json
import os
import sys
import threading
from contextlib import contextmanager
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

import fvlrp
from bench import pixels, training
from bench.photographs import SIZE, SOURCES
from bench.rows import ROWS, Case
from fvlrp import _kernels
from fvlrp.cli.bench import alternate, machine
from fvlrp.runtime import threads


@contextmanager
def placed(count: int):
    """`count` threads of BLAS and OpenMP; one thread runs on one processor, several on all that are usable."""
    usable = threads.processors()
    if usable and count == 1:
        os.sched_setaffinity(0, usable[-1:])
    try:
        with threadpool_limits(count):
            yield
    finally:
        if usable:
            os.sched_setaffinity(0, usable)


def placement() -> str:
    """Processors that each thread of this process may use, with the one it ran on last: workers are fvlrp's."""
    found = []
    for thread in threading.enumerate():
        if thread.name.startswith("fvlrp") and hasattr(os, "sched_getaffinity"):
            with open(f"/proc/self/task/{thread.native_id}/stat") as file:
                last = file.read().rsplit(")", 1)[1].split()[36]
            found.append(f"{thread.name}: {sorted(os.sched_getaffinity(thread.native_id))}, last on {last}")
    return "; ".join(found) or "no workers"


def measure(row, clf, names, pairs: int | None, known: dict) -> dict:
    """Times and gates of one row on every photograph."""
    photographs = {}
    for name in names:
        with placed(row.threads):
            case = Case(name, clf, row.threads, known)
            case.trace, case.saved  # noqa: B018  outside of what is timed
            trial = row.make(case)
            peer, ours = alternate(trial.peer, trial.ours, pairs or row.pairs, rest=0.15 if row.threads > 1 else 0)
        peer, ours = (1e3 * float(np.median(seconds)) for seconds in (peer, ours))
        checks = trial.gate()
        photographs[name] = {
            "peer ms": peer,
            "fvlrp ms": ours,
            "ratio": peer / ours,
            "zero rows": case.zero_rows,
            "gate": [{"what": what, "value": value, "limit": limit} for what, value, limit in checks],
            "passed": all(value <= limit for _, value, limit in checks),  # NaN does not pass
        }
    return {
        "title": row.title,
        "peer": row.peer,
        "threads": row.threads,
        "pairs": pairs or row.pairs,
        "photographs": photographs,
        "placement": placement() if row.threads > 1 else f"processor {(threads.processors() or ('?',))[-1]}",
    }


def geometric_mean(values) -> float:
    return float(np.exp(np.mean(np.log(list(values)))))


HEAD = (
    "| row | fvlrp | beside | threads | pairs | beside, ms | fvlrp, ms | ratio | lowest to highest | gravel | gate |\n"
    "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---|"
)


def line(name: str, result: dict) -> str:
    """One row of the table; VOID where a result misses its tolerance."""
    found = result["photographs"]
    means = [geometric_mean(p[key] for p in found.values()) for key in ("peer ms", "fvlrp ms", "ratio")]
    ratios = [p["ratio"] for p in found.values()]
    gravel = f"{found['gravel']['ratio']:.2f}" if "gravel" in found else ""
    gates = [check for p in found.values() for check in p["gate"]]
    nearest = max(gates, key=lambda g: g["value"] / g["limit"] if g["value"] == g["value"] else np.inf)
    gate = f"{nearest['what']}: {nearest['value']:.1e} <= {nearest['limit']:.0e}"
    ratio = f"**{means[2]:.2f}**"
    if not all(p["passed"] for p in found.values()):
        ratio, gate = "**VOID**", gate.replace("<=", "misses")
    return (
        f"| {name} | {result['title']} | {result['peer']} | {result['threads']} | {result['pairs']} | {means[0]:.1f} | "
        f"{means[1]:.2f} | {ratio} | {min(ratios):.2f} to {max(ratios):.2f} | {gravel} | {gate} |"
    )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="fvlrp beside what else there is.")
    parser.add_argument("--rows", help=f"comma-separated; default: all of {', '.join(ROWS)}")
    parser.add_argument("--photos", type=int, default=len(SOURCES), help="how many photographs (default: all)")
    parser.add_argument("--quick", action="store_true", help="two photographs, three pairs: to see that all runs")
    parser.add_argument("--pairs", type=int, help="pairs of every row; default: as the row says")
    parser.add_argument("--threads", type=int, choices=(1, 2), help="only the rows of one or of two threads")
    parser.add_argument("--isa", choices=_kernels.isas(), help="instruction set; default: the best")
    parser.add_argument("--pixels", action="store_true", help="time and memory from 0.1 to 10 megapixels instead")
    parser.add_argument("--train", metavar="VOCDEVKIT", help="training on photographs of VOC instead")
    parser.add_argument("--images", type=int, default=40, help="with --train: photographs (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="all figures as JSON on stdout, the table on stderr")
    return parser


def main() -> int:
    args = parser().parse_args()
    if args.isa:
        _kernels.select(args.isa)
    facts = machine()
    say = sys.stderr if args.json else sys.stdout
    for name, value in facts.items():
        print(f"{name}: {', '.join(value) if isinstance(value, list) else value}  ", file=say)
    if args.pixels:
        return table_of_pixels(args, say)
    if args.train:
        return training.compare(args.train, args.images, args.threads or 1, say)

    clf = fvlrp.load("voc20")
    names = list(SOURCES)[-2:] if args.quick else list(SOURCES)[: args.photos]
    wanted = args.rows.split(",") if args.rows else list(ROWS)
    for name in wanted:
        if name not in ROWS:
            sys.exit(f"--rows: there is no row {name!r}; rows are {', '.join(ROWS)}")
    pairs = args.pairs or (3 if args.quick else None)
    print(f"photographs: {len(names)} of {SIZE[1]} x {SIZE[0]} pixels, geometric means of medians\n", file=say)
    print(HEAD, file=say, flush=True)
    results, known, start = {}, {}, perf_counter()
    for name in wanted:
        row = ROWS[name]
        if args.threads not in (None, row.threads):
            continue
        if row.threads > max(1, len(threads.processors())) and threads.processors():
            print(f"| {name} | needs {row.threads} processors |", file=say)
            continue
        results[name] = measure(row, clf, names, 1 if args.quick and row.pairs == 1 else pairs, known)
        print(line(name, results[name]), file=say, flush=True)
    print(file=say)
    for name, result in results.items():
        if result["threads"] > 1:
            print(f"{name}: {result['placement']}  ", file=say)
    if results:
        found = next(iter(results.values()))["photographs"]
        print("zero rows: " + ", ".join(f"{n} {100 * p['zero rows']:.0f} %" for n, p in found.items()), file=say)
        absolute(results, say)
    print(f"\n{perf_counter() - start:.0f} s", file=say)
    if args.json:
        print(json.dumps({"machine": facts, "rows": results}, indent=1))
    return 0 if all(p["passed"] for r in results.values() for p in r["photographs"].values()) else 1


def absolute(results: dict, say) -> None:
    """Milliseconds of whole photographs, one by one."""
    chosen = {name: results[name]["photographs"] for name in ("image", "image2") if name in results}
    for name, photographs in chosen.items():
        times = ", ".join(f"{photo} {p['fvlrp ms']:.1f} ({p['ratio']:.1f}x)" for photo, p in photographs.items())
        print(f"{name}, ms: {times}  ", file=say)


def table_of_pixels(args, say) -> int:
    jobs = args.threads or 1
    heads = f"ms, {jobs} thread{'s' * (jobs > 1)} | ms a megapixel | first call, ms | peak MB | of it before"
    print(f"\n| height x width | {heads} |", file=say)
    print("|---|---:|---:|---:|---:|---:|", file=say)
    results = []
    for size in pixels.MEGAPIXELS[:3] if args.quick else pixels.MEGAPIXELS:
        results.append(pixels.measure(size, jobs))
        (height, width), ms = results[-1]["size"], results[-1]["milliseconds"]
        print(
            f"| {height} x {width} | {ms:.0f} | {ms / (height * width / 1e6):.0f} | "
            f"{results[-1]['first, ms']:.0f} | {results[-1]['MB']:.0f} | {results[-1]['MB before']:.0f} |",
            file=say,
            flush=True,
        )
    if args.json:
        print(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
