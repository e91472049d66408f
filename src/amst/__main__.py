"""``python -m amst``."""

from amst.cli import main

if __name__ == "__main__":
    main()
