"""The extension module: one Extension, one flag table per compiler.

Switches, read from the environment:

    POSENC_WERROR=1            warnings are errors
    POSENC_DEBUG=1             -O0, assertions on
    POSENC_SANITIZE=address,undefined    build with sanitizers (see docs/developing.md)
"""

import os
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# One abi3 wheel serves CPython 3.11 and later; a free-threaded Python has no limited API yet.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
LIMITED_API = [] if FREE_THREADED else [("Py_LIMITED_API", "0x030b0000")]

WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wvla", "-Wformat=2", "-Wstrict-prototypes"]
HARDENING = ["-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-fvisibility=hidden"]
FLAGS = {
    # -O3 by ourselves: some Pythons hand extensions -O2, which costs a factor of 3. Contraction changes bits.
    # No debug information: it would name the build's temporary folders, and two builds would differ.
    "unix": ["-std=c11", "-O3", "-g0", "-ffp-contract=off", "-fno-math-errno", *WARNINGS, *HARDENING],
    "msvc": ["/std:c11", "/experimental:c11atomics", "/O2", "/fp:precise", "/W3"],
}
LINK = {
    "unix": ["-pthread", "-Wl,-z,relro,-z,now,-z,noexecstack"] if sys.platform == "linux" else ["-pthread"],
    "msvc": [],
}


class BuildExt(build_ext):
    """Add the flags of the compiler at hand, and of the switches."""

    def build_extensions(self) -> None:  # noqa: D102
        import numpy  # here: pip asks setup.py twice before it builds, and needs no headers for that

        kind = self.compiler.compiler_type if self.compiler.compiler_type in FLAGS else "unix"
        flags, link = list(FLAGS[kind]), list(LINK[kind])
        if kind == "unix":
            flags.append(f"-ffile-prefix-map={os.getcwd()}=.")
            if os.environ.get("POSENC_WERROR") == "1":
                flags.append("-Werror")
            if os.environ.get("POSENC_DEBUG") == "1":
                flags += ["-O0", "-g3", "-UNDEBUG", "-U_FORTIFY_SOURCE"]
            if sanitizers := os.environ.get("POSENC_SANITIZE"):
                checks = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
                flags += [*checks, "-O1", "-g", "-fno-omit-frame-pointer", "-U_FORTIFY_SOURCE"]
                link += checks
            self._compile_side_by_side()
            # some Pythons hand extensions their own library folder, which no wheel may name
            self.compiler.linker_so = [w for w in self.compiler.linker_so if not w.startswith("-Wl,-rpath")]
        for extension in self.extensions:
            extension.include_dirs.append(numpy.get_include())
            extension.extra_compile_args = flags
            extension.extra_link_args = link
        super().build_extensions()

    def _compile_side_by_side(self) -> None:
        """One process a file, as many as there are processors; kernels first, a level takes as long as all the rest."""
        compile_all = self.compiler.compile

        def compile_each(sources: list[str], **options: Any) -> list[str]:
            # setuptools has sorted them by name
            sources = sorted(sources, key=lambda source: "kernels" not in source)
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = list(pool.map(lambda source: compile_all([source], **options), sources))
            return [name for names in objects for name in names]

        self.compiler.compile = compile_each


setup(
    ext_modules=[
        Extension(
            "posenc._core",
            sources=sorted(glob("csrc/*/*.c")),
            depends=sorted(glob("csrc/*/*.h")),
            define_macros=LIMITED_API,
            libraries=[] if sys.platform == "win32" else ["m"],
            py_limited_api=not FREE_THREADED,
        )
    ],
    cmdclass={"build_ext": BuildExt},
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
