"""Compile kernels for GPUs that need not be present, and print the registers and the stack of each as JSON.

    python compile_ahead.py CAPABILITY...

A program of its own: elsewhere in the tests the kernels are interpreted. The wrappers choose the configuration, as they
do on a GPU; what they would launch is compiled instead.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from kernel_cases import BF16, FP16, FP32, Case
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kamera_agent.runtime.kernels import rebuild, relocate

TYPES = {FP32: "fp32", FP16: "fp16", BF16: "bf16", torch.int64: "i64"}
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"

# The models of the benchmark, and the cases that take most registers.
CASES = {
    "qwen2_5_vl_7b": Case(BF16, 65, (4, 128), (4, 128), (32, 16)),
    "deepseek_v3": Case(BF16, 65, (1, 64), (1, 512), (32, 16)),
    "qwen3_vl_8b, int8": Case(BF16, 65, (8, 128), (8, 128), (7, 16), int8_kv=True, int8_factors=True, gaps=True),
    "fp16, 256 interleaved": Case(FP16, 65, (2, 256), (2, 256), (7, 64), pairs="interleaved", layers_turn_alike=False),
    "bf16, 256 partial, int8": Case(BF16, 65, (2, 256), (2, 256), (7, 64), int8_kv=True, int8_factors=True, width=64),
    "fp32, 256": Case(FP32, 65, (2, 256), (2, 256), (16, 16), gaps=True),
}


class Recorder:
    """Takes the place of a kernel, and keeps the arguments of its launch."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*values: Any, **named: Any) -> None:
            self.arguments = dict(zip(self.kernel.arg_names, values, strict=False)) | named

        return launch


def launches(case: Case) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """The launches of both wrappers for a case: name, kernel, and arguments with options."""
    chunk, buffers = case.chunk(torch.Generator().manual_seed(0)), case.buffers()
    for module, name, arguments in (
        (relocate, "relocate", (*buffers[:2], case.slots, chunk.cos, chunk.sin, case.pairs)),
        (rebuild, "rebuild", (*buffers, case.slots, *chunk, case.pairs)),
    ):
        kernel = getattr(module, f"{name}_kernel")
        recorder = Recorder(kernel)
        setattr(module, f"{name}_kernel", recorder)
        getattr(module, name)(*arguments)
        setattr(module, f"{name}_kernel", kernel)
        yield name, kernel, recorder.arguments


def compiled(kernel: Any, arguments: dict[str, Any], capability: int) -> bytes:
    """The machine code for one GPU."""
    values = {name: arguments[name] for name in kernel.arg_names}
    options = {name: value for name, value in arguments.items() if name not in values}
    signature, constants, alignments = {}, {}, {}
    for number, (name, value) in enumerate(values.items()):
        if isinstance(value, torch.Tensor):
            signature[name] = f"*{TYPES[value.dtype]}"
            alignments[number,] = [["tt.divisibility", 16]]
        elif type(value) is int and not name.isupper():
            signature[name] = "i32"
        else:
            signature[name] = "constexpr"
            constants[name] = value
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=alignments)
    code: bytes = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["cubin"]
    return code


def resources(code: bytes) -> dict[str, int]:
    """Registers per thread, and bytes of stack and local memory, where registers spill to."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        report = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        )
    return {name.lower(): int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", report.stdout)}


def main() -> None:
    usages = [
        {"kernel": name, "case": title, "capability": capability} | resources(compiled(kernel, arguments, capability))
        for title, case in CASES.items()
        for name, kernel, arguments in launches(case)
        for capability in map(int, sys.argv[1:])
    ]
    sys.stdout.write(json.dumps(usages))


if __name__ == "__main__":
    main()
