"""Tables, live progress, figures and the report: what people look at."""
