"""`python -m parframe.cli`."""

from parframe.cli import main

main()
