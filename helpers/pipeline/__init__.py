"""Run the notebooks as a batch, check gates, write the report; lint and publish notebooks."""
