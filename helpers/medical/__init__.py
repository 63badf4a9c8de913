"""Lesson 07: health questions, marker tokens, a guard with a threshold."""
