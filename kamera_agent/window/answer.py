"""An answer in the making: from the plan to the last token."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from time import perf_counter

from kamera_agent.chunk import Chunk, TextRun
from kamera_agent.runtime.families.base import Family
from kamera_agent.window.assembly import Assembled, Assembly
from kamera_agent.window.items import Items
from kamera_agent.window.layout import Item, Layout, Place
from kamera_agent.window.lookup import NUM_SEARCHED, Lookup
from kamera_agent.window.plan import Origin, Plan
from kamera_agent.window.reply import Reply, Timings, Usage
from kamera_agent.window.sampler import Sampler
from kamera_agent.window.step import Step, make_plan
from kamera_agent.window.streamer import Streamer


class Answer:
    """Computes what is asked over the items of a window, draws the reply, and enters both."""

    def __init__(
        self,
        items: Items,
        layout: Layout,
        assembly: Assembly,
        family: Family,
        sampler: Sampler,
        streamer: Streamer,
    ) -> None:
        self._items, self._layout, self._assembly, self._family = items, layout, assembly, family
        self._sampler, self._streamer = sampler, streamer

    def pieces(self, question: str | None, max_tokens: int, settled: Callable[[], None]) -> Generator[str, None, Reply]:
        """The text of the reply piece by piece, as it comes; at the end, the whole.

        settled: called once the question and the reply are in the window, be the reply complete or not.
        """
        start = perf_counter()
        asked = self._items.ask(question)
        reply_id = self._items.next_id("reply", len(asked) + 1)
        places = self._layout.places([*self._items.live, *asked], reply_id)
        most = min(max_tokens, self._assembly.room(places))
        assembled = self._assembly.run(places, most)
        token = self._sampler.draw(assembled.logits)
        first = perf_counter()
        try:
            lookup = Lookup(_last_texts(places), self._family.placeholder_ids)
            token = yield from self._decode(token, most, lookup)
        except GeneratorExit:
            # The reader closed the stream. That is no failure: the question and the generated text stay. At the end of
            # the program Python closes it, and torch is gone.
            if not sys.is_finalizing():
                self._settle(asked, reply_id)
                settled()
            raise
        decoded = perf_counter()
        # Counted before this turn's chunks are handed over, so that they count in the next turn, done or not.
        bytes_written = self._assembly.count_written()
        span_id = self._settle(asked, reply_id)
        settled()
        plan, stop_word = make_plan(assembled.steps), self._streamer.stop_word
        times = (first - start, decoded - first, perf_counter() - decoded)
        return Reply(
            text=self._streamer.text,
            span_id=span_id,
            finish_reason="stop" if stop_word or token in self._family.chat.stop_ids else "length",
            usage=_usage(assembled, plan, len(self._streamer.token_ids), bytes_written),
            timings=_timings(assembled, *(1e3 * seconds for seconds in times)),
            plan=plan,
            stop_word=stop_word,
        )

    def _decode(self, token: int, max_tokens: int, lookup: Lookup) -> Generator[str, None, int]:
        """Feed token after token, yield their text, and return the token that was drawn but not fed."""
        streamer, sampler = self._streamer, self._sampler

        def guess() -> Sequence[int]:
            most = max_tokens - len(streamer.token_ids)
            return sampler.forced[:most] or (lookup.guess(most) if self._family.decoder.recurrence is None else ())

        while token not in self._family.chat.stop_ids and len(streamer.token_ids) < max_tokens:
            if text := streamer.push(token):
                yield text
            lookup.push(token)
            logits = self._assembly.extend(token, guess)
            if streamer.stop_word:
                break
            token = sampler.draw(logits)
        if text := streamer.flush():
            yield text
        return token

    def _settle(self, asked: list[Item], reply_id: str) -> str | None:
        """Enter the question and the generated reply; returns the reply's id, None for an empty reply."""
        residence, reply = self._assembly.residence, list[Item]()
        if residence.reply:
            run = TextRun(tuple(token for token, _ in residence.reply))
            reply = [self._items.make_reply(reply_id, run, self._family.tokens.decode(run.token_ids))]
            residence.enter_reply(*reply)
        self._items.enter(*asked, *reply)
        self._assembly.settle()
        return reply_id if reply else None


def _last_texts(places: Sequence[Place]) -> list[int]:
    """The last tokens of a window, without those of pictures."""
    texts: list[tuple[int, ...]] = []
    num_tokens = 0
    for place in reversed(places):
        run = place.item.run
        if not (isinstance(run, Chunk) and run.has_pixels):
            texts.append(run.token_ids)
            num_tokens += len(run.token_ids)
        if num_tokens >= NUM_SEARCHED:
            break
    return [token for text in reversed(texts) for token in text]


def _usage(assembled: Assembled, plan: Plan, num_generated: int, bytes_written: int) -> Usage:
    tokens = Counter[Origin]()
    for row in plan.rows:
        tokens[row.origin] += row.num_begun or row.num_tokens
    # Of a text that was written anew after its beginning, the rest is computed.
    rewritten = [row for row in plan.rows if row.num_begun]
    tokens["computed"] += sum(row.num_tokens - row.num_begun for row in rewritten)
    steps = [step for step in assembled.steps if isinstance(step, Step)]
    runs = [step.place.item.run for step in steps]
    num_visual = sum(isinstance(run, Chunk) and run.has_pixels for run in runs)
    return Usage(
        tokens_computed=tokens["computed"],
        tokens_kept=tokens["kept"],
        tokens_moved=tokens["moved"],
        tokens_recalled=tokens["recalled"],
        tokens_blind=tokens["blind"],
        tokens_switched=sum(
            len(run.token_ids)
            for run, step in zip(runs, steps, strict=True)
            if step.switched and step.origin == "computed"
        ),
        tokens_generated=num_generated,
        encoder_calls=assembled.encoder_calls,
        encoder_avoided=num_visual - assembled.encoder_calls,
        bytes_read=assembled.bytes_read,
        bytes_written=bytes_written,
        tokens_stale=sum(row.num_tokens for row in plan.rows if row.stale and row.stale.of_chunks),
        tokens_refreshed=round(sum(row.num_tokens * row.refreshed for row in plan.rows if row not in rewritten)),
        tokens_tiled=tokens["tiled"],
    )


def _timings(assembled: Assembled, first_token_ms: float, decode_ms: float, settle_ms: float) -> Timings:
    parts = assembled.plan_ms, assembled.rebuild_ms, assembled.prefill_ms
    return Timings(*parts, first_token_ms, decode_ms, settle_ms)
