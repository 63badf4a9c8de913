"""The command line, `python -m helpers`; `options.py` has what commands share."""
