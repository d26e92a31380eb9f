"""The network in torch: control branch, denoiser, losses. Nothing that runs at repair time imports it."""
