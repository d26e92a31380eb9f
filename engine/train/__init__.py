"""Training of networks and adapters, and the fits of detectors and trust curves. Needs torch."""
