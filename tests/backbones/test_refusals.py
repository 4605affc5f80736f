"""What cannot be served exactly is refused, with the reason and what to do."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from models import max_error, screenshot
from prompts import Talk
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Shard, distribute_tensor
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    LlavaConfig,
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
)

from benchmarks.backbones.zoo.ernie4_5_vl import ernie4_5_vl_moe
from benchmarks.backbones.zoo.gemma3 import gemma3
from benchmarks.backbones.zoo.internvl import internvl
from benchmarks.backbones.zoo.llava import llava
from benchmarks.backbones.zoo.ovis2 import ovis2
from benchmarks.backbones.zoo.parts import MAX_POSITIONS
from benchmarks.backbones.zoo.pixtral import mistral3_ministral3
from benchmarks.backbones.zoo.qwen_vl import qwen2_5_omni, qwen3_omni_moe
from benchmarks.backbones.zoo.text_only import text_only
from kamera_agent import ConventionError, InputError, Kamera, UnsupportedModelError, WindowTooLongError

# Model type -> what its refusal says.
UNSERVED = {
    "kimi_linear": "'linear_attention': a recurrent state",
    "nemotron_h": "'linear_attention': a recurrent state",
    "deepseek_v32": "_attention': an index with its own keys",
    "mistral_large4": "_attention': an index with its own keys",
    "llama4": "'chunked_attention': chunks of attention that begin at absolute positions",
    "paligemma": "prefix-LM",
    "minicpmv4_7": "the positions of an image depend on the text beside it",
    "molmo2": "tokens of an image see those of later images",
    "gemma4_unified": "neither can be the reference",
    "hunyuan_vl": "keys are normalised after RoPE",
}


# Some came with later versions of transformers than the oldest that is served.
@pytest.mark.parametrize("model_type", [name for name in UNSERVED if name in CONFIG_MAPPING])
def test_before_the_weights_are_read(model_type: str, tmp_path: Path) -> None:
    """The folder holds a configuration and nothing else."""
    AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=UNSERVED[model_type]):
        Kamera.from_pretrained(str(tmp_path), store=None)


# Model type -> options, and what its refusal says.
UNSERVED_TEXT: dict[str, tuple[dict[str, Any], str]] = {
    "bart": ({}, "is_encoder_decoder is True: the decoder attends to the output of an encoder"),
    "bert": ({"add_cross_attention": True, "is_decoder": True}, "add_cross_attention is True"),
    "doge": ({}, r"attention of layer 0 of DogeModel has unknown parts: \['A', 'dt_proj'\]"),
    "gemma3_text": ({"use_bidirectional_attention": True}, "every token sees what follows it"),
    "gpt2": ({}, "GPT2LMHeadModel has no `model`"),
    "llama4_text": ({}, "chunks of attention that begin at absolute positions"),
    "olmo": ({"clip_qkv": 8.0}, "clip_qkv is 8.0: keys are clipped"),
    "opt": ({}, "OPTModel has no layers and no rotary_emb"),
    "persimmon": ({}, "Layer 0 of PersimmonModel has no self_attn with a k_proj or kv_a_proj_with_mqa"),
    "olmo_hybrid": ({}, "'linear_attention': a recurrent state"),
    "t5": ({}, "is_encoder_decoder is True"),
    "vit": ({}, "supported are causal text models and aya_vision"),
}


@pytest.mark.parametrize("model_type", [name for name in UNSERVED_TEXT if name in CONFIG_MAPPING])
def test_text_models_before_the_weights_are_read(model_type: str, tmp_path: Path) -> None:
    options, reason = UNSERVED_TEXT[model_type]
    AutoConfig.for_model(model_type, **options).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=reason):
        Kamera.from_pretrained(str(tmp_path), store=None)


class Mixing(torch.nn.Module):
    """Adds to each token what is before it in the same forward pass."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + hidden.cumsum(dim=1)


def test_text_models_that_only_their_weights_show() -> None:
    """Attention that sees what follows, a layer that mixes tokens, keys that are normalised after RoPE."""
    model, processor = text_only("llama", torch.float32)
    for layer in model.model.layers:
        layer.self_attn.is_causal = False
    with pytest.raises(UnsupportedModelError, match="computed out of place differ from those of a plain forward pass"):
        Kamera(model, processor)
    model, processor = text_only("llama", torch.float32)
    model.model.layers[1].mlp = Mixing()
    with pytest.raises(UnsupportedModelError, match="computed out of place differ from those of a plain forward pass"):
        Kamera(model, processor)
    model, processor = text_only("nanochat", torch.float32)
    with pytest.raises(ConventionError, match="Layer 0 does not turn its keys"):
        Kamera(model, processor)


def test_a_text_model_inside_a_wrapper() -> None:
    """As PEFT wraps one: attributes of the model are those of the wrapper, too."""
    model, processor = text_only("llama", torch.float32)
    wrapper = torch.nn.Module()
    wrapper.model, wrapper.config = model, model.config
    with pytest.raises(UnsupportedModelError, match=r"Module is a wrapper; pass the model itself.*load_adapter"):
        Kamera(wrapper, processor)


def test_unserved_text_model_inside(tmp_path: Path) -> None:
    LlavaConfig(text_config={"model_type": "olmo_hybrid"}).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="Layer 0 is of kind 'linear_attention'"):
        Kamera.from_pretrained(str(tmp_path), store=None)


