"""How good forecasts are that are samples."""

import numpy as np
from jaxtyping import Float, Shaped

LEVELS = np.arange(1, 20) / 20  # of CSDI's quantiles

Values = Float[np.ndarray, "_ c length"]
Ensemble = Float[np.ndarray, "_ c length m"]


def crps(
    samples: Shaped[np.ndarray, "*shape m"], truth: Shaped[np.ndarray, "*shape"]
) -> Shaped[np.ndarray, "*shape"]:
    """Continuous ranked probability score of the distribution that is ``m`` samples.

    E|X - y| - E|X - X'| / 2 (Gneiting and Raftery 2007, eq. 21); NaN where the truth is.
    """
    ordered, m = np.sort(samples, axis=-1), samples.shape[-1]
    weights = (2 * np.arange(1, m + 1) - m - 1) / m**2
    return np.abs(ordered - truth[..., None]).mean(-1) - (weights * ordered).sum(-1)


def csdi_crps(samples: Ensemble, truth: Values) -> Values:
    """CRPS from 19 quantiles, in parts of the mean size of each series (2107.03502, appendix)."""
    quantiles = np.moveaxis(np.quantile(samples, LEVELS, axis=-1), 0, -1)
    errors = truth[..., None] - quantiles
    loss = 2 * np.maximum(LEVELS * errors, (LEVELS - 1) * errors).mean(-1)
    return loss / np.nanmean(np.abs(truth), axis=(0, 2), keepdims=True)


def coverage(samples: Ensemble, truth: Values, part: float = 0.9) -> Values:
    """Whether the truth lies in the middle ``part`` of the samples; NaN where it is not known."""
    low, high = np.quantile(samples, [(1 - part) / 2, (1 + part) / 2], axis=-1)
    return np.where(np.isnan(truth), np.nan, (truth >= low) & (truth <= high))
