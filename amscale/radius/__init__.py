"""The radius experiment: nearest-neighbour distances among the activations of a trained language model.

    configuration   the model, the corpus and the sample, and the plan of what they cost
    subject         the model that is measured: a finished trial, or one that transformers loads
    sample          random chunks of text, and the vectors that the model makes of them
    distances       nearest-neighbour distances in nested samples, what they imply, and control vectors
    figure          the figure
    files           the files of the experiment's folder
    run             the experiment, step by step

Each module imports only those above it.
"""
