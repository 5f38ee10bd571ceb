"""Build the one extension: the Cython binding, the plain C files, and csrc/isa.c per instruction set and real type.

`FVLRP_CFLAGS` is added to every compilation, last; `CC` and `CFLAGS` mean what they always do.
"""

import os
import shlex
import shutil
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, PlatformError
from setuptools.modified import newer_group

# No -ffast-math anywhere: before GCC 13 it links a start-up file that flips the whole process to flush-to-zero.
FLAGS = [
    "-std=c11",
    "-O3",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
]
LIBRARIES = ["m"]
if sys.platform == "win32":  # clang-cl hands on what follows /clang: to Clang
    FLAGS = [f"/clang:{flag}" for flag in FLAGS if flag != "-fvisibility=hidden"]
    LIBRARIES = []
OWN_FLAGS = shlex.split(os.environ.get("FVLRP_CFLAGS", ""))

# The platform of the build and not of the machine: a universal macOS build compiles for two processors at once, to
# which no x86-64 level can be given.
if sysconfig.get_platform().endswith(("-x86_64", "-amd64")) and sys.maxsize > 2**32:
    ISAS = {
        "v2": ["-march=x86-64-v2"],
        "v3": ["-march=x86-64-v3"],
        "v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    }
    ISAS["vnni"] = [*ISAS["v4"], "-mavx512vnni"]
else:
    ISAS = {"generic": []}
if sys.platform == "win32":
    ISAS = {isa: [f"/clang:{flag}" for flag in flags] for isa, flags in ISAS.items()}
REAL_BITS = (32, 64)  # float and double

# One binary for every CPython from 3.11 on: the limited API costs 0.1 us more per checked array. Interpreters without
# the GIL have no stable ABI yet.
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    LIMITED_API, WHEEL = [], {}
else:
    LIMITED_API = [("Py_LIMITED_API", "0x030B0000"), ("CYTHON_LIMITED_API", "1")]
    WHEEL = {"bdist_wheel": {"py_limited_api": "cp311"}}


class BuildPerISA(build_ext):
    """Compile csrc/isa.c once per instruction set and real type, and hand the objects to the linker."""

    def build_extensions(self):
        if sys.platform == "win32":
            self.use_clang_cl()
        else:
            self.require_compiler()
        super().build_extensions()

    def use_clang_cl(self):
        """The kernels use the vector extensions of GCC and Clang, which Microsoft's own compiler lacks."""
        found = shutil.which("clang-cl")
        if not found:
            raise PlatformError(
                "fvlrp compiles its kernels with clang-cl, which is not on the PATH; install LLVM (winget install "
                "LLVM.LLVM) beside Microsoft's build tools, or take the wheel: pip install --only-binary fvlrp fvlrp"
            )
        self.compiler.initialize()
        self.compiler.cc = found

    def require_compiler(self):
        """One sentence with the package to install, instead of the compiler's own pages."""
        command = self.compiler.compiler_so[0]
        headers = Path(sysconfig.get_path("include"), "Python.h")
        if shutil.which(command) and headers.is_file():
            return
        lacking = f"the C header {headers}" if shutil.which(command) else f"the C compiler {command!r}"
        raise PlatformError(
            f"fvlrp compiles its kernels and cannot find {lacking}; install it (Debian, Ubuntu: apt-get install gcc "
            "python3-dev; Fedora: dnf install gcc python3-devel; macOS: xcode-select --install) or set CC"
        )

    def build_extension(self, ext):
        # Whether anything is to be built again is for the base class to decide, which may see more reasons than there
        # are here, such as a newer Cython: it must be told of every instruction set in any case.
        ext.define_macros = [*LIMITED_API, *((f"FVLRP_HAVE_{isa.upper()}", "1") for isa in ISAS)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # a compiler takes 300 MB
            compiled = pool.map(lambda pair: self.objects_of(ext, *pair), product(ISAS, REAL_BITS))
            ext.extra_objects = [name for objects in compiled for name in objects]
        super().build_extension(ext)

    def objects_of(self, ext, isa, bits):
        """Object files of csrc/isa.c for one instruction set and real type, in a folder of their own; compiled where
        they are stale."""
        folder = str(Path(self.build_temp, f"{isa}-f{bits}"))
        objects = self.compiler.object_filenames(["csrc/isa.c"], output_dir=folder)
        if not self.force and not any(newer_group(ext.depends, name, "newer") for name in objects):
            return objects
        try:
            return self.compiler.compile(
                ["csrc/isa.c"],
                output_dir=folder,
                macros=[("FVLRP_ISA", isa), ("REAL_BITS", str(bits))],
                include_dirs=ext.include_dirs,
                extra_postargs=FLAGS + ISAS[isa] + OWN_FLAGS,
            )
        except CompileError:
            if not ISAS[isa]:
                raise
            raise CompileError(
                f"csrc/isa.c does not compile for the instruction set {isa}: the compiler says why above; "
                "GCC 11, Clang 12 or newer is needed"
            ) from None


setup(
    ext_modules=[
        Extension(
            "fvlrp._kernels",
            sources=["fvlrp/_kernels.pyx", "csrc/dispatch.c", "csrc/fisher/checks.c", "csrc/network/checks.c"],
            include_dirs=["csrc"],
            extra_compile_args=FLAGS + OWN_FLAGS,
            libraries=LIBRARIES,
            py_limited_api=bool(LIMITED_API),
            depends=["setup.py", *sorted(str(path) for path in Path("csrc").rglob("*.[ch]"))],
        )
    ],
    options=WHEEL,
    cmdclass={"build_ext": BuildPerISA},
)
