"""Random edits, answers, expectations and slices of healing, some of which give way: what says exact is exact.

After every answer, K and V of every exact span are those of a plain Hugging Face prefill of the same content, and every
slot has one owner.
"""

from itertools import repeat

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from test_model_of_window import Thing, WindowMachine

from kamera_agent import TextContent


class HealingMachine(WindowMachine):
    heals = "ahead"

    @precondition(lambda self: self.brute.held)
    @rule(data=st.data())
    def expect(self, data: st.DataObject) -> None:
        """Some of the spans, perhaps in another order, after a stub or without one."""
        names = [thing.name for thing in self.brute.held]
        order = data.draw(st.permutations(names) | st.just(names))
        kept = order[data.draw(st.integers(0, len(order))) :]
        self.window.expect([TextContent("gone"), *kept] if data.draw(st.booleans()) else kept)

    @rule()
    def heal(self) -> None:
        assert self.kamera.settle()

    @rule(ticks=st.integers(0, 12))
    def begin_a_slice(self, ticks: int) -> None:
        left = iter([*repeat(False, ticks)])
        self.window.idle.heal(lambda: next(left, True))

    @rule(question=st.sampled_from(["what?", "and?"]))
    def ask(self, question: str) -> None:
        self.window.logits(question)
        self.check_exact_spans()

    @rule(num_tokens=st.integers(1, 3))
    def generate(self, num_tokens: int) -> None:
        reply = self.window.generate("go on", max_new_tokens=num_tokens)
        asked = next(span.id for span in reversed(self.window.spans) if span.kind == "text")
        self.brute.held.append(Thing(asked, "user", "go on"))
        if reply.span_id:
            item = next(item for item in self.window._items.live if item.id == reply.span_id)
            self.brute.held.append(Thing(reply.span_id, "assistant", item.run.token_ids))
        self.check_exact_spans()


HealingMachine.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestHealingAgainstPrefill = HealingMachine.TestCase
