"""The key of a chunk: whatever changes its KV changes it, and nothing that only names a maker does."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface import Conversation
from models import max_error, screenshot

from kamera_agent.chunk import Key
from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.runtime.families import family_for, load
from kamera_agent.runtime.families.identity import digest_tensors

PICTURE = screenshot(0, 168, 280)
FRAMES = SimpleNamespace(pixels=np.stack([PICTURE] * 2), timestamps=(0.0, 0.5))
Fields = dict[str, Any]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(WEIGHTS, tmp_path / "copy"))


def edit(path: Path, change: Callable[[Fields], Any]) -> None:
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def keys_of(model: Any, processor: Any) -> dict[str, Key]:
    family = family_for(model, processor)
    return {
        "image": family.image_chunk(PICTURE, "default").key,
        "frames": family.frames_chunk(FRAMES, "default").key,
        "document": family.document_chunk("rent", "default").key,
    }


def logits(checkpoint: Any) -> torch.Tensor:
    return Conversation(*checkpoint).say("user", PICTURE, "where is the menu?").logits()


@pytest.fixture(scope="module")
def original() -> Any:
    return load(str(WEIGHTS), device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["text_config"].update(rms_norm_eps=0.1),
        lambda config: config["text_config"].update(hidden_act="gelu"),
        lambda config: config["text_config"]["rope_parameters"].update(rope_theta=100.0),
        lambda config: config["text_config"]["rope_parameters"].update(mrope_section=[5, 6, 5]),
        lambda config: config["text_config"]["rope_parameters"].update(rope_type="linear", factor=2.0),
        lambda config: config["text_config"].update(use_sliding_window=True, sliding_window=4, max_window_layers=0)
        or config["text_config"].pop("layer_types"),
        lambda config: config["vision_config"].update(hidden_act="gelu"),
        lambda config: config["vision_config"].update(fullatt_block_indexes=[0, 1]),
        lambda config: config["vision_config"].update(window_size=112),
        lambda config: config["vision_config"]["rope_parameters"].update(rope_theta=100.0),
    ],
    ids=[
        "norm", "activation", "theta", "sections", "rope type", "sliding",
        "vision activation", "full blocks", "window", "vision theta",
    ],
)  # fmt: skip
def test_a_field_that_changes_the_forward_pass_changes_every_key(
    copy: Path, original: Any, change: Callable[[Fields], Any]
) -> None:
    edit(copy / "config.json", change)
    edited = load(str(copy), device="cpu")
    assert max_error(logits(edited), logits(original)) > 0
    for key, other in zip(keys_of(*edited).values(), keys_of(*original).values(), strict=True):
        assert key.digest != other.digest


def rename(folder: Path) -> None:
    edit(
        folder / "config.json",
        lambda config: config.update(
            transformers_version="4.50.0", architectures=None, _name_or_path="maker/model", id2label={"0": "a"}
        ),
    )
    edit(
        folder / "preprocessor_config.json",
        lambda fields: fields.update(processor_class="Other", image_processor_type="Qwen2VLImageProcessorPil"),
    )


def save_again(folder: Path) -> None:
    model, processor = load(str(folder), device="cpu")
    model.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)


@pytest.mark.parametrize("change", [lambda folder: None, rename, save_again], ids=["copied", "renamed", "saved again"])
def test_the_same_model_in_another_folder_has_the_same_keys(
    copy: Path, original: Any, change: Callable[[Path], None]
) -> None:
    change(copy)
    assert keys_of(*load(str(copy), device="cpu")) == keys_of(*original)


def test_the_implementation_of_attention_does_not_count(copy: Path, original: Any) -> None:
    model, processor = load(str(copy), device="cpu")
    model.set_attn_implementation("eager")
    assert model.config.get_text_config()._attn_implementation == "eager"
    assert keys_of(model, processor) == keys_of(*original)


@pytest.mark.parametrize(
    "change",
    [
        {"image_mean": [0.5, 0.5, 0.5]},
        {"rescale_factor": 1 / 256},
        {"resample": 0},
        {"do_normalize": False},
        # Larger than any picture that the processor is shown at load.
        {"size": {"longest_edge": 1 << 24, "shortest_edge": 3136}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_option_of_the_processor_changes_the_key(copy: Path, original: Any, change: Fields) -> None:
    edit(copy / "preprocessor_config.json", lambda fields: fields.update(change))
    assert keys_of(*load(str(copy), device="cpu"))["image"].digest != keys_of(*original)["image"].digest


def test_a_processor_that_computes_other_pixels_by_the_same_options_changes_the_key(
    copy: Path, original: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = load(str(copy), device="cpu")
    processor_class = type(processor.image_processor)
    plain = processor_class._preprocess

    def brighter(*args: Any, **options: Any) -> Any:
        batch = plain(*args, **options)
        batch["pixel_values"] += 1e-6
        return batch

    expected = keys_of(*original)["image"].digest
    monkeypatch.setattr(processor_class, "_preprocess", brighter)
    assert keys_of(model, processor)["image"].digest != expected


def test_every_weight_and_buffer_that_is_saved_counts(copy: Path, original: Any) -> None:
    expected = keys_of(*original)["image"].digest
    model, processor = load(str(copy), device="cpu")
    model.register_buffer("scale", torch.ones(3), persistent=True)
    with_buffer = keys_of(model, processor)["image"].digest
    model.scale[1] = 2
    changed_buffer = keys_of(model, processor)["image"].digest
    next(model.model.visual.parameters()).data.mul_(1.5)
    changed_weight = keys_of(model, processor)["image"].digest
    assert len({expected, with_buffer, changed_buffer, changed_weight}) == 4


@pytest.mark.parametrize(
    "dtype",
    [torch.int8, torch.uint8, torch.int32, torch.int64, torch.float8_e4m3fn, torch.bfloat16, torch.bool],
    ids=str,
)
def test_one_bit_of_a_tensor_of_any_dtype_counts(dtype: torch.dtype) -> None:
    """Of int64 the lowest bit, which a conversion to float32 would lose."""
    numbers = torch.ones(2, 5, dtype=torch.int64) if dtype == torch.bool else torch.full((2, 5), 1 << 40)
    tensor = numbers.view(torch.uint8)[..., : 5 * dtype.itemsize].contiguous().view(dtype)
    other = tensor.clone()
    other.view(torch.uint8)[1, 0] ^= 1
    assert digest_tensors({"w": tensor}, 64) == digest_tensors({"w": tensor.clone()}, 64)
    assert digest_tensors({"w": tensor}, 64) != digest_tensors({"w": other}, 64)


def test_names_shapes_and_dtypes_of_tensors_count() -> None:
    zeros = torch.zeros(4, 2)
    forms = [{"a": zeros}, {"b": zeros}, {"a": zeros.T}, {"a": zeros.int()}, {"a": zeros.bfloat16().repeat(1, 2)}]
    assert len({digest_tensors(form, 64) for form in forms}) == len(forms)


def test_the_key_of_a_model_whose_layers_are_alike_names_one_shape(original: Any) -> None:
    """As before the layers could differ, so that chunks stored then are still found."""
    material = json.loads(keys_of(*original)["document"].material)
    config = original[0].config.text_config
    heads = [config.num_key_value_heads, config.hidden_size // config.num_attention_heads]
    assert material["model"]["kv"] == [config.num_hidden_layers, heads, heads, "half", "torch.float32"]
