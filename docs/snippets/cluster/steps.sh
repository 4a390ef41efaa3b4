#: slow
#: packages ray
#: fixtures photos net.py net.safetensors
# --- plan ---
unfooled evaluate net.py:make photos/ --weights net.safetensors --threat linf:4/255 --plan
# --- local ---
unfooled evaluate net.py:make photos/ --weights net.safetensors --threat linf:4/255 --ray local --out runs/photos
# --- look ---
unfooled runs
unfooled verify runs/photos
