"""Exact KV of whole prompts: an engine that starts anew finds it in the store."""

from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from conftest import running, screen
from PIL import Image

from kamera_agent.errors import ConventionError
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_sglang import SglangKamera

PAGE_SIZE, NUM_TOKENS = 16, 100
TEXT = list(range(20, 20 + NUM_TOKENS))
OTHER_END = [*TEXT[:70], *range(300, 330)]


def ask(engine: Any, **prompt: Any) -> tuple[int, dict[int, float]]:
    """Tokens of a prompt that were not computed, and the likeliest next tokens with their logprobs."""
    output = engine.generate(
        **prompt,
        sampling_params={"max_new_tokens": 1, "temperature": 0.0},
        return_logprob=True,
        top_logprobs_num=50,
    )
    facts = output["meta_info"]
    return facts["cached_tokens"], {token: logprob for logprob, token, _ in facts["output_top_logprobs"][0]}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Prompts as any client sends them; two of them differ in the pixels of an image only."""
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{seed}.png" for seed in range(2)]
    for seed, path in enumerate(paths):
        Image.fromarray(screen(seed)).save(path)
    text = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>what is it?<|im_end|>\n<|im_start|>assistant\n"
    return {
        "text": {"input_ids": TEXT},
        "salted": {"input_ids": TEXT, "cache_salt": "a tenant"},
        **{f"image {seed}": {"prompt": text, "image_data": str(path)} for seed, path in enumerate(paths)},
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def computed(checkpoint: Path, store: Path, prompts: Any) -> dict[str, tuple[int, dict[int, float]]]:
    """What an engine answered that found nothing, and is gone."""
    # As it is given to a server of SGLang, which no front end speaks to.
    config = {
        "linker": "KameraLinker",
        "linker_module_path": "kamera_sglang.linker",
        "linker_extra_config": {"store": [str(store)]},
    }
    options = {"dtype": "float32", "page_size": PAGE_SIZE, "unified_cache_external_linker_config": config}
    with running(checkpoint, store, **options) as engine:
        answers = {name: ask(engine, **prompt) for name, prompt in prompts.items()}
        # The store writes in the background, and the end of an engine is a kill.
        with LmdbStore(store) as written:
            while written.stats().num_records < len(prompts):
                sleep(0.1)
        return answers


@pytest.fixture(scope="module")
def engine(checkpoint: Path, store: Path, computed: Any) -> Iterator[Any]:
    with running(checkpoint, store, dtype="float32", page_size=PAGE_SIZE) as engine:
        yield engine


def test_another_engine_finds_all_whole_pages(engine: Any, computed: Any, prompts: Any) -> None:
    for name, prompt in prompts.items():
        num_cached, logprobs = ask(engine, **prompt)
        assert computed[name][0] == 0
        assert num_cached >= (NUM_TOKENS - 1) // PAGE_SIZE * PAGE_SIZE if "input_ids" in prompt else num_cached > 0
        assert logprobs == pytest.approx(computed[name][1], abs=1e-4)


def test_a_prompt_with_another_end_finds_what_they_share(engine: Any) -> None:
    engine.flush_cache()
    assert ask(engine, input_ids=OTHER_END)[0] == 70 // PAGE_SIZE * PAGE_SIZE
    engine.flush_cache()
    assert ask(engine, input_ids=OTHER_END)[0] == 99 // PAGE_SIZE * PAGE_SIZE


def test_windows_need_pages_of_one_token(engine: Any) -> None:
    with pytest.raises(ConventionError, match="page_size=1"):
        SglangKamera(engine)
