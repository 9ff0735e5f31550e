"""The mathematics of associative memory: energies, neighbours, ball integrals, partition function, cross-entropy.

Pure functions: no input or output, no training. They take tensors of any device and type, and sum in float64. Shape
suffixes: Q queries, P stored patterns, N the dimension of a pattern, L layers.

    neighbours      distances, the nearest stored pattern, nearest neighbours and exact duplicates
    nested          the same within the first s of a list of points, and the dimension that the shrinking implies
    energy          g, E, E_MCHN, gradient, retrieval updates, the bounds between them; the energy of several layers
    volume          balls, r*, the integrals of exp(-distance) over a ball, log Z of a set of balls, all as logarithms
    cross_entropy   the loss implied by a partition function, by each definition, and its inverse
    size_law        N against D where Z = 1, by each route
"""
