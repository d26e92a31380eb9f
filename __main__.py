"""`python -m stemprover` is the command line."""

from .cli import main

main()
