"""The compiled routines are built when they are needed; what prevents that is said, and nothing foreign is loaded."""

import ctypes
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from eisnn.ops import build
from eisnn.ops.cortex import cpu as cortex
from eisnn.ops.population import cpu as population
from eisnn.ops.structs import fields_of
from eisnn.ops.weights import cpu as weights

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here")
SMALL = "int answer() { return 42; }"


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Looks for the library as a new process with a cache of its own does; the library is a small one."""
    source = tmp_path / "small.cpp"
    source.write_text(f'extern "C" {SMALL}')
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("EISNN_NATIVE", raising=False)
    monkeypatch.setattr(build, "SOURCES", (source,))
    monkeypatch.setattr(build, "FLAGS", ("-shared", "-fPIC"))
    return build.library.__wrapped__


@pytest.fixture
def built(fresh):
    """Path of the library that is there."""
    assert fresh().answer() == 42
    return next((Path(os.environ["XDG_CACHE_HOME"]) / "eisnn" / "kernels").glob("*.so"))


@pytest.fixture
def builds(monkeypatch):
    """How often it is compiled."""
    calls, original = [], build._build
    monkeypatch.setattr(build, "_build", lambda *args: calls.append(args) or original(*args))
    return calls


def test_it_is_built_once_for_its_user_alone(fresh, built, builds):
    assert fresh().answer() == 42
    assert not builds
    assert [path.stat().st_mode & 0o777 for path in (built.parent, built, built.with_suffix(".sha256"))] == [
        0o700, 0o600, 0o600,
    ]  # fmt: skip


def put(path, data):
    """In another file: this process has the old one mapped."""
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: put(path, path.read_bytes()[:4096]),
        lambda path: put(path, b""),
        lambda path: put(path, path.read_bytes()[:5000] + b"\x01" + path.read_bytes()[5001:]),
        lambda path: path.with_suffix(".sha256").unlink(),
        lambda path: path.with_suffix(".sha256").write_bytes(b"\xff\xfe"),
    ],
    ids=["truncated", "empty", "one byte", "without digest", "another digest"],
)
def test_a_damaged_library_is_built_again(fresh, built, builds, damage):
    damage(built)
    assert fresh().answer() == 42
    assert len(builds) == 1


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_what_others_may_write_is_not_loaded(fresh, built, builds, mode):
    built.chmod(mode)
    assert fresh().answer() == 42
    assert len(builds) == 1
    assert built.stat().st_mode & 0o777 == 0o600


def test_what_belongs_to_another_user_is_not_loaded(fresh, built, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.warns(RuntimeWarning, match=r"could not be built: .*kernels is not this user's own"):
        assert fresh() is None


def test_a_planted_link_to_a_folder_is_refused(fresh, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "cache" / "eisnn").mkdir(parents=True)
    (tmp_path / "cache" / "eisnn" / "kernels").symlink_to(elsewhere)
    with pytest.warns(RuntimeWarning, match="not this user's own"):
        assert fresh() is None


def test_a_mask_of_zero_leaves_nothing_open(fresh):
    before = os.umask(0)
    try:
        assert fresh().answer() == 42
    finally:
        os.umask(before)
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "eisnn" / "kernels"
    made = (folder, *folder.parents[:2], *folder.glob("kernels-*"))
    assert not any(path.stat().st_mode & 0o077 for path in made)


def test_a_relative_cache_is_ignored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert build._private_folder() == tmp_path / "home" / ".cache" / "eisnn" / "kernels"
    assert not (tmp_path / "here").exists()


@pytest.fixture
def slow(built, tmp_path):
    """A process whose compiler never ends."""
    compiler = tmp_path / "slow"
    compiler.write_text("#!/bin/sh\nexec sleep 60\n")
    compiler.chmod(0o755)
    built.unlink()
    program = f"from pathlib import Path\nfrom eisnn.ops import build\nbuild._build(['{compiler}'], Path('{built}'))\n"
    child = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    while not list(built.parent.glob("build-*")):
        time.sleep(0.05)
    yield child
    with suppress(ProcessLookupError):
        os.killpg(child.pid, 9)
    child.wait()


def test_a_killed_compiler_leaves_nothing(fresh, built, slow):
    os.killpg(slow.pid, 9)
    slow.wait()
    assert fresh().answer() == 42
    assert not list(built.parent.glob("build-*"))


def test_a_living_compiler_is_waited_for_and_its_folder_stays(fresh, built, slow, monkeypatch):
    monkeypatch.setattr(build, "LONGEST_BUILD", 0.1)
    with pytest.warns(RuntimeWarning, match="could not be built"):
        assert fresh() is None
    assert len(list(built.parent.glob("build-*"))) == 1


def test_processes_that_start_together_compile_once(fresh, tmp_path):
    compiler, log = tmp_path / "counting", tmp_path / "log"
    compiler.write_text(f'#!/bin/sh\necho >> {log}\nsleep 1\nexec c++ "$@"\n')
    compiler.chmod(0o755)
    file = build._private_folder() / "kernels-0.so"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: build._build([str(compiler)], file), range(4)))
    assert log.read_text() == "\n"
    assert build._is_whole(file)


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_a_compiler_that_does_not_work_is_said_once(fresh, compiler, monkeypatch):
    monkeypatch.setenv("CXX", compiler)
    with pytest.warns(RuntimeWarning, match="runs on torch operations, which take longer.*could not be built"):
        assert fresh() is None


def test_it_can_be_declined(fresh, monkeypatch, recwarn):
    monkeypatch.setenv("EISNN_NATIVE", "0")
    assert fresh() is None
    assert not recwarn.list


def test_a_run_can_say_what_served_it(monkeypatch):
    assert build.describe().startswith("compiled ")
    monkeypatch.setattr(build, "library", lambda: None)
    assert build.describe() == "torch"


def test_the_arguments_are_as_the_source_declares_them(tmp_path):
    source = tmp_path / "some.cpp"
    source.write_text(
        "struct Map {\n    const void *data, *more;  // null; absent\n    int64_t step, image;\n};\n"
        "struct Other {\n    float x;\n};\n"
    )
    assert fields_of("Map", source) == [
        ("data", ctypes.c_void_p), ("more", ctypes.c_void_p), ("step", ctypes.c_int64), ("image", ctypes.c_int64),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="field x of Other has the type float"):
        fields_of("Other", source)
    with pytest.raises(ValueError, match=r"some\.cpp declares no struct Missing"):
        fields_of("Missing", source)


@pytest.mark.parametrize(
    ("struct", "source"),
    [
        (population.Map, "population/population.cpp"),
        (population.Problem, "population/population.cpp"),
        (weights.Rows, "weights/rows.cpp"),
        (cortex.Cells, "cortex/cortex.cpp"),
        (cortex.Circuit, "cortex/cortex.cpp"),
    ],
)
def test_the_compiler_lays_the_arguments_out_alike(struct, source, tmp_path):
    names, name = [field for field, *_ in struct._fields_], struct.__name__
    offsets = ", ".join(f"offsetof({name}, {field})" for field in names)
    file = tmp_path / "probe.cpp"
    file.write_text(
        f'#include "{Path(build.__file__).parent / source}"\n#include <cstddef>\n#include <cstdio>\n'
        f'int main() {{ for (size_t n : {{{offsets}, sizeof({name})}}) std::printf("%zu ", n); }}\n'
    )
    subprocess.run(["c++", "-std=c++17", "-fopenmp", str(file), "-o", str(tmp_path / "probe")], check=True)
    found = subprocess.run([tmp_path / "probe"], check=True, capture_output=True, text=True).stdout
    expected = [*(getattr(struct, field).offset for field in names), ctypes.sizeof(struct)]
    assert [int(n) for n in found.split()] == expected
