#: slow
#: fixtures photos net.py net.safetensors
unfooled doctor net.py:make photos/ --weights net.safetensors
unfooled evaluate net.py:make "photos/[0:20]" --weights net.safetensors --resize 32 --crop 32 --threat linf:4/255
