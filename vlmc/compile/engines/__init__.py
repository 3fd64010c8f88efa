"""Build engines of the tower: TensorRT, TensorRT-RTX, AOTInductor."""
