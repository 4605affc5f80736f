import importlib
import sys

import pytest

from kamera_agent.runtime.kernels.dispatch import Kernels

MODULES = [f"kamera_agent.runtime.kernels.{name}" for name in ("tiles", "relocate", "rebuild")]


@pytest.fixture(scope="session")
def interpreted() -> Kernels:
    """The Triton kernels on CPU tensors, in modules of their own: @triton.jit decides at import whether to interpret.

    Whoever else imports the kernels gets the compiled ones.
    """
    pytest.importorskip("triton")
    before = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        _, relocate, rebuild = (importlib.import_module(name) for name in MODULES)
    for name in MODULES:
        del sys.modules[name]
    sys.modules.update(before)
    return Kernels(relocate.relocate, rebuild.rebuild)
