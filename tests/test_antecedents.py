"""Trails and antecedents against tuples and sets."""

from random import Random

from kamera_agent.antecedents import Antecedents, Trail, link
from kamera_agent.chunk import TextRun


def grown(trail: Trail, digests: list[bytes]) -> Trail:
    for digest in digests:
        trail = trail.then(digest)
    return trail


def test_trails_are_lists() -> None:
    """Random pairs that share a beginning, as objects or not, and repeat digests."""
    random = Random(0)

    def draw() -> list[bytes]:
        return [bytes([random.randrange(6)]) for _ in range(random.randrange(5))]

    for _ in range(2000):
        base, *ends = draw(), draw(), draw()
        shared = Trail.of(base)
        lists = [[*base, *end] for end in ends]
        trails = [grown(shared if random.random() < 0.7 else Trail.of(base), end) for end in ends]
        if random.random() < 0.5:
            assert shared.distinct == set(base)
        for trail, digests in zip(trails, lists, strict=True):
            assert [*trail] == digests
            assert len(trail) == len(digests)
            assert trail.distinct == set(digests)
        ours, theirs = map(set, lists)
        assert (trails[0] == trails[1]) == (lists[0] == lists[1])
        likeness = 1.0 if lists[0] == lists[1] else len(ours & theirs) / len(ours | theirs)
        assert trails[0].likeness(trails[1]) == likeness


def test_equal_trails_have_equal_hashes() -> None:
    assert hash(Trail.of([b"a", b"b"])) == hash(Trail().then(b"a").then(b"b"))
    assert Trail.of([b"a"]) != [b"a"]


def test_a_long_trail_is_let_go_without_recursion() -> None:
    trail = grown(Trail(), [b"a"] * 200_000)
    assert len(trail.distinct) == 1
    del trail


def test_the_anchor_is_in_the_chain_and_not_among_the_texts() -> None:
    anchor, text = TextRun((1, 2)), TextRun((3,))
    before = Antecedents().then(anchor).then(text)
    assert [*before.texts] == [text.digest]
    assert before.chain == link(link(b"", anchor), text)
    assert before.chain != Antecedents().then(text).then(anchor).chain
