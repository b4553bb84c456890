"""Attention maps whose law is known, and what the tests of decay share."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def distances(queries: int, keys: int | None = None) -> Array:
    """Return query - key, the queries being the last tokens."""
    keys = queries if keys is None else keys
    return (np.arange(queries) + (keys - queries))[:, None] - np.arange(keys)


def normalised(weights: Array, dtype: type = np.float32) -> Array:
    """Return rows that sum to one."""
    return (weights / weights.sum(-1, keepdims=True)).astype(dtype)


def causal(logits: Array) -> Array:
    """Return the causal softmax of logits (..., queries, keys)."""
    return normalised(np.where(distances(*logits.shape[-2:]) >= 0, np.exp(logits), 0.0))


def exponential(rate: float, queries: int, keys: int | None = None) -> Array:
    """Return logits that fall by `rate` a token, on both sides."""
    return -rate * np.abs(distances(queries, keys)).astype(np.float64)


def power(rate: float, n: int) -> Array:
    """Return logits of (1 + distance) ** -rate."""
    return -rate * np.log1p(np.abs(distances(n)))
