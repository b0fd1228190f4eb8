"""The compiled kernel is built when it is needed, and what prevents that is said."""

import shutil

import pytest

from eisnn.ops import build

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here")


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Looks for the kernel as a new process with a cache of its own does."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("EISNN_NATIVE", raising=False)
    monkeypatch.setattr(build, "FLAGS", tuple("-O0" if flag == "-O3" else flag for flag in build.FLAGS))  # soon built
    return build.library.__wrapped__


def half_built(command, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"half of a library")


def test_a_damaged_library_is_built_again(fresh, monkeypatch):
    monkeypatch.setenv("CXX", "c++ -DA_COMPILER_WITH_OPTIONS")
    with monkeypatch.context() as patch:
        patch.setattr(build, "_build", half_built)
        with pytest.warns(RuntimeWarning, match="could not be built"):
            assert fresh() is None
    assert fresh() is not None


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_a_compiler_that_does_not_work_is_said_once(fresh, compiler, monkeypatch):
    monkeypatch.setenv("CXX", compiler)
    with pytest.warns(RuntimeWarning, match="runs on torch operations, which take longer.*could not be built"):
        assert fresh() is None


def test_it_can_be_declined(fresh, monkeypatch, recwarn):
    monkeypatch.setenv("EISNN_NATIVE", "0")
    assert fresh() is None
    assert not recwarn.list
