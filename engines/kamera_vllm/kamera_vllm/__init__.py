"""Chunks of kamera_agent under vLLM: images that move or come back are not computed again."""

from kamera_vllm.kamera import VllmKamera
from kamera_vllm.transfer import transfer_config
from kamera_vllm.window import Reply, VllmWindow

__all__ = ["Reply", "VllmKamera", "VllmWindow", "transfer_config"]
