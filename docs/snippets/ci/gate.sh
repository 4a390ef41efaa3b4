#: slow
#: fixtures split/photos split/net.py split/net.safetensors
# --- gate ---
unfooled evaluate net.py:make photos:test --weights net.safetensors --threat linf:8/255 \
    --assert "attacked>=0.4" --junit robustness.xml --out runs/robustness
