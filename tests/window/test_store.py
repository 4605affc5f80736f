"""Windows over the disk tier: restart, damage, and what a key tells apart."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3
from huggingface import Conversation
from models import TINY, MakeKamera, max_error, screenshot
from transformers import AutoConfig

from kamera_agent import (
    ConventionError,
    Kamera,
    KameraError,
    ModelError,
    SettingError,
    StoreClosedError,
    StoreKeyError,
    UnsupportedModelError,
)
from kamera_agent.chunk import Record
from kamera_agent.cli.transfer import export_chunks, import_chunks
from kamera_agent.pocket.model import PocketProcessor, build_model, build_processor
from kamera_agent.runtime.families import family_for
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.memory import MemoryStore
from kamera_agent.store.tiered import TieredStore
from kamera_agent.vision.frames import stack_frames

NUM_IMAGES = 3
SHOTS = [screenshot(i) for i in range(NUM_IMAGES)]


def ask(kamera: Kamera) -> tuple[torch.Tensor, set[str | None]]:
    """Logits over NUM_IMAGES images, and the origins of their spans."""
    window = kamera.window()
    for i in range(NUM_IMAGES):
        window.add_image(screenshot(i))
    logits = window.logits("what?")
    kamera.flush()
    return logits, {span.origin for span in window.spans if span.kind == "image"}


@pytest.fixture
def expected(models: dict[str, Any], processor: PocketProcessor) -> torch.Tensor:
    images = [screenshot(i) for i in range(NUM_IMAGES)]
    return Conversation(models["qwen2_5_vl"], processor).say("user", *images, "what?").logits()


# "auto" keeps factors in int8, of 127 steps: each is off by up to a hundredth of the largest.
@pytest.mark.parametrize(
    ("base", "rank", "worst"), [("first", "auto", 1e-4), ("canonical", 26, 1e-3), ("canonical", "auto", 2e-2)]
)
def test_chunks_outlive_the_process(
    base: str, rank: Any, worst: float, make: MakeKamera, tmp_path: Path, expected: torch.Tensor
) -> None:
    options = {"store": tmp_path, "base": base, "rank": rank, "error_budget": 1e-3, "byte_budget": 1.0}
    with make(**options) as first:
        assert ask(first)[1] == {"computed"}
    with make(**options) as second:
        logits, origins = ask(second)
        assert origins == {"recalled"}
        assert second.stats().encoder_calls == 0
        assert max_error(expected, logits) <= worst


def test_damaged_record_is_computed_again(make: MakeKamera, tmp_path: Path, expected: torch.Tensor) -> None:
    """One bit of the file is flipped inside a chunk's V: the answer is right, the record quarantined, then whole."""
    with make(store=tmp_path) as first:
        ask(first)
        header = next(header for header in first.store.headers() if header.kind == "base")
        value = first.store.get_many([header.key])[header.key.digest].layers[2][1]
        needle = value.contiguous().view(torch.uint8).numpy().tobytes()
    data = tmp_path / DATABASE
    content = bytearray(data.read_bytes())
    assert content.count(needle[:512]) == 1
    content[content.find(needle[:512]) + 100] ^= 1
    data.write_bytes(content)
    with make(store=tmp_path, rank=26) as second:
        logits, origins = ask(second)
        assert "computed" in origins
        assert second.stats().store.quarantined == 1
        assert max_error(expected, logits) <= 1e-3
    with make(store=tmp_path) as third:
        logits, origins = ask(third)
        assert third.store.check().problems == ()


def test_an_archive_brings_chunks_to_another_machine(make: MakeKamera, tmp_path: Path) -> None:
    """Bases and patches that the library wrote pass the checks of an import, and give the very logits."""
    options = {"base": "canonical", "rank": 26}
    with make(store=tmp_path / "here", **options) as kamera:
        ask(kamera)
    export_chunks(tmp_path / "here", None, tmp_path / "archive", None, unencrypted=False, as_json=True)
    import_chunks(tmp_path / "archive", tmp_path / "there", None, as_json=True)
    with make(store=tmp_path / "here", **options) as here, make(store=tmp_path / "there", **options) as there:
        (logits, origins), (expected, _) = ask(there), ask(here)
        assert origins == {"recalled"}
        assert torch.equal(logits, expected)


def inexact(record: Record) -> Record:
    """A base computed after the same runs, but not exactly."""
    header = replace(record.header, attributes={**record.header.attributes, "exact": False})
    return Record(header, tuple(tuple(tensor + 1 for tensor in layer) for layer in record.layers))


@pytest.mark.parametrize(
    "changed",
    [lambda found: {}, lambda found: {digest: inexact(record) for digest, record in found.items()}],
    ids=["lost", "replaced"],
)
def test_a_base_that_changes_between_plan_and_read_is_not_used(
    changed: Any, make: MakeKamera, expected: torch.Tensor
) -> None:
    first = make()
    ask(first)
    store = first.store
    original = store.get_many
    store.get_many = lambda keys: changed(original(keys))  # type: ignore[method-assign]
    try:
        logits, origins = ask(make(store=store))
    finally:
        store.get_many = original  # type: ignore[method-assign]
    assert origins == {"computed"}
    assert max_error(expected, logits) <= 1e-4


