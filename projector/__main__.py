"""``python -m projector``: the command line."""

from projector.terminal.cli import main

if __name__ == "__main__":
    main()
