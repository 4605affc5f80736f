"""How a chat model comes by its Kamera, is written down, and lets go."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

from langchain_core.language_models import BaseChatModel
from langchain_core.load.serializable import SerializedConstructor, SerializedNotImplemented
from pydantic import ConfigDict, Field, PrivateAttr

from kamera_agent.closing import Closing
from kamera_agent.kamera import Kamera
from kamera_agent.telemetry.metrics import Metrics
from kamera_agent.turns.serving import Serving
from kamera_agent.turns.source import choose_source, name_of, options_of, written_down


class Lifecycle(BaseChatModel, Closing):
    """A chat model with a Kamera of its owner, or one by name that is loaded when it is needed.

    Making one loads nothing. See ChatKamera for the fields.
    """

    # Without protected_namespaces older versions of pydantic warn of model_kwargs.
    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    kamera: Kamera | None = Field(default=None, exclude=True, repr=False)
    model: str | None = None
    model_kwargs: dict[str, Any] = Field(default={})
    metrics: Metrics | None = Field(default=None, exclude=True, repr=False)
    max_string: int | None = None
    max_conversations: int = 8
    max_bytes: int = 8 << 30

    _serving: Serving = PrivateAttr()
    _others: dict[str, Self] = PrivateAttr(default_factory=dict)
    _others_lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    # Type checkers are left the signature that pydantic gives it.
    if not TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None:
            """Raises InputError for a model and a Kamera, and for neither; SettingError for wrong model_kwargs."""
            # Not in a validator: pydantic would make a ValidationError of it.
            super().__init__(**choose_source(fields))

    def model_post_init(self, context: Any) -> None:
        """Get ready to open. Nothing is loaded."""
        super().model_post_init(context)
        self._serving = Serving(
            self.kamera,
            self.model_name,
            self.model_kwargs,
            max_windows=self.max_conversations,
            max_bytes=self.max_bytes,
            max_string=self.max_string,
            metrics=self.metrics,
        )

    def open(self) -> Kamera:
        """The Kamera that answers. Its model is loaded now, if it is not yet.

        Raises ModelError for a model that cannot be loaded, SettingError where another chat model has loaded it with
        other options, and StoreClosedError after close().
        """
        return self._serving.open().kamera

    def close(self) -> None:
        """Let go of the windows and of what was loaded. Idempotent. A Kamera that was passed in stays open."""
        with self._others_lock:
            self._serving.close()
            for other in self._others.values():
                other.close()

    @property
    def model_name(self) -> str:
        """Id or folder of the checkpoint, or "pocket"."""
        return name_of(self.kamera) if self.kamera else str(self.model)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """It is: dumpd and dumps write down the model and the options, but no Kamera, trace, metrics or open store."""
        return True

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """The model, also where a Kamera was passed in."""
        return {"model": self.model_name, "model_kwargs": written_down(self._loaded_with())}

    def to_json(self) -> SerializedConstructor | SerializedNotImplemented:
        """As LangChain does; what has no name cannot be loaded again, and says so."""
        return super().to_json() if self.model_name else self.to_json_not_implemented()

    def _over(self, model: str | None) -> Self:
        """The chat model that answers for a model: this one, or one like it over the other model."""
        if model in (None, self.model_name):
            return self
        with self._others_lock:
            self._serving.require_open()
            if model not in self._others:
                own = {name: getattr(self, name) for name in type(self).model_fields}
                options = {name: value for name, value in self._loaded_with().items() if name != "revision"}
                self._others[model] = type(self)(**{**own, "kamera": None, "model": model, "model_kwargs": options})
            return self._others[model]

    def _loaded_with(self) -> dict[str, Any]:
        return options_of(self.kamera) if self.kamera else self.model_kwargs
