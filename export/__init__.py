"""Turns a checkpoint into a model bundle: LoRA merge, ONNX graphs, bundle, parity report. Needs torch, and is the only
place that writes ONNX."""
