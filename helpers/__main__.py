"""`python -m helpers`: the command line of the course."""

import sys

if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - before anything that an older Python cannot read
        found = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
        sys.exit(
            f"dapur-llm: {found} terlalu lama; pasang 3.11 atau lebih baru. · {found} is too old; "
            "install 3.11 or newer: https://www.python.org/downloads/"
        )
    from .cli.main import main

    main()
