"""Separators that need no training, given the mix: their stems have errors of their own kinds."""

from __future__ import annotations

import numpy as np

from .grid import Grid, smoothed
from .registry import mechanism


@mechanism("separators")
def spectral_templates(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Non-negative matrix factorisation (Lee and Seung, 2001): the mix is explained by templates learnt from each
    side."""
    grid = Grid.draw(rng, smallest=1024, largest=4096)
    x, r = grid.forward(stem), grid.forward(rest)
    mix = np.abs(x + r).mean(axis=0) + 1e-6
    count = int(rng.integers(4, 20))
    templates = []
    for spectrum in (x, r):
        magnitude = np.abs(spectrum).mean(axis=0) + 1e-6
        rows = magnitude[rng.integers(len(magnitude), size=count)]
        templates.append(rows / rows.sum(axis=1, keepdims=True))
    w = np.concatenate(templates)
    h = np.full((len(mix), 2 * count), mix.sum() / len(mix) / (2 * count), np.float32)
    for _ in range(12):
        h *= (mix / (h @ w + 1e-9)) @ w.T / w.sum(axis=1)
    own, other = h[:, :count] @ w[:count], h[:, count:] @ w[count:]
    power = float(rng.choice([1.0, 2.0]))
    return grid.inverse(own**power / (own**power + other**power + 1e-12) * (x + r), stem.shape[-1])


@mechanism("separators")
def harmonic_or_percussive(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moving means over time or over frequency tell the two sides apart (after Fitzgerald, 2010), whichever side is
    nearer to the stem."""
    grid = Grid.draw(rng, smallest=1024, largest=8192)
    x, r = grid.forward(stem), grid.forward(rest)
    power = np.square(np.abs(x + r))
    steady, sharp = smoothed(power, 16, 1) + 1e-10, smoothed(power, 1, 16) + 1e-10
    exponent = float(rng.uniform(1.0, 2.0))
    mask = steady**exponent / (steady**exponent + sharp**exponent)
    own = float(np.sum(mask * np.square(np.abs(x)))) / float(np.sum(np.square(np.abs(x))) + 1e-9)
    return grid.inverse((mask if own > 0.5 else 1.0 - mask) * (x + r), stem.shape[-1])


@mechanism("separators")
def two_in_turn(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mean of two soft masks on different grids, as ensembles make it."""
    found = np.zeros_like(stem)
    for _ in range(2):
        grid = Grid.draw(rng)
        x, r = grid.forward(stem), grid.forward(rest)
        p, q = (smoothed(np.square(np.abs(s)), int(rng.integers(1, 8)), int(rng.integers(1, 8))) for s in (x, r))
        found += grid.inverse(p / (p + q + 1e-10) * (x + r), stem.shape[-1]) / 2
    return found


@mechanism("separators", unknown=True, together=True)
def multichannel_wiener(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A Wiener filter with a spatial covariance for each bin (Duong, Vincent and Gribonval, 2010), from smeared
    powers."""
    grid = Grid.draw(rng, smallest=1024, largest=4096)
    x, r = grid.forward(stem), grid.forward(rest)
    mix = x + r
    size = int(rng.integers(2, 12)), int(rng.integers(1, 6))
    filters = []
    for spectrum in (x, r):
        power = smoothed(np.square(np.abs(spectrum)).mean(axis=0), *size) + 1e-9
        pairs = np.einsum("cnf,dnf->ncdf", spectrum, spectrum.conj())
        covariance = pairs.sum(axis=0) / power.sum(axis=0)
        filters.append(power[:, None, None] * covariance[None] + 1e-9 * np.eye(len(stem))[None, :, :, None])
    total = filters[0] + filters[1]
    inverse = np.linalg.inv(np.moveaxis(total, -1, 1))
    found = np.einsum("ncdf,nfde,enf->cnf", filters[0], inverse, mix)
    return grid.inverse(found.astype(np.complex64), stem.shape[-1])


@mechanism("separators", unknown=True)
def largest_of_two(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """In each place the louder, or the quieter, of two estimates."""
    out = []
    grid = Grid.draw(rng, smallest=1024, largest=4096)
    for _ in range(2):
        own = Grid.draw(rng)
        x, r = own.forward(stem), own.forward(rest)
        p, q = (smoothed(np.square(np.abs(s)), int(rng.integers(1, 8)), int(rng.integers(1, 8))) for s in (x, r))
        out.append(grid.forward(own.inverse(p / (p + q + 1e-10) * (x + r), stem.shape[-1])))
    first, second = out
    louder = np.abs(first) >= np.abs(second)
    return grid.inverse(np.where(louder if rng.random() < 0.5 else ~louder, first, second), stem.shape[-1])
