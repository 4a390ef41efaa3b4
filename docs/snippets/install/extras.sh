#: not run: it would fetch packages
pip install "unfooled[hub,onnx]"
