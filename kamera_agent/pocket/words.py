"""The vocabulary of the pocket model, by class."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ITEMS = _words("lamp chair desk phone clock radio piano bike boat tent coat ring book drum kite sofa")
PERSONS = _words("anna ben carl dora emil fay gus hana ivan jon kim lena max nora otto pia")
ROOMS = _words("attic hall cellar garden studio porch office barn garage lobby tower gym vault dock mill chapel")
NUMBERS = tuple(str(number) for number in range(10, 50))
MONTHS = _words("jan feb mar apr may jun jul aug sep oct nov dec")
# Titles of screens. Not jan: at the size of a title, one stroke separates it from jun.
TITLES = MONTHS[1:]
SHAPES = _words("star ball box cross gem cone")
COLOURS = _words("red white black pink orange")
ZONES = _words("grass road water sand")
COUNTS = _words("zero one two three four")

# All words that a picture can show and a question can ask about.
SHOWN = ITEMS + PERSONS + ROOMS + NUMBERS + MONTHS + SHAPES + COLOURS + ZONES

# The other words of prompts and answers.
OTHERS = _words(
    "What Who Where Which How Look Here You are a an the is of and at it its now then what who where which how "
    "does did do owns cost costs price prices changed change often many screen screens shows show owner key opens "
    "need needs move moved step next page clip frame frames scene watch answer question questions about see seen "
    "look here helpful assistant system user tool yes no with in on to from I by for was were there this that "
    "Watch Answer Keep an eye on Step Next The"
)

WORDS = tuple(dict.fromkeys(SHOWN + COUNTS + OTHERS))
