"""The body of a request, in whatever protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from reprlib import repr as short
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from kamera_agent.errors import InputError
from kamera_agent.turns.habits import SERVED

Block = dict[str, Any]


class Body(BaseModel, ABC):
    """A request. Any null means the default; fields that are not read here are in model_extra.

    FORMING: fields that would give the reply another form, with the only value of each that can be served.
    """

    model_config = ConfigDict(extra="allow")

    FORMING: ClassVar[Mapping[str, Any]] = {}

    model: str | None = None
    stream: bool | None = None

    @property
    @abstractmethod
    def thread(self) -> str | None:
        """The conversation that the client names; None where it names none."""

    def ignored(self) -> list[str]:
        """Names of the fields that change nothing here, but for those that are null or ask for what every reply has.

        Raises InputError for a field that cannot be ignored.
        """
        others = {name: value for name, value in (self.model_extra or {}).items() if value is not None}
        for name in others.keys() & self.FORMING.keys():
            if others[name] != self.FORMING[name]:
                advice = f", or use {self.FORMING[name]!r}" if self.FORMING[name] is not None else ""
                raise InputError(f"This server cannot serve {name}={short(others[name])}; leave it out{advice}.")
        usual = {**SERVED, **self.FORMING}
        return [name for name, value in others.items() if name not in usual or value != usual[name]]
