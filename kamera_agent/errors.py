"""All exceptions of kamera_agent.

KameraError
├── InputError (ValueError)        an argument that cannot be used
│   ├── ImageError                 not an image in an accepted form, or damaged
│   ├── VideoError                 a clip or frames that cannot be used
│   ├── ArchiveError               not an archive of chunks, or damaged
│   └── SettingError               an option outside its range
├── WindowError                    an operation that the window cannot perform
│   ├── UnknownSpanError           no span has that id
│   └── WindowTooLongError         more tokens or positions than the model accepts
├── ModelError                     a model that cannot be served
│   ├── UnsupportedModelError      no family for it, or layers whose state cannot be reused
│   └── ConventionError            the RoPE self-test failed at load
├── MissingExtraError (ImportError)  a package that an extra of kamera_agent installs
└── StoreError                     the store folder cannot be used
    ├── StoreUnavailableError      cannot be opened, or was opened before a fork
    │   ├── StoreDamagedError      its structure is damaged, and nobody asked for a repair
    │   └── StoreKeyError          encrypted with another key, or with none
    ├── StoreClosedError           used after close()
    └── CorruptRecordError         internal: a record differs from the one that was written

Messages name what was wrong, with the value, and what to change. A damaged record never reaches the caller
as an exception: the store quarantines and counts it, and the chunk is computed again.
"""


class KameraError(Exception):
    """Base of all errors that kamera_agent raises deliberately."""


class InputError(KameraError, ValueError):
    """An argument cannot be used. Raised before any work is done."""


class ImageError(InputError):
    """The object is not an image in one of the accepted forms, or its bytes cannot be decoded."""


class VideoError(InputError):
    """The clip cannot be read or has no frames, or the frames do not have one size or valid timestamps."""


class ArchiveError(InputError):
    """The file is not an archive of chunks, or was damaged or cut short. Nothing of it was imported."""


class SettingError(InputError):
    """An option is outside its range."""


class WindowError(KameraError):
    """The window cannot perform an operation. The window is unchanged."""


class UnknownSpanError(WindowError):
    """No span with that id is in the window (or, for recall, was dropped from it)."""


class WindowTooLongError(WindowError):
    """The window would have more tokens or positions than the model accepts."""


class ModelError(KameraError):
    """The model cannot be served."""


class UnsupportedModelError(ModelError):
    """No family supports this model, or it has layers whose state cannot be rebuilt from chunks."""


class ConventionError(ModelError):
    """The RoPE self-test failed: keys rotated by kamera_agent do not match the model's own."""


class MissingExtraError(KameraError, ImportError):
    """A feature needs a package that only an extra of kamera_agent installs."""

    def __init__(self, feature: str, package: str, extra: str) -> None:
        super().__init__(f"{feature} needs {package}: pip install 'kamera-agent[{extra}]'.")


class StoreError(KameraError):
    """The store folder cannot be used."""


class StoreUnavailableError(StoreError):
    """The folder cannot be opened as a store, or the store was opened by the parent of this process."""


class StoreDamagedError(StoreUnavailableError):
    """The structure of the store is damaged, and it was opened by somebody who repairs nothing."""


class StoreKeyError(StoreUnavailableError):
    """The store is encrypted with another key, or with none, than the one that was given."""


class StoreClosedError(StoreError):
    """The store was used after close()."""


class CorruptRecordError(StoreError):
    """The stored bytes of a record are damaged. The store catches it, quarantines the record and reports a miss."""
