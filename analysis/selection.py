"""Selection: what a number gains by being the best of several. Pure.

Many papers report the best of k seeds, evaluations or grid points, chosen on the very set that is reported. From all
runs that were made one can say what such a protocol would have printed, and set it beside the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special


def expected_maximum(values: Sequence[float], k: int) -> float:
    """The expected best of ``k`` of the given values, drawn without replacement: the mean over all k-subsets.

    Unbiased for the expected maximum of k new draws, unlike the plug-in with replacement (Dodge et al. 2019, arXiv
    1909.03004; Tang et al. 2020, arXiv 2004.13705). ``k`` = 1 is the mean, ``k`` = n the maximum.

    Raises:
        ValueError: ``k`` is not in 1..n, or a value is not finite.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    if not 1 <= k <= ordered.size or not np.isfinite(ordered).all():
        raise ValueError(
            f"expected_maximum got k={k} for {ordered.size} values; it needs finite values and 1 <= k <= n"
        )
    ranks = np.arange(1, ordered.size + 1)
    weights = special.comb(ranks - 1, k - 1) / special.comb(ordered.size, k)
    return float(weights @ ordered)
