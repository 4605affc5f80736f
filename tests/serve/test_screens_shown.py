"""Screenshots that the server leaves out for clients that send them all, and what an answer may ask of its KV."""

from typing import Any

import pytest
from openai import BadRequestError, OpenAI
from serving import QUESTION, anthropic_of, cached, client_of, encoded, serving, shown, text, user

from kamera_agent import Kamera
from kamera_agent.cli.serve import Shown, make_policy
from kamera_agent.turns.policy import Budget, Interval, KeepLast, Policy


def history(num_screens: int, *, first: int = 0) -> list[Any]:
    """Screens with questions and replies between. Those before the first one have stubs, as the server writes them."""
    messages: list[Any] = [{"role": "system", "content": "You see screens."}]
    for seed in range(num_screens):
        screen = text(f"[Screenshot {seed + 1} is not shown.]") if seed < first else shown(seed)
        messages += [user(text("Now:"), screen, text(QUESTION)), {"role": "assistant", "content": f"Room {seed}."}]
    return messages[:-1]


@pytest.mark.parametrize(
    ("policy", "first"),
    [(KeepLast(2), 4), (KeepLast(9), 0), (Interval(2, 3), 3), (Budget(130), 4), (Budget(1), 5)],
    ids=str,
)
def test_a_policy_shows_what_a_client_with_stubs_sends(exact: Kamera, policy: Policy, first: int) -> None:
    asked: dict[str, Any] = {"model": "pocket", "max_tokens": 4}
    with serving(exact, policy=policy) as url, client_of(url) as client:
        ours = client.chat.completions.create(**asked, messages=history(6))
    with serving(exact) as url, client_of(url) as client:
        theirs = client.chat.completions.create(**asked, messages=history(6, first=first))
    assert ours.choices[0].message.content == theirs.choices[0].message.content
    assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens


def test_an_image_that_is_none_counts_for_nothing(exact: Kamera) -> None:
    broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages: list[Any] = [user(shown(0), broken, shown(1), text(QUESTION))]
    with serving(exact, policy=Budget(130)) as url, client_of(url) as client:
        both = client.chat.completions.create(model="pocket", max_tokens=1, messages=messages)
        del messages[0]["content"][1]
        one = client.chat.completions.create(model="pocket", max_tokens=1, messages=messages)
    assert both.usage.prompt_tokens > one.usage.prompt_tokens  # type: ignore[union-attr]


def test_a_slide_of_the_server_is_expected() -> None:
    """From the first one on, a step computes only what is new; and count_tokens counts what is shown."""
    computed = []
    with Kamera.pocket() as kamera, serving(kamera, policy=KeepLast(2)) as url, client_of(url) as client:
        for number in range(1, 7):
            reply = client.chat.completions.create(model="pocket", messages=history(number), max_tokens=4)
            computed.append(reply.usage.prompt_tokens - cached(reply))  # type: ignore[union-attr]
            kamera.settle()
        source = {"type": "base64", "media_type": "image/png", "data": encoded(1)}
        many: list[Any] = [user(*[{"type": "image", "source": source}] * 4)]
        with anthropic_of(url) as other:
            assert other.messages.count_tokens(model="pocket", messages=many).input_tokens < 180
    assert max(computed[1:]) < 85


def test_options_of_the_command() -> None:
    assert make_policy(Shown(None, None, None)) is None
    assert make_policy(Shown(3, None, None)) == KeepLast(3)
    assert make_policy(Shown(3, 2, None)) == Interval(3, 2)
    assert make_policy(Shown(None, None, 99)) == Budget(99)


def asks(client: OpenAI, seeds: tuple[int, ...], fidelity: str | None) -> Any:
    messages: Any = [user(*map(shown, seeds), text(QUESTION))]
    headers = {"x-kamera-fidelity": fidelity} if fidelity else {}
    return client.chat.completions.create(
        model="pocket", messages=messages, max_tokens=4, user="fidelity", extra_headers=headers
    ).model_dump()


def test_fidelity_of_one_answer() -> None:
    """A screen leaves, so that the one behind it is stale: it is computed, refreshed or kept, as the header says."""
    found: dict[str | None, Any] = {}
    for fidelity in ("exact", "refresh", "keep", None):
        with Kamera.pocket(heal="never") as kamera, serving(kamera) as url, client_of(url) as client:
            asks(client, (1, 2, 3), None)
            found[fidelity] = asks(client, (2, 3), fidelity)["kamera"]
            # The next answer is as the settings say.
            assert asks(client, (2, 3, 4), None)["kamera"]["origins"]["kept"] > 90
    assert found["exact"]["exact"]
    assert found["exact"]["refreshed"] == found["keep"]["refreshed"] == 0
    assert found["exact"]["origins"]["computed"] > found["keep"]["origins"]["computed"] + 90
    assert not found["keep"]["exact"]
    assert found[None]["refreshed"] == found["refresh"]["refreshed"] > 0


def test_another_fidelity(url: str) -> None:
    with client_of(url) as client, pytest.raises(BadRequestError, match="use one of exact, refresh, keep"):
        asks(client, (1,), "none")