def test_loaded_already() -> None:
    config = AutoConfig.for_model("olmo_hybrid", num_hidden_layers=4)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(UnsupportedModelError, match="Layer 0 is of kind 'linear_attention'"):
        Kamera(model, object())


@pytest.mark.parametrize("parts", ["some", "all"])
def test_offloaded(parts: str) -> None:
    """Parameters that are not where the others are, as accelerate leaves them."""
    model, processor = llava(torch.float32)
    (model.model.language_model.layers[-1] if parts == "some" else model).to("meta")
    with pytest.raises(UnsupportedModelError, match=r"computes on .*meta; its parts must be on devices of one kind"):
        Kamera(model, processor)


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """A group of one process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield DeviceMesh("cpu", [0])
    distributed.destroy_process_group()


def test_tensor_parallel(mesh: DeviceMesh) -> None:
    """One projection split by its rows, as a tp_plan does with many."""
    model, processor = llava(torch.float32)
    projection = model.model.language_model.layers[0].self_attn.q_proj
    projection.weight = torch.nn.Parameter(distribute_tensor(projection.weight.detach(), mesh, [Shard(0)]))
    with pytest.raises(UnsupportedModelError, match="tensor parallel"):
        Kamera(model, processor)


def test_quantized_cache() -> None:
    model, processor = llava(torch.float32)
    model.generation_config.cache_implementation = "quantized"
    with pytest.raises(UnsupportedModelError, match=r"cache_implementation is 'quantized'.*base_dtype='int8'"):
        Kamera(model, processor)


def test_attention_that_takes_no_mask() -> None:
    """The one thing that is changed about a model, and it is said."""
    model, processor = llava(torch.float32)
    reference = Talk(model, processor).say("user", "first", screenshot(0), "what is it?").logits()
    model.config._attn_implementation = "flash_attention_2"
    with pytest.warns(UserWarning, match="'flash_attention_2' takes no 4-D mask; the model was switched to 'sdpa'"):
        kamera = Kamera(model, processor)
    assert {part._attn_implementation for part in (model.config, model.config.text_config)} == {"sdpa"}
    with kamera:
        window = kamera.window()
        window.add_text("first")
        window.add_image(screenshot(0))
        assert max_error(reference, window.logits("what is it?")) <= 1e-4


def test_attention_that_takes_no_mask_and_no_other_there(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = llava(torch.float32)
    model.config._attn_implementation = "flash_attention_2"
    monkeypatch.setattr(type(model.model.language_model), "_supports_sdpa", False)
    with pytest.raises(UnsupportedModelError, match="takes no 4-D mask, and LlavaForConditionalGeneration has no sdpa"):
        Kamera(model, processor)


def test_text_that_sees_what_follows() -> None:
    model, processor = gemma3(torch.float32)
    model.config.text_config.use_bidirectional_attention = True
    with pytest.raises(UnsupportedModelError, match="every token sees what follows it"):
        Kamera(model, processor)


def test_visual_words_drawn_at_random() -> None:
    model, processor = ovis2(torch.float32)
    model.config.vision_config.tokenize_function = "gumbel_argmax"
    with pytest.raises(UnsupportedModelError, match="never the same chunk"):
        Kamera(model, processor)


def test_what_speaks() -> None:
    """The whole of Qwen2.5-Omni: what it says is no text."""
    thinker, processor = qwen2_5_omni(torch.float32)
    config = Qwen2_5OmniConfig(thinker_config=thinker.config.to_dict(), enable_audio_output=False)
    with torch.device("meta"):
        model = Qwen2_5OmniForConditionalGeneration(config)
    with pytest.raises(UnsupportedModelError, match="only its text is served; pass model"):
        Kamera(model, processor)


def test_seconds_drawn_into_frames() -> None:
    with Kamera(*ernie4_5_vl_moe(torch.float32)) as kamera, pytest.raises(InputError, match="Add the frames as images"):
        kamera.window().add_frames([screenshot(0), screenshot(1)])


def test_frames_between_whole_positions() -> None:
    with Kamera(*qwen3_omni_moe(torch.float32)) as kamera, pytest.raises(InputError, match="Add the frames as images"):
        kamera.window().add_frames([screenshot(0), screenshot(1)])


@pytest.mark.parametrize("build", [internvl, mistral3_ministral3])
def test_beyond_the_original_length(build: Callable[..., Any]) -> None:
    """Dynamic NTK turns keys otherwise there, and Ministral 3 scales its queries by their positions."""
    model, processor = build(torch.float32)
    decoder = model.model.language_model
    near, far = (hidden_states(decoder, start) for start in (0, 1000))
    assert max_error(near, far) < 1e-4
    assert max_error(near, hidden_states(decoder, MAX_POSITIONS + 1000)) > 1e-2
    with Kamera(model, processor) as kamera:
        window = kamera.window()
        window.add_text("a page " * MAX_POSITIONS)
        with pytest.raises(WindowTooLongError, match=f"built for {MAX_POSITIONS}"):
            window.logits("what is it?")


@torch.no_grad()
def hidden_states(decoder: Any, start: int) -> torch.Tensor:
    """What a text model makes of the same tokens in a row, the first of them at this position."""
    positions = torch.arange(start, start + 40)[None]
    return decoder(input_ids=torch.arange(40)[None], position_ids=positions, use_cache=False).last_hidden_state
