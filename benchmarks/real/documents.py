"""Seeded documents of 100 to 150 tokens about things that do not exist, and questions about them.

Every document names a head (a captain, a principal, ...) and says one thing about the heads of two others. A question
about such a thing needs two documents: the one that names the head, and the one that says the thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple


def _words(text: str) -> list[str]:
    return text.split()


PEOPLE = _words(
    "Maria Oscar Helen Victor Clara Hugo Alice Bruno Nina Felix Laura Simon Peter Julia Martin Emma Daniel Rosa Thomas "
    "Anna George Frank Lucy Henry Sarah David Jane Robert Karen Paul"
)
CITIES = _words("Paris Berlin Madrid Rome Vienna Prague Dublin Oslo Lisbon Athens Warsaw Geneva London Boston Tokyo")
COLOURS = _words("red blue green yellow black white brown orange")
YEARS = [*map(str, range(1810, 1990))]
NUMBERS = [*map(str, range(21, 99))]


class Value(NamedTuple):
    """A value of a field, and all that the field can have."""

    text: str
    pool: Sequence[str]


class Question(NamedTuple):
    """A question and the reply to it: words, and the values that are asked for. needs: indices of documents."""

    text: str
    reply: tuple[str | Value, ...]
    needs: tuple[int, ...]


class Ask(NamedTuple):
    """A question about a field, and the words before its value in the reply."""

    field: str
    question: str
    words: str


class Tie(NamedTuple):
    """What a document says about the head of another: a field, how it is asked for, and the words before its value."""

    field: str
    asked: str
    verb: str
    words: str

    @property
    def question(self) -> str:
        return f"{self.asked} does the {{role}} of {{title}} {self.verb}?"


class Subject(NamedTuple):
    """What a document can be about.

    names: of the thing. title: how a question calls it. role: of its head. text: with places for fields. fields: their
    values. facts: about the thing itself. ties: about the heads of the next document and of the one after that, which
    the text calls {next} and {after}.
    """

    names: Sequence[str]
    title: str
    role: str
    text: str
    fields: Mapping[str, Sequence[str]]
    facts: tuple[Ask, ...]
    ties: tuple[Tie, Tie]


SUBJECTS = (
    Subject(
        ("Heron", "Falcon", "Dolphin", "Raven", "Swan"),
        "the ship {name}",
        "captain",
        "The {name} is a cargo ship that was built in {city} in {year}. The captain of the ship {name} is {head}, who "
        "knows every harbour of the coast. The hull is {colour}, and the sails were replaced after a storm. In summer "
        "the {name} carries {goods} to the islands. {number} sailors work on board, and each has a small cabin with a "
        "round window. On Sundays there is music on deck, and {next} plays the {instrument}. In the evening {after} "
        "drinks {drink} with the crew. When the ice has melted, captain {head} leaves the harbour again.",
        {
            "goods": _words("timber coal wool salt wheat sugar cotton iron"),
            "instrument": _words("piano violin guitar flute drums trumpet"),
            "drink": _words("tea coffee milk wine beer water"),
        },
        (
            Ask("goods", "What does the {name} carry in summer?", "In summer the {name} carries"),
            Ask("colour", "Which colour is the hull of the {name}?", "The hull is"),
            Ask("city", "Where was the {name} built?", "The {name} is a cargo ship that was built in"),
        ),
        (
            Tie("instrument", "Which instrument", "play", "plays the"),
            Tie("drink", "What", "drink", "drinks"),
        ),
    ),
    Subject(
        ("Alder", "Birch", "Cedar", "Maple", "Willow"),
        "the {name} School",
        "principal",
        "The {name} School was opened in {year} with {number} pupils and three teachers. The principal of the {name} "
        "School is {head}, who came from {city} many years ago. Lessons in {subject} begin in the first year, and the "
        "older pupils also build small boats. The uniform is {colour}, with silver buttons on both sleeves. In the "
        "evening there are courses for adults, where {next} learns {language}. On Saturdays {after} teaches {sport} in "
        "the yard. In spring principal {head} plants a tree with every class.",
        {
            "subject": _words("music history geography chemistry biology painting drawing singing"),
            "language": _words("French German Spanish Dutch Russian Chinese"),
            "sport": _words("swimming dancing chess boxing tennis fencing"),
        },
        (
            Ask("subject", "Which lessons begin in the first year at the {name} School?", "Lessons in"),
            Ask("colour", "Which colour is the uniform of the {name} School?", "The uniform is"),
            Ask("year", "When was the {name} School opened?", "The {name} School was opened in"),
        ),
        (
            Tie("language", "Which language", "learn", "learns"),
            Tie("sport", "What", "teach", "teaches"),
        ),
    ),
    Subject(
        ("Greenhill", "Longfield", "Oakwood", "Redbank", "Stonebridge"),
        "the farm {name}",
        "owner",
        "{name} is an old farm in a quiet valley. The owner of the farm {name} is {head}, who bought it in {year} from "
        "a merchant of {city}. The farm keeps {number} {animals}, and their milk, wool or honey is sold at the door. "
        "The {colour} barn was built by hand and still has a roof of straw. In the oven of the farm {next} bakes "
        "{food} for the market. Behind the barn {after} plants {flowers} in the spring. After the harvest owner {head} "
        "invites the whole valley to a dance.",
        {
            "animals": _words("sheep goats cows bees ducks horses geese rabbits"),
            "food": _words("bread cakes pies cookies potatoes apples"),
            "flowers": _words("roses tulips lilies beans carrots onions"),
        },
        (
            Ask("animals", "Which animals does the farm {name} keep?", "The farm keeps {number}"),
            Ask("year", "When did {head} buy the farm {name}?", "{head} bought it in"),
            Ask("city", "From whom did {head} buy the farm {name}?", "{head} bought it from a merchant of"),
        ),
        (
            Tie("food", "What", "bake", "bakes"),
            Tie("flowers", "What", "plant", "plants"),
        ),
    ),
    Subject(
        ("Lindow", "Marlow", "Ashford", "Denby", "Selby"),
        "the {name} Museum",
        "director",
        "The {name} Museum stands beside the old bridge. The director of the {name} Museum is {head}, who studied in "
        "{city} and wrote several books. The largest hall shows {objects}, and school classes come to draw them. The "
        "museum owns {number} paintings as well, and the oldest of them was made in {year}. Behind the {colour} door "
        "there is a room for collectors, where {next} collects {finds}. On the wall of the stairs {after} paints "
        "{motifs} with a small brush. On rainy days director {head} opens the cafe before noon.",
        {
            "objects": _words("clocks maps coins masks bones stones shells fossils"),
            "finds": _words("stamps dolls knives buttons postcards bottles"),
            "motifs": _words("birds ships horses trees mountains castles"),
        },
        (
            Ask("objects", "What does the largest hall of the {name} Museum show?", "The largest hall shows"),
            Ask("city", "Where did {head} study?", "{head} studied in"),
            Ask("number", "How many paintings does the {name} Museum own?", "The museum owns"),
        ),
        (
            Tie("finds", "What", "collect", "collects"),
            Tie("motifs", "What", "paint", "paints"),
        ),
    ),
)
SHARED = {"city": CITIES, "colour": COLOURS, "year": YEARS, "number": NUMBERS, "head": PEOPLE}


class Shelf(NamedTuple):
    """Documents, one about each subject, and all questions about them."""

    texts: tuple[str, ...]
    questions: tuple[Question, ...]


def draw_shelf(seed: int) -> Shelf:
    """The documents of a seed. Two documents share neither heads nor other values."""
    rng = Random(seed)
    subjects = rng.sample(SUBJECTS, len(SUBJECTS))
    shared = {field: rng.sample(values, len(subjects)) for field, values in SHARED.items()}
    pools = [{**SHARED, **subject.fields} for subject in subjects]
    fields = []
    for index, subject in enumerate(subjects):
        drawn = {field: rng.choice(values) for field, values in subject.fields.items()}
        drawn |= {field: values[index] for field, values in shared.items()}
        drawn |= {"name": rng.choice(subject.names), "role": subject.role}
        fields.append(drawn | {"title": subject.title.format(**drawn)})
    texts, questions = [], []
    for index, (subject, own) in enumerate(zip(subjects, fields, strict=True)):
        tied = [(index + step) % len(subjects) for step in (1, 2)]
        heads = [fields[other]["head"] for other in tied]
        texts.append(subject.text.format(next=heads[0], after=heads[1], **own) + "\n\n")
        for field, text, words in subject.facts:
            value = Value(own[field], pools[index][field])
            questions.append(Question(text.format(**own), (words.format(**own), value), (index,)))
        for other, head, tie in zip(tied, heads, subject.ties, strict=True):
            naming = "The {role} of {title} is".format(**fields[other])
            value = Value(own[tie.field], pools[index][tie.field])
            reply = (naming, Value(head, PEOPLE), f". {head} {tie.words}", value)
            questions.append(Question(tie.question.format(**fields[other]), reply, (other, index)))
    return Shelf(tuple(texts), tuple(questions))
