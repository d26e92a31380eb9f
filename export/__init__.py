"""From a checkpoint to what repairs: LoRA merge, ONNX graphs, bundle, parity report (torch; the only place that
writes ONNX)."""
