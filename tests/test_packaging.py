"""What is released: both packages build and hold all that the program reads, and the wheel runs by itself."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import eisnn

ROOT = Path(__file__).parent.parent
pytest.importorskip("build")
pytest.importorskip("setuptools", "77")
USED = """
from pathlib import Path
import torch
import eisnn
from eisnn.data import load
assert Path(eisnn.__file__).is_relative_to(HERE), eisnn.__file__
model = eisnn.load("demo-plus")
images = load("cifar10-sample", size=16).test.pixels[:8, :, ::2, ::2].float() / 255
print(eisnn.__version__, tuple(model(images).shape))
"""


def python(*words: object, **kwargs) -> str:
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of an sdist and of the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"  # of what git has, so that nothing else gets in and nothing is left behind
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.stdout.split("\0")):
        if not name.startswith(("docs/", "experiments/", "benchmarks/", "tests/")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    python("-m", "build", "--no-isolation", "--outdir", folder, source, cwd=folder)
    return folder


def test_the_packages_hold_every_file_of_the_program(built):
    """Compiled sources, the sample, trained networks, and what pages are made of."""
    tracked = subprocess.run(["git", "ls-files", "eisnn"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = {name for name in tracked.stdout.split("\n") if name}
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    assert files <= set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        assert files <= {name.partition("/")[2] for name in archive.getnames()}


def test_the_registry_would_take_them(built):
    pytest.importorskip("twine")
    told = python("-m", "twine", "check", "--strict", *built.glob("eisnn-*"))
    assert told.count("PASSED") == 2


def test_the_wheel_runs_by_itself(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    python("-m", "pip", "install", "--no-deps", "--no-index", "--target", tmp_path / "site", wheel)
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "EISNN_DATA": str(tmp_path / "data")}
    told = python("-c", f"HERE = {str(tmp_path)!r}\n{USED}", env=env, cwd=tmp_path)
    assert told.split() == [eisnn.__version__, "(8,", "10)"]


def test_the_version_that_is_cited_is_that_of_the_package():
    assert f"version: {eisnn.__version__}" in (ROOT / "CITATION.cff").read_text().splitlines()
