"""A platform of SGLang on which every operator is PyTorch's own."""

from sglang.srt.platforms.cpu import CpuSRTPlatform
from sglang.srt.platforms.interface import PlatformEnum


class PlainCpu(CpuSRTPlatform):
    _enum = PlatformEnum.OOT

    def get_dispatch_key_name(self) -> str:
        return "native"

    def get_default_attention_backend(self) -> str:
        return "torch_native"


def activate() -> str:
    return "cpu_platform.PlainCpu"
