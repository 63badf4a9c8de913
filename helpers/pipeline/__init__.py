"""Runs the notebooks as a batch, checks the gates, writes the report; lints and publishes notebooks."""
