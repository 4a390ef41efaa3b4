#: slow
#: packages onnx onnxruntime onnx2torch
#: fixtures photos bare.onnx
unfooled evaluate bare.onnx photos/ --threat linf:4/255 --model-option size=32 \
    --model-option mean=0.485,0.456,0.406 --model-option std=0.229,0.224,0.225
