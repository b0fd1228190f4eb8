"""Step time in one process and in two that share the same batch (DDP over gloo, one thread each), on a CPU.

All steps run in turn, so that a machine whose speed drifts treats them alike; while the first process works alone, the
second one waits. CPU time is that of the first process; where other programs use the same cores (the load average
before stands in the result), it says more than the time that passes.

    python benchmarks/scaling.py --model vgg8 --batch-size 32 --output benchmarks/results/cpu_scaling_vgg8.json
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from eisnn.bench import Subject
from eisnn.provenance import provenance, write_result

PROCESSES = 2


def shared(rank: int, subject: Subject) -> Subject:
    """The same subject as one of several processes: its part of the batch, and gradients that are averaged."""
    subject.images = subject.images.tensor_split(PROCESSES)[rank]
    subject.labels = subject.labels.tensor_split(PROCESSES)[rank]
    subject.model = DistributedDataParallel(subject.model)
    return subject


def measure(rank: int, folder: str, common: dict[str, Any], repeats: int) -> None:
    """What each process does; the first one writes its times, a list for each network and number of processes."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=PROCESSES)
    subjects = {}
    for network in ("ei", "bn"):
        subjects[network, 1] = Subject(network=network, **common)
        subjects[network, PROCESSES] = shared(rank, Subject(network=network, **common))
    times: dict[tuple[str, int], dict[str, list[float]]] = {key: {"wall": [], "cpu": []} for key in subjects}
    for repeat in range(repeats + 1):
        for (network, processes), subject in subjects.items():
            distributed.barrier()
            start, cpu = time.perf_counter(), time.process_time()
            if rank < processes:
                subject.step()
            if processes > 1:
                distributed.barrier()  # the step ends when the last process has ended it
            if repeat:
                times[network, processes]["wall"].append(time.perf_counter() - start)
                times[network, processes]["cpu"].append(time.process_time() - cpu)
    if rank == 0:
        torch.save(times, f"{folder}/times")
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vgg8")
    parser.add_argument("--batch-size", type=int, default=32, help="images a step, over both processes together")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    common = {
        "model": args.model,
        "batch_size": args.batch_size,
        "device": "cpu",
        "time_steps": 4,
        "precision": "32",
        "memory_format": "channels_last",
    }
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(measure, (folder, common, args.repeats), nprocs=PROCESSES)
        times = torch.load(f"{folder}/times")
    rows = {}
    for network in ("ei", "bn"):
        row: dict[str, Any] = {}
        for processes, name in ((1, "one_process"), (PROCESSES, "two_processes")):
            taken = times[network, processes]
            row[f"{name}_seconds"] = statistics.median(taken["wall"])
            row[f"{name}_cpu_seconds"] = statistics.median(taken["cpu"])
            row[f"{name}_seconds_all"] = taken["wall"]
        one, two = row["one_process_seconds"], row["two_processes_seconds"]
        cpu = row["one_process_cpu_seconds"] / row["two_processes_cpu_seconds"]
        rows[network] = row | {"speedup": one / two, "cpu_ratio": cpu}
        print(
            f"{network}: 1 process {1000 * one:.0f} ms, 2 processes {1000 * two:.0f} ms, speed-up {one / two:.2f}; "
            f"CPU time of a process {cpu:.2f} times less"
        )
    if args.output:
        write_result(args.output, {**provenance(), **common, "load_before": load, "n": args.repeats, "networks": rows})


if __name__ == "__main__":
    main()
