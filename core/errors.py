"""What can go wrong in a way that the user can mend. Each message says what was found, what was wanted and what to do."""

import errno

SHORT = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
)  # what torch says on Linux, on Windows, of a GPU
COMMITMENT_LIMIT = 1455  # Windows' ERROR_COMMITMENT_LIMIT: the paging file is too small


class UserError(Exception):
    """Base of all errors whose message is written for the user; the page and the command line show it as it is."""


class BadInput(UserError):
    """What the caller asks for or points at cannot be used; a command ends with exit code 2, not 1."""


class BadSetting(BadInput):
    """A field of Settings has a value that cannot be used."""


class ModelNotFound(BadInput):
    """A model file that a request names is in none of the configured folders."""


class BadModelFile(BadInput):
    """A model file is damaged, of a wrong kind or family, lacks parts, or is a pickle."""


class BadPicture(UserError):
    """The network gave NaN or a black picture in every precision that was tried."""


class BadMetadata(BadInput):
    """A picture or text holds no settings that can be read."""


class BadConfig(BadInput):
    """A flag, an environment variable or the configuration file has a value that cannot be used."""


class HistoryError(UserError):
    """The history of pictures cannot be read or written. The pictures themselves are not concerned."""


class OutputError(UserError):
    """A finished picture cannot be written (disk full, folder not writable)."""


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that there was too little memory, on whichever device. Needs no torch."""
    if isinstance(error, OSError):  # a file that cannot be mapped
        return error.errno == errno.ENOMEM or getattr(error, "winerror", None) == COMMITMENT_LIMIT
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SHORT)
