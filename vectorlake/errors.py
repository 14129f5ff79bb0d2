"""Why an operation failed, in the few kinds that call for different reactions.

Every error that vectorlake raises on purpose derives from `VectorlakeError`. A kind says what the caller should do
next, not which module noticed; the message says what happened, where, and what to try.
"""

from __future__ import annotations


class VectorlakeError(Exception):
    """Root of all errors raised on purpose by vectorlake."""


class InvalidInputError(VectorlakeError, ValueError):
    """An argument, a filter or the data handed over is wrong: change it and call again. Nothing was written."""


class NotFoundError(VectorlakeError, LookupError):
    """A table, version, tag, column or namespace of that name does not exist: name another one, or create it."""


class AlreadyExistsError(VectorlakeError):
    """Something of that name exists already: open it, or choose another name. Nothing was written."""


class ConflictError(VectorlakeError):
    """Another writer changed what this operation relied on: read the table again, decide anew, and retry."""


class CorruptDataError(VectorlakeError):
    """A file is damaged, truncated, missing or not the one that was registered: the message names it.

    Retrying does not help: restore the file, restore an earlier version of the table, or sync from the source.
    """


class UnsupportedError(VectorlakeError):
    """The table, file or call needs a feature, an extra or a newer release that is not here: install or upgrade."""


class StorageError(VectorlakeError):
    """The store refused or failed (permission, space, network, missing bucket): mend the environment and retry.

    Nothing was committed.
    """


class OutcomeUnknownError(StorageError):
    """A commit's outcome could not be learnt (the store stopped answering while it was applied).

    Look before a retry: `Table.find_commit(error.commit_id)` is the snapshot if it was committed.
    """

    def __init__(self, message: str, *, commit_id: str) -> None:
        super().__init__(message)
        self.commit_id = commit_id


class JobStoppedError(VectorlakeError):
    """A job stopped before its end, and committed nothing: start it again under its id, and it goes on where it stopped.

    The message says why, and what has to be mended first.
    """

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class DamagedIndexWarning(UserWarning):
    """A part of an index, or bounds of vectors, can't be used, which the message names; answers are right, but slower.

    Rebuild the index, or drop it; `repair` forgets damaged bounds.
    """
