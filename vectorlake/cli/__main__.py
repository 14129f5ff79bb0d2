"""`python -m vectorlake.cli`: the command where its script is not on the path."""

from vectorlake.cli import main

main()
