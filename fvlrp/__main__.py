"""The command `fvlrp`, which is also `python -m fvlrp`: `main` of the command line, quiet from its first import on."""

import sys


def main() -> int:
    """Run the command line; an interrupt while it is imported ends it as a later one does."""
    try:
        from . import cli
    except KeyboardInterrupt:
        print("\nfvlrp: interrupted", file=sys.stderr)
        return 130
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
