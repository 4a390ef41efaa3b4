#: slow
#: fixtures endpoint
# --- doctor ---
unfooled doctor http://127.0.0.1:8000/ "fashion-mnist-sample[0:20]" --model-option budget=100
# --- evaluate ---
unfooled evaluate http://127.0.0.1:8000/ "fashion-mnist-sample[0:20]" --threat linf:0.1 --out runs/endpoint \
    --model-option budget=20000 --model-option rate=500
# --- again ---
unfooled evaluate http://127.0.0.1:8000/ "fashion-mnist-sample[0:20]" --threat linf:0.1 --out runs/endpoint \
    --model-option budget=40000 --model-option rate=500
# --- labels ---
unfooled evaluate http://127.0.0.1:8000/label "fashion-mnist-sample[0:4]" --threat l2:2 --protocol quick \
    --model-option answers=labels --model-option classes=10
