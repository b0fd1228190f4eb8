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
from eisnn.functional.kernels import triton as kernels

MAPS = {"balanced", "i_div", "spikes", "grad_spikes", "grad_balanced", "grad_i_div"}
WIDE = {"smallest", "zero", "gain", "bias", "v", "v_last", "grad_v_last", "grad_v", "grad_gain", "grad_bias"}
WIDE |= {"h_scratch"}

def compile(kernel, dtype, capability, **constants):
    constants = {k: v for k, v in constants.items() if k in kernel.arg_names}
    kind = {name: "*" + dtype for name in MAPS} | {name: "*fp32" for name in WIDE}
    kind |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        kernel,
        {name: kind.get(name, "i32") for name in kernel.arg_names},
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert ".local" not in compiled.asm["ptx"], "spills registers"

variants = itertools.product((80, 90), ("fp32", "bf16"), (0, 1), (False, True), (0, 5))
for capability, dtype, inside, flag, surrogate in variants:
    constants = dict(
        DECAY=0.5, THETA=1.0, ALPHA=4.0, STATIC=flag, STATE=flag, SPIKES=True, LAST=flag, HARD=flag, DETACH=not flag,
        SURROGATE=surrogate, INSIDE=inside, DIVIDE=surrogate == 0, C=tl.float32, ROWS=16, COLUMNS=64,
    )
    compile(kernels.forward_kernel, dtype, capability, **constants)
    compile(kernels.backward_kernel, dtype, capability, **constants)
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
