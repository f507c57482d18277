"""``python -m sipedge`` is ``sipedge``."""

from sipedge.cli import main

if __name__ == "__main__":
    main()
