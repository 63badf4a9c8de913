"""Lesson 07: health questions, marker tokens, a guard with a threshold, a guarded chat."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    questions="Question load by_split quality probes phrases",
    markers="add_markers load_tuned",
    guard="Guard text_classifier sends_to_doctor declines names_dose is_emergency",
    chat="HealthChat TEXTS",
)
