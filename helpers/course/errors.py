"""Mistakes that a person can mend: messages say what, where, what was expected and what to do."""


class CourseError(Exception):
    """Something the reader can put right; the command line prints it and exits with a code."""

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: one line, for the learner."""
        return [f"⚠️ {self}"]


class UsageError(CourseError):
    """A wrong option, profile, language or path: exit code 2."""

    def __init__(self, message: str):
        super().__init__(message, exit_code=2)


class MissingStep(CourseError):
    """A notebook needs a file that an earlier notebook writes."""


class LabelMaskError(CourseError):
    """A training example whose labels would teach the wrong thing."""
