"""The benchmark runs and counts; its times are not tested."""

import json
import time

import pytest
import torch

from eisnn.bench import Floor, ResidentMemory, Subject, bench

FORMS = ("", ", folded", ", folded, compiled")


def test_bench_writes_what_it_prints(tmp_path, capsys, monkeypatch):
    output = tmp_path / "new" / "bench.json"
    monkeypatch.setattr(torch, "compile", lambda model: model)  # which takes long
    extras = {"floor": True, "inference": True, "compile": True}
    bench("convnet3", "cpu", batch_size=2, time_steps=2, repeats=1, output=output, **extras)
    result = json.loads(output.read_text())
    networks = result["networks"]
    assert set(networks) - {"spikingjelly"} == {"ei", "plus", "bn", "stock", "ei_floor", "bn_floor"}
    assert all(networks.pop(name)["step_seconds"] > 0 for name in ("ei_floor", "bn_floor"))
    assert set(result["inference"]) == {f"{network}{form}" for network in ("ei", "bn") for form in FORMS}
    assert min(result["inference"].values()) > 0
    assert set(result["ei_over_bn"]) == {
        "step_seconds", "step_cpu_seconds", "forward_seconds", "peak_bytes", "saved_bytes"
    }  # fmt: skip
    assert all(
        row["step_seconds"] > 0 and row["saved_bytes"] > 0 and row["peak_bytes"] > 0
        for row in result["networks"].values()
    )
    assert {"command", "machine", "versions"} <= set(result)
    assert "ei / bn" in capsys.readouterr().out


def test_compiled_inference_needs_inference():
    with pytest.raises(ValueError, match=r"compile is measured at inference only.*--inference"):
        bench("convnet3", "cpu", compile=True)


def test_what_cannot_end_well_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.setattr(Subject, "step", lambda self: pytest.fail("something was measured"))
    (tmp_path / "file").touch()
    for output in (tmp_path, tmp_path / "file" / "bench.json"):
        with pytest.raises(OSError, match=f"{output} could not be written"):
            bench("convnet3", "cpu", output=output)


def test_one_image_can_be_measured_and_a_network_without_convolutions():
    subject = Subject("ei", "contiguous", "convnet3", 1, 2, "32", "cpu")
    subject.step()
    assert subject.images.shape[0] == 1
    for network in ("ei", "bn"):
        Floor(Subject(network, "contiguous", "mlp", 4, 2, "32", "cpu")).step()


def test_saved_bytes_counts_each_storage_once_and_no_parameters():
    subject = Subject("bn", "contiguous", "convnet3", 2, 2, "32", "cpu")
    x = torch.ones(1000, requires_grad=True)
    weight = torch.nn.Parameter(torch.ones(1000))
    subject.model.extra = weight
    subject.loss = lambda: (x * weight + x.view(10, 100).square().sum()).sum()  # keeps x twice, and the parameter
    assert subject.saved_bytes() == 4000


def test_memory_that_was_freed_before_counts_again():
    """As in a network whose initialization has just used as much as a step will."""
    pins = []

    def use():
        buffers = [torch.ones(1 << 14) for _ in range(1024)]  # 64 KiB each, which do not go back to the system at once
        pins.append(torch.ones(1 << 14))  # nor with what lies above them
        return sum(float(buffer[0]) for buffer in buffers)

    use()
    with ResidentMemory() as memory:
        use()
        time.sleep(0.01)
    assert memory.growth > 32 << 20
