"""``python -m amst``."""

import sys

from amst.errors import not_installed

if __name__ == "__main__":
    try:
        from amst.cli import main
    except ModuleNotFoundError as error:  # in another image, or by another Python
        if (error.name or "amst").partition(".")[0] == "amst":
            raise
        sys.exit(f"amst: {not_installed(str(error.name))}")
    main()
