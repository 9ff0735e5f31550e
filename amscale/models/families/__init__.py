"""The model families: settings, parameter counts and costs."""
