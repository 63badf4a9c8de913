"""Running the whole course: papermill over the notebooks, time limits, gates and the report. No notebook imports this."""
