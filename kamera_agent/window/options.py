"""The options of an answer, as keyword arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from reprlib import repr as short
from typing import Any, NamedTuple

from kamera_agent.errors import SettingError
from kamera_agent.options import check_names, real, whole
from kamera_agent.window.sampler import Sampling, SamplingOptions

READERS = {"max_tokens": whole, "temperature": real, "top_p": real, "top_k": whole, "seed": whole}
# The name that Hugging Face's generate() has for max_tokens.
ALIAS = "max_new_tokens"
ANSWER_OPTIONS = (*READERS, "stop", ALIAS)
MAX_TOKENS = 256


class AnswerOptions(SamplingOptions, total=False):
    """Keyword arguments of Window.generate and Window.stream. None stands for the default.

    max_tokens: most tokens of the reply, 1 or more; max_new_tokens is the same. stop: a word, or words, that end the
    reply and are not part of its text.
    """

    max_tokens: int | None
    max_new_tokens: int | None
    stop: str | Sequence[str] | None


def read_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not None, checked, with numbers of Python, one name for each, and stop as a tuple.

    Raises SettingError.
    """
    check_names(given, ANSWER_OPTIONS, "An answer")
    options = {name: value for name, value in given.items() if value is not None}
    if ALIAS in options:
        most = options.pop(ALIAS)
        if options.setdefault("max_tokens", most) != most:
            raise SettingError(f"max_tokens is {options['max_tokens']} and {ALIAS} is {most}; give one of them.")
    for name, read in READERS.items():
        if name in options:
            options[name] = read(name, options[name])
    if options.get("max_tokens", 1) < 1:
        raise SettingError(f"max_tokens is {options['max_tokens']}; use 1 or more.")
    if "stop" in options:
        options["stop"] = _words(options["stop"])
    _sampling(options)
    return options


class Terms(NamedTuple):
    """The options of an answer, complete: how a reply is drawn, and where it ends."""

    sampling: Sampling
    stop: tuple[str, ...]
    max_tokens: int


def read_terms(given: Mapping[str, Any]) -> Terms:
    """The options with the defaults filled in. Raises SettingError."""
    options = read_options(given)
    return Terms(_sampling(options), options.get("stop", ()), options.get("max_tokens", MAX_TOKENS))


def _sampling(options: Mapping[str, Any]) -> Sampling:
    return Sampling(**{name: options[name] for name in SamplingOptions.__annotations__ if name in options})


def _words(stop: Any) -> tuple[str, ...]:
    words = (stop,) if isinstance(stop, str) or not isinstance(stop, Iterable) else tuple(stop)
    for word in words:
        if not isinstance(word, str) or not word:
            raise SettingError(f"stop has {short(word)}; a stop word is a text of at least one character.")
    return words
