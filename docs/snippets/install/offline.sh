#: not run: it would fetch packages
pip download "unfooled[onnx]" --dest wheels
pip install --no-index --find-links wheels "unfooled[onnx]"
