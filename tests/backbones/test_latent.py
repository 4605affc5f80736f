"""Multi-head latent attention: a token costs its latent, in the pool and in the store."""

import pytest
from models import MakeKamera, screenshot
from rows import Row, rows

LATENTS = [param for param in rows("fp32", "bf16") if param.values[0][0].attention == "MLA"]


@pytest.mark.parametrize("row", LATENTS, indirect=True)
def test_bytes_are_those_of_the_latent(row: Row, make: MakeKamera) -> None:
    """Of c_KV and k_pe, never of the heads that attention expands them to."""
    config = row.model.config.text_config
    latent = config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim) * row.dtype.itemsize
    heads = config.num_attention_heads * (config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim)
    assert config.num_hidden_layers * heads * row.dtype.itemsize > 3 * latent
    kamera = make(base="canonical", rank=8)
    window = kamera.window()
    image = window.add_image(screenshot(0))
    window.logits("what is it?")
    kamera.flush()

    pool = window._assembly.residence.pool
    masters = config.num_hidden_layers * config.qk_rope_head_dim * row.dtype.itemsize
    assert pool.num_bytes == pool.capacity * (latent + masters)
    (base,) = [header for header in kamera.store.headers() if header.kind == "base"]
    num_tokens = next(span.num_tokens for span in window.spans if span.id == image)
    assert base.num_bytes == num_tokens * latent
    # A patch is as thin: its right factor is as wide as a latent.
    (patch,) = [header for header in kamera.store.headers() if header.kind == "patch"]
    width = config.kv_lora_rank + config.qk_rope_head_dim
    ranks = patch.attributes["ranks"]
    assert patch.num_bytes == sum(ranks) * (num_tokens + width) * row.dtype.itemsize
