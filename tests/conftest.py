"""Set-up of all tests: memory that nobody wrote holds NaN, one thread, the same examples in every run."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import is_hypothesis_test, settings

from eisnn.functional.lif import LIFConstants
from eisnn.ops import backends, build
from eisnn.ops.lif.torch import NEURONS
from eisnn.ops.population.torch import POPULATIONS

if torch.cuda.is_available():
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # deterministic algorithms ask for it, see below
else:
    os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are imported

settings.register_profile("eisnn", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("eisnn")


@pytest.fixture(autouse=True, scope="module")
def poison_uninitialised_memory() -> Iterator[None]:
    """`torch.empty` and its kin return NaN, so that an output that an operation forgot to write fails its test."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Sums in float32 depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded data goes into a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EISNN_DATA", str(tmp_path_factory.getbasetemp() / "eisnn-data"))
        yield


@pytest.fixture(scope="module")
def images(own_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the images that `train_runs` writes."""
    from train_runs import write_images  # not above: it imports the kernels

    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module", params=["compiled", "torch", "triton"])
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """What uses it holds for compiled operations, for those of torch and for Triton (interpreted without a GPU)."""
    if request.param == "compiled" and build.library() is None:
        pytest.skip("no C++ compiler here")
    if request.param == "triton" and not backends.HAS_TRITON:
        pytest.skip("triton is not installed")

    def interpreted(_: torch.Tensor, constants: LIFConstants) -> bool:
        return constants.surrogate_number is not None

    with pytest.MonkeyPatch.context() as patch:
        for implementations in (POPULATIONS, NEURONS):
            for name in {"compiled", "triton"} - {request.param}:
                patch.setitem(implementations.serves, name, lambda *_: False)
            if request.param == "triton":
                patch.setitem(implementations.serves, "triton", interpreted)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A kernel in Triton's interpreter takes a thousand times as long: a fifth of the random examples there."""
    test, callspec = getattr(item, "obj", None), getattr(item, "callspec", None)
    interpreted = callspec is not None and callspec.params.get("backend") == "triton"
    if not (interpreted and os.environ.get("TRITON_INTERPRET") == "1" and is_hypothesis_test(test)):
        return (yield)
    chosen = test._hypothesis_internal_use_settings
    with pytest.MonkeyPatch.context() as patch:
        fewer = settings(chosen, max_examples=chosen.max_examples // 5)
        patch.setattr(test, "_hypothesis_internal_use_settings", fewer)
        return (yield)
