"""ONNX and QONNX."""
