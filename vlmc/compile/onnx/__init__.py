"""The tower's ONNX graph: strongly typed, optionally with Q/DQ nodes."""