def test_chunks_of_an_encrypted_store_outlive_the_process(make: MakeKamera, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="needs the extra encryption")
    options = {"store": tmp_path, "encryption_key": lambda: bytes(32)}
    with make(**options) as first:
        computed, origins = ask(first)
        assert origins == {"computed"}
    with make(**options) as second:
        recalled, origins = ask(second)
        assert origins == {"recalled"}
        assert max_error(computed, recalled) <= 1e-4
    with pytest.raises(StoreKeyError):
        make(store=tmp_path)
    with LmdbStore(tmp_path / "plain") as plain, pytest.raises(SettingError, match="does not change an open store"):
        make(store=plain, encryption_key=lambda: bytes(32))
    with make(store=MemoryStore(1000), encryption_key=lambda: bytes(32)) as memory:
        assert not memory.store.is_encrypted


def test_the_policy_of_the_disk_tier_is_a_setting(make: MakeKamera, tmp_path: Path) -> None:
    """It stays with the store until somebody sets another one."""
    make(store=tmp_path, quota_bytes=1 << 30, ttl_s=86400).close()
    with LmdbStore(tmp_path) as store:
        assert (store.quota_bytes, store.ttl_s) == (1 << 30, 86400)
    for eviction, policy in ((None, "lru"), ("cost", "cost"), (None, "cost"), ("lfu", "lfu")):
        make(store=tmp_path, eviction=eviction).close()
        with LmdbStore(tmp_path) as store:
            assert store.policy == policy
    with LmdbStore(tmp_path, policy="cost") as store, pytest.raises(SettingError, match="does not change an open"):
        make(store=store, eviction="lru")
    with LmdbStore(tmp_path) as store, pytest.raises(SettingError, match="use set_ttl"):
        make(store=store, ttl_s=5)
    with LmdbStore(tmp_path) as store:
        assert store.policy == "cost"


