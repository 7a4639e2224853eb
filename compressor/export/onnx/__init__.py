"""ONNX: the fp32 reference, and what onnxruntime runs in fp16 and int8."""
