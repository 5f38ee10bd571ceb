"""Compare what the sdist and the wheel hold with what the repository holds; exit 1 and name the files that differ.

python contents.py CHECKOUT DIST
"""

import re
import sys
import tarfile
import zipfile
from pathlib import Path

UNPACKAGED = {".gitignore", ".gitattributes"}  # of use to git alone
ADDED = re.compile(r"PKG-INFO|setup\.cfg|fvlrp\.egg-info/.*")  # what setuptools writes into every sdist
RUN_TIME = re.compile(r"fvlrp/((\w+/)*\w+\.pyi?|py\.typed|pretrained/[^/]+\.fvlrp|show/report/\w+\.(html|css|js))")
COMPILED = re.compile(r"fvlrp/_kernels\.[\w-]+\.so")


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def differences(where, found, wanted):
    return [f"{where} lacks {name}" for name in sorted(wanted - found)] + [
        f"{where} should not hold {name}" for name in sorted(found - wanted)
    ]


def main(checkout, dist):
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    sources = files(checkout) - UNPACKAGED
    with tarfile.open(sdist) as archive:
        packed = {member.name.split("/", 1)[1] for member in archive if member.isfile()}
    with zipfile.ZipFile(wheel) as archive:
        installed = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = {name.split("/", 1)[1] for name in archive.namelist() if ".dist-info/" in name}
    compiled = {name for name in installed if COMPILED.fullmatch(name)}

    wrong = differences("the sdist", {name for name in packed if not ADDED.fullmatch(name)}, sources)
    wrong += differences("the wheel", installed - compiled, {name for name in sources if RUN_TIME.fullmatch(name)})
    if len(compiled) != 1:
        wrong.append(f"the wheel should hold one compiled module, holds {sorted(compiled)}")
    wrong += differences(
        "the wheel's metadata",
        metadata & {"entry_points.txt", "licenses/LICENSE"},
        {"entry_points.txt", "licenses/LICENSE"},
    )
    print("\n".join(wrong) or f"{sdist.name}: {len(packed)} files; {wheel.name}: {len(installed)} files")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
