"""Lesson 04: text from a model, metrics with their intervals, scores of base and tuned."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    scores="Answers row_nats answer_all row_scores table loss_gain worst as_dict",
)
