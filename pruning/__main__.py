"""``python -m pruning``: the command line."""

from pruning.terminal.cli import main

if __name__ == "__main__":
    main()
