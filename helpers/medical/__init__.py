"""Lesson 07: health questions, a guard with a threshold, written answers, marker tokens, a chat."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    questions="Question load by_split library stories people quality probes asked",
    markers="add_markers load_tuned",
    guard="Guard text_classifier sends_to_doctor names_dose emergency is_emergency",
    chat="HealthChat Written stems TEXTS",
)
