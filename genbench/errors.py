"""What may go wrong, in a sentence. Imports nothing, so that every room can raise it."""

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 75


class GenbenchError(Exception):
    """A failure that one sentence explains: what is wrong, with the value, and what to do."""

    exit_code = FAILED
    status = "failed"


class UserMistake(GenbenchError):
    """Something that the user can put right before anything has run."""

    exit_code = MISTAKE


class Diverged(GenbenchError):
    """A loss or a gradient stopped being a number."""

    status = "diverged"


class Interrupted(GenbenchError):
    """The run was asked to stop and can be resumed."""

    exit_code = INTERRUPTED
    status = "interrupted"
