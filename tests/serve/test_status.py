"""The page of a server."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
from serving import QUESTION, client_of, serving, shown, text, user

from kamera_agent import Kamera
from kamera_agent.serve.keys import Keys

ADA, BOB = "ada-0123456789abc", "bob-0123456789abc"


def turns(page: str) -> Any:
    """What the page tells of the answers."""
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(data)


def cells(page: str) -> list[list[str]]:
    (table,) = re.findall(r'id="live"><table>(.*?)</table>', page, re.DOTALL)
    return [re.findall(r"<td>(.*?)</td>", line) for line in table.split("<tr>")[2:]]


def test_the_page_tells_what_is_live_and_what_answers_cost(kamera: Kamera) -> None:
    messages: list[Any] = [user(shown(1), text(QUESTION))]
    with serving(kamera) as url, client_of(url) as client:
        root = url.removesuffix("/v1")
        assert "No answer has been given yet." in httpx.get(root).text
        costs = []
        for _ in range(2):
            reply = client.chat.completions.create(
                model="pocket", messages=messages, max_tokens=4, user="<b>anna's</b>"
            )
            costs.append(reply.model_dump()["kamera"]["origins"])
            messages += [{"role": "assistant", "content": reply.choices[0].message.content}, user(text("Again?"))]
        answer = httpx.get(root)
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-store"
    assert [turn["record"]["usage"]["tokens_computed"] for turn in turns(answer.text)] == [
        origins["computed"] for origins in costs
    ]
    ((name, calls, images, size, busy),) = cells(answer.text)
    assert (name, calls, images, busy) == ("thread &lt;b&gt;anna&#x27;s&lt;/b&gt;", "2", "1", "")
    assert float(size) > 0
    assert "<b>anna" not in answer.text
    assert QUESTION not in answer.text


def test_a_key_sees_its_own_page(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{ADA}\n{BOB}\n")
    with Kamera.pocket() as kamera, serving(kamera, keys=Keys.read(tmp_path / "keys")) as url:
        root = url.removesuffix("/v1")
        for key, name in ((ADA, "ada's"), (BOB, "bob's")):
            with client_of(url, key) as client:
                messages: Any = [user(text(QUESTION))]
                client.chat.completions.create(model="pocket", messages=messages, max_tokens=1, user=name)
        page = httpx.get(root, headers={"x-api-key": ADA}).text
        assert httpx.get(root).status_code == 401
    assert "ada" in page
    assert "bob" not in page
    assert len(turns(page)) == 1
