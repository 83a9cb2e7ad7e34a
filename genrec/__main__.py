"""`python -m genrec`: the command line without its script."""

from genrec.cli import main

main(prog_name="genrec")
