"""Keeping the notebooks and the README true: the pair lint, stamping, cleaning, publishing. No notebook imports this."""
