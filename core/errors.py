"""What can go wrong in a way that the user can mend. Each message says what was found, what was wanted and what to do."""


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
