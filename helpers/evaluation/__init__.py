"""Lesson 04: text from a model, metrics with their intervals, scores of base and tuned."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    generation="answers decoding stream",
    metrics="interval share share_text record_share bleu chrf",
    content="recall precision f1 listed title_kept main_kept units_of commonest",
    scores="Answers row_nats answer_all table loss_gain",
)
