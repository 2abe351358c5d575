"""`python -m prewarm`: the command line."""

from prewarm.cli import main

if __name__ == "__main__":
    main()
