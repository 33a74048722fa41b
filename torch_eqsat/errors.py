"""The exceptions that torch_eqsat raises, all of which derive from :class:`EqsatError`, and how errors are told."""


class EqsatError(Exception):
    """Base of every exception raised by torch_eqsat."""


class OptionError(EqsatError, ValueError):
    """An option of ``torch.compile(..., options={...})`` is unknown or has a value that is not allowed."""


class TypeMismatchError(EqsatError):
    """A term of the tensor language has operands whose shapes or dtypes do not fit its operator."""


class LawError(EqsatError):
    """A law is malformed; the message names the law, its file and its line."""


class UnsoundRewriteError(EqsatError):
    """A law put two terms of different type into one e-class; that law is wrong."""


class WorkerError(EqsatError):
    """The search worker died, ran out of memory or time, or answered with an error."""


class MeasurementError(EqsatError):
    """A measured time is unreliable, because other work on the machine disturbs it."""


class TransientError(EqsatError):
    """A plan was made during a temporary failure (a lost worker, a busy machine), and ``eqsat.strict`` is set."""


class PlanError(EqsatError):
    """A stored plan is damaged, edited, or of another graph or format; it is not used, and a new one is made."""


class RebuildError(EqsatError):
    """A plan could not be turned back into a graph with the same outputs."""


def first_line(error: BaseException) -> str:
    """The type of ``error`` and the first line of its message, for logs and reports."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
