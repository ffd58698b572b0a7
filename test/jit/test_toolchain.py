"""What is prepared for the C++ compiler, and remembered of it."""

import os

import pytest

from functorch_ext._jit import disk_cache, headers, toolchain


def test_facts_are_kept_for_other_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert disk_cache.noted(["vectors", "g++"]) is None
    disk_cache.note(["vectors", "g++"], "all")
    assert disk_cache.noted(["vectors", "g++"]) == "all"
    assert disk_cache.noted(["vectors", "clang++"]) is None


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file"))
    disk_cache.note(["vectors"])
    assert disk_cache.noted(["vectors"]) is None


@pytest.fixture
def compiled_header(tmp_path, monkeypatch):
    """A header that is precompiled, and a function that asks for it and counts."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    for name in ("made.h", "made.h.gch", "included.h"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(headers, "_included", lambda *_: [str(tmp_path / "included.h")])
    asked = []

    def precompile(header, command_line, **options):
        asked.append(command_line)
        return str(tmp_path / "made.h")

    def ask(command_line="g++"):
        assert headers._found_or_made(precompile, "a.h", command_line) == str(tmp_path / "made.h")
        return len(asked)

    return tmp_path, ask


def test_precompiled_header_is_found_without_the_compiler(compiled_header):
    _, ask = compiled_header
    assert [ask(), ask(), ask("g++ -O0"), ask("g++ -O0")] == [1, 1, 2, 2]


@pytest.mark.parametrize("name", ["made.h.gch", "included.h"])
def test_header_of_changed_files_is_made_again(compiled_header, name):
    folder, ask = compiled_header
    assert ask() == 1
    os.utime(folder / name, (1, 1))
    assert [ask(), ask()] == [2, 2]
    (folder / name).write_text("22")
    assert [ask(), ask()] == [3, 3]
    (folder / name).unlink()
    assert [ask(), ask()] == [4, 5]


def test_broken_note_of_a_header(compiled_header):
    folder, ask = compiled_header
    ask()
    for each in (folder / "functorch_ext").iterdir():
        each.write_text("{")
    assert [ask(), ask()] == [2, 2]


def test_files_of_a_header():
    pytest.importorskip("torch._inductor.cpp_builder")
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    options = {"vec_isa": pick_vec_isa(), "device_type": "cpu", "include_pytorch": True}
    found = headers._included("torch/csrc/inductor/cpp_prefix.h", options)
    assert any(each.endswith("torch/csrc/inductor/cpp_prefix.h") for each in found)
    assert all(os.path.isfile(each) for each in found)


def test_inductor_is_as_it_was_afterwards():
    from torch._inductor import codecache, config

    header_of, trusted = codecache._get_cpp_wrapper_header, config.cpp.vec_isa_ok
    with toolchain.prepared():
        both = codecache._get_cpp_wrapper_header("cpu")
        assert "cpp_wrapper/cpu.h" in both and "cpp_prefix.h" in both
        assert codecache._get_cpp_wrapper_header("cuda") == header_of("cuda")
    assert codecache._get_cpp_wrapper_header is header_of
    assert config.cpp.vec_isa_ok == trusted
