"""Every exception of kamera_agent.

KameraError
├── InputError (ValueError)        something the caller passed cannot be used
│   ├── ImageError                 not an image, or not one of the accepted forms
│   ├── VideoError                 a clip or frame list that cannot be read
│   └── SettingError               an option outside its range
├── WindowError                    an operation that the window cannot do
│   ├── UnknownSpanError           no span of that id
│   └── WindowTooLongError         more tokens or positions than the model takes
├── ModelError                     a model that cannot be served
│   ├── UnsupportedModelError      no family for it, or a kind of layer that cannot be reused
│   └── ConventionError            the RoPE self-test failed at load
└── StoreError                     the store folder cannot be used
    ├── StoreUnavailableError      cannot be opened, or was opened before a fork
    ├── StoreClosedError           used after close()
    └── CorruptRecordError         internal: a record is not, bit for bit, the one that was put

Messages say what was wrong, with the value, and what to change. A damaged record never reaches the caller
as an exception: it is quarantined, counted, and the chunk is computed again.
"""


class KameraError(Exception):
    """Base of every error raised on purpose by kamera_agent."""


class InputError(KameraError, ValueError):
    """Something the caller passed cannot be used. Raised before any work is done."""


class ImageError(InputError):
    """The object is not an image in one of the accepted forms, or its bytes cannot be decoded."""


class VideoError(InputError):
    """The clip cannot be opened, holds no frames, or the frames do not fit together."""


class SettingError(InputError):
    """An option lies outside its range."""


class WindowError(KameraError):
    """The window cannot do what was asked. The window is unchanged."""


class UnknownSpanError(WindowError):
    """No span of that id lies in the window (or, for recall, was dropped from it)."""


class WindowTooLongError(WindowError):
    """The window would hold more tokens or positions than the model was built for."""


class ModelError(KameraError):
    """The model cannot be served."""


class UnsupportedModelError(ModelError):
    """No family knows this model, or it has layers whose state cannot be rebuilt from chunks."""


class ConventionError(ModelError):
    """The RoPE self-test failed: keys rotated here do not match the model's own."""


class StoreError(KameraError):
    """The store folder cannot be used."""


class StoreUnavailableError(StoreError):
    """The folder cannot be opened as a store, or the store was opened by the parent of this process."""


class StoreClosedError(StoreError):
    """The store was used after close()."""


class CorruptRecordError(StoreError):
    """The stored bytes of a record are damaged. Never leaves the store: it turns into quarantine and a miss."""
