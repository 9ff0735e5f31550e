"""The radius experiment: how far apart do the activations of a trained language model lie?

Arrows go one way, from the last of these to the first:

    settings    the model, the corpus and the sample
    subject     a model to be measured: a finished trial, or one that transformers loads
    sample      random chunks of text, and the vectors that the model makes of them
    controls    what the same distances are where there is nothing to find
    distances   nearest-neighbour distances in nested samples, and what they imply
    figure      the picture
    files       the folder that is left behind
    run         all of it, in order
"""
