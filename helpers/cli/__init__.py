"""The command line, `python -m helpers`: one module a command."""