@pytest.mark.parametrize("name", ["namespace_secret", "encryption_key"])
def test_a_secret_that_cannot_be_read_costs_no_loading(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("cryptography", reason="needs the extra encryption")
    monkeypatch.setattr("kamera_agent.kamera.load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(SettingError, match=f"{name} is 'env:NOWHERE'"):
        Kamera.pocket(tmp_path / "store", **{name: "env:NOWHERE"})
    assert not (tmp_path / "store").exists()


def test_without_the_secret_nobody_makes_the_keys_of_a_namespace(make: MakeKamera) -> None:
    """The keys of each secret hold keyed digests, by hand: none that can be made of pixels or tokens alone."""
    store, seen, layouts = make().store, set[str](), set[str]()
    plain = [blake3(f"image |u1 {[*shot.shape]}\n".encode() + shot.tobytes()).hexdigest() for shot in SHOTS]
    for secret in (None, bytes(32), bytes([1]) * 32):
        options = {} if secret is None else {"namespace_secret": lambda secret=secret: secret}
        assert ask(make(store=store, **options))[1] == {"computed"}
        assert ask(make(store=store, **options))[1] == {"recalled"}
        digests = plain if secret is None else [blake3(text.encode(), key=secret).hexdigest() for text in plain]
        new = [json.loads(h.key.material) for h in store.headers() if h.kind == "base" and h.key.material not in seen]
        assert sorted(facts["pixels"] for facts in new) == sorted(digests)
        assert layouts.isdisjoint(facts["layout"] for facts in new)
        layouts |= {facts["layout"] for facts in new}
        seen |= {header.key.material for header in store.headers()}


@pytest.mark.parametrize("options", [{"namespace": "other"}, {"base": "canonical"}, {"base_dtype": "int8"}], ids=str)
def test_other_options_do_not_meet(make: MakeKamera, options: dict[str, Any]) -> None:
    first = make()
    ask(first)
    assert ask(make(store=first.store, **options))[1] == {"computed"}


def chunk_digests(model: Any, processor: Any, namespace: str = "default") -> tuple[bytes, bytes]:
    family = family_for(model, processor)
    image = family.image_chunk(screenshot(0), namespace)
    return image.digest, family.frames_chunk(stack_frames([screenshot(0), screenshot(1)]), namespace).digest


def test_key_tells_models_and_processors_apart(models: dict[str, Any], processor: PocketProcessor) -> None:
    """Every change below could change the KV, so it must change the key; equal models have equal keys."""
    model = models["qwen2_5_vl"]
    base = chunk_digests(model, processor)
    for same in (build_model(TINY), _named("some/model", None), _named("some/model", "abc"), _eager()):
        assert chunk_digests(same, build_processor()) == base
    others = [
        chunk_digests(models["qwen2_vl"], processor),
        chunk_digests(build_model(TINY, seed=1), processor),
        chunk_digests(build_model(TINY, dtype=torch.bfloat16), processor),
        chunk_digests(model, processor, "another"),
        chunk_digests(_retrained(), processor),
        chunk_digests(_with_adapter(), processor),
        chunk_digests(model, _processor(image_mean=[0.5, 0.5, 0.5])),
        chunk_digests(model, _processor(size={"shortest_edge": 3136, "longest_edge": 10**6})),
        chunk_digests(_turned_slower(), processor),
    ]
    assert len({base, *others}) == len(others) + 1
    assert len({digest for pair in (base, *others) for digest in pair}) == 2 * (len(others) + 1)


def _processor(**options: Any) -> PocketProcessor:
    image_processor = type(build_processor().image_processor)(**options)
    return PocketProcessor(build_processor().tokenizer, image_processor)


def _retrained() -> Any:
    model = build_model(TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 1e-4)
    return model


def _named(name: str, revision: str | None) -> Any:
    model = build_model(TINY)
    model.config._name_or_path, model.config._commit_hash = name, revision
    return model


def _with_adapter() -> Any:
    model = build_model(TINY)
    model.peft_config = {"screens": object()}
    model.active_adapters = lambda: ["screens"]
    return model


def _turned_slower() -> Any:
    model = build_model(TINY)
    model.model.language_model.rotary_emb.inv_freq.mul_(0.5)
    return model


def _eager() -> Any:
    model = build_model(TINY)
    model.set_attn_implementation("eager")
    return model


def test_checkpoint_loads_by_its_folder(tmp_path: Path, expected: torch.Tensor) -> None:
    """The same weights through from_pretrained, without torchvision, give the same answer and find the same chunks."""
    checkpoint, store = tmp_path / "checkpoint", tmp_path / "store"
    processor = build_processor()
    build_model(TINY).save_pretrained(checkpoint)
    processor.tokenizer.save_pretrained(checkpoint)
    processor.image_processor.save_pretrained(checkpoint)
    for origin in ("computed", "recalled"):
        with Kamera.from_pretrained(checkpoint, store=store, device="cpu", dtype=torch.float32, rank=26) as kamera:
            logits, origins = ask(kamera)
            assert origins == {origin}
            assert max_error(expected, logits) <= 1e-3


@pytest.mark.parametrize("reason", ["no checkpoint", "a model that no family serves", "rounded frequencies"])
def test_a_store_is_closed_when_loading_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    """One that was opened for the Kamera is closed again; one that was passed in stays open."""
    error: type[KameraError] = ModelError
    if reason == "a model that no family serves":
        AutoConfig.for_model("gpt2").save_pretrained(tmp_path / "checkpoint")
        error = UnsupportedModelError
    if reason == "rounded frequencies":
        model = build_model(TINY).to(torch.bfloat16)
        monkeypatch.setattr("kamera_agent.kamera.load", lambda *args, **options: (model, build_processor()))
        error = ConventionError
    opened = open_stores(monkeypatch)
    with pytest.raises(error):
        Kamera.from_pretrained(tmp_path / "checkpoint", store=tmp_path / "store")
    with pytest.raises(StoreClosedError):
        opened[0].stats()
    mine = MemoryStore(1 << 20)
    with pytest.raises(error):
        Kamera.from_pretrained(tmp_path / "checkpoint", store=mine)
    mine.stats()


def test_a_loaded_kamera_closes_the_store_it_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, mine = open_stores(monkeypatch), MemoryStore(1 << 20)
    for store in (tmp_path / "store", mine):
        Kamera.pocket(store).close()
    with pytest.raises(StoreClosedError):
        opened[0].stats()
    mine.stats()


def open_stores(monkeypatch: pytest.MonkeyPatch) -> list[TieredStore]:
    """Every tiered store that is opened from here on."""
    opened: list[TieredStore] = []
    build = TieredStore.__init__

    def noted(self: TieredStore, *args: Any, **options: Any) -> None:
        build(self, *args, **options)
        opened.append(self)

    monkeypatch.setattr(TieredStore, "__init__", noted)
    return opened


def test_what_a_folder_keeps_is_set_before_a_checkpoint_is_loaded(tmp_path: Path) -> None:
    with Kamera.pocket(tmp_path, eviction="lfu", quota_bytes=10**6, ttl_s=60) as kamera:
        settings = kamera.settings
        assert (settings.eviction, settings.quota_bytes, settings.ttl_s) == ("lfu", 10**6, 60)
    with LmdbStore(tmp_path) as store:
        assert (store.policy, store.quota_bytes, store.ttl_s) == ("lfu", 10**6, 60)
    with LmdbStore(tmp_path) as store, pytest.raises(SettingError, match="ttl_s does not change an open store"):
        Kamera.pocket(store, ttl_s=60)
