#: slow
#: packages onnx onnxruntime onnx2torch
#: fixtures photos net.onnx
unfooled evaluate net.onnx photos/ --threat linf:4/255
unfooled evaluate net.onnx "photos/[0:20]" --threat linf:4/255 --model-option access=scores   # as a black box
