"""Measurements inside a network while it trains, built on amscale.hopfield.

Arrows go one way, from the last of these to the first:

    settings       what is measured, and when
    capture        the outputs of named modules during a forward pass
    preserve       a context that leaves training untouched
    patterns       what one sequence is as a pattern
    measurement    what a probe hands back
    associative    energies, radii, partition functions and the global energy
    attention      each head's retrieval: its energy, and how many keys it looks at
    memorisation   memorised bits, and continuations reproduced exactly
    probe          all of these for a fixed probe set in training
"""
