"""The ONNX graph of the tower: typed, or with quantize and dequantize nodes."""
