"""Build vision engines: TensorRT, TensorRT-RTX, AOTInductor."""
