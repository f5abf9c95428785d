"""`python -m parframe`: the command line, for those who start Python themselves."""

from parframe.cli import main

if __name__ == "__main__":
    main()
