"""What each kind of node becomes, in ONNX and in QONNX: one file a family."""
