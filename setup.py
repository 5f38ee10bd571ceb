"""Build the one extension: the Cython binding, the plain C files, and csrc/isa.c once per instruction set."""

import os
import platform
import sys
from pathlib import Path

import numpy as np
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# No -ffast-math anywhere: before GCC 13 it links a start-up file that flips the whole process to flush-to-zero.
FLAGS = ["-std=c11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
FLAGS += os.environ.get("FVLRP_CFLAGS", "").split()

if platform.machine().lower() in ("x86_64", "amd64") and sys.maxsize > 2**32:
    ISAS = {
        "v2": ["-march=x86-64-v2"],
        "v3": ["-march=x86-64-v3"],
        "v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    }
else:
    ISAS = {"generic": []}


class BuildPerISA(build_ext):
    """Compile csrc/isa.c once per instruction set and hand the objects to the linker."""

    def build_extension(self, ext):
        objects = []
        for isa, flags in ISAS.items():
            folder = Path(self.build_temp) / isa
            folder.mkdir(parents=True, exist_ok=True)
            objects += self.compiler.compile(
                ["csrc/isa.c"],
                output_dir=str(folder),
                macros=[("FVLRP_ISA", isa)],
                include_dirs=ext.include_dirs,
                extra_postargs=FLAGS + flags,
                depends=ext.depends,
            )
        ext.extra_objects = objects
        super().build_extension(ext)


headers = [str(path) for path in sorted(Path("csrc").glob("*.[ch]"))]
setup(
    ext_modules=[
        Extension(
            "fvlrp._kernels",
            sources=["fvlrp/_kernels.pyx", "csrc/dispatch.c", "csrc/status.c"],
            include_dirs=["csrc", np.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")]
            + [(f"FVLRP_HAVE_{isa.upper()}", "1") for isa in ISAS],
            extra_compile_args=FLAGS,
            libraries=["m"],
            depends=headers,
        )
    ],
    cmdclass={"build_ext": BuildPerISA},
)
