"""`python -m helpers`: the command line of the course."""

import sys

if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - before anything that an older Python cannot read
        found = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
        sys.exit(
            f"dapur-llm: {found} terlalu lama; pasang 3.11 atau lebih baru. · {found} is too old; "
            "install 3.11 or newer: https://www.python.org/downloads/"
        )
    try:
        from .cli_main import main
    except ModuleNotFoundError as missing:  # another Python than the one that run_all.sh set up
        if (missing.name or "").startswith("helpers"):
            raise
        sys.exit(
            f"dapur-llm: Python ini tidak punya {missing.name}; pakai Python milik kursus, "
            ".venv/bin/python -m helpers ... (dibuat oleh: bash run_all.sh lab). · this Python has "
            f"no {missing.name}; use the course's own, .venv/bin/python -m helpers ... (made by: "
            "bash run_all.sh lab)."
        )
    main()
