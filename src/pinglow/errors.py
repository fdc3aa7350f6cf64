"""Everything that pinglow raises on purpose.

    PinglowError
    ├── FrameError    a frame cannot be read: broken, empty, too large, of an unknown kind
    ├── DataError     a data folder, list, mask or saved prediction is missing or does not fit
    ├── RecipeError   a training recipe or study has an unknown key or a value out of range
    ├── ModelError    a model name or file is unknown, damaged or of another kind
    ├── OptionError   a command-line option or argument has an impossible value
    ├── MissingExtraError  an optional package is not installed
    └── TrainingInterruptedError (pinglow.training.run)  a signal stopped a run; all is saved

Each message is one sentence that names the file or option and says what to do next; the command
line prints it and exits with code 2.
"""


class PinglowError(Exception):
    """Base class: catch this to catch every error that pinglow raises on purpose."""


class FrameError(PinglowError):
    """A frame cannot be read."""


class DataError(PinglowError):
    """A data folder, list, mask or saved prediction is missing or does not fit."""


class RecipeError(PinglowError):
    """A training recipe or study has an unknown key or a value out of range."""


class ModelError(PinglowError):
    """A model name or file is unknown, damaged or of another kind."""


class OptionError(PinglowError):
    """A command-line option or argument has an impossible value."""


class MissingExtraError(PinglowError):
    """An optional package is not installed."""
