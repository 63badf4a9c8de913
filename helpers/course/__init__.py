"""Lesson 00 and all others: settings, device, languages, what a notebook shows and records, exercises."""
