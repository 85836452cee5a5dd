"""Selectors (scores become weights) and controls (the same weights on the wrong tokens).

METHODS of the literature enter here once: proportional weights that sum to the number of tokens (ETW), raw values
(WGA, SatImp), the top share (TokenUnlearn), thresholds (SU, SEUL, TIF), neighbours taken along (SU).

A selector is `signed` if it reads how scores compare, so that they may be negative (ranks, z-scores); the others use
them as weights.
"""
