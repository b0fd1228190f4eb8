"""Set-up of all tests: memory that nobody wrote holds NaN, one thread, the same examples in every run."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from eisnn.functional.kernels import native

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


@pytest.fixture(scope="module", params=["compiled", "torch"])
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """What uses it holds for the compiled kernel and for torch operations."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(native, "library", lambda: None)
        elif native.library() is None:
            pytest.skip("no C++ compiler here")
        yield
