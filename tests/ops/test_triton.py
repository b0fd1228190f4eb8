"""The Triton kernels compile for NVIDIA GPUs, without one at hand; what they compute is tested in the interpreter."""

import importlib.util
import os
import subprocess
import sys

import pytest

PROGRAM = """
import itertools
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from eisnn.ops.pool import triton as pooling
from eisnn.ops.population import triton as kernels
from eisnn.ops.weights import triton as conserved

MAPS = {"balanced", "i_div", "spikes", "grad_spikes", "grad_balanced", "x", "out", "grad", "grad_x"}
WIDE = {"smallest", "weight", "gain", "bias", "v", "v_last", "grad_v_last", "grad_v", "sums", "h_scratch"}
WIDE |= {"product", "total", "row_norm", "folded", "norms", "shared", "grad_f", "grad_weight"}

def compile(kernel, dtype, capability, warps=kernels.WARPS, **constants):
    constants = {k: v for k, v in constants.items() if k in kernel.arg_names}
    kind = {name: "*" + dtype for name in MAPS} | {name: "*fp32" for name in WIDE}
    kind["grad_dividing"] = "*fp32" if constants.get("DIVISION") == 2 else "*" + dtype
    kind |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        kernel,
        {name: kind.get(name, "i32") for name in kernel.arg_names},
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    assert ".local" not in compiled.asm["ptx"], "spills registers"

divisions = kernels.ALONE, kernels.MAP, kernels.TONIC
variants = itertools.product((80, 90), ("fp32", "bf16"), (0, 1), (False, True), divisions)
for capability, dtype, inside, flag, division in variants:
    if capability == 80 and (flag or dtype == "fp32"):
        continue  # a sample of them for the older ones
    constants = dict(
        STEPS=10 if flag and inside else 4, DECAY=0.5, THETA=1.0, ALPHA=4.0, STATIC=flag, STATE=flag, SPIKES=True,
        LAST=flag, HARD=flag, DETACH=not flag, SURROGATE=division, INSIDE=inside, DIVISION=division, C=tl.float32,
        ROWS=kernels.ROWS, COLUMNS=kernels.COLUMNS, KEEP=not (flag and inside),
    )
    compile(kernels.forward_kernel, dtype, capability, **constants)
    compile(kernels.backward_kernel, dtype, capability, **constants)
for capability, dtype in itertools.product((80, 90), ("fp32", "bf16")):
    compile(kernels.smallest_kernel, dtype, capability, NOISE=1e-6, C=tl.float32, B=kernels.BLOCK)
    for kernel in (pooling.forward_kernel, pooling.backward_kernel):
        compile(kernel, dtype, capability, C=tl.float32, POSITIONS=pooling.POSITIONS, CHANNELS=pooling.CHANNELS)
rows = conserved.share_kernel, conserved.fold_kernel, conserved.through_fold_kernel, conserved.through_share_kernel
for capability, kernel in itertools.product((80, 90), rows):
    compile(kernel, "fp32", capability, 8, LEAST=0.01, SMALLEST=1e-12, TOTAL=True, C=tl.float32, TAPS=16, CHANNELS=512)
print("compiled")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_kernels_compile_for_gpus(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path / "cache")
    result = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    assert result.stdout.strip().endswith("compiled"), result.stderr[-3000:]
