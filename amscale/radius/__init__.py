"""The radius experiment: nearest-neighbour distances among the activations of a trained language model.

    configuration   the model, the corpus and the sample
    plan            what they cost, before anything is spent
    subject         the model that is measured: a finished trial, or one that transformers loads
    sample          random chunks of text, and the vectors that the model makes of them
    distances       nearest-neighbour distances in nested samples, what they imply, and control vectors
    figure          the figure
    experiment      the experiment, step by step, and the files of its folder

Each module imports only those above it.
"""
