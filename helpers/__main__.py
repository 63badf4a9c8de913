"""`python -m helpers`: the command line of the course."""

from .cli.main import main

if __name__ == "__main__":
    main()
