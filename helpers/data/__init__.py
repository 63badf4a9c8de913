"""Lesson 02: recipe CSVs as people have them, cleaned, with a report of what was left out; the three splits."""
