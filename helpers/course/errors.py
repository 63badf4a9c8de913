"""Mistakes that a person can mend: messages say what, where, what was expected and what to do."""

from .bilingual import tr


class CourseError(Exception):
    """Something the reader can put right; the command line prints it and exits with a code.

    `CourseError(message)`, or `CourseError(indonesian, english)` for the display language's text.
    """

    exit_code = 1

    def __init__(self, *texts: str):
        super().__init__(tr(*texts) if len(texts) == 2 else texts[0])

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: one line, for the learner."""
        return [f"⚠️ {self}"]


class UsageError(CourseError):
    """A wrong option, profile, language or path: exit code 2."""

    exit_code = 2


class MissingStep(CourseError):
    """A notebook needs a file that an earlier notebook writes."""


class LabelMaskError(CourseError):
    """A training example whose labels would teach the wrong thing."""


def printable(text: str) -> str:
    """Text without control characters: what a file or a model wrote cannot steer the terminal."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


def first_line(problem: BaseException) -> str:
    """The first line of what an exception says, or its type's name where it says nothing."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
