"""The networks of the model families."""
