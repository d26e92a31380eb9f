"""The network in torch: control branch, denoiser and fine branch. Repairs run its ONNX export and never import this."""
