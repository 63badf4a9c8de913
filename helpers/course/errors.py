"""One exception for every mistake a person can mend; its message says what, where, expected and what to do."""


class CourseError(Exception):
    """Something the reader can put right. The command line prints it as one line and exits with `exit_code`."""

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


class UsageError(CourseError):
    """A wrong option, profile, language or path: exit code 2."""

    def __init__(self, message: str):
        super().__init__(message, exit_code=2)


class MissingStep(CourseError):
    """A notebook needs a file that an earlier notebook writes."""


class LabelMaskError(CourseError):
    """A training example whose labels would teach the wrong thing."""
