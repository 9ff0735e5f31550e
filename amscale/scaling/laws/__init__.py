"""Laws of the loss in N and D, and the search that fits them."""
