"""Fast versions of `eisnn.functional.population`: compiled for the CPU, Triton for GPUs. The same mathematics."""
