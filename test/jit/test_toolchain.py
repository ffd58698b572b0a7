"""What is prepared for the C++ compiler, and remembered of it."""

from functorch_ext._jit import disk_cache, toolchain


def test_facts_are_kept_for_other_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert not disk_cache.is_noted(["vectors", "g++"])
    disk_cache.note(["vectors", "g++"])
    assert disk_cache.is_noted(["vectors", "g++"])
    assert not disk_cache.is_noted(["vectors", "clang++"])


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file"))
    disk_cache.note(["vectors"])
    assert not disk_cache.is_noted(["vectors"])


def test_inductor_is_as_it_was_afterwards():
    from torch._inductor import codecache, config

    header_of, trusted = codecache._get_cpp_wrapper_header, config.cpp.vec_isa_ok
    with toolchain.prepared():
        both = codecache._get_cpp_wrapper_header("cpu")
        assert "cpp_wrapper/cpu.h" in both and "cpp_prefix.h" in both
        assert codecache._get_cpp_wrapper_header("cuda") == header_of("cuda")
    assert codecache._get_cpp_wrapper_header is header_of
    assert config.cpp.vec_isa_ok == trusted
