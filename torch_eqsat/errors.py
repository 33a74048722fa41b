"""The exceptions that torch_eqsat raises; all of them derive from :class:`EqsatError`."""


class EqsatError(Exception):
    """Base of every exception raised by torch_eqsat."""


class OptionError(EqsatError, ValueError):
    """An option of ``torch.compile(..., options={...})`` is unknown or has a value that is not allowed."""


class TypeMismatchError(EqsatError):
    """A term of the tensor language has operands whose shapes or dtypes do not fit its operator."""


class LawError(EqsatError):
    """A law is malformed; the message names the law, its file and its line."""


class UnsoundRewriteError(EqsatError):
    """Two terms of different type were put into one e-class: the law that did it is wrong."""


class WorkerError(EqsatError):
    """The search worker died, ran out of memory or time, or answered with an error."""


class MeasurementError(EqsatError):
    """A time cannot be trusted: other work on the machine disturbs it."""


class TransientError(EqsatError):
    """A graph was decided under a failure that may pass (a lost worker, a busy machine), with ``eqsat.strict``."""


class PlanError(EqsatError):
    """A stored plan was damaged or edited, or is of another graph or format: it is not used, and made anew."""


class RebuildError(EqsatError):
    """A plan could not be turned back into a graph of the same outputs."""
