"""The share of csrc's lines that ran, from what `gcov --json-format --stdout` prints: one JSON document a line.

Every file of kernels is compiled several times, once for each instruction set and real type. A line counts as run if it
ran in any of them.
"""

import argparse
import json
from collections import defaultdict
from itertools import groupby
from pathlib import Path


def read(path):
    """{file: {line: calls}} of the files below csrc."""
    files = defaultdict(lambda: defaultdict(int))
    for document in path.read_text().splitlines():
        for file in json.loads(document)["files"]:
            name = file["file"].rpartition("csrc/")[2]
            if name != file["file"]:
                for line in file["lines"]:
                    files[name][line["line_number"]] += line["count"]
    return files


def ranges(numbers):
    """1, 2, 3, 7 as "1-3, 7"."""
    runs = ([n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]))
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("documents", type=Path)
    parser.add_argument("--least", type=float, default=95, metavar="PERCENT")
    args = parser.parse_args()
    files = read(args.documents)
    for name, lines in sorted(files.items()):
        missed = sorted(number for number, calls in lines.items() if not calls)
        if missed:
            print(f"csrc/{name}: {len(missed)} of {len(lines)} lines never ran: {ranges(missed)}")
    counts = [calls for lines in files.values() for calls in lines.values()]
    percent = 100 * sum(map(bool, counts)) / max(len(counts), 1)
    print(f"csrc: {percent:.1f} % of {len(counts)} lines ran")
    return percent < args.least


if __name__ == "__main__":
    raise SystemExit(main())
