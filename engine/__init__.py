"""What repairs audio: the signal path, streams and the Repairer (NumPy and ONNX Runtime; torch only in model and
train)."""
