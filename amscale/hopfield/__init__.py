"""The mathematics of associative memory: energies, neighbours, ball integrals, partition function, cross-entropy.

Pure functions: no input or output, no training. They take tensors of any device and type, and sum in float64. Shape
suffixes: Q queries, P stored patterns, N the dimension of a pattern, L layers.

    neighbours      distances, the nearest stored pattern, nearest neighbours and exact duplicates
    nested          the same within the first s of a list of points, and the dimension that the shrinking implies
    energy          g, E, E_MCHN, gradient, retrieval updates, the bounds between them
    global_energy   the energy of several layers together
    volume          balls, r*, and the integrals of exp(-distance) over a ball, all as logarithms
    partition       log Z of a set of balls
    cross_entropy   the loss implied by a partition function, by each definition, and its inverse
    size_law        N against D where Z = 1, by each route
"""
