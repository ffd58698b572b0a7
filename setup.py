"""Builds functorch_ext and its C++ extension ``functorch_ext._C``.

``python setup.py build_ext --inplace`` is the development build: code generation first, then ninja
compiles only what changed (headers are tracked). ``pip install --no-build-isolation .`` installs.
Environment: MAX_JOBS (compilers at once, 2 unless set).
"""

import contextlib
import itertools
import math
import os
import runpy
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from setuptools import setup
from setuptools.command.build_py import build_py
from torch.utils.cpp_extension import BuildExtension, CppExtension, include_paths

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
GENERATED = ROOT / "build" / "generated"
# "address": the build that .ci/sanitize makes, beside the ordinary one.
SANITIZER = os.environ.get("FUNCTORCH_EXT_SANITIZER", "")
PRELUDE = ROOT / "build" / SANITIZER / "prelude" / "prelude.h"
UNITS = ROOT / "build" / "units"
# Each file by itself, for work on a few: a change compiles one file, a whole build takes
# twice as long.
SEPARATE = os.environ.get("FUNCTORCH_EXT_SEPARATE", "") not in ("", "0")
BUILD_INFO = ROOT / "functorch_ext" / "_build_info.py"

# The extension is compiled against the C++ of one release of torch, which the package then needs:
# pip can't install what is built here beside another one.
VERSION = runpy.run_path(str(ROOT / "functorch_ext" / "_version.py"))["__version__"]
RELEASE = str(torch.__version__).split("+")[0]

# Lines of a unit: it then takes about half a minute and 2 GB of memory, so ask for few at once.
UNIT_LINES = 1200
os.environ.setdefault("MAX_JOBS", "2")
# ninja lies beside the interpreter in a virtual environment, which need not be activated.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def write_if_changed(path: Path, text: str) -> None:
    """Writes ``text``, leaving the file's time alone when it already says so."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def write_build_info() -> None:
    """Records torch's version and Python's where they can be read before the module is loaded."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    text = (
        '"""Written by setup.py."""\n\n'
        f'TORCH_VERSION = "{torch.__version__}"\nPYTHON_VERSION = "{python}"\n'
    )
    write_if_changed(BUILD_INFO, text)


def generate_code() -> None:
    """Runs the code generator; it rewrites only the files whose text changes."""
    generator = CSRC / "codegen" / "generate.py"
    if generator.exists():
        subprocess.run([sys.executable, str(generator), str(GENERATED)], check=True)


def units() -> list[Path]:
    """The files to compile: each includes some neighbours of a folder of csrc/.

    What a file costs is mostly what it shares with its neighbours, headers and the templates that
    they ask for: together they take half as long as each alone. Names in unnamed namespaces are
    therefore unique in their folder. The largest folders come first, so that what is compiled last
    is short and no processor waits for another for long.
    """
    sources = sorted(CSRC.glob("**/*.cpp"))
    if SEPARATE:
        return sources
    made = []
    folders = [list(group) for _, group in itertools.groupby(sources, key=lambda file: file.parent)]
    for files in sorted(folders, key=len, reverse=True):
        lines = [len(file.read_text().splitlines()) for file in files]
        count = math.ceil(sum(lines) / UNIT_LINES)
        before = itertools.accumulate(lines, initial=0)
        texts = [""] * count
        for file, start in zip(files, before, strict=False):
            texts[start * count // sum(lines)] += f'#include "{file.relative_to(CSRC)}"\n'
        for text in filter(None, texts):
            # setuptools sorts them by name.
            made.append(UNITS / f"{len(made):02}_{files[0].parent.name}.cpp")
            write_if_changed(made[-1], text)
    return made


def extension() -> CppExtension:
    """All of csrc/ as one extension module."""
    instrumentation = []
    if SANITIZER:
        instrumentation = [f"-fsanitize={SANITIZER}", "-fno-omit-frame-pointer", "-g1"]
    # As system directories, torch's and Python's headers give no warnings of their own.
    system = [*include_paths("cpu"), sysconfig.get_path("include")]
    module = CppExtension(
        "functorch_ext._C",
        [str(unit.relative_to(ROOT)) for unit in units()],
        include_dirs=[str(CSRC), str(GENERATED)],
        define_macros=[("FUNCTORCH_EXT_BUILT_FOR_TORCH", f'"{RELEASE}"')],
        extra_compile_args=[
            *(flag for path in system for flag in ("-isystem", path)),
            "-std=c++20",
            "-O2",
            "-g0",
            "-fvisibility=hidden",
            "-Wall",
            "-Wextra",
            "-Wno-unused-parameter",
            "-Winvalid-pch",
            "-include",
            str(PRELUDE),
            *instrumentation,
        ],
        extra_link_args=instrumentation[:1],
    )
    module.include_dirs = [path for path in module.include_dirs if path not in system]
    return module


@contextlib.contextmanager
def files_for_commands() -> Iterator[None]:
    """Lets ninja's lines name the file that was compiled, in place of the whole command."""
    pattern = rf"s@^(\[[0-9]+/[0-9]+\]) .* -c {ROOT}/([^ ]+) .*@\1 \2@"
    with subprocess.Popen(["sed", "-uE", pattern], stdin=subprocess.PIPE) as shorten:
        sys.stdout.flush()
        output = os.dup(1)
        os.dup2(shorten.stdin.fileno(), 1)
        shorten.stdin.close()
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(output, 1)
            os.close(output)


class BuildCpp(BuildExtension):
    """Generates code, then lists the sources (some of them generated) and compiles."""

    def finalize_options(self) -> None:
        generate_code()
        self.distribution.ext_modules[:] = [extension()]
        super().finalize_options()

    def build_extensions(self) -> None:
        self.precompile_prelude()
        with files_for_commands():
            super().build_extensions()

    def precompile_prelude(self) -> None:
        """Parses torch's common headers once instead of once a file.

        The compiler takes a precompiled header only if it was made with the same options, so these
        are the ones that files are compiled with.
        """
        (module,) = self.distribution.ext_modules
        header = CSRC / "prelude.h"
        compiled = PRELUDE.with_suffix(".h.gch")
        command = [
            os.environ.get("CXX", "c++"),
            *self.compiler.compiler_so[1:],
            *(flag for flag in module.extra_compile_args if flag not in ("-include", str(PRELUDE))),
            "-x",
            "c++-header",
            str(header.relative_to(ROOT)),
        ]
        stamp = PRELUDE.with_suffix(".command")
        text = f"{torch.__version__} {' '.join(command)}\n{header.read_text()}"
        if compiled.exists() and stamp.exists() and stamp.read_text() == text:
            return
        write_if_changed(PRELUDE, header.read_text())
        subprocess.run([*command, "-o", str(compiled)], check=True)
        stamp.write_text(text)

    def run(self) -> None:
        super().run()
        write_build_info()  # Last: it must not speak for an older module when the build fails.


class BuildPython(build_py):
    """Writes the record of torch's version before the Python files are copied."""

    def run(self) -> None:
        write_build_info()
        super().run()


setup(
    version=f"{VERSION}+torch{'.'.join(RELEASE.split('.')[:2])}",
    install_requires=[f"torch=={RELEASE}", "optree>=0.13"],
    ext_modules=[extension()],
    cmdclass={"build_ext": BuildCpp, "build_py": BuildPython},
)
