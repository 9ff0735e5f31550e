"""`python -m amscale COMMAND …`, as the console script `amscale`."""

from amscale.cli import main

main()
