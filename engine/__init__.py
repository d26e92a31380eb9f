"""What repairs sound: the signal path, the streams and the Repairer (NumPy and ONNX Runtime; torch only in model and
train)."""
